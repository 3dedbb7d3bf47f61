"""Training loop of ECC and direct regression: fresh snapshots, warm-up and cosine decay, checkpoints, resume.

A positioner is a module called as ``model(x, gain, present) -> (B, N, 3) positions [m]`` with attributes `phase`, which
names its preprocessing, and `readout`: its fix is the mean of the last `readout` positions. Inputs are channels and
gains; true positions are used in the loss only.

Several positioners may learn from the same snapshots, which are then made once for all. On a CUDA device everything
stays there, snapshots are made several batches at a time, and the step of each positioner, which consists of a thousand
small kernels, is captured once as a CUDA graph and replayed, all positioners side by side.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cloud.fusion.cma import read_out
from edge.preprocessing import preprocess
from sim.learn.average import WeightAverage
from sim.learn.budget import Length
from sim.learn.checkpoint import Checkpoint
from sim.learn.data import SnapshotSource
from sim.learn.diverged import require_finite
from sim.learn.optimizer import MatrixOptimizer, warm_cosine

Loss = Literal["distance", "squared"]
Half = Literal["all", "edge", "none"]
"""Networks that multiply in bfloat16 in training: this doubles the speed on CPUs, but its 8 bits cannot resolve
positions to better than a few decimetres, so the last epochs keep the cloud's network in float32 (``edge``)."""


_VALIDATION_SEED = 10_000
_SNAPSHOTS_AT_ONCE = 8192  # on a CUDA device; temporary memory of about 1.5 MB each
_PERSISTENT_S = 15.0  # time between two validations and checkpoints, where epochs are shorter than this
_GRAPH_WARM_UP = 3


@dataclass(frozen=True)
class Schedule:
    """Training schedule.

    `epochs` over the training positions, or as many as fit into `budget_s` seconds if that is given; peak learning rate
    `rate` (times ten for matrices, see `sim.learn.optimizer`), reached after `warmup_steps` and decayed to zero by a
    cosine; `station_dropout`: share of samples with only a random subset of the base stations; `loss`: ``squared`` is
    ECC Eq. 34, ``distance`` the same sum of Euclidean distances, which is less sensitive to outliers; `mean_loss`:
    weight of the fix's own distance, beside Eq. 34's sum over all intermediate positions; `average`: length of the
    moving average of the weights, which is validated and kept, as a share of the steps so far, or 0 for no average;
    `matrices`: whether matrices are treated by Muon, or everything by AdamW; `validate_every`: steps between two
    validations within an epoch, beside the one at its end, or 0 for none.
    """

    epochs: float = 6.0
    batch: int = 128
    rate: float = 2e-3
    warmup_steps: int = 100
    station_dropout: float = 0.2
    loss: Loss = "distance"
    half: Half = "all"
    seed: int = 0
    budget_s: float | None = None
    mean_loss: float = 1.0
    average: float = 0.1
    matrices: bool = True
    validate_every: int = 0


@dataclass(frozen=True)
class TrainProgress:
    """Progress of a training: `validation_m` is the mean 3D error on validation positions, if just measured."""

    stage: str
    step: int
    steps: int
    loss: float
    seconds: float
    validation_m: float | None = None
    validation_median_m: float | None = None
    name: str = ""


OnProgress = Callable[[TrainProgress], None]


@dataclass(frozen=True)
class Inputs:
    """A batch: x (B, K, 2, F, T·M) by phase, gain (B, K), present (B, K) bool, and the true position (B, 3) [m]."""

    x: dict[str, Tensor]
    gain: Tensor
    present: Tensor
    position: Tensor

    def copied_to(self, target: Inputs | None) -> Inputs:
        """Copy all values to `target`, or to new tensors; return it."""
        if target is None:
            x = {phase: own.clone() for phase, own in self.x.items()}
            return Inputs(x, self.gain.clone(), self.present.clone(), self.position.clone())
        for phase, own in target.x.items():
            own.copy_(self.x[phase])
        target.gain.copy_(self.gain)
        target.present.copy_(self.present)
        target.position.copy_(self.position)
        return target


