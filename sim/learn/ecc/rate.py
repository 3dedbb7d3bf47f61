"""Training of `ecc-klt`, `ecc-total` and `ecc-rd`: ECC at any number of bits a report, or of all of them.

::

    weights of ecc ─ transforms from training snapshots (`sim.learn.ecc.transform`) ─ ecc-klt
                     ecc-klt ─ classes and allocation (`sim.learn.ecc.allocation`) ─ ecc-total
                     ecc-klt ─ all networks and A, through the quantisers, at lengths from 16 to 256 bit ─ ecc-rd

`ecc-rd` is one set of weights for all lengths: the snapshots of a batch have lengths in turn, so that each step learns
from all of them. The gradient passes the quantisers straight through (ECC Eq. 35); A at the base station and what
undoes it at the cloud are two matrices, since in short reports the best estimate is not the inverse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edge.quantizer import quantise_mixed_straight_through
from fronthaul.payload.rate import Transform, shared_out
from sim.learn.ecc.allocation import fit_allocation
from sim.learn.ecc.train import JITTER_M, make_sources, model_of
from sim.learn.ecc.transform import count_symbols, fit_transforms
from sim.learn.splits import SplitName
from sim.learn.trainer import OnProgress, Schedule, Trainer
from sim.plan.weights import Weights, built_on, load_weights, save_weights
from sim.world.paths import PathSet
from sim.world.scenario import Scenario, scenario_table

LENGTHS = (16, 24, 16, 32, 64, 16, 48, 128, 32, 256)
"""Lengths of reports in training [bit], in turn: the shortest have most to learn."""
VALIDATED_BITS = 64
_FITTED = "order", "tones", "modes", "centre", "scale"  # of a transform, left as they are


class RateModel(nn.Module):
    """Encoders, transforms and fusion of K base stations, with the quantisers of several lengths between them.

    Attributes:
        bits: length of reports in evaluation [bit].
    """

    analysis: Tensor
    synthesis: Tensor
    centre: Tensor
    widths: Tensor
    turn: Tensor

    def __init__(self, scenario: Scenario, weights: Weights, lengths: tuple[int, ...] = LENGTHS) -> None:
        """Start from weights of `ecc-klt`, or of `ecc-rd`."""
        super().__init__()
        self._ecc = model_of(scenario, weights)
        self.phase, self.readout, self.bits = self._ecc.phase, self._ecc.readout, VALIDATED_BITS
        shares = [weights.edge(k) for k in range(len(scenario.sites))]
        self._fitted = [{name: share[f"rate.{name}"] for name in _FITTED} for share in shares]
        mixing = torch.stack([share["rate.mixing"].float() for share in shares])
        m = mixing.shape[-1]
        undone = [
            share["rate.unmixing"] if "rate.unmixing" in share else torch.linalg.inv(own.double())
            for share, own in zip(shares, mixing, strict=True)
        ]
        self.mixing, self.unmixing = nn.Parameter(mixing), nn.Parameter(torch.stack(undone).float())
        self.worth = np.stack([share["rate.worth"].float().numpy() for share in shares])
        self.worth[:, m:] = 0  # what is not trained is not sent
        linear = [_linear(fitted, m, self._ecc.encoder_shape) for fitted in self._fitted]
        for place, name in enumerate(("analysis", "synthesis", "centre")):
            self.register_buffer(name, torch.stack([one[place] for one in linear]))
        self._row = {length: row for row, length in enumerate(sorted({*lengths, VALIDATED_BITS}))}
        self.register_buffer("widths", torch.stack([self._shares(length) for length in self._row]))
        self._turns = [self._row[length] for length in lengths]
        self.register_buffer("turn", torch.zeros((), dtype=torch.long))

    def _shares(self, bits: int) -> Tensor:
        m = self.mixing.shape[-1]
        return torch.from_numpy(np.stack([shared_out(own, bits)[:m] for own in self.worth]))

    def forward(self, x: Tensor, gain: Tensor, present: Tensor) -> Tensor:
        """Return positions (B, F, 3) [m] from inputs (B, K, 2, F, T·M), gains (B, K) and presence (B, K)."""
        latent = self._ecc.latent(x).float()
        with torch.autocast(x.device.type, enabled=False):
            gain_db = 20 * torch.log10(gain.float().clamp_min(1e-12))
            whole = torch.cat([gain_db[..., None], latent.flatten(2)], 2) - self.centre  # (B, K, 1 + L)
            y = torch.einsum("bkv,kvm,knm->bkn", whole, self.analysis, self.mixing)
            widths = self.widths[self._rows(len(x))]
            found = quantise_mixed_straight_through(y, widths)
            whole = torch.einsum("bkn,kmn,kmv->bkv", found, self.unmixing, self.synthesis) + self.centre
            estimate: Tensor = self._ecc.fusion(
                whole[..., 1:].reshape(latent.shape), 10 ** (whole[..., 0] / 20), present
            )
        return estimate

    def _rows(self, count: int) -> Tensor:
        """Return which widths each of `count` snapshots has: in training those of all lengths in turn."""
        if not self.training:
            return torch.full((count,), self._row[self.bits], device=self.turn.device)
        turns = torch.tensor(self._turns, device=self.turn.device)
        rows: Tensor = turns[(self.turn + torch.arange(count, device=turns.device)) % len(turns)]
        self.turn += count
        return rows

    def weights(self, covariance: Tensor, record: dict[str, Any]) -> Weights:
        """Return the weights that an emulation needs."""
        assert self._ecc.bits is not None
        made = self._ecc.weights(covariance, {self._ecc.bits: self._ecc.step}, record)
        tensors = dict(made.tensors)
        sent = self.widths[max(self._row.values())] > 0  # others were not trained: they would take space alone
        mixing, unmixing = self.mixing * sent[:, :, None], self.unmixing * sent[:, None]
        worth = torch.from_numpy(self.worth)
        worth[:, : sent.shape[1]] *= sent
        for k, fitted in enumerate(self._fitted):
            trained = {"mixing": mixing[k], "unmixing": unmixing[k], "worth": worth[k]}
            tensors |= {f"rate.{k}.{name}": value.detach().clone() for name, value in {**fitted, **trained}.items()}
        return Weights(made.config | {"scheme": "ecc-rd"}, tensors)


def _linear(fitted: dict[str, Tensor], m: int, shape: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Return a transform without A as matrices: analysis (1 + L, m), synthesis (m, 1 + L), and its centre."""
    own = {name: value.float().numpy() for name, value in fitted.items()}
    numbers, of_latent = len(own["order"]), (int(shape["tones"]), int(shape["coefficients"]))
    plain = Transform({**own, "mixing": np.eye(1)})
    unit = np.eye(1 + numbers, dtype=np.float32)
    given = unit + own["centre"]
    analysis = plain.analyse(given[:, 0], given[:, 1:].reshape(-1, *of_latent))[:, :m]
    gain_db, latent = plain.synthesise(unit[:m])
    synthesis = np.column_stack([gain_db, latent.reshape(m, -1)]) - own["centre"]
    return torch.from_numpy(analysis.copy()), torch.from_numpy(synthesis), torch.from_numpy(own["centre"])


