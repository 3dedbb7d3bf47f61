"""Measurements of a table's rows on test users: each takes the bench and names of jobs, and says what `rows` keeps.

A result has ``errors`` (`statistics`) and whatever the row's page shows beside them. Nothing is chosen on test users.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from edge.cir_embedding import VALUES
from sim.learn.vinloc.data import CirSet, Users
from sim.learn.vinloc.evaluate import hidden, late_clocks, positions_of, shuffled
from sim.learn.vinloc.resnet_train import resnet_positions
from sim.reproduce.vinloc.baselines import chosen_table, neighbour_positions, prior_positions
from sim.reproduce.vinloc.bench import Bench
from sim.reproduce.vinloc.statistics import FloatArray, by_distance, statistics
from sim.world.scenario import load_scenario

Result = dict[str, Any]
FLOAT_BITS = 32
"""Of a value that is not quantised."""
TAP_BITS = 64
"""Of a tap of the response itself, as complex64."""


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
        bench: jobs.
        jobs: the one.
        size: base stations kept of each user, at random.
        bits: resolution of values, 0 for float.
        scenario: whose users are positioned; the job's own by default.
        distances: give errors by the distance to the nearest training position.
        shuffle: control: responses of another user.
    """
    users = bench.users(load_scenario(scenario) if scenario else bench.scenario(jobs[0]))
    test = shuffled(users.test) if shuffle else users.test
    found = positions_of(bench.network(jobs[0]), hidden(test), size, bits)
    return _result(users, found, distances) | payload(users.test, size, bits)


def layouts(bench: Bench, jobs: Sequence[str], *, bits: int = 0, shuffle: bool = False) -> Result:
    """Measure VIn-Loc on layouts of base stations that it has not seen: in all, and of each layout."""
    scenario = bench.scenario(jobs[0])
    made, users = scenario.layouts, bench.users(scenario)
    assert made is not None, f"{jobs[0]} has no layouts"
    test = shuffled(users.test) if shuffle else users.test
    found = positions_of(bench.network(jobs[0]), hidden(test), made.sites, bits)
    result = _result(users, found, False) | payload(users.test, made.sites, bits)
    return result if shuffle else result | {"layouts": _each_layout(users.test, found, made.test)}


def unsynchronised(bench: Bench, jobs: Sequence[str], *, size: int, sigma_ns: float) -> Result:
    """Measure VIn-Loc where base stations' clocks are off, see `evaluate.late_clocks`; values are float."""
    scenario = bench.scenario(jobs[0])
    users = bench.users(scenario)
    late = late_clocks(scenario, users.test, sigma_ns)
    found = positions_of(bench.network(jobs[0]), hidden(late), size)
    return _result(users, found, False) | {"sigma_ns": sigma_ns}


def resnet(bench: Bench, jobs: Sequence[str]) -> Result:
    """Measure ResNet fingerprinting."""
    users, network = bench.users(bench.scenario(jobs[0])), bench.resnet(jobs[0])
    found = resnet_positions(network, hidden(users.test), bench.resnet_job(jobs[0]))
    return _result(users, found, False) | {"parameters": sum(one.numel() for one in network.parameters())}


def neighbours(bench: Bench, names: Sequence[str], *, size: int, scenario: str = "") -> Result:
    """Measure weighted nearest neighbours on the users of a job's scenario, or of another."""
    users = bench.users(load_scenario(scenario) if scenario else bench.scenario(names[0]))
    found, choice = neighbour_positions(users, size)
    return _result(users, found, True) | {"chosen": chosen_table(choice)}


def prior(bench: Bench, names: Sequence[str]) -> Result:
    """Measure what the mean training position says: no information."""
    users = bench.users(bench.scenario(names[0]))
    return _result(users, prior_positions(users), False)


def payload(users: CirSet, size: int, bits: int) -> Result:
    """What a fix takes: bits of one base station, of all, and their share of the responses as complex64."""
    each = VALUES * (bits or FLOAT_BITS)
    antennas, taps = users.cir.shape[2:4]
    share = each / (antennas * taps * TAP_BITS)
    return {"size": size, "bits": bits, "payload_bits": each, "fix_bits": each * size, "of_lossless": share}


def _result(users: Users, found: Tensor, distances: bool) -> Result:
    estimate, truth = _array(found), _array(users.test.position)
    result: Result = {"errors": statistics(estimate, truth)}
    if distances:
        result["by_distance"] = by_distance(_array(users.train.position), truth, estimate)
    return result


def _each_layout(users: CirSet, found: Tensor, count: int) -> Result:
    """Root mean square and mean error [m] of each layout's users, which follow each other."""
    error = np.linalg.norm(_array(found) - _array(users.position), axis=1).reshape(count, -1)
    rmse, mae = np.sqrt(np.square(error).mean(1)), error.mean(1)
    return {"rmse": rmse.tolist(), "mae": mae.tolist(), "users": error.shape[1]}


def _array(tensor: Tensor) -> FloatArray:
    made: FloatArray = tensor.double().numpy()
    return made
