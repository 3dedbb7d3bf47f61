"""Measurements of DiffLoc's baselines: joint regressions, grid fusion, look-ups of fingerprints, and the prior.

Interfaces are as in `measures`. The paper's baselines are those of DiffLoc Sec. V-B, the others are controls.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sim.learn.diffloc.evaluate import FloatArray, errors_m
from sim.learn.diffloc.features import Features
from sim.learn.diffloc.job import Fit
from sim.learn.diffloc.jobs import joined
from sim.learn.diffloc.objectives import regress
from sim.learn.fingerprints import local_linear, weighted_neighbours
from sim.records.statistics import sample_statistics
from sim.reproduce.diffloc.bench import Bench
from sim.reproduce.diffloc.measures import by_distance, each_statistics
from sim.reproduce.rows import Result

NEIGHBOURS = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30)
LINEAR_NEIGHBOURS = (4, 6, 8, 11, 15, 30, 60)
RIDGES = (0.03, 0.3, 1.0, 3.0, 10.0, 30.0)
COMPONENTS = (10, 20, 40, 80)
"""Principal components of all base stations' features side by side, for the local linear regression."""
Lookup = Callable[..., Tensor]


def joint_regression(bench: Bench, jobs: Sequence[str]) -> Result:
    """Measure one network on the fingerprints of all base stations; the paper's supervised MLP is one."""
    fit, features = bench.fit(jobs[0]), joined(bench.features(jobs[0]))
    found = _outputs(fit, features, "test")[0].double().numpy()
    return {"fused": {"joint": sample_statistics(errors_m(found, features.truth("test")), features.walks("test"))}}


def convolutional(bench: Bench, jobs: Sequence[str]) -> Result:
    """Measure the convolutional regression, from its stored estimates."""
    fit, features = bench.fit(jobs[0]), bench.features(jobs[0])
    assert fit.estimates is not None
    found = fit.estimates[features.index("test")].double().numpy()
    return {"fused": {"joint": sample_statistics(errors_m(found, features.truth("test")), features.walks("test"))}}


def grid_fusion(bench: Bench, jobs: Sequence[str]) -> Result:
    """Measure probability fusion on the grid whose product of maps is best on validation samples.

    A base station alone estimates the mean of its map; the fused estimate is the mean of the product of all maps.
    """
    features = bench.features(jobs[0])
    best, fused, validation = best_grid(bench, jobs)
    alone, _ = _grid_positions(bench.fit(best), features, "test")
    truth, walk = features.truth("test"), features.walks("test")
    return {
        "stations": [k + 1 for k in bench.stations(best)],
        "alone": each_statistics(errors_m(alone, truth), walk),
        "fused": {"product": sample_statistics(errors_m(fused, truth), walk)},
        "spacing_m": bench.job(best).spacing_m,
        "validation": [{"spacing_m": bench.job(name).spacing_m, "mean": validation[name]} for name in jobs],
    }


def best_grid(bench: Bench, jobs: Sequence[str]) -> tuple[str, FloatArray, dict[str, float]]:
    """Return the grid that is best on validation samples, its fused test estimates (N, D), and all validation errors.

    Validation errors are means [m], by job.
    """
    features = bench.features(jobs[0])
    validation = {}
    for name in jobs:
        _, fused = _grid_positions(bench.fit(name), features, "validation")
        validation[name] = float(errors_m(fused, features.truth("validation")).mean())
    best = min(jobs, key=lambda name: validation[name])
    return best, _grid_positions(bench.fit(best), features, "test")[1], validation


def neighbours(bench: Bench, names: Sequence[str], *, stations: Sequence[int] | None = None) -> Result:
    """Measure weighted k nearest neighbours on compressed fingerprints, of each base station and of all side by side.

    k is chosen on validation samples, separately for each base station and for all side by side.
    """
    features, tables, chosen = _tables(bench, names[0], stations)
    tried = [{"neighbours": k} for k in NEIGHBOURS]
    alone = [_best_of(features, z, weighted_neighbours, tried) for z in tables]
    errors = errors_m(np.stack([found for found, _ in alone]), features.truth("test"))
    result = _looked_up(features, *_best_of(features, torch.cat(tables, -1), weighted_neighbours, tried))
    result["chosen"]["alone"] = [one for _, one in alone]
    return result | {"stations": chosen, "alone": each_statistics(errors, features.walks("test"))}


