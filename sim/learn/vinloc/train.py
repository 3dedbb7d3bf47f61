"""The training loop of VIn-Loc: random subsets of base stations, random resolutions, straight through the quantiser.

Where the paper trains 600 epochs of AdamW at a batch of 16, here the optimizer of `sim.learn.optimizer` and a cosine
schedule do with a few dozen: what was used is in `Schedule`, and goes into the weights' record.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sim.learn.checkpoint import Checkpoint, Stateful
from sim.learn.draws import torch_generator
from sim.learn.optimizer import MatrixOptimizer, warm_cosine
from sim.learn.vinloc.data import CirSet, delayed
from sim.learn.vinloc.evaluate import kept, random_stations
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


OnProgress = Callable[[TrainProgress], None]


class UserTrainer(ABC):
    """Trains one network on users; stopped at any time it resumes at the last checkpoint.

    Subclasses say how a batch is positioned, and with what errors validation users are.

    Attributes:
        stream: name of all draws.
    """

    stream: str

    def __init__(
        self,
        network: nn.Module,
        training: CirSet,
        schedule: Schedule,
        checkpoint: Path | None,
        identity: Mapping[str, Any],
        save_seconds: float,
    ) -> None:
        """Prepare; a `checkpoint` of another `identity` or schedule is an error."""
        self._network, self._training, self._schedule, self._save_seconds = network, training, schedule, save_seconds
        self._per_epoch, self._steps = schedule_steps(schedule, len(training))
        self._optimizer = MatrixOptimizer(network, half=schedule.half)
        parts: dict[str, Stateful] = {"model": network, "optimizer": self._optimizer}
        self._checkpoint = Checkpoint(checkpoint, {**identity, "schedule": asdict(schedule)}, parts)

    @abstractmethod
    def validate(self) -> Tensor:
        """Euclidean errors (N,) [m] of validation users."""

    @abstractmethod
    def _positions(self, users: CirSet, draw: torch.Generator, half: bool) -> Tensor:
        """Positions (B, 3) [m] of a batch; `half`: the network that positions multiplies in bfloat16."""

    def run(self, on_progress: OnProgress = lambda _: None) -> float:
        """Train to the end of the schedule; return the mean validation error [m]."""
        step = self._checkpoint.resume()
        started = saved = time.monotonic()
        losses: list[float] = []
        error = None
        while step < self._steps:
            for index, draw in self._batches(step // self._per_epoch, step % self._per_epoch):
                losses.append(self._step(index, draw, step))
                step += 1
                if step % 20 == 0:
                    mean = sum(losses) / len(losses)
                    on_progress(TrainProgress(step, self._steps, mean, time.monotonic() - started))
                    losses.clear()
                if time.monotonic() - saved > self._save_seconds:
                    self._checkpoint.save(step)
                    saved = time.monotonic()
                if step >= self._steps:
                    break
            if step % (2 * self._per_epoch) == 0 or step >= self._steps:
                error = float(self.validate().mean())
                on_progress(TrainProgress(step, self._steps, 0.0, time.monotonic() - started, error))
        self._checkpoint.save(step)
        return float(self.validate().mean()) if error is None else error

    def _batches(self, epoch: int, skip: int) -> Iterator[tuple[Tensor, torch.Generator]]:
        """Batches of an epoch from number `skip` on, each with draws of its own: a resumed training repeats them."""
        batch, seed = self._schedule.batch, self._schedule.seed
        order = torch.randperm(len(self._training), generator=torch_generator(seed, f"{self.stream} order", epoch))
        for number in range(skip, self._per_epoch):
            index = order[number * batch : (number + 1) * batch]
            yield index, torch_generator(seed, f"{self.stream} batch", epoch, number)

    def _step(self, index: Tensor, draw: torch.Generator, step: int) -> float:
        schedule, network, users = self._schedule, self._network.train(), self._training[index]
        half = schedule.half and step < (1 - schedule.single) * self._steps
        estimate = self._positions(users, draw, half)
        loss = ((estimate - users.position).square().sum(-1) + 1e-4).sqrt().mean()
        rate = warm_cosine(schedule.rate, step, self._steps, schedule.warmup_steps)
        self._optimizer.descend(loss / network.get_buffer("extent")[0], rate)
        return float(loss.detach())


def schedule_steps(schedule: Schedule, users: int) -> tuple[int, int]:
    """Steps of an epoch, and of the whole schedule, for a number of training users."""
    per_epoch = max(1, users // schedule.batch)
    return per_epoch, max(1, round(schedule.epochs * per_epoch))


class VinLocTrainer(UserTrainer):
    """Trains a VIn-Loc model."""

    stream = "vinloc"

    def __init__(
        self,
        model: VinLocModel,
        training: CirSet,
        validation: CirSet,
        schedule: Schedule,
        *,
        checkpoint: Path | None = None,
        identity: Mapping[str, Any] | None = None,
        save_seconds: float = 120.0,
    ) -> None:
        """Prepare; a `checkpoint` of another `identity` or schedule is an error."""
        super().__init__(model, training, schedule, checkpoint, identity or {}, save_seconds)
        self._model, self._validation = model, validation

    def validate(self) -> Tensor:
        """Errors (N,) [m] from random subsets of the schedule's largest size, float."""
        return errors_of(self._model, self._validation, max(self._schedule.subset), bits=0, seed=10_000)

    def _positions(self, users: CirSet, draw: torch.Generator, half: bool) -> Tensor:
        schedule, model = self._schedule, self._model
        size = schedule.subset[int(torch.randint(len(schedule.subset), (), generator=draw))]
        made = subset(users, size, draw)
        choice = torch.tensor(schedule.resolutions)
        bits = choice[torch.randint(len(choice), (len(users),), generator=draw)]
        response = made.response()
        if schedule.sync_ns:
            response = delayed(response, _sync_errors_ns(schedule.sync_ns, made.present, draw) * 1e-9, model.tap_s)
        with torch.autocast("cpu", torch.bfloat16, enabled=schedule.half):
            values = model.values(response, made.present)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return model.fused(quantised(values, bits[:, None, None]), made.site, made.present)


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
    return kept(made, random_stations(len(made), stations, size, draw))


@torch.inference_mode()
def errors_of(model: VinLocModel, users: CirSet, size: int, bits: int, seed: int, batch: int = 200) -> Tensor:
    """Euclidean errors (N,) [m] from a random set of `size` base stations of each user, at `bits` (0: float)."""
    model.eval()
    draw = torch_generator(seed, "vinloc subset", size)
    errors = []
    for index in torch.arange(len(users)).split(batch):
        made = subset(users[index], size, draw)
        estimate = model(made.response(), made.site, made.present, torch.full((len(index),), bits))
        errors.append((estimate - made.position).norm(dim=1))
    return torch.cat(errors)
