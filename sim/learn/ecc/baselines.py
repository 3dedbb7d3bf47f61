"""Training of ECC's learned baselines, MFCNet and ADCPM, on the same snapshots as ECC's networks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cloud.fusion.adcpm import AdcpmNetwork
from cloud.fusion.mfcnet import MfcNetwork
from edge.adcpm import angle_delay_power
from edge.preprocessing import Phase
from sim.learn.device import training_device
from sim.learn.ecc.train import JITTER_M, make_sources, measure_gains
from sim.learn.trainer import OnProgress, Schedule, Trainer
from sim.plan.weights import Weights, save_weights
from sim.world.made_for import made_for
from sim.world.paths import PathSet
from sim.world.scenario import Scenario

Baseline = Literal["adcpm", "mfcnet"]


class Positioner(nn.Module):
    """A baseline's network at the cloud, behind what its base stations compute.

    Attributes:
        name: of the scheme.
        phase: phase stabilisation of its channels.
        shape: keyword arguments of the network.
        readout: number of last positions whose mean is the fix.
    """

    name: Baseline
    phase: Phase
    readout = 1
    network: AdcpmNetwork | MfcNetwork

    def __init__(self, scenario: Scenario) -> None:
        super().__init__()
        self._scenario = scenario
        low, high = torch.tensor(scenario.users.low), torch.tensor(scenario.users.high)
        self.shape: dict[str, Any] = {
            "stations": len(scenario.sites),
            "tones": scenario.csi_shape[2],
            "centre": ((low + high) / 2).tolist(),
            "extent": ((high - low) / 2).clamp_min(1.0).tolist(),
        }

    @abstractmethod
    def numbers(self, x: Tensor) -> Tensor:
        """Return what the network takes (B, K, …) of inputs x (B, K, 2, F, T·M)."""

    def forward(self, x: Tensor, gain: Tensor, present: Tensor) -> Tensor:
        """Return positions (B, 1, 3) [m] from inputs (B, K, 2, F, T·M), gains (B, K) and presence (B, K)."""
        position: Tensor = self.network(self.numbers(x), gain, present)
        return position

    def weights(self, covariance: Tensor, record: dict[str, Any]) -> Weights:
        """Return the weights that an emulation needs; `covariance` (K, tone, antenna, antenna) complex64."""
        slots, antennas, tones = self._scenario.csi_shape
        config = {
            "scheme": self.name, "scenario": self._scenario.name, "made_for": made_for(self._scenario),
            "phase": self.phase, "bits": None, "slots": slots, "antennas": antennas, "tones": tones,
            "rows": self._scenario.array.rows, "columns": self._scenario.array.columns,
            "network": self.shape, "record": record,
        }  # fmt: skip
        tensors = {f"cloud.network.{name}": value.cpu() for name, value in self.network.state_dict().items()}
        for k, own in enumerate(covariance):
            tensors[f"edge.{k}.covariance"] = torch.view_as_real(own).clone()
        return Weights(config, tensors)


class MfcNetPositioner(Positioner):
    """MFCNet on forwarded channels, their phases by slot as in ECC's lossless reference."""

    name: Baseline = "mfcnet"
    phase: Phase = "slot"

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        slots, antennas, _ = scenario.csi_shape
        self.shape["coefficients"] = 2 * slots * antennas
        self.network = MfcNetwork(**self.shape)

    def numbers(self, x: Tensor) -> Tensor:
        """Return channels (B, K, F, 2·T·M), real and imaginary parts in turn."""
        return x.permute(0, 1, 3, 4, 2).flatten(3)


class AdcpmPositioner(Positioner):
    """SegNet and perceptron on angle-delay power maps, which no common phase changes."""

    name: Baseline = "adcpm"
    phase: Phase = "none"

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.shape["antennas"] = scenario.csi_shape[1]
        self.network = AdcpmNetwork(**self.shape)

    def numbers(self, x: Tensor) -> Tensor:
        """Return maps (B, K, M, F) of unit sum."""
        slots, antennas, _ = self._scenario.csi_shape
        array = self._scenario.array
        entries = torch.complex(x[:, :, 0].float(), x[:, :, 1].float()).transpose(2, 3)  # (B, K, T·M, F)
        power = angle_delay_power(entries.unflatten(2, (slots, antennas)), array.rows, array.columns)
        return power / power.sum((2, 3), keepdim=True).clamp_min(1e-30)


POSITIONERS: Mapping[Baseline, type[Positioner]] = {"adcpm": AdcpmPositioner, "mfcnet": MfcNetPositioner}


def train_baselines(
    scenario: Scenario,
    paths: PathSet,
    outputs: Mapping[Path, Baseline],
    schedule: Schedule,
    on_progress: OnProgress,
    *,
    jitter_m: float = JITTER_M,
    checkpoint: Path | None = None,
    device: torch.device | None = None,
) -> dict[Path, float]:
    """Train baselines on the same snapshots and write their weights files; return mean 3D validation errors [m].

    Args:
        scenario: scenario of the paths.
        paths: traced positions, of which the random split is used.
        outputs: which baseline to train, by weights file.
        schedule: lengths and rates.
        on_progress: called with the progress; its `name` is the baseline's.
        jitter_m: half width of the uniform step of a training position along each axis [m].
        checkpoint: file to resume from.
        device: default: a CUDA device if there is one.
    """
    device = device or training_device()
    sources = make_sources(scenario, paths, "random", jitter_m, schedule.seed, device)
    mean, deviation = measure_gains(sources.training)
    models: dict[str, Positioner] = {}
    for name in outputs.values():
        torch.manual_seed(schedule.seed)
        models[name] = model = POSITIONERS[name](scenario).to(device)
        model.network.regression.gain_mean.copy_(mean)
        model.network.regression.gain_deviation.copy_(deviation)
    identity = {"baselines": list(models), "schedule": str(schedule), "positions": len(paths)}
    trainer = Trainer(
        models, sources.training, sources.validation, schedule, checkpoint=checkpoint, identity=identity
    )  # fmt: skip
    found = trainer.run(on_progress)
    for output, name in outputs.items():
        record = {
            "validation_mean_3d_m": round(found[name], 4), "positions": len(sources.training), "split": "random",
            "jitter_m": jitter_m, "clock": asdict(scenario.clock), "schedule": asdict(schedule),
            "torch": str(torch.__version__), "device": device.type,
        }  # fmt: skip
        save_weights(output, models[name].cpu().weights(sources.covariance.cpu(), record))
    return {output: found[name] for output, name in outputs.items()}