def linear(bench: Bench, names: Sequence[str], *, stations: Sequence[int] | None = None) -> Result:
    """Measure local linear regression on principal components of all base stations' features side by side.

    k, the ridge and the number of components are chosen on validation samples.
    """
    features, tables, chosen = _tables(bench, names[0], stations)
    z = torch.cat(tables, -1)
    train = z[features.index("train")]
    axes = torch.linalg.svd(train - train.mean(0), full_matrices=False).Vh[: max(COMPONENTS)]

    def lookup(query: Tensor, table: Tensor, position: Tensor, *, components: int, **options: Any) -> Tensor:
        return local_linear(query[:, :components], table[:, :components], position, **options)

    tried = [
        {"neighbours": k, "ridge": ridge, "components": components}
        for k, ridge, components in itertools.product(LINEAR_NEIGHBOURS, RIDGES, COMPONENTS)
    ]
    result = _looked_up(features, *_best_of(features, (z - train.mean(0)) @ axes.T, lookup, tried))
    return result | {"stations": chosen}


def _tables(bench: Bench, name: str, stations: Sequence[int] | None) -> tuple[Features, list[Tensor], list[int]]:
    """Return the features, those of each base station (C·N, d), and the numbers of the base stations, from 1."""
    features, known = bench.features(name), bench.stations(name)
    chosen = known if stations is None else tuple(stations)
    return features, [features.z[known.index(k)] for k in chosen], [k + 1 for k in chosen]


def _looked_up(features: Features, found: FloatArray, best: dict[str, Any]) -> Result:
    truth = features.truth("test")
    error = errors_m(found, truth)
    return {
        "fused": {"joint": sample_statistics(error, features.walks("test"))},
        "chosen": {"joint": best},
        "by_distance": by_distance(features.truth("train"), truth, error),
    }


def prior_mean(bench: Bench, names: Sequence[str]) -> Result:
    """Measure the error of the mean training position: an estimate without information."""
    features = bench.features(names[0])
    truth = features.truth("test")
    mean = features.truth("train").mean(0)
    errors = errors_m(np.broadcast_to(mean, truth.shape), truth)
    return {"fused": {"joint": sample_statistics(errors, features.walks("test"))}}


def prior_draw(bench: Bench, names: Sequence[str]) -> Result:
    """Measure the error of a random training position: for each test sample the mean over all training positions."""
    features = bench.features(names[0])
    truth, training = features.truth("test"), features.truth("train")
    errors = errors_m(np.broadcast_to(training[:, None], (len(training), *truth.shape)), truth).mean(0)
    return {"fused": {"joint": sample_statistics(errors, features.walks("test"))}}


@torch.no_grad()
def _outputs(fit: Fit, features: Features, part: str) -> Tensor:
    """Return the outputs (K, N, outputs) of networks that are given the channel alone."""
    assert fit.network is not None
    return regress(fit.network, fit.network.embed_channel(features.z[:, features.index(part)]))


def grid_chances(fit: Fit, features: Features, part: str) -> Tensor:
    """Return the log-probabilities (K, N, cells) of each base station's map."""
    return torch.log_softmax(_outputs(fit, features, part), -1)


def _grid_positions(fit: Fit, features: Features, part: str) -> tuple[FloatArray, FloatArray]:
    """Return the mean (K, N, D) of each base station's map, and that (N, D) of their product."""
    assert fit.grid is not None
    chance, points = grid_chances(fit, features, part), fit.grid.points()
    alone, fused = chance.exp() @ points, torch.softmax(chance.sum(0), -1) @ points
    return alone.double().numpy(), fused.double().numpy()


def _best_of(
    features: Features, z: Tensor, lookup: Lookup, tried: Sequence[dict[str, Any]]
) -> tuple[FloatArray, dict[str, Any]]:
    """Return estimates of the test samples with the options that are best on validation samples, and these."""
    train, validation, test = (z[features.index(part)] for part in ("train", "validation", "test"))
    position, truth = torch.from_numpy(features.truth("train")), features.truth("validation")
    known = [options for options in tried if options["neighbours"] <= len(train)]
    errors = [errors_m(lookup(validation, train, position, **options).numpy(), truth).mean() for options in known]
    best = known[int(np.argmin(errors))]
    return lookup(test, train, position, **best).numpy(), best
