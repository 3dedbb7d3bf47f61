"""Training of K stacked networks at once: Adam, early stopping on validation samples for each of them, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge.score_network import NetworkShape, ScoreNetwork
from sim.learn.average import WeightAverage
from sim.learn.budget import Length
from sim.learn.checkpoint import Checkpoint, Stateful
from sim.learn.diffloc.features import Features
from sim.learn.diffloc.objectives import Objective
from sim.learn.diverged import require_finite

_VALIDATION_PASSES = 8
_VALIDATION_SEED = 10_000


@dataclass(frozen=True)
class Schedule:
    """Training schedule: Adam, batches of 32, early stopping on validation loss. DiffLoc Sec. V-A.

    Attributes:
        epochs: maximum number of epochs; the learning rate decays to zero over them by a cosine.
        patience: epochs without a better validation loss of any network until training ends.
        batch: samples in a step.
        rate: initial learning rate of Adam; the paper's value is lost [R].
        average: length of the moving average of the weights, which is validated and kept, as a share of the steps so
            far; 0 takes the weights themselves.
        budget_s: wall-clock time [s] that replaces the number of epochs and the patience.
        seed: seed of weights, order and noise.
    """

    epochs: int = 60
    patience: int = 20
    batch: int = 32
    rate: float = 1e-3
    average: float = 0.0
    budget_s: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class FitProgress:
    """Progress after an epoch: mean losses of the K networks, and the epoch at which each was best."""

    epoch: int
    epochs: int
    training: float
    validation: float
    best: list[int]
    seconds: float


OnEpoch = Callable[[FitProgress], None]


def fit(
    features: Features,
    shape: NetworkShape,
    objective: Objective,
    schedule: Schedule,
    *,
    checkpoint: Path | None = None,
    on_epoch: OnEpoch = lambda _: None,
    device: torch.device | None = None,
    start: ScoreNetwork | None = None,
) -> tuple[ScoreNetwork, list[float]]:
    """Train one network for each base station of `features`; return the best of each and their validation losses.

    Training takes place on `device`, by default the CPU, where the networks are returned. Draws are keyed by the epoch,
    so that a resumed training repeats them. Networks begin with the weights of `start`, or with random ones.

    Raises:
        UserError: the checkpoint belongs to another training, or the training diverges.
    """
    return _Fit(features, shape, objective, schedule, checkpoint, device or torch.device("cpu"), start).run(on_epoch)


class _Fit:
    def __init__(
        self,
        features: Features,
        shape: NetworkShape,
        objective: Objective,
        schedule: Schedule,
        checkpoint: Path | None,
        device: torch.device,
        start: ScoreNetwork | None,
    ) -> None:
        tensors = (features.z, features.position, features.index("train"), features.index("validation"))
        self._z, self._position, self._train, self._validation = (tensor.to(device) for tensor in tensors)
        self._objective, self._schedule, self._device = objective, schedule, device
        self._length = Length(schedule.epochs, schedule.budget_s)
        torch.manual_seed(schedule.seed)
        self._network = ScoreNetwork(shape, len(features.z)).to(device)
        if start is not None:
            self._network.load_state_dict(start.state_dict())
        self._average = WeightAverage(self._network, schedule.average)
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=schedule.rate, fused=True)
        self._best = _Best(self._network, len(features.z))
        identity = {"shape": asdict(shape), "objective": repr(objective), "schedule": repr(schedule)}
        parts: dict[str, Stateful] = {
            "network": self._network, "optimizer": self._optimizer, "best": self._best,
            "average": self._average, "length": self._length,
        }  # fmt: skip
        self._checkpoint = Checkpoint(checkpoint, identity, parts)

    def run(self, on_epoch: OnEpoch) -> tuple[ScoreNetwork, list[float]]:
        schedule, length = self._schedule, self._length
        epoch = self._checkpoint.resume()
        length.start()
        while epoch < length.steps(epoch):
            training = self._epoch(epoch)
            with self._average.applied():
                validation = self._validate()
                require_finite(training + float(validation.sum()), f"the end of epoch {epoch + 1}")
                self._best.keep(self._network, validation, epoch)
            epoch += 1
            told = training, float(validation.mean()), list(self._best.epoch), length.seconds()
            on_epoch(FitProgress(epoch, length.steps(epoch), *told))
            if schedule.budget_s is None and epoch - 1 - max(self._best.epoch) >= schedule.patience:
                break
            if epoch % 10 == 0:
                self._checkpoint.save(epoch)
        self._network.load_state_dict(self._best.weights)
        self._checkpoint.remove()
        return self._network.cpu().eval(), self._best.loss.tolist()

    def _epoch(self, epoch: int) -> float:
        schedule = self._schedule
        spent = epoch / max(1, self._length.steps(epoch))
        rate = schedule.rate * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * spent))))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        draw = torch.Generator(self._device).manual_seed(1_000_003 * schedule.seed + epoch)
        torch.manual_seed(7 + 1_000_003 * schedule.seed + epoch)  # of dropout
        self._network.train()
        order = self._train[torch.randperm(len(self._train), generator=draw, device=self._device)]
        total: list[Tensor] = []  # read once an epoch: a GPU would have to be waited for
        for index in order.split(schedule.batch):
            if len(index) < min(8, len(order)):
                continue  # too few for batch norm
            losses = self._losses(index, draw)
            self._optimizer.zero_grad()
            losses.sum().backward()
            self._optimizer.step()
            self._average.update()
            total.append(losses.detach().mean())
        return float(torch.stack(total).mean()) if total else 0.0

    def _losses(self, index: Tensor, draw: torch.Generator) -> Tensor:
        # bfloat16 halves the time. It resolves a coordinate of 100 m to 0.4 %, 40 cm, where errors are metres.
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._network.training):
            embedding = self._network.embed_channel(self._z[:, index])
            return self._objective.loss(self._network, embedding, self._position[index], draw)

    @torch.no_grad()
    def _validate(self) -> Tensor:
        """Return losses (K,) on the validation samples, with the same noise every time."""
        self._network.eval()
        draw = torch.Generator(self._device).manual_seed(_VALIDATION_SEED)
        passes = [self._losses(self._validation, draw) for _ in range(_VALIDATION_PASSES)]
        return torch.stack(passes).mean(0).cpu()


class _Best:
    """The weights of each of K networks at the epoch with its least validation loss."""

    def __init__(self, network: ScoreNetwork, stations: int) -> None:
        self.loss = torch.full((stations,), float("inf"))
        self.epoch = [-1] * stations
        self.weights = {name: value.clone() for name, value in network.state_dict().items()}

    def keep(self, network: ScoreNetwork, validation: Tensor, epoch: int) -> None:
        """Copy the weights of the networks whose loss is the least so far."""
        better = torch.nonzero(validation < self.loss).flatten().tolist()
        for name, value in network.state_dict().items():
            if value.ndim:
                for k in better:
                    self.weights[name].view(len(validation), -1)[k] = value.view(len(validation), -1)[k]
        for k in better:
            self.loss[k] = validation[k]
            self.epoch[k] = epoch

    def state_dict(self) -> dict[str, Any]:
        return {"loss": self.loss, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.loss, self.epoch, self.weights = state["loss"], state["epoch"], state["weights"]