@dataclass(frozen=True)
class RateTraining:
    """Settings of a training of `ecc-rd`, or of a fit, for which the schedule's seed alone matters."""

    start_from: Path
    split: SplitName = "random"
    jitter_m: float = JITTER_M
    lengths: tuple[int, ...] = LENGTHS
    schedule: Schedule = field(default_factory=lambda: Schedule(rate=1e-3, half="edge"))


def fit_klt(
    scenario: Scenario, paths: PathSet, training: RateTraining, output: Path,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> None:  # fmt: skip
    """Fit the transforms of `ecc-klt` to weights of `ecc`, and write them: with the networks, or beside their file."""
    weights = load_weights(training.start_from)
    sources = make_sources(scenario, paths, training.split, 0.0, training.schedule.seed, torch.device("cpu"))
    model = model_of(scenario, weights)
    tensors = fit_transforms(model, sources.training, on_progress)
    tensors |= count_symbols(model, sources.training, tensors)
    record = {"split": training.split, "positions": len(sources.training), "torch": str(torch.__version__)}
    config = {**weights.config, "scheme": "ecc-klt", "record": record}
    _save(Weights(config, {**weights.tensors, **tensors}), weights, training, output)


def fit_total(
    scenario: Scenario, paths: PathSet, training: RateTraining, output: Path,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> None:  # fmt: skip
    """Fit the classes and the allocation of `ecc-total` to weights of `ecc-klt`, and write them as `fit_klt` does."""
    weights = load_weights(training.start_from)
    sources = make_sources(scenario, paths, training.split, 0.0, training.schedule.seed, torch.device("cpu"))
    shares = [
        {name.removeprefix("rate."): value for name, value in weights.edge(k).items() if name.startswith("rate.")}
        for k in range(len(scenario.sites))
    ]
    tensors = fit_allocation(model_of(scenario, weights), sources.training, shares, on_progress)
    made = Weights({**weights.config, "scheme": "ecc-total"}, {**weights.tensors, **tensors})
    _save(made, weights, training, output)


def _save(made: Weights, start: Weights, training: RateTraining, output: Path) -> None:
    """Write weights; beside the file that they were made from, without what is in there."""
    if output.resolve().parent == training.start_from.resolve().parent:
        made = built_on(start, training.start_from, made)
    save_weights(output, made)


def train_rd(
    scenario: Scenario,
    paths: PathSet,
    training: RateTraining,
    output: Path,
    on_progress: OnProgress,
    *,
    checkpoint: Path | None = None,
    scalars: Any = None,
    device: torch.device,
) -> dict[int, float]:
    """Train `ecc-rd` from the weights of `ecc-klt` and write it; return mean 3D validation errors [m] by length.

    An interrupted training resumes from `checkpoint`.
    """
    start = load_weights(training.start_from)
    torch.manual_seed(training.schedule.seed)
    model = RateModel(scenario, start, training.lengths).to(device)
    sources = make_sources(scenario, paths, training.split, training.jitter_m, training.schedule.seed, device)
    identity = {
        "training": str(asdict(training)),
        "start": start.digest,
        "scenario": str(scenario_table(scenario)),
        "positions": len(paths),
    }
    trainer = Trainer(
        {"": model}, sources.training, sources.validation, training.schedule,
        checkpoint=checkpoint, identity=identity, scalars=scalars,
    )  # fmt: skip
    trainer.run(on_progress)
    errors = {}
    for model.bits in sorted(set(training.lengths)):
        errors[model.bits] = round(float(trainer.validate("").mean()), 4)
    record = {
        "validation_mean_3d_m": errors,
        "positions": len(sources.training),
        "split": training.split,
        "jitter_m": training.jitter_m,
        "clock": asdict(scenario.clock),
        "started_from": training.start_from.name,
        "schedule": asdict(training.schedule),
        "torch": str(torch.__version__),
        "device": device.type,
    }
    made = model.cpu().weights(sources.covariance.cpu(), record)
    still = make_sources(scenario, paths, training.split, 0.0, training.schedule.seed, torch.device("cpu"))
    counts = count_symbols(model_of(scenario, made), still.training, made.tensors)
    _save(Weights(made.config, {**made.tensors, **counts}), start, training, output)
    return errors
