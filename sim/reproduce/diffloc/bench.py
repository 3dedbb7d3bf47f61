"""Bench of DiffLoc's tables: results, features, networks and samples of jobs; all but results are cached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from sim.learn.diffloc.evaluate import FloatArray, local_samples
from sim.learn.diffloc.features import Features, FeatureSetting
from sim.learn.diffloc.job import Fit, Job
from sim.learn.diffloc.jobs import DENSE, FITS, job_features, jobs, load_fit, run
from sim.learn.diffloc.trained import Trained, measured
from sim.reproduce.bench import file_digest, require_traced
from sim.world.store import DATA_FOLDER

TRACE = {DENSE: f"paris-7 --positions 20000 --output data/{DENSE}"}
"""Arguments of `trace` for data sets that need more than their name."""


class Bench:
    """Jobs by name.

    Arguments called `name` are names of jobs.
    """

    def __init__(self, found: Sequence[Job] | None = None, folder: Path = FITS) -> None:
        """Take the jobs `found`, by default all, with networks in `folder`."""
        self._jobs = {job.name: job for job in (jobs() if found is None else found)}
        self._folder = folder
        self._features: dict[tuple[str, FeatureSetting], Features] = {}
        self._trained: dict[str, Trained] = {}
        self._local: dict[tuple[str, str, int, int], FloatArray] = {}

    def job(self, name: str) -> Job:
        """Return the job."""
        return self._jobs[name]

    def stations(self, name: str) -> tuple[int, ...]:
        """Return the base stations of a job."""
        return self.job(name).setting.stations

    def is_trained(self, name: str) -> bool:
        """Return whether the job has been run."""
        return self._path(name).is_file()

    def train(self, name: str) -> None:
        """Run the job, unless it has been run."""
        run(self.job(name), self._folder)

    def fit(self, name: str) -> Fit:
        """Return the result of the job, which must have been run."""
        found = load_fit(self.job(name), self._folder)
        assert found is not None, f"{name} is not trained"
        return found

    def features(self, name: str) -> Features:
        """Return the features of the job."""
        job = self.job(name)
        key = job.data, job.setting
        if key not in self._features:
            self._features[key] = job_features(job)
        return self._features[key]

    def trained(self, name: str) -> Trained:
        """Return the networks of the job, with Σ_k; it must have been run."""
        if name not in self._trained:
            self._trained[name] = measured(self.fit(name), self.features(name))
        return self._trained[name]

    def local_samples(self, name: str, part: str, steps: int, particles: int) -> FloatArray:
        """Return positions (K, P, N, D) that each base station samples on its own, for "validation" or "test"."""
        key = name, part, steps, particles
        if key not in self._local:
            self._local[key] = local_samples(self.trained(name).networks(part), steps, particles)
        return self._local[key]

    def identity(self, name: str, *, fitted: bool) -> str | None:
        """Return a digest of data, feature settings and, with `fitted`, the trained networks; None without them."""
        job = self.job(name)
        if not data_file(job.data).is_file() or (fitted and not self.is_trained(name)):
            return None
        total = hashlib.blake2b(json.dumps(asdict(job.setting)).encode(), digest_size=8)
        total.update(file_digest(data_file(job.data)))
        if fitted:
            total.update(file_digest(self._path(name)))
        return total.hexdigest()

    def require_data(self, names: Iterable[str]) -> None:
        """Check that the path data of jobs exist.

        Raises:
            UserError: some are missing; the message names the commands that make them.
        """
        found = dict.fromkeys(self.job(name).data for name in names)
        require_traced((data, data_file(data), TRACE.get(data, data)) for data in found)

    def _path(self, name: str) -> Path:
        return self._folder / f"{self.job(name).name}.safetensors"


def data_file(data: str) -> Path:
    """Return the path data file of a folder under ``data/``."""
    return DATA_FOLDER / data / "paths.npz"
