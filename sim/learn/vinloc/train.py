"""Training loop of VIn-Loc: random subsets of base stations, random resolutions, straight-through gradients.

The paper trains 600 epochs of AdamW with a batch size of 16. The optimizer of `sim.learn.optimizer` and a cosine
schedule need at most a few dozen; `Schedule` holds the settings, which are kept in the weights' record.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sim.learn.average import WeightAverage
from sim.learn.budget import Length
from sim.learn.checkpoint import Checkpoint, Stateful
from sim.learn.diverged import require_finite, require_finite_weights
from sim.learn.draws import Draws, device_draws, torch_generator
from sim.learn.optimizer import MatrixOptimizer, warm_cosine
from sim.learn.vinloc.data import CirSet, delayed
from sim.learn.vinloc.evaluate import kept, random_stations
from sim.learn.vinloc.model import VinLocModel, quantised

_REPORT_S = 15.0
"""Interval of validations under a budget of time [s]."""
RESOLUTIONS = (0, 8, 4, 3, 2, 1)
"""Resolutions [bit] of training samples, 0 for float; drawn with equal probability."""


@dataclass(frozen=True)
class Schedule:
    """Training schedule.

    Attributes:
        epochs: passes over the training users.
        budget_s: wall-clock time [s] that replaces the number of epochs; rates then follow the time spent.
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
        turn: whether each response is turned by a random phase. A carrier's phase turns once in a wavelength, so that
            it says nothing about places metres away, but a long training would learn it by heart.
        alone: weight of a further loss, the mean error [m] of positions that a linear layer reads from each base
            station's values alone, as displacements from its site, meant to teach the base stations' network early on.
            The layer is not exported.
        average: length of the moving average of the weights, which is validated and exported, as a share of the steps
            so far; 0 takes the weights themselves.
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
    turn: bool = False
    alone: float = 0.0
    average: float = 0.0
    budget_s: float | None = None
    seed: int = 0

    def table(self) -> dict[str, Any]:
        """Return the settings by name. A newer one is left out at its default, so that older checkpoints stay valid."""
        return {name: value for name, value in asdict(self).items() if name != "alone" or value}


