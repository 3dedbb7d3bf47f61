"""Training loop of VIn-Loc: random subsets of base stations, random resolutions, straight-through gradients.

The paper trains 600 epochs of AdamW with a batch size of 16. The optimizer of `sim.learn.optimizer` and a cosine
schedule need at most a few dozen; `Schedule` holds the settings, which are kept in the weights' record.
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
"""Resolutions [bit] of training samples, 0 for float; drawn with equal probability."""


@dataclass(frozen=True)
class Schedule:
    """Training schedule.

    Attributes:
        epochs: passes over the training users.
        batch: users in a step.
        rate: peak learning rate of AdamW; matrices have ten times that, see `sim.learn.optimizer`.
        warmup_steps: steps until the peak is reached; it then decays to zero by a cosine.
        subset: numbers of base stations that a step may use, drawn with equal probability.
        resolutions: see RESOLUTIONS.
        single: share of the steps, at the end, in which the cloud's network multiplies in single precision: bfloat16
            cannot resolve positions to better than decimetres.
        half: whether everything else multiplies in bfloat16.
        sync_ns: largest standard deviation of synchronisation errors [ns]: for each user it is drawn uniformly from 0
            to this, and each of its base stations has a Gaussian error, truncated at twice the standard deviation.
        seed: seed of all draws.
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
    """Progress of a training; `validation_m`: mean Euclidean error on validation users, if just measured."""

    step: int
    steps: int
    loss_m: float
    seconds: float
    validation_m: float | None = None


OnProgress = Callable[[TrainProgress], None]


class UserTrainer(ABC):
    """Trains one network on users; a stopped training resumes at the last checkpoint.

    Subclasses define how a batch is positioned, and how errors on validation users are measured.

    Attributes:
        stream: name of the random streams.
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
        """Prepare the training; resuming a `checkpoint` of another `identity` or schedule is an error."""
        self._network, self._training, self._schedule, self._save_seconds = network, training, schedule, save_seconds
        self._per_epoch, self._steps = schedule_steps(schedule, len(training))
        self._optimizer = MatrixOptimizer(network, half=schedule.half)
        parts: dict[str, Stateful] = {"model": network, "optimizer": self._optimizer}
        self._checkpoint = Checkpoint(checkpoint, {**identity, "schedule": asdict(schedule)}, parts)

    @abstractmethod
    def validate(self) -> Tensor:
        """Return Euclidean errors (N,) [m] of validation users."""

    @abstractmethod
    def _positions(self, users: CirSet, draw: torch.Generator, half: bool) -> Tensor:
        """Return positions (B, 3) [m] of a batch; with `half` the positioning network multiplies in bfloat16."""

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
        """Yield batches of an epoch from number `skip` on, each with a generator of its own: a resume repeats them."""
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
    """Return the steps of an epoch, and of the whole schedule, for a number of training users."""
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
        """Prepare the training; resuming a `checkpoint` of another `identity` or schedule is an error."""
        super().__init__(model, training, schedule, checkpoint, identity or {}, save_seconds)
        self._model, self._validation = model, validation

    def validate(self) -> Tensor:
        """Return errors (N,) [m] with random subsets of the schedule's largest size and unquantised values."""
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
    """Keep a random set of `size` base stations for each user, or all if `size` is their number or more."""
    stations = made.present.shape[1]
    if size >= stations:
        return made
    return kept(made, random_stations(len(made), stations, size, draw))


@torch.inference_mode()
def errors_of(model: VinLocModel, users: CirSet, size: int, bits: int, seed: int, batch: int = 200) -> Tensor:
    """Return Euclidean errors (N,) [m] from random sets of `size` base stations for each user, at `bits` (0: float)."""
    model.eval()
    draw = torch_generator(seed, "vinloc subset", size)
    errors = []
    for index in torch.arange(len(users)).split(batch):
        made = subset(users[index], size, draw)
        estimate = model(made.response(), made.site, made.present, torch.full((len(index),), bits))
        errors.append((estimate - made.position).norm(dim=1))
    return torch.cat(errors)
