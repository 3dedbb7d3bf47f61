"""The training loop of VIn-Loc: random subsets of base stations, random resolutions, straight through the quantiser.

Where the paper trains 600 epochs of AdamW at a batch of 16, here the optimizer of `sim.learn.optimizer` and a cosine
schedule do with a few dozen: what was used is in `Schedule`, and goes into the weights' record.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fronthaul.draws import generator
from fronthaul.files import whole_file
from sim.errors import UserError
from sim.learn.optimizer import MatrixOptimizer
from sim.learn.vinloc.data import CirSet, delayed
from sim.learn.vinloc.model import VinLocModel, quantised

RESOLUTIONS = (0, 8, 4, 3, 2, 1)
"""Resolutions that a training sample may have, 0 for float; drawn with equal probability."""


@dataclass(frozen=True)
class Schedule:
    """How to learn.

    Attributes:
        epochs: over the training users.
        batch: users a step.
        rate: peak, of AdamW; matrices have ten times that, see `sim.learn.optimizer`.
        warmup_steps: until the peak is reached; it falls to zero as a cosine.
        subset: numbers of base stations that a step may use, drawn with equal probability.
        resolutions: see RESOLUTIONS.
        single: share of the last steps in which the cloud's network multiplies in single precision: bfloat16 cannot
            tell positions apart to better than decimetres.
        half: whether the rest multiplies in bfloat16.
        sync_ns: largest deviation of synchronisation errors [ns]: each user has one uniform between 0 and this, and
            each of its base stations an error of that deviation, truncated at twice as much.
        seed: of all draws.
    """

    epochs: float = 30.0
    batch: int = 64
    rate: float = 1e-3
    warmup_steps: int = 200
    subset: tuple[int, ...] = (15,)
    resolutions: tuple[int, ...] = RESOLUTIONS
    single: float = 0.15
    half: bool = True
    sync_ns: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class TrainProgress:
    """How far a training is; `validation_m`: mean Euclidean error, where just measured."""

    step: int
    steps: int
    loss_m: float
    seconds: float
    validation_m: float | None = None


class VinLocTrainer:
    """Trains one model; stopped at any time it resumes at the last checkpoint."""

    def __init__(
        self,
        model: VinLocModel,
        training: CirSet,
        validation: CirSet,
        schedule: Schedule,
        *,
        checkpoint: Path | None = None,
        identity: dict[str, Any] | None = None,
        save_seconds: float = 120.0,
    ) -> None:
        """Prepare; a `checkpoint` of another `identity` is an error."""
        self._model, self._training, self._validation, self._schedule = model, training, validation, schedule
        self._checkpoint = checkpoint
        self._identity = {**(identity or {}), "schedule": asdict(schedule)}
        self._save_seconds = save_seconds
        self._per_epoch = max(1, len(training) // schedule.batch)
        self._steps = max(1, round(schedule.epochs * self._per_epoch))
        self._optimizer = MatrixOptimizer(model, half=schedule.half)

    def run(self, on_progress: Callable[[TrainProgress], None] = lambda _: None) -> float:
        """Train to the end of the schedule; return the mean validation error [m]."""
        step = self._resume()
        started = saved = time.monotonic()
        total, count = 0.0, 0
        while step < self._steps:
            for index, draw in self._batches(step // self._per_epoch, step % self._per_epoch):
                self._model.train()
                total, count = total + self._step(index, draw, step), count + 1
                step += 1
                if step % 20 == 0:
                    on_progress(TrainProgress(step, self._steps, total / count, time.monotonic() - started))
                    total, count = 0.0, 0
                if time.monotonic() - saved > self._save_seconds:
                    self._save(step)
                    saved = time.monotonic()
                if step >= self._steps:
                    break
            if step % (2 * self._per_epoch) == 0 or step >= self._steps:
                error = float(self.validate().mean())
                on_progress(TrainProgress(step, self._steps, 0.0, time.monotonic() - started, error))
        self._save(step)
        return float(self.validate().mean())

    def validate(self) -> Tensor:
        """Euclidean errors (N,) [m] of validation users from random subsets of the schedule's largest size, float."""
        return errors_of(self._model, self._validation, max(self._schedule.subset), bits=0, seed=10_000)

    def _batches(self, epoch: int, skip: int) -> Iterator[tuple[Tensor, torch.Generator]]:
        """Batches of an epoch from number `skip` on, each with draws of its own: a resumed training repeats them."""
        order_draw = _draw(self._schedule.seed, "vinloc order", epoch)
        order = torch.randperm(len(self._training), generator=order_draw)
        for number in range(skip, self._per_epoch):
            index = order[number * self._schedule.batch : (number + 1) * self._schedule.batch]
            yield index, _draw(self._schedule.seed, "vinloc batch", epoch, number)

    def _step(self, index: Tensor, draw: torch.Generator, step: int) -> float:
        schedule, model = self._schedule, self._model
        size = schedule.subset[int(torch.randint(len(schedule.subset), (), generator=draw))]
        made = subset(self._training[index], size, draw)
        choice = torch.tensor(schedule.resolutions)
        bits = choice[torch.randint(len(choice), (len(index),), generator=draw)]
        response = made.response()
        if schedule.sync_ns:
            response = delayed(response, _sync_errors_ns(schedule.sync_ns, made.present, draw) * 1e-9, model.tap_s)
        early = schedule.half and step < (1 - schedule.single) * self._steps
        with torch.autocast("cpu", torch.bfloat16, enabled=schedule.half):
            values = model.values(response, made.present)
        with torch.autocast("cpu", torch.bfloat16, enabled=early):
            estimate = model.fused(quantised(values, bits[:, None, None]), made.site, made.present)
        loss = ((estimate - made.position).square().sum(-1) + 1e-4).sqrt().mean()
        self._optimizer.zero_grad()
        (loss / model.extent[0]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        self._optimizer.step(self._rate(step))
        return float(loss.detach())

    def _rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, self._schedule.warmup_steps))
        return self._schedule.rate * warm * 0.5 * (1 + math.cos(math.pi * step / self._steps))

    def _save(self, step: int) -> None:
        if self._checkpoint is None:
            return
        state = {"model": self._model.state_dict(), "optimizer": self._optimizer.state_dict()}
        with whole_file(self._checkpoint) as temporary:
            torch.save({"identity": self._identity, "step": step, **state}, temporary)

    def _resume(self) -> int:
        if self._checkpoint is None or not self._checkpoint.is_file():
            return 0
        state = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        saved = state["identity"]
        saved["schedule"] = {**asdict(Schedule()), **saved["schedule"]}  # an older checkpoint lacks later keys
        if saved != self._identity:
            raise UserError(
                f"The checkpoint {self._checkpoint} belongs to another training; remove it or name another folder."
            )
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])


