"""Trainings of ResNet fingerprinting by name, on the same users, subsets, optimizer and schedule as VIn-Loc's."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from fronthaul.draws import generator
from fronthaul.files import whole_file
from sim.errors import UserError
from sim.learn.optimizer import MatrixOptimizer
from sim.learn.vinloc.data import CirSet, Users, load_users
from sim.learn.vinloc.evaluate import hidden, kept_stations, random_stations
from sim.learn.vinloc.resnet import Filling, ResNetLocator, filled
from sim.learn.vinloc.train import Schedule, TrainProgress
from sim.world.scenario import Scenario, load_scenario
from sim.world.store import DATA_FOLDER

OnProgress = Callable[[TrainProgress], None]


@dataclass(frozen=True)
class ResNetJob:
    """One training.

    Attributes:
        name: of its files.
        scenario: whose users it learns from; they have one antenna.
        filling: how responses come into the input, see `sim.learn.vinloc.resnet`.
        schedule: how it learns; `subset` holds one number, and `resolutions` are not used: nothing is quantised.
    """

    name: str
    scenario: str
    filling: Filling
    schedule: Schedule = field(default_factory=Schedule)

    @property
    def size(self) -> int:
        """How many base stations are kept, S."""
        return self.schedule.subset[0]


def _schedule(size: int) -> Schedule:
    return Schedule(epochs=5, subset=(size,), resolutions=(0,))


RESNET_JOBS = {
    job.name: job
    for job in (
        ResNetJob("resnet-fixed", "inf-dh-18", "rows", _schedule(18)),
        ResNetJob("resnet-rows", "inf-dh-18", "rows", _schedule(15)),
        ResNetJob("resnet-packed", "inf-dh-18", "packed", _schedule(15)),
        ResNetJob("resnet-shuffled", "inf-dh-18", "shuffled", _schedule(15)),
    )
}


def resnet_folder(job: ResNetJob) -> Path:
    """Where a job's checkpoint is, ``NAME.pt``."""
    return DATA_FOLDER / load_scenario(job.scenario).data_name / "vinloc"


def make_resnet(scenario: Scenario, job: ResNetJob) -> ResNetLocator:
    """Make the job's network."""
    torch.manual_seed(job.schedule.seed)
    low, high = (torch.tensor(corner, dtype=torch.float32) for corner in (scenario.users.low, scenario.users.high))
    slots = scenario.station_count if job.filling == "rows" else job.size
    return ResNetLocator(slots, scenario.numerology.taps, low, high)


def run_resnet(job: ResNetJob, folder: Path, on_progress: OnProgress = lambda _: None) -> ResNetLocator:
    """Train a job, or go on with it; what is done already is loaded. Checkpoints are in `folder`.

    Raises:
        UserError: data are missing, or the checkpoint belongs to another training.
    """
    scenario = load_scenario(job.scenario)
    network = make_resnet(scenario, job)
    ResNetTrainer(network, load_users(scenario), job, folder / f"{job.name}.pt").run(on_progress)
    return network


class ResNetTrainer:
    """Trains one network; stopped at any time it resumes at the last checkpoint."""

    def __init__(
        self, network: ResNetLocator, users: Users, job: ResNetJob, checkpoint: Path, save_seconds: float = 60.0
    ) -> None:
        self._network, self._users, self._job, self._checkpoint = network, users, job, checkpoint
        self._save_seconds = save_seconds
        self._per_epoch = max(1, len(users.train) // job.schedule.batch)
        self._steps = max(1, round(job.schedule.epochs * self._per_epoch))
        self._optimizer = MatrixOptimizer(network, half=job.schedule.half)

    def run(self, on_progress: OnProgress = lambda _: None) -> float:
        """Train to the end of the schedule; return the mean validation error [m]."""
        step = self._resume()
        started = saved = time.monotonic()
        losses: list[float] = []
        for index, draw in self._batches(step):
            losses.append(self._step(index, draw, step))
            step += 1
            error = None
            if step % (2 * self._per_epoch) == 0 and step < self._steps:
                error = float(self.validate().mean())
            if step % 20 == 0 or error is not None:
                seconds = time.monotonic() - started
                on_progress(TrainProgress(step, self._steps, sum(losses) / len(losses), seconds, error))
                losses.clear()
            if time.monotonic() - saved > self._save_seconds:
                self._save(step)
                saved = time.monotonic()
        self._save(step)
        error = float(self.validate().mean())
        on_progress(TrainProgress(step, self._steps, 0.0, time.monotonic() - started, error))
        return error

    def validate(self) -> Tensor:
        """Euclidean errors (N,) [m] of validation users."""
        found = resnet_positions(self._network, hidden(self._users.validation), self._job)
        error: Tensor = (found - self._users.validation.position).norm(dim=1)
        return error

    def _batches(self, step: int) -> Iterator[tuple[Tensor, torch.Generator]]:
        """Batches from `step` on, each with draws of its own: a resumed training repeats them."""
        batch, seed = self._job.schedule.batch, self._job.schedule.seed
        for number in range(step, self._steps):
            epoch, place = divmod(number, self._per_epoch)
            if place == 0 or number == step:
                order = torch.randperm(len(self._users.train), generator=_draw(seed, "resnet order", epoch))
            yield order[place * batch : (place + 1) * batch], _draw(seed, "resnet batch", epoch, place)

    def _step(self, index: Tensor, draw: torch.Generator, step: int) -> float:
        schedule, network = self._job.schedule, self._network.train()
        made = self._users.train[index]
        chosen = random_stations(len(made), made.present.shape[1], self._job.size, draw)
        slots = filled(made, chosen, self._job.filling, draw)
        early = schedule.half and step < (1 - schedule.single) * self._steps
        with torch.autocast("cpu", torch.bfloat16, enabled=early):
            estimate = network(slots)
        loss = ((estimate - made.position).square().sum(-1) + 1e-4).sqrt().mean()
        self._optimizer.zero_grad()
        (loss / network.extent[0]).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        warm = min(1.0, (step + 1) / max(1, schedule.warmup_steps))
        self._optimizer.step(schedule.rate * warm * 0.5 * (1 + math.cos(math.pi * step / self._steps)))
        return float(loss.detach())

    def _identity(self) -> dict[str, object]:
        job = self._job
        digest = load_scenario(job.scenario).tracing_digest()
        return {"job": job.name, "scenario": digest, "filling": job.filling, "schedule": asdict(job.schedule)}

    def _save(self, step: int) -> None:
        state = {"model": self._network.state_dict(), "optimizer": self._optimizer.state_dict()}
        with whole_file(self._checkpoint) as temporary:
            torch.save({"identity": self._identity(), "step": step, "steps": self._steps, **state}, temporary)

    def _resume(self) -> int:
        if not self._checkpoint.is_file():
            return 0
        state = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        if state["identity"] != self._identity():
            raise UserError(
                f"The checkpoint {self._checkpoint} belongs to another training; remove it or name another folder."
            )
        self._network.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])


@torch.inference_mode()
def resnet_positions(network: ResNetLocator, users: CirSet, job: ResNetJob, batch: int = 200) -> Tensor:
    """Positions (N, 3) [m] from the job's number of base stations of each user, those that all methods have."""
    network.eval()
    chosen = kept_stations(len(users), users.present.shape[1], job.size)
    order = _draw(0, "resnet slots")
    parts = torch.arange(len(users)).split(batch)
    return torch.cat([network(filled(users[index], chosen[index], job.filling, order)) for index in parts])


def _draw(seed: int, stream: str, *key: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(generator(seed, stream, *key).integers(2**62)))
