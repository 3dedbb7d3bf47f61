"""Runs of any number of base stations, whose sites stand on a grid with the users in between.

A link is its line of sight, attenuated as in free space, and every base station hears every user. `rss` has 8 bits,
sites 100 m apart, and one slot of paris-6 (2 × 2 antennas, 24 tones, thermal noise). `vinloc` has 4 bits a value, sites
8 m apart, and taps and weights of paris-street-12: positions mean nothing there, and a fix costs what it would. There
is a snapshot every 30 ms; reports of a batch are bundled, and nothing is captured.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sim.plan.plan import Plan, compose
from sim.plan.settings import EmulateSettings
from sim.plan.weights import Weights, find_weights, load_weights
from sim.world.paths import PathSet
from sim.world.scenario import SPEED_OF_LIGHT, Scenario, load_scenario

SCHEMES = ("rss", "vinloc")
BATCH = 32
_PLACE = {"rss": "paris-6", "vinloc": "paris-street-12"}
_BITS = {"rss": 8, "vinloc": 4}
_SPACING_M = {"rss": 100.0, "vinloc": 8.0}  # all of 32 × 32 sites within the taps of vinloc, 384 m


def grid(scheme: str, stations: int) -> Scenario:
    """Return the scenario of a scheme, with sites on a square grid, one slot, and users in between."""
    paris, radio, spacing_m = load_scenario("paris-6"), load_scenario(_PLACE[scheme]), _SPACING_M[scheme]
    side = math.ceil(math.sqrt(stations))
    place = spacing_m * (np.stack(np.divmod(np.arange(stations), side), 1) - (side - 1) / 2)
    reach = spacing_m * side / 2
    made = dataclasses.replace(
        paris,
        name="grid",
        numerology=dataclasses.replace(radio.numerology, slots=1),
        array=radio.array,
        user_array=radio.user_array,
        link_budget=radio.link_budget,
        users=dataclasses.replace(paris.users, low=(-reach, -reach, 1.5), high=(reach, reach, 20.0), min_links=1),
    )
    return made.at_layout(np.column_stack([place, np.full(stations, 25.0)]))


def lines_of_sight(scenario: Scenario, users: int) -> PathSet:
    """Return one straight path from each site to each of some users, attenuated as in free space."""
    draw = np.random.default_rng(5)
    position = draw.uniform(scenario.users.low, scenario.users.high, (users, 3))
    step = (position[:, None] - np.array([site.position for site in scenario.sites])).reshape(-1, 3)
    distance = np.linalg.norm(step, axis=1)
    zenith, azimuth = np.arccos(step[:, 2] / distance), np.arctan2(step[:, 1], step[:, 0])
    matrix = np.zeros((len(distance), 2, 2), np.complex64)
    matrix[:, 0, 0] = scenario.numerology.wavelength_m / (4 * np.pi * distance)
    return PathSet(
        position=position,
        offset=np.arange(len(distance) + 1, dtype=np.int64),
        matrix=matrix,
        delay=(distance / SPEED_OF_LIGHT).astype(np.float32),
        site_angle=np.stack([zenith, azimuth], -1).astype(np.float32),
        user_angle=np.stack([np.pi - zenith, azimuth + np.pi], -1).astype(np.float32),
        bounces=np.zeros(len(distance), np.uint8),
        mirror=np.zeros((0, 4), np.float32),
        digest=scenario.tracing_digest(),
    )


def plan(stations: int, snapshots: int, output: Path, scheme: str = "rss", **changes: Any) -> Plan:
    """Return the plan of a run; `changes` are of its settings."""
    scenario = grid(scheme, stations)
    settings = EmulateSettings(
        scheme=scheme,
        bs=stations,
        bits=_BITS[scheme],
        snapshots=snapshots,
        batch=BATCH,
        bundle=BATCH,
        driver="process",
        deadline_ms=30.0 * BATCH + 1000,
        controls=False,
        capture=False,
        report=False,
        force=True,
        output=output,
    )
    settings = dataclasses.replace(settings, **changes)
    if scheme == "rss":
        weights = _path_loss(scenario, stations)
    else:
        weights = load_weights(find_weights(_PLACE[scheme], scheme, settings.bits))
    return compose(settings, scenario, lines_of_sight(scenario, snapshots), weights)


def _path_loss(scenario: Scenario, stations: int) -> Weights:
    """Return the path-loss model of free space."""
    area = {"low": scenario.users.low, "high": scenario.users.high}
    config = {"gain_db": [-120.0, -20.0], "estimator": "ls", **area}
    return Weights(config, {"cloud.path_loss": torch.tensor([[-43.0, 2.0, 3.0]]).expand(stations, 3)})