def _sync_errors_ns(largest: float, present: Tensor, draw: torch.Generator) -> Tensor:
    """Synchronisation errors (B, K) [ns] of a batch."""
    deviation = torch.rand(len(present), 1, generator=draw) * largest
    normal = torch.empty(present.shape)
    nn.init.trunc_normal_(normal, a=-2.0, b=2.0, generator=draw)
    return normal * deviation


def subset(made: CirSet, size: int, draw: torch.Generator) -> CirSet:
    """Keep a fresh random set of `size` base stations of each user, all of them where there are no more."""
    stations = made.present.shape[1]
    if size >= stations:
        return made
    keep = torch.rand(len(made), stations, generator=draw).argsort(1)[:, :size].sort(1).values
    row = torch.arange(len(made))[:, None]
    return replace(made, cir=made.cir[row, keep], site=made.site[row, keep], present=made.present[row, keep])


@torch.inference_mode()
def errors_of(model: VinLocModel, users: CirSet, size: int, bits: int, seed: int, batch: int = 200) -> Tensor:
    """Euclidean errors (N,) [m] from a random set of `size` base stations of each user, at `bits` (0: float)."""
    model.eval()
    draw = _draw(seed, "vinloc subset", size)
    errors = []
    for index in torch.arange(len(users)).split(batch):
        made = subset(users[index], size, draw)
        estimate = model(made.response(), made.site, made.present, torch.full((len(index),), bits))
        errors.append((estimate - made.position).norm(dim=1))
    return torch.cat(errors)


def _draw(seed: int, stream: str, *key: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(generator(seed, stream, *key).integers(2**62)))
