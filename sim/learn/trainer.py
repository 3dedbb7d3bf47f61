"""Training loop of ECC and direct regression: fresh snapshots, warm-up and cosine decay, checkpoints, resume.

A positioner is a module called as ``model(x, gain, present) -> (B, N, 3) positions [m]`` with an attribute `phase`
that names its preprocessing. Its inputs are channels and gains; true positions are used in the loss only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edge.preprocessing import preprocess
from sim.learn.checkpoint import Checkpoint
from sim.learn.data import SnapshotSource
from sim.learn.optimizer import MatrixOptimizer, warm_cosine

Loss = Literal["distance", "squared"]
Half = Literal["all", "edge", "none"]
"""Networks that multiply in bfloat16 in training: this doubles the speed, but its 8 bits cannot resolve positions
to better than a few decimetres, so the last epochs keep the cloud's network in float32 (``edge``)."""


_VALIDATION_SEED = 10_000


@dataclass(frozen=True)
class Schedule:
    """Training schedule.

    `epochs` over the training positions; peak learning rate `rate` (times ten for matrices, see `sim.learn.optimizer`),
    reached after `warmup_steps` and decayed to zero by a cosine; `station_dropout`: share of samples with only a random
    subset of the base stations; `loss`: ``squared`` is ECC Eq. 34, ``distance`` the same sum of Euclidean distances,
    which is less sensitive to outliers.
    """

    epochs: float = 6.0
    batch: int = 128
    rate: float = 2e-3
    warmup_steps: int = 100
    station_dropout: float = 0.2
    loss: Loss = "distance"
    half: Half = "all"
    seed: int = 0


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


OnProgress = Callable[[TrainProgress], None]


class Trainer:
    """Trains one positioner; when interrupted, at most the current epoch is lost."""

    def __init__(
        self,
        model: nn.Module,
        training: SnapshotSource,
        validation: SnapshotSource,
        schedule: Schedule,
        *,
        checkpoint: Path | None = None,
        identity: dict[str, Any] | None = None,
        scalars: Any = None,
    ) -> None:
        """Prepare the training.

        Args:
            model: the positioner.
            training: source of training snapshots.
            validation: source of validation snapshots, at undisplaced positions.
            schedule: lengths and rates.
            checkpoint: file to resume from and to save to after each epoch.
            identity: what the checkpoint belongs to; resuming with another identity is an error.
            scalars: a TensorBoard SummaryWriter, or None.
        """
        self._model, self._training, self._validation, self._schedule = model, training, validation, schedule
        self._scalars = scalars
        self._steps_per_epoch = max(1, len(training) // schedule.batch)
        self._steps = max(1, round(schedule.epochs * self._steps_per_epoch))
        self._optimizer = MatrixOptimizer(model)
        self._checkpoint = Checkpoint(checkpoint, identity or {}, {"model": model, "optimizer": self._optimizer})

    def run(self, on_progress: OnProgress) -> float:
        """Train to the end of the schedule; return the final mean validation error [m]."""
        step = self._checkpoint.resume()
        started = time.monotonic()
        error = math.nan
        while step < self._steps:
            epoch = step // self._steps_per_epoch
            self._model.train()
            for index in self._batches(epoch):
                loss = self._step(index, step)
                step += 1
                if step % 20 == 0:
                    on_progress(TrainProgress("train", step, self._steps, loss, time.monotonic() - started))
                    if self._scalars:
                        self._scalars.add_scalar("loss/train", loss, step)
                if step >= self._steps:
                    break
            errors = self.validate()
            error = float(errors.mean())
            progress = TrainProgress(
                "train", step, self._steps, loss, time.monotonic() - started, error, float(errors.median())
            )
            on_progress(progress)
            if self._scalars:
                self._scalars.add_scalar("error_3d_m/validation", error, step)
            self._checkpoint.save(step)
        return error if not math.isnan(error) else float(self.validate().mean())

    @torch.no_grad()
    def validate(self, batch: int = 500, source: SnapshotSource | None = None) -> Tensor:
        """Return 3D errors (N,) [m] on validation positions (or those of `source`), with all base stations present."""
        self._model.eval()
        source = source or self._validation
        source.reseed(_VALIDATION_SEED)  # the same noise every time: differences are the model's
        errors = []
        for index in torch.arange(len(source)).split(batch):
            made = source.batch(index)
            x, gain = preprocess(made.channel, self._model.phase)  # type: ignore[arg-type]
            present = torch.ones(gain.shape, dtype=torch.bool, device=gain.device)
            errors.append((self._model(x, gain, present)[:, -1] - made.position).norm(dim=1))
        return torch.cat(errors)

    def _batches(self, epoch: int) -> Iterator[Tensor]:
        """Yield index batches of one epoch; order and draws are keyed by the epoch, so a resume repeats them."""
        self._training.reseed(self._schedule.seed, epoch)
        order = self._training.permutation()
        yield from order[: self._steps_per_epoch * self._schedule.batch].split(self._schedule.batch)

    def _step(self, index: Tensor, step: int) -> float:
        made = self._training.batch(index)
        x, gain = preprocess(made.channel, self._model.phase)  # type: ignore[arg-type]
        present = random_presence(gain, self._schedule.station_dropout, self._training.draw)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self._schedule.half != "none"):
            estimate = self._model(x, gain, present)
        loss = weighted_loss(estimate, made.position, self._schedule.loss)
        schedule = self._schedule
        self._optimizer.descend(loss, warm_cosine(schedule.rate, step, self._steps, schedule.warmup_steps))
        return float(loss.detach())


def random_presence(gain: Tensor, share: float, draw: torch.Generator) -> Tensor:
    """Draw presence (B, K): a `share` of the samples keeps a random subset of 1 … K−1 base stations."""
    b, k = gain.shape
    keep = torch.randint(1, max(k, 2), (b, 1), generator=draw)
    rank = torch.rand(b, k, generator=draw).argsort(1).argsort(1)
    whole = torch.rand(b, 1, generator=draw) >= share
    return (whole | (rank < keep)).to(gain.device)


def weighted_loss(estimate: Tensor, position: Tensor, loss: Loss, scale_m: float = 20.0) -> Tensor:
    """Return the batch mean of Σ_n ω_n e_n² / scale² (``squared``, ECC Eq. 34) or Σ_n ω_n √(e_n² + ε²) / scale.

    e_n = ‖p̂_n − p‖, ε = 0.1 m, ω_n = 2n / (N(N+1)) [R]. `estimate` (B, N, 3), `position` (B, 3) [m].
    """
    steps = estimate.shape[1]
    weight = torch.arange(1, steps + 1, device=estimate.device) * (2.0 / (steps * (steps + 1)))
    squared = (estimate.float() - position[:, None]).square().sum(-1)
    per_step = squared / scale_m**2 if loss == "squared" else (squared + 0.01).sqrt() / scale_m
    return (per_step * weight).sum(1).mean()
