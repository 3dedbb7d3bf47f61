"""Named trainings of ResNet fingerprinting: VIn-Loc's optimizer and subsets, on the users of the path data alone.

They take 5 epochs, the shipped VIn-Loc weights 47 of more users; jobs called ``short`` here and in
`sim.learn.vinloc.jobs` have the same users and length.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sim.learn.draws import Draws, torch_generator
from sim.learn.vinloc.data import CirSet, Users, load_users
from sim.learn.vinloc.evaluate import hidden, kept_stations, random_stations
from sim.learn.vinloc.jobs import EQUAL_EPOCHS
from sim.learn.vinloc.resnet import Filling, ResNetLocator, filled
from sim.learn.vinloc.train import OnProgress, Schedule, UserTrainer, mean_distance
from sim.world.scenario import Scenario, load_scenario


@dataclass(frozen=True)
class ResNetJob:
    """One training.

    Attributes:
        name: base name of its files.
        scenario: scenario whose users it is trained on; they have one antenna.
        filling: how responses are arranged in the input, see `sim.learn.vinloc.resnet`.
        schedule: training schedule; `subset` holds one number, and `resolutions` are not used: nothing is quantised.
    """

    name: str
    scenario: str
    filling: Filling
    schedule: Schedule = field(default_factory=Schedule)

    @property
    def size(self) -> int:
        """Number of base stations kept, S."""
        return self.schedule.subset[0]


def _schedule(size: int, epochs: float = 5) -> Schedule:
    return Schedule(epochs=epochs, subset=(size,), resolutions=(0,))


RESNET_JOBS = {
    job.name: job
    for job in (
        ResNetJob("resnet-fixed", "inf-dh-18", "rows", _schedule(18)),
        ResNetJob("resnet-rows", "inf-dh-18", "rows", _schedule(15)),
        ResNetJob("resnet-packed", "inf-dh-18", "packed", _schedule(15)),
        ResNetJob("resnet-shuffled", "inf-dh-18", "shuffled", _schedule(15)),
        ResNetJob("resnet-short-fixed", "inf-dh-18", "rows", _schedule(18, EQUAL_EPOCHS)),
        ResNetJob("resnet-short-rows", "inf-dh-18", "rows", _schedule(15, EQUAL_EPOCHS)),
    )
}


def make_resnet(scenario: Scenario, job: ResNetJob) -> ResNetLocator:
    """Make the job's network."""
    torch.manual_seed(job.schedule.seed)
    low, high = (torch.tensor(corner, dtype=torch.float32) for corner in (scenario.users.low, scenario.users.high))
    slots = scenario.station_count if job.filling == "rows" else job.size
    return ResNetLocator(slots, scenario.numerology.taps, low, high)


def run_resnet(
    job: ResNetJob, folder: Path, on_progress: OnProgress = lambda _: None, device: torch.device | None = None
) -> ResNetLocator:
    """Train a job on a device, or resume it from its checkpoint in `folder`; a finished job is only loaded.

    Raises:
        UserError: data are missing, or the checkpoint belongs to another training.
    """
    scenario = load_scenario(job.scenario)
    network = make_resnet(scenario, job).to(device or torch.device("cpu"))
    ResNetTrainer(network, load_users(scenario), job, folder / f"{job.name}.pt").run(on_progress)
    return network


class ResNetTrainer(UserTrainer):
    """Trains a ResNet locator on VIn-Loc's training users."""

    stream = "resnet"

    def __init__(
        self, network: ResNetLocator, users: Users, job: ResNetJob, checkpoint: Path, save_seconds: float = 60.0
    ) -> None:
        digest = load_scenario(job.scenario).tracing_digest()
        identity = {"job": job.name, "scenario": digest, "filling": job.filling}
        super().__init__(network, users.train, job.schedule, checkpoint, identity, save_seconds)
        self._locator, self._validation, self._job = network, users.validation.to(self._device), job

    def validate(self) -> Tensor:
        """Return Euclidean errors (N,) [m] of validation users."""
        found = resnet_positions(self._locator, hidden(self._validation), self._job)
        error: Tensor = (found - self._validation.position).norm(dim=1)
        return error

    def _loss(self, users: CirSet, draws: Draws, half: bool) -> Tensor:
        chosen = random_stations(len(users), users.present.shape[1], self._job.size, draws.device)
        slots = filled(users, chosen, self._job.filling, draws.device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
            estimate: Tensor = self._locator(slots)
        return mean_distance(estimate, users.position)


@torch.inference_mode()
def resnet_positions(network: ResNetLocator, users: CirSet, job: ResNetJob, batch: int = 200) -> Tensor:
    """Return positions (N, 3) [m] from S base stations of each user, the same ones as for all other methods."""
    network.eval()
    chosen = kept_stations(len(users), users.present.shape[1], job.size)
    order = torch_generator(0, "resnet slots")
    parts = torch.arange(len(users)).split(batch)
    return torch.cat([network(filled(users[index], chosen[index], job.filling, order)) for index in parts])
