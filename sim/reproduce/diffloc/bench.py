"""The trainings behind a table, at hand: what a job left, its features, its networks; each read once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from sim.learn.diffloc.features import Features, FeatureSetting
from sim.learn.diffloc.jobs import DENSE, FITS, Fit, Job, job_features, jobs, load_fit, run
from sim.learn.diffloc.trained import Trained, measured
from sim.reproduce.bench import file_digest, require_traced
from sim.world.store import DATA_FOLDER

TRACE = {DENSE: f"paris-7 --positions 20000 --output data/{DENSE}"}
"""Arguments of `trace` that make a data set, where they are not its name alone."""


class Bench:
    """Jobs by name.

    Every method that takes a name takes that of a job.
    """

    def __init__(self, found: Sequence[Job] | None = None, folder: Path = FITS) -> None:
        """Take `found`, by default all jobs, whose networks lie in `folder`."""
        self._jobs = {job.name: job for job in (jobs() if found is None else found)}
        self._folder = folder
        self._features: dict[tuple[str, FeatureSetting], Features] = {}
        self._trained: dict[str, Trained] = {}

    def job(self, name: str) -> Job:
        """What is trained."""
        return self._jobs[name]

    def stations(self, name: str) -> tuple[int, ...]:
        """Base stations of a job."""
        return self.job(name).setting.stations

    def is_trained(self, name: str) -> bool:
        """Whether the job has been run."""
        return self._path(name).is_file()

    def train(self, name: str) -> None:
        """Run the job, if it has not been."""
        run(self.job(name), self._folder)

    def fit(self, name: str) -> Fit:
        """What the job left; it must have been run."""
        found = load_fit(self.job(name), self._folder)
        assert found is not None, f"{name} is not trained"
        return found

    def features(self, name: str) -> Features:
        """Features of the job."""
        job = self.job(name)
        key = job.data, job.setting
        if key not in self._features:
            self._features[key] = job_features(job)
        return self._features[key]

    def trained(self, name: str) -> Trained:
        """Networks of the job, with Σ_k; it must have been run."""
        if name not in self._trained:
            self._trained[name] = measured(self.fit(name), self.features(name))
        return self._trained[name]

    def identity(self, name: str, *, fitted: bool) -> str | None:
        """Digest of the data, of how they are used and, with `fitted`, of what was trained; None where that is not."""
        job = self.job(name)
        if fitted and not self.is_trained(name):
            return None
        total = hashlib.blake2b(json.dumps(asdict(job.setting)).encode(), digest_size=8)
        total.update(file_digest(data_file(job.data)))
        if fitted:
            total.update(file_digest(self._path(name)))
        return total.hexdigest()

    def require_data(self, names: Iterable[str]) -> None:
        """Check that the path data of jobs are there.

        Raises:
            UserError: some are missing; the sentence names the commands that make them.
        """
        found = dict.fromkeys(self.job(name).data for name in names)
        require_traced((data, data_file(data), TRACE.get(data, data)) for data in found)

    def _path(self, name: str) -> Path:
        return self._folder / f"{self.job(name).name}.safetensors"


def data_file(data: str) -> Path:
    """Path set of a folder under ``data/``."""
    return DATA_FOLDER / data / "paths.npz"
