"""Measurements of DiffLoc's own networks on test samples: each base station alone, and fused by rules.

Every measurement takes a bench and names of jobs, and returns a `rows` result: ``alone`` with statistics for each of
``stations`` (numbered from 1), ``fused`` with statistics for each fusion rule. Nothing is tuned on test samples.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cloud.fusion.scores.sampler import NotFiniteError
from sim.learn.diffloc.evaluate import FloatArray, Networks, errors_m, fuse_gaussians, sample
from sim.learn.diffloc.features import SCALE_M, raw_features
from sim.learn.diffloc.jobs import load_data
from sim.learn.diffloc.trained import Trained
from sim.records.statistics import Cluster, distance_to_nearest, errors_by_distance, sample_statistics, spread
from sim.reproduce.diffloc.bench import Bench
from sim.reproduce.rows import Result

DISTANCES_M = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0)


def each_statistics(errors_m: FloatArray, walk: Cluster) -> list[dict[str, Any]]:
    """Return statistics of each base station's errors (K, N) [m] on samples of walks (N,)."""
    return [sample_statistics(row, walk) for row in errors_m]


def by_distance(training: FloatArray, truth: FloatArray, errors_m: FloatArray) -> list[dict[str, float]]:
    """Return mean errors [m] by distance to the nearest training sample; positions (N, D) are normalised."""
    return errors_by_distance(distance_to_nearest(training, truth) * SCALE_M, errors_m, DISTANCES_M)


def sampled(
    bench: Bench,
    jobs: Sequence[str],
    *,
    steps: int,
    rules: Sequence[str],
    particles: int = 1,
    stations: Sequence[int] | None = None,
    alone: bool = True,
    shuffled: bool = False,
    distances: str = "",
) -> Result:
    """Measure a diffusion or consistency model.

    Args:
        bench: the bench.
        jobs: name of the one job.
        steps: steps of the noise schedule.
        rules: fusion rules.
        particles: number of particles that are averaged.
        stations: which base stations; all of the job's by default.
        alone: whether to measure each base station alone as well.
        shuffled: control: permute channels among test samples.
        distances: fusion rule whose errors are reported by distance to the nearest training position, "" for none.
    """
    trained = bench.trained(jobs[0])
    chosen = trained.fit.job.setting.stations if stations is None else stations
    networks = trained.networks("test", shuffled=shuffled).of(places(trained, stations))
    truth, walk = trained.truth("test"), trained.walks("test")
    result: Result = {"stations": [k + 1 for k in chosen]}
    if alone:
        result["alone"] = each_statistics(errors_m(sampled_alone(networks, steps, particles), truth), walk)
    errors = {}
    for rule in rules:
        with contextlib.suppress(NotFiniteError):  # a sum that overflowed has no error: it is left out
            errors[rule] = errors_m(sample(networks, rule, steps, particles=particles).position, truth)
    result["fused"] = {rule: sample_statistics(error, walk) for rule, error in errors.items()}
    if distances:
        result["by_distance"] = by_distance(trained.truth("train"), truth, errors[distances])
    return result


def sampled_alone(networks: Networks, steps: int, particles: int = 1) -> FloatArray:
    """Return positions (K, N, D) from each base station alone; with one base station, fusion changes nothing."""
    each = range(len(networks.posterior))
    return np.stack([sample(networks.of([k]), "sum", steps, particles=particles).position for k in each])


def regressed(
    bench: Bench, jobs: Sequence[str], *, stations: Sequence[int] | None = None, distances: bool = False
) -> Result:
    """Measure direct regression on the same body: each base station, and the precision-weighted mean."""
    trained = bench.trained(jobs[0])
    chosen = trained.fit.job.setting.stations if stations is None else stations
    some = places(trained, stations)
    found, truth, walk = trained.regressed("test")[some], trained.truth("test"), trained.walks("test")
    error = errors_m(fuse_gaussians(found, trained.posterior[some]).position, truth)
    result: Result = {
        "stations": [k + 1 for k in chosen],
        "alone": each_statistics(errors_m(found, truth), walk),
        "fused": {"precision": sample_statistics(error, walk)},
    }
    if distances:
        result["by_distance"] = by_distance(trained.truth("train"), truth, error)
    return result


def over_seeds(
    bench: Bench,
    jobs: Sequence[str],
    *,
    steps: int = 0,
    rules: Sequence[str] = (),
    particles: int = 1,
) -> Result:
    """Measure trainings that differ in their seed alone; without `steps` they are regressions."""
    each = [
        sampled(bench, [name], steps=steps, rules=rules, particles=particles) if steps else regressed(bench, [name])
        for name in jobs
    ]
    return {
        "stations": each[0]["stations"],
        "alone": [spread([one["alone"][k]["mean"] for one in each]) for k in range(len(each[0]["alone"]))],
        "fused": {rule: spread([one["fused"][rule]["mean"] for one in each]) for rule in each[0]["fused"]},
    }


def places(trained: Trained, stations: Sequence[int] | None) -> list[int]:
    """Return the indices of base stations among those of the job."""
    known = trained.fit.job.setting.stations
    return list(range(len(known))) if stations is None else [known.index(k) for k in stations]


def noisy_inputs(bench: Bench, name: str, snr_db: float) -> Tensor:
    """Return compressed fingerprints (K, N, d) of a job's test positions, channels estimated at `snr_db`.

    They are compressed with the mean, deviation and basis of the job's training.
    """
    job, features = bench.job(name), bench.features(name)
    scenario, paths = load_data(job.data)
    test = paths.select(features.sample[features.split.test])
    return torch.stack(
        [
            features.project(k, torch.cat(list(raw_features(scenario, test, station, job.setting, snr_db))))
            for k, station in enumerate(job.setting.stations)
        ]
    )