class Learner:
    """One positioner in training, with its optimizer and the moving average of its weights."""

    def __init__(self, model: nn.Module, schedule: Schedule, device: torch.device) -> None:
        self.model, self._schedule, self._device = model, schedule, device
        self._optimizer = MatrixOptimizer(model, matrices=schedule.matrices)
        self.average = WeightAverage(model, schedule.average)
        self._loss = torch.zeros((), device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def parts(self) -> dict[str, Any]:
        """Return what a checkpoint has to keep."""
        return {"model": self.model, "optimizer": self._optimizer, "average": self.average}

    def loss(self) -> float:
        """Return the loss of the last step."""
        return float(self._loss)

    def step(self, given: Inputs, step: int, steps: int) -> None:
        """Learn from a batch, at number `step` of `steps`."""
        schedule = self._schedule
        self._optimizer.set_rate(warm_cosine(schedule.rate, step, steps, schedule.warmup_steps))
        if self._stream is None:
            self._descend(given)
            self.average.update()
        else:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._stream):
                self._replay(given, self._stream)
                self.average.update()

    def join(self) -> None:
        """Let the current stream wait for this positioner's."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def _replay(self, given: Inputs, stream: torch.cuda.Stream) -> None:
        if self._graph is None:
            precision = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("high")  # products in TF32: 10 bits of a position's 80 m are averaged
            for _ in range(_GRAPH_WARM_UP):  # real steps, on the first batch and at the first rate
                self._descend(given)
            torch.cuda.synchronize(self._device)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=stream):
                self._descend(given)
            torch.set_float32_matmul_precision(precision)
        self._graph.replay()

    def _descend(self, given: Inputs) -> None:
        schedule, model = self._schedule, self.model
        with torch.autocast(self._device.type, torch.bfloat16, enabled=schedule.half != "none"):
            estimate = model(given.x[model.phase], given.gain, given.present)  # type: ignore[index]
        loss = weighted_loss(estimate, given.position, schedule.loss)
        if schedule.mean_loss:
            fix = read_out(estimate, model.readout)  # type: ignore[arg-type]
            loss = loss + schedule.mean_loss * weighted_loss(fix[:, None], given.position, schedule.loss)
        self._optimizer.descend(loss)
        self._loss.copy_(loss.detach())


class Trainer:
    """Trains positioners on the same snapshots; when interrupted, at most the current epoch is lost."""

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        training: SnapshotSource,
        validation: SnapshotSource,
        schedules: Schedule | Mapping[str, Schedule],
        *,
        checkpoint: Path | None = None,
        identity: dict[str, Any] | None = None,
        scalars: Any = None,
    ) -> None:
        """Prepare the training.

        Args:
            models: the positioners by name.
            training: source of training snapshots.
            validation: source of validation snapshots, at undisplaced positions.
            schedules: for all or by name; lengths, batch, dropout, seed and validations are those of the first.
            checkpoint: file to resume from and to save to after each epoch.
            identity: what the checkpoint belongs to; resuming with another identity is an error.
            scalars: a TensorBoard SummaryWriter, or None.
        """
        self._training, self._validation, self._scalars = training, validation, scalars
        each = dict.fromkeys(models, schedules) if isinstance(schedules, Schedule) else schedules
        self._learners = {name: Learner(model, each[name], training.device) for name, model in models.items()}
        self._phases = sorted({str(model.phase) for model in models.values()})
        self._schedule = schedule = next(iter(each.values()))
        self._steps_per_epoch = max(1, len(training) // schedule.batch)
        self._length = Length(max(1, round(schedule.epochs * self._steps_per_epoch)), schedule.budget_s)
        parts = {f"{name}.{part}": one for name, own in self._learners.items() for part, one in own.parts().items()}
        self._checkpoint = Checkpoint(checkpoint, identity or {}, parts | {"length": self._length})
        self._captured: Inputs | None = None

    def run(self, on_progress: OnProgress) -> dict[str, float]:
        """Train to the end of the schedule, which leaves the averaged weights in the positioners.

        Returns:
            Each positioner's mean validation error [m], by name.
        """
        step, length = self._checkpoint.resume(), self._length
        length.start()
        saved = -math.inf
        errors: dict[str, float] = {}
        while step < length.steps(step):
            for given in self._batches(step // self._steps_per_epoch):
                for learner in self._learners.values():
                    learner.step(given, step, max(1, length.steps(step)))
                for learner in self._learners.values():
                    learner.join()
                step += 1
                if step % 20 == 0:
                    self._tell(step, on_progress)
                if step >= length.steps(step):
                    break
                if self._schedule.validate_every and step % self._schedule.validate_every == 0:
                    self._validated(step, on_progress)
                    self._to_training()
            if step >= length.steps(step) or time.monotonic() - saved > self._pause_s():
                errors = self._validated(step, on_progress)
                self._checkpoint.save(step)
                saved = time.monotonic()
        for learner in self._learners.values():
            learner.average.apply()
        return errors or {name: float(self.validate(name).mean()) for name in self._learners}

    @torch.no_grad()
    def validate(self, name: str, batch: int = 500, source: SnapshotSource | None = None) -> Tensor:
        """Return 3D errors (N,) [m] on validation positions (or those of `source`), with all base stations present."""
        model = self._learners[name].model.eval()
        source = source or self._validation
        source.reseed(_VALIDATION_SEED)  # the same noise every time: differences are the model's
        errors = []
        for index in torch.arange(len(source)).split(batch):
            made = source.batch(index)
            x, gain = preprocess(made.channel, model.phase)  # type: ignore[arg-type]
            present = torch.ones(gain.shape, dtype=torch.bool, device=gain.device)
            fix = read_out(model(x, gain, present), model.readout)  # type: ignore[arg-type]
            errors.append((fix - made.position).norm(dim=1))
        return torch.cat(errors)

    def _to_training(self) -> None:
        for learner in self._learners.values():
            learner.model.train()

    def _pause_s(self) -> float:
        return _PERSISTENT_S if self._training.device.type == "cuda" else 0.0

    def _tell(self, step: int, on_progress: OnProgress) -> None:
        for name, learner in self._learners.items():
            loss = learner.loss()
            require_finite(loss, f"step {step}")
            on_progress(TrainProgress("train", step, self._length.steps(step), loss, self._length.seconds(), name=name))
            if self._scalars:
                self._scalars.add_scalar(f"loss/train/{name}".rstrip("/"), loss, step)

    def _validated(self, step: int, on_progress: OnProgress) -> dict[str, float]:
        means = {}
        for name, learner in self._learners.items():
            with learner.average.applied():
                errors = self.validate(name)
            means[name] = float(errors.mean())
            require_finite(means[name], f"step {step}")
            made = TrainProgress("train", step, self._length.steps(step), learner.loss(), self._length.seconds(),
                                 means[name], float(errors.median()), name)  # fmt: skip
            on_progress(made)
            if self._scalars:
                self._scalars.add_scalar(f"error_3d_m/validation/{name}".rstrip("/"), means[name], step)
        return means

    def _batches(self, epoch: int) -> Iterator[Inputs]:
        """Yield the batches of one epoch; order and draws are keyed by the epoch, so a resume repeats them."""
        schedule, training = self._schedule, self._training
        training.reseed(schedule.seed, epoch)
        self._to_training()
        cuda = training.device.type == "cuda"
        at_once = schedule.batch * (max(1, _SNAPSHOTS_AT_ONCE // schedule.batch) if cuda else 1)
        order = training.permutation()[: self._steps_per_epoch * schedule.batch]
        for index in order.split(at_once):
            made = training.batch(index)
            stacked = {phase: preprocess(made.channel, phase) for phase in self._phases}  # type: ignore[arg-type]
            gain = next(iter(stacked.values()))[1]
            present = random_presence(gain, schedule.station_dropout, training.draw)
            for part in torch.arange(len(index)).split(schedule.batch):
                cut = slice(int(part[0]), int(part[-1]) + 1)
                x = {phase: own[cut] for phase, (own, _) in stacked.items()}
                given = Inputs(x, gain[cut], present[cut], made.position[cut])
                if cuda:  # a graph reads its inputs from where they were at its capture
                    self._captured = given.copied_to(self._captured)
                    given = self._captured
                yield given


def random_presence(gain: Tensor, share: float, draw: torch.Generator) -> Tensor:
    """Draw presence (B, K): a `share` of the samples keeps a random subset of 1 … K−1 base stations."""
    b, k = gain.shape
    keep = torch.randint(1, max(k, 2), (b, 1), generator=draw, device=draw.device)
    rank = torch.rand(b, k, generator=draw, device=draw.device).argsort(1).argsort(1)
    whole = torch.rand(b, 1, generator=draw, device=draw.device) >= share
    return whole | (rank < keep)


def weighted_loss(estimate: Tensor, position: Tensor, loss: Loss, scale_m: float = 20.0) -> Tensor:
    """Return the batch mean of Σ_n ω_n e_n² / scale² (``squared``, ECC Eq. 34) or Σ_n ω_n √(e_n² + ε²) / scale.

    e_n = ‖p̂_n − p‖, ε = 0.1 m, ω_n = 2n / (N(N+1)) [R]. `estimate` (B, N, 3), `position` (B, 3) [m].
    """
    steps = estimate.shape[1]
    weight = torch.arange(1, steps + 1, device=estimate.device) * (2.0 / (steps * (steps + 1)))
    squared = (estimate.float() - position[:, None]).square().sum(-1)
    per_step = squared / scale_m**2 if loss == "squared" else (squared + 0.01).sqrt() / scale_m
    return (per_step * weight).sum(1).mean()
