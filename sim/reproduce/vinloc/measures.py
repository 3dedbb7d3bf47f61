"""Measurements of a table's rows on test users: each takes the bench and names of jobs, and returns a `rows` result.

A result has ``errors`` (`position_statistics`) and whatever else the row's page shows. Nothing is tuned on test users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from edge.cir_embedding import VALUES
from sim.learn.vinloc.data import CirSet, Users
from sim.learn.vinloc.evaluate import Clock, hidden, late_clocks, noisy, positions_of, shuffled
from sim.learn.vinloc.resnet_train import resnet_positions
from sim.records.statistics import (
    Cluster,
    FloatArray,
    ci95,
    distance_to_nearest,
    errors_by_distance,
    rmse,
    sample_statistics,
    spread,
)
from sim.reproduce.rows import Result
from sim.reproduce.vinloc.baselines import linear_positions, neighbour_positions, prior_positions
from sim.reproduce.vinloc.bench import Bench
from sim.world.scenario import Scenario, load_scenario

DISTANCES_M = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 8.0)
FLOAT_BITS = 32
"""Bits of a value that is not quantised."""
TAP_BITS = 64
"""Bits of a tap of the response, as complex64."""


def located(
    bench: Bench,
    jobs: Sequence[str],
    *,
    size: int,
    bits: int = 0,
    scenario: str = "",
    distances: bool = False,
    shuffle: bool = False,
) -> Result:
    """Measure VIn-Loc.

    Args:
        bench: the bench.
        jobs: name of the one job.
        size: number of base stations kept for each user, at random.
        bits: resolution of values, 0 for float.
        scenario: scenario of the users; the job's own by default.
        distances: whether to report errors by the distance to the nearest training position.
        shuffle: control: give each user the responses of another one.
    """
    users = bench.users(load_scenario(scenario) if scenario else bench.scenario(jobs[0]))
    test = shuffled(users.test) if shuffle else users.test
    found = positions_of(bench.network(jobs[0]), hidden(test), size, bits)
    return _result(users, found, distances) | payload(users.test, size, bits)


def over_seeds(bench: Bench, jobs: Sequence[str], *, size: int) -> Result:
    """Measure trainings that differ in their seed alone: errors [m] of each, with float values."""
    each = [located(bench, [name], size=size)["errors"] for name in jobs]
    return {"seeds": {kind: spread([one[kind] for one in each]) for kind in ("rmse", "mean", "p90")}}


def layouts(bench: Bench, jobs: Sequence[str], *, bits: int = 0, shuffle: bool = False) -> Result:
    """Measure VIn-Loc on unseen layouts of base stations: over all layouts, and for each one."""
    scenario = bench.scenario(jobs[0])
    made, users = scenario.layouts, bench.users(scenario)
    assert made is not None, f"{jobs[0]} has no layouts"
    test = shuffled(users.test) if shuffle else users.test
    found = positions_of(bench.network(jobs[0]), hidden(test), made.sites, bits)
    result = _result(users, found, False, layouts_of(scenario, users.test)) | payload(users.test, made.sites, bits)
    return result if shuffle else result | {"layouts": _each_layout(users.test, found, made.test)}


def unsynchronised(
    bench: Bench, jobs: Sequence[str], *, size: int, sigma_ns: float, whose: Clock = "stations"
) -> Result:
    """Measure VIn-Loc with clock errors, see `evaluate.late_clocks`; values are float."""
    scenario = bench.scenario(jobs[0])
    users = bench.users(scenario)
    late = late_clocks(scenario, users.test, sigma_ns, whose)
    found = positions_of(bench.network(jobs[0]), hidden(late), size)
    return _result(users, found, False) | {"sigma_ns": sigma_ns}


def in_noise(bench: Bench, jobs: Sequence[str], *, size: int, snr_db: float) -> Result:
    """Measure VIn-Loc on responses with white noise, see `evaluate.noisy`; values are float."""
    scenario = bench.scenario(jobs[0])
    users = bench.users(scenario)
    found = positions_of(bench.network(jobs[0]), hidden(noisy(scenario, users.test, snr_db)), size)
    return _result(users, found, False) | {"snr_db": snr_db}


def resnet(bench: Bench, jobs: Sequence[str]) -> Result:
    """Measure ResNet fingerprinting."""
    users, network = bench.users(bench.scenario(jobs[0])), bench.resnet(jobs[0])
    found = resnet_positions(network, hidden(users.test), bench.resnet_job(jobs[0]))
    return _result(users, found, False) | {"parameters": sum(one.numel() for one in network.parameters())}


def neighbours(bench: Bench, names: Sequence[str], *, size: int, scenario: str = "") -> Result:
    """Measure weighted nearest neighbours on the users of a job's scenario, or of another."""
    users = bench.users(load_scenario(scenario) if scenario else bench.scenario(names[0]))
    found, choice = neighbour_positions(users, size)
    return _result(users, found, True) | {"chosen": asdict(choice)}


