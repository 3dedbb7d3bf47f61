"""Bench of VIn-Loc's tables: users of a scenario, networks from shipped weights or checkpoints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sim.learn.average import WeightAverage
from sim.learn.checkpoint import read_checkpoint
from sim.learn.vinloc.data import Users, load_users
from sim.learn.vinloc.evaluate import Network, network_of
from sim.learn.vinloc.export import export_weights
from sim.learn.vinloc.jobs import JOBS, Job, make_model, run_job, tap_s
from sim.learn.vinloc.resnet import ResNetLocator
from sim.learn.vinloc.resnet_train import RESNET_JOBS, ResNetJob, make_resnet, run_resnet
from sim.learn.vinloc.train import TrainProgress, schedule_steps
from sim.plan.weights import load_weights
from sim.reproduce.bench import file_digest, require_traced
from sim.world import store
from sim.world.scenario import Scenario, load_scenario, scenario_table
from sim.world.store import DATA_FOLDER

OnProgress = Callable[[str, TrainProgress], None]


class Bench:
    """Jobs of VIn-Loc and of ResNet fingerprinting, by name.

    Arguments called `name` are names of jobs.
    """

    def __init__(
        self,
        jobs: Mapping[str, Job] | None = None,
        resnets: Mapping[str, ResNetJob] | None = None,
        on_progress: OnProgress = lambda *_: None,
    ) -> None:
        """Take all jobs by default; `on_progress` is called with the name of a job and its progress."""
        self._jobs = JOBS if jobs is None else jobs
        self._resnets = RESNET_JOBS if resnets is None else resnets
        self._on_progress = on_progress
        self._users: tuple[str, Users] | None = None

    def job(self, name: str) -> Job | ResNetJob:
        """Return the job."""
        return self._resnets[name] if name in self._resnets else self._jobs[name]

    def scenario(self, name: str) -> Scenario:
        """Return the scenario whose users the job is trained on."""
        return load_scenario(self.job(name).scenario)

    def resnet_job(self, name: str) -> ResNetJob:
        """Return a job of ResNet fingerprinting."""
        return self._resnets[name]

    def users(self, scenario: Scenario) -> Users:
        """Load the users of a scenario; only the last scenario's are kept in memory, as they are large."""
        key = json.dumps(scenario_table(scenario), sort_keys=True)
        if self._users is None or self._users[0] != key:
            self._users = None
            self._users = key, load_users(scenario)
        return self._users[1]

    def is_trained(self, name: str) -> bool:
        """Return whether weights are shipped, or the job has been run to its end."""
        if self._shipped(name) is not None:
            return True
        path = self._checkpoint(name)
        if not path.is_file():
            return False
        step, identity = _progress(path.resolve(), path.stat().st_mtime_ns)
        schedule, scenario = self.job(name).schedule, self.scenario(name)
        if identity["schedule"] != schedule.table() or identity["scenario"] != scenario.tracing_digest():
            return False
        return step >= schedule_steps(schedule, len(self.users(scenario).train))[1]

    def train(self, name: str) -> None:
        """Run the job, unless it is already trained."""
        if self._shipped(name) is not None:
            return
        folder = self._checkpoint(name).parent
        if name in self._resnets:
            run_resnet(self._resnets[name], folder, lambda progress: self._on_progress(name, progress))
        else:
            run_job(self._jobs[name], folder, lambda progress: self._on_progress(name, progress))

    def network(self, name: str) -> Network:
        """Return the job's networks, from shipped weights or its checkpoint."""
        scenario = self.scenario(name)
        shipped = self._shipped(name)
        if shipped is not None:
            return network_of(load_weights(shipped), tap_s(scenario))
        users = self.users(scenario)
        job = self._jobs[name]
        model = make_model(scenario, job, users)
        state = read_checkpoint(self._checkpoint(name)).state
        model.load_state_dict(state["model"])
        if job.schedule.average:
            average = WeightAverage(model, job.schedule.average)
            average.load_state_dict(state["average"])
            average.apply()
        return Network(model.eval(), users.train.scale)

    def resnet(self, name: str) -> ResNetLocator:
        """Return the network of a ResNet job, from its checkpoint."""
        network = make_resnet(self.scenario(name), self._resnets[name])
        network.load_state_dict(read_checkpoint(self._checkpoint(name)).state["model"])
        return network.eval()

    def weights_file(self, name: str) -> Path:
        """Return a weights file for the emulator: the shipped one, else one made from the checkpoint."""
        shipped = self._shipped(name)
        if shipped is not None:
            return shipped
        network, job, scenario = self.network(name), self._jobs[name], self.scenario(name)
        path = self._checkpoint(name).with_name(f"{name}.safetensors")
        export_weights(network.model, network.unit, scenario, job, path)
        return path

    def identity(self, name: str, *, fitted: bool) -> str | None:
        """Return a digest of the data and, with `fitted`, of the trained networks; None without them."""
        if not data_file(self.scenario(name)).is_file() or (fitted and not self.is_trained(name)):
            return None
        total = hashlib.blake2b(json.dumps(scenario_table(self.scenario(name)), sort_keys=True).encode(), digest_size=8)
        total.update(file_digest(data_file(self.scenario(name))))
        if fitted:
            total.update(file_digest(self._shipped(name) or self._checkpoint(name)))
        return total.hexdigest()

    def require_data(self, names: Iterable[str]) -> None:
        """Check that the path data of jobs exist.

        Raises:
            UserError: some are missing; the message names the commands that make them.
        """
        scenarios = [self.scenario(name) for name in names]
        require_traced((one.data_name, data_file(one), one.data_name) for one in scenarios)

    def _checkpoint(self, name: str) -> Path:
        return DATA_FOLDER / self.scenario(name).data_name / "vinloc" / f"{name}.pt"

    def _shipped(self, name: str) -> Path | None:
        """Return the job's weights file in the package's assets, if shipped."""
        path = store.ASSET_FOLDER / self.scenario(name).data_name / "vinloc.safetensors"
        if name in self._resnets or not path.is_file():
            return None
        config = _config(path.resolve(), path.stat().st_mtime_ns)
        return path if config["record"]["job"] == name else None


def data_file(scenario: Scenario) -> Path:
    """Return the file that represents the drawn or traced data of a scenario."""
    name = "paths.npz" if scenario.layouts is None else f"layouts/{store.SITES_FILE}"
    return DATA_FOLDER / scenario.data_name / name


@cache
def _progress(path: Path, _changed_ns: int) -> tuple[int, dict[str, Any]]:
    saved = read_checkpoint(path, mapped=True)
    return saved.step, saved.identity


@cache
def _config(path: Path, _changed_ns: int) -> dict[str, Any]:
    return load_weights(path).config