@dataclass(frozen=True)
class TrainProgress:
    """Progress of a training.

    Attributes:
        step: steps done.
        steps: steps in all, as expected.
        loss_m: mean loss of the latest steps [m]; NaN before the 20th.
        seconds: time spent [s], that before a resumption included.
        validation_m: mean Euclidean error on validation users [m], if just measured.
    """

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
        self._network, self._schedule, self._save_seconds = network, schedule, save_seconds
        self._device = network.get_buffer("extent").device
        self._training = training.to(self._device)
        self._per_epoch, steps = schedule_steps(schedule, len(training))
        self._length = Length(steps, schedule.budget_s)
        self._optimizer = MatrixOptimizer(network, half=schedule.half)
        self._average = WeightAverage(network, schedule.average)
        parts: dict[str, Stateful] = {
            "model": network, "optimizer": self._optimizer, "average": self._average, "length": self._length,
        }  # fmt: skip
        self._checkpoint = Checkpoint(checkpoint, {**identity, "schedule": schedule.table()}, parts)

    @abstractmethod
    def validate(self) -> Tensor:
        """Return Euclidean errors (N,) [m] of validation users."""

    @abstractmethod
    def _loss(self, users: CirSet, draws: Draws, half: bool) -> Tensor:
        """Return the loss [m] of a batch; with `half` the positioning network multiplies in bfloat16."""

    def run(self, on_progress: OnProgress = lambda _: None, on_save: Callable[[], None] = lambda: None) -> float:
        """Train to the end of the schedule, which leaves the averaged weights in the network.

        Args:
            on_progress: called every 20 steps, and after each validation.
            on_save: called after each checkpoint, while the network has the averaged weights.

        Returns:
            The mean validation error [m] of the averaged weights.

        Raises:
            UserError: the training diverges; the last checkpoint is of the time before.
        """
        step = begun = self._checkpoint.resume()
        self._length.start()
        saved = reported = time.monotonic()
        losses: list[Tensor] = []
        loss = math.nan
        while step < self._length.steps(step):
            for index, draws in self._batches(step // self._per_epoch, step % self._per_epoch):
                losses.append(self._step(index, draws, step))
                step += 1
                if step % 20 == 0:
                    loss = float(torch.stack(losses).mean())
                    self._tell(on_progress, step, loss)
                    losses.clear()
                if time.monotonic() - saved > self._save_seconds:
                    self._save(step, on_save)
                    saved = time.monotonic()
                if self._schedule.budget_s is not None and time.monotonic() - reported > _REPORT_S:
                    self._tell(on_progress, step, loss, self._error())
                    reported = time.monotonic()
                if step >= self._length.steps(step):
                    break
            if self._schedule.budget_s is None and step % (2 * self._per_epoch) == 0:
                self._tell(on_progress, step, loss, self._error())
        error = self._error()
        require_finite(error, f"step {step}")
        if step > begun:
            self._save(step, on_save)
        else:  # a finished training's checkpoint stays as it is: tables are measured again when it changes
            with self._average.applied():
                on_save()
        self._average.apply()
        self._tell(on_progress, step, loss, error)
        return error

    def _tell(self, on_progress: OnProgress, step: int, loss_m: float, validation_m: float | None = None) -> None:
        on_progress(TrainProgress(step, self._length.steps(step), loss_m, self._length.seconds(), validation_m))

    def _error(self) -> float:
        with self._average.applied():
            return float(self.validate().mean())

    def _save(self, step: int, on_save: Callable[[], None]) -> None:
        require_finite_weights(self._network, f"step {step}")
        self._checkpoint.save(step)
        with self._average.applied():
            on_save()

    def _batches(self, epoch: int, skip: int) -> Iterator[tuple[Tensor, Draws]]:
        """Yield batches of an epoch from number `skip` on, each with generators of its own: a resume repeats them."""
        batch, seed, device = self._schedule.batch, self._schedule.seed, self._device
        draw = device_draws(device, seed, f"{self.stream} order", epoch).device
        order = torch.randperm(len(self._training), generator=draw, device=device)
        for number in range(skip, self._per_epoch):
            index = order[number * batch : (number + 1) * batch]
            yield index, device_draws(device, seed, f"{self.stream} batch", epoch, number)

    def _step(self, index: Tensor, draws: Draws, step: int) -> Tensor:
        """Take one step; return the loss [m], on the device: reading it would wait for the step."""
        schedule, network, users = self._schedule, self._network.train(), self._training[index]
        steps = self._length.steps(step)
        half = schedule.half and step < (1 - schedule.single) * steps
        loss = self._loss(users, draws, half)
        rate = warm_cosine(schedule.rate, step, max(1, steps), schedule.warmup_steps)
        self._optimizer.descend(loss / network.get_buffer("extent")[0], rate)
        self._average.update()
        return loss.detach()


def mean_distance(estimate: Tensor, position: Tensor) -> Tensor:
    """Return the mean distance [m] of estimates from positions (…, 3), smooth within a centimetre."""
    return ((estimate - position).square().sum(-1) + 1e-4).sqrt().mean()


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
        self._model, self._validation = model, validation.to(self._device)
        # Then no step needs to count links, which on a GPU would have to be waited for.
        self._complete = bool(training.present.all())
        self._resolutions = torch.tensor(schedule.resolutions, device=self._device)

    def validate(self) -> Tensor:
        """Return errors (N,) [m] with random subsets of the schedule's largest size and unquantised values."""
        return errors_of(self._model, self._validation, max(self._schedule.subset), bits=0, seed=10_000)

    def _loss(self, users: CirSet, draws: Draws, half: bool) -> Tensor:
        schedule, model, draw = self._schedule, self._model, draws.device
        size = schedule.subset[int(torch.randint(len(schedule.subset), (), generator=draws.host))]
        made = subset(users, size, draw)
        choice = torch.randint(len(schedule.resolutions), (len(users),), generator=draw, device=draw.device)
        bits = self._resolutions[choice]
        response = made.response()
        if schedule.sync_ns:
            response = delayed(response, _sync_errors_ns(schedule.sync_ns, made.present, draw) * 1e-9, model.tap_s)
        if schedule.turn:
            phase = 2 * math.pi * torch.rand(*response.shape[:2], 1, 1, generator=draw, device=draw.device)
            response = response * torch.polar(torch.ones_like(phase), phase)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=schedule.half):
            values = model.values(response, None if self._complete else made.present)
        with _attention(self._device), torch.autocast(self._device.type, torch.bfloat16, enabled=half):
            estimate = model.fused(quantised(values, bits[:, None, None]), made.site, made.present)
        loss = mean_distance(estimate, made.position)
        if model.alone is not None:
            displaced = made.site + model.alone(values) * model.extent
            loss = loss + schedule.alone * mean_distance(
                displaced[made.present], made.position[:, None].expand_as(displaced)[made.present]
            )
        return loss


def _attention(device: torch.device) -> AbstractContextManager[None]:
    """Choose how attention is computed: on CPUs the fused kernel's gradient takes longer than plain products."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _sync_errors_ns(largest: float, present: Tensor, draw: torch.Generator) -> Tensor:
    """Synchronisation errors (B, K) [ns] of a batch."""
    deviation = torch.rand(len(present), 1, generator=draw, device=draw.device) * largest
    normal = torch.empty(present.shape, device=draw.device)
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
        resolution = torch.full((len(index),), bits, device=made.cir.device)
        estimate = model(made.response(), made.site, made.present, resolution)
        errors.append((estimate - made.position).norm(dim=1))
    return torch.cat(errors)