def linear(bench: Bench, names: Sequence[str], *, size: int) -> Result:
    """Measure local linear regression on the magnitudes that nearest neighbours compare."""
    users = bench.users(bench.scenario(names[0]))
    found, choice = linear_positions(users, size)
    return _result(users, found, True) | {"chosen": asdict(choice)}


def prior(bench: Bench, names: Sequence[str]) -> Result:
    """Measure the error of the mean training position: an estimate without information."""
    scenario = bench.scenario(names[0])
    users = bench.users(scenario)
    return _result(users, prior_positions(users), False, layouts_of(scenario, users.test))


def layouts_of(scenario: Scenario, users: CirSet) -> Cluster | None:
    """Return the number of the layout (N,) of each test user; None if the scenario has none."""
    made = scenario.layouts
    return None if made is None else np.repeat(np.arange(made.test), len(users) // made.test)


def payload(users: CirSet, size: int, bits: int) -> Result:
    """Return payload bits of one base station, of a fix, and their share of the responses as complex64."""
    each = VALUES * (bits or FLOAT_BITS)
    antennas, taps = users.cir.shape[2:4]
    share = each / (antennas * taps * TAP_BITS)
    return {"size": size, "bits": bits, "payload_bits": each, "fix_bits": each * size, "of_lossless": share}


def _result(users: Users, found: Tensor, distances: bool, cluster: Cluster | None = None) -> Result:
    estimate, truth = _array(found), _array(users.test.position)
    result: Result = {"errors": position_statistics(estimate, truth, cluster)}
    if distances:
        apart = distance_to_nearest(_array(users.train.position), truth)
        result["by_distance"] = errors_by_distance(apart, np.linalg.norm(estimate - truth, axis=1), DISTANCES_M)
    return result


def position_statistics(
    estimate: npt.ArrayLike, truth: npt.ArrayLike, cluster: Cluster | None = None
) -> dict[str, Any]:
    """Return error statistics [m] of estimates (N, 3) [m] against true positions (N, 3) [m].

    Intervals resample the users of a `cluster` (N,) together, by default those at one position.

    Errors are the distances |p̂ − p| in 3D; under ``horizontal`` those in the horizontal plane, under ``axes`` those of
    each coordinate.
    """
    place = np.asarray(truth, np.float64)
    error, together = np.asarray(estimate, np.float64) - place, place if cluster is None else cluster
    distance: FloatArray = np.linalg.norm(error, axis=1)
    return {
        **sample_statistics(distance, together),
        "ci95_of_rmse": ci95(distance, rmse, cluster=together),
        "horizontal": _plain(np.linalg.norm(error[:, :2], axis=1)),
        "axes": {axis: _plain(np.abs(error[:, place])) for place, axis in enumerate("xyz")},
    }


def _plain(error_m: FloatArray) -> dict[str, float]:
    return {"rmse": rmse(error_m), "mean": float(error_m.mean()), "p90": float(np.percentile(error_m, 90))}


def _each_layout(users: CirSet, found: Tensor, count: int) -> Result:
    """Return root mean square and mean error [m] for each layout, whose users are consecutive."""
    error = np.linalg.norm(_array(found) - _array(users.position), axis=1).reshape(count, -1)
    return {"rmse": [rmse(one) for one in error], "mean": error.mean(1).tolist(), "users": error.shape[1]}


def _array(tensor: Tensor) -> FloatArray:
    made: FloatArray = tensor.double().numpy()
    return made
