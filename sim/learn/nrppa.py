"""Training of the learned fusion of NRPPa's reports: one network for paths, one for samples, in one weights file.

::

    paths.npz ─ split ─ channels ─ reports, packed and unpacked ─ slots of both kinds ─ networks ─ weights beside `toa`

Reports are made once, at the first so many training positions, and kept in a file of their own beside the checkpoint.
Each step both networks learn from the same positions: of a part of them some base stations' reports are lost, and of
the further paths the strongest few are there, so that one network serves any number of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cloud.fusion.learned_paths import COLUMNS, PathNetwork, PathShape, slot_table
from cloud.fusion.nrppa import sampled_paths
from edge.nrppa_path import NrppaPathEdge
from edge.nrppa_sample import NrppaSampleEdge
from edge.scheme import EdgeSetup
from fronthaul.payload.choice import PayloadChoice
from fronthaul.payload.nrppa_path import NrppaPathPayload, PathChoice
from fronthaul.payload.nrppa_sample import SampleChoice
from sim.learn.average import WeightAverage
from sim.learn.checkpoint import Checkpoint
from sim.learn.diverged import require_finite
from sim.learn.lateration import estimates
from sim.learn.optimizer import MatrixOptimizer, warm_cosine
from sim.learn.splits import SplitName, split_positions
from sim.learn.trainer import random_presence
from sim.plan.weights import Weights, built_on, load_weights, save_weights
from sim.world.paths import PathSet
from sim.world.scenario import Scenario, scenario_table

OPTIONS: dict[str, dict[str, str | int]] = {"path": {"paths": 4}, "sample": {"phases": 1}}
"""Reports that the networks learn from; phases are left out of half of them."""
_VALIDATION = 1000
_KEPT_EACH = 2000  # links between two checkpoints
_POWER, _PHASE = 3, 4
_PHASED = {"sample": {"phases": 1}}
"""Networks that read phases where there are any."""

OnProgress = Callable[[str, int, int, str], None]
"""Called with the stage, steps done, steps in all, and a note."""


@dataclass(frozen=True)
class NrppaTraining:
    """Settings: weights of `toa` to start from, positions to learn from, and the schedule."""

    start_from: Path
    split: SplitName = "random"
    positions: int = 5000
    epochs: int = 50
    batch: int = 128
    rate: float = 1e-3
    station_dropout: float = 0.2
    average: float = 0.1
    seed: int = 0


class Tables:
    """Slots (N, K, J, COLUMNS) of both kinds of reports, NaN where there are none; a part of a checkpoint."""

    def __init__(self, count: int, stations: int) -> None:
        slots = {
            "path": 1 + PathChoice.of(OPTIONS["path"]).paths,
            "sample": 1 + SampleChoice.of(OPTIONS["sample"]).samples,
        }
        self.of = {name: torch.full((count, stations, own, COLUMNS), float("nan")) for name, own in slots.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the slots."""
        return dict(self.of)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`'s result."""
        for name, own in self.of.items():
            own.copy_(state[name])


def measured(
    scenario: Scenario, paths: PathSet, weights: Weights, on_progress: OnProgress, kept: Path | None = None
) -> Tables:
    """Return what the cloud reads in the reports on all positions; with `kept`, a file from which it resumes."""
    tables = Tables(len(paths), len(scenario.sites))
    identity = {
        "scenario": str(scenario_table(scenario)),
        "positions": hashlib.sha256(paths.position.tobytes()).hexdigest(),
        "start": weights.digest,
    }
    checkpoint = Checkpoint(kept, identity | {"reports": str(OPTIONS)}, {"tables": tables})
    done = checkpoint.resume()
    path_payload = NrppaPathPayload(PathChoice.of(OPTIONS["path"]))
    read = sampled_paths(SampleChoice.of(OPTIONS["sample"]), weights.config)
    links = int((paths.paths_per_link() > 0).sum())
    seen = 0
    if done == links:
        return tables
    for k, chunk, channel in estimates(scenario, paths):
        seen += len(chunk)
        if seen <= done:
            continue
        share = weights.edge(k)
        setups = {
            name: EdgeSetup(k, PayloadChoice(4), weights.config, share, options=own) for name, own in OPTIONS.items()
        }
        found = {
            "path": [path_payload.decode(one) for one in NrppaPathEdge(setups["path"]).encode(channel).payloads],
            "sample": [read(one) for one in NrppaSampleEdge(setups["sample"]).encode(channel).payloads],
        }
        for name, reports in found.items():
            slots = tables.of[name].shape[2]
            tables.of[name][torch.from_numpy(chunk), k] = torch.stack(
                [slot_table(own, slots) for own in reports]
            ).float()
        if seen - done >= _KEPT_EACH or seen == links:
            checkpoint.save(seen)
            done = seen
        on_progress("reports", seen, links, "")
    return tables


def train_nrppa(
    scenario: Scenario, paths: PathSet, training: NrppaTraining, output: Path, on_progress: OnProgress,
    checkpoint: Path | None = None,
) -> dict[str, float]:  # fmt: skip
    """Train both networks and write them beside the weights of `toa`; return mean 3D validation errors [m].

    Raises:
        UserError: the weights are of another scenario, or the training diverged.
    """
    start = load_weights(training.start_from)
    parts = split_positions(scenario, paths.position, training.split)
    index = {"train": parts.train[: training.positions], "validation": parts.validation[:_VALIDATION]}
    tables: dict[str, dict[str, Tensor]] = {}
    for part, own in index.items():
        kept = checkpoint.with_suffix(f".{part}.pt") if checkpoint else None
        tables[part] = measured(scenario, paths.select(own), start, on_progress, kept).of
    truth = {part: torch.from_numpy(paths.position[own]).float() for part, own in index.items()}
    torch.manual_seed(training.seed)
    place = torch.tensor([site.position for site in scenario.sites])
    shapes = {"path": PathShape(tables["train"]["path"].shape[2], trusted=tables["train"]["path"].shape[2]),
              "sample": PathShape(tables["train"]["sample"].shape[2], trusted=1)}  # fmt: skip
    networks = nn.ModuleDict({name: PathNetwork(shape, place, start.config) for name, shape in shapes.items()})
    identity = {"training": str(asdict(training)), "start": start.digest, "scenario": str(scenario_table(scenario))}
    errors = _fit(networks, tables, truth, training, on_progress, checkpoint, identity)
    config = {
        **start.config,
        "scheme": "nrppa",
        "networks": {
            name: {"shape": asdict(shape), "stations": len(place), "reports": _reports(name), **_PHASED.get(name, {})}
            for name, shape in shapes.items()
        },
        "record": {
            "validation_mean_3d_m": {name: round(error, 4) for name, error in errors.items()},
            "positions": len(index["train"]), "split": training.split, "seed": training.seed,
            "torch": str(torch.__version__),
        },
    }  # fmt: skip
    learned = {f"cloud.{name}": value.detach().clone() for name, value in networks.state_dict().items()}
    made = Weights(config, {**start.tensors, **learned})
    if output.resolve().parent == training.start_from.resolve().parent:
        made = built_on(start, training.start_from, made)
    save_weights(output, made)
    return errors


def _fit(
    networks: nn.ModuleDict, tables: dict[str, dict[str, Tensor]], truth: dict[str, Tensor], training: NrppaTraining,
    on_progress: OnProgress, checkpoint: Path | None, identity: dict[str, Any],
) -> dict[str, float]:  # fmt: skip
    optimizer, average = MatrixOptimizer(networks), WeightAverage(networks, training.average)
    saved = Checkpoint(checkpoint, identity, {"networks": networks, "optimizer": optimizer, "average": average})
    count = len(truth["train"])
    each = max(1, count // training.batch)
    steps = training.epochs * each
    errors: dict[str, float] = {}
    for epoch in range(saved.resume(), training.epochs):
        draw = torch.Generator().manual_seed(training.seed * 1_000_003 + epoch)
        order = torch.randperm(count, generator=draw)
        for number, chosen in enumerate(order[: each * training.batch].split(training.batch)):
            present = random_presence(
                torch.ones(len(chosen), len(tables["train"]["path"][0])), training.station_dropout, draw
            )
            loss = torch.zeros(())
            for name, network in networks.items():
                table = thinned(name, tables["train"][name][chosen], draw)
                found = network(torch.where(present[..., None, None], table, float("nan")))
                apart = (found - truth["train"][chosen, None]).norm(dim=2).mean(0)
                loss = loss + apart[-1] + 0.2 * apart[:-1].mean()
            require_finite(float(loss.detach()), f"epoch {epoch + 1}")
            rate = warm_cosine(training.rate, epoch * each + number, steps, min(100, steps // 10))
            optimizer.descend(loss, rate)
            average.update()
        saved.save(epoch + 1)
        note = f"loss {float(loss.detach()):.3f}"
        if (epoch + 1) % 10 == 0 or epoch + 1 == training.epochs:
            with average.applied():
                errors = validated(networks, tables["validation"], truth["validation"])
            note += "".join(f", {name} {error:.3f} m" for name, error in errors.items())
        on_progress("training", epoch + 1, training.epochs, note)
    average.apply()
    return validated(networks, tables["validation"], truth["validation"])


def thinned(name: str, table: Tensor, draw: torch.Generator) -> Tensor:
    """Return slots (B, K, J, COLUMNS) with what a report may lack taken out at random, for each of the B alike.

    Of paths, the strongest 0 … J − 1 further ones are left; of samples, phases are taken out of half.
    """
    table = table.clone()
    if name == "sample":
        table[torch.rand(len(table), generator=draw) < 0.5, :, :, _PHASE] = float("nan")
        return table
    further = table[:, :, 1:, _POWER].nan_to_num(-1e3)
    rank = further.argsort(2, descending=True).argsort(2)
    kept = torch.randint(0, table.shape[2], (len(table), 1, 1), generator=draw)
    kept = torch.where(torch.rand(len(table), 1, 1, generator=draw) < 0.5, table.shape[2], kept)
    table[:, :, 1:][rank >= kept] = float("nan")
    return table


@torch.no_grad()
def validated(networks: nn.ModuleDict, tables: dict[str, Tensor], truth: Tensor) -> dict[str, float]:
    """Return the mean 3D error [m] of each network on whole reports, without phases."""
    found = {}
    for name, network in networks.items():
        table = tables[name].clone()
        table[..., _PHASE] = float("nan")
        found[name] = float((network(table)[:, -1] - truth).norm(dim=1).mean())
    return found


def _reports(name: str) -> dict[str, int]:
    """Return what reports must be for a network to read them."""
    if name == "path":
        choice = PathChoice.of(OPTIONS["path"])
        return {"k": choice.k, "powers": int(choice.powers), "angles": int(choice.angles)}
    sampled = SampleChoice.of(OPTIONS["sample"])
    return {"samples": sampled.samples, "window": sampled.window, "k": sampled.k, "angles": int(sampled.angles)}
