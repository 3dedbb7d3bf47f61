"""Runs of many base stations on the simulated clock: cost of a report and peak memory, from 16 base stations to 256.

Sites stand on a grid of 100 m, and users among them; a link is its line of sight. Pilots are one slot of paris-6: 2 × 2
antennas and 24 tones, with thermal noise. The scheme is `rss` at 8 bits, in process, one snapshot every 30 ms in
batches of 32, with the books closed at the end. Each run is a process of its own, whose peak memory includes the
interpreter, its libraries and the paths of all links.

    python -m benchmarks.growth BASE_STATIONS SNAPSHOTS      one run of any size
"""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import peak_mb
from benchmarks.timing import Bench, Row, row
from sim.emulate.emulator import run_plan
from sim.plan.plan import Plan, compose
from sim.plan.settings import EmulateSettings
from sim.plan.weights import Weights
from sim.world.paths import PathSet
from sim.world.scenario import SPEED_OF_LIGHT, Scenario, load_scenario

ROOT = Path(__file__).resolve().parent.parent
SPACING_M = 100.0
BATCH = 32
SIZES = (16, 64, 256)
SNAPSHOTS = 128


def run(bench: Bench) -> list[Row]:
    """Measure runs of growing size; each is held against the smallest."""
    sizes, snapshots = ((4,), 8) if bench.quick else (SIZES, SNAPSHOTS)
    found: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    for _ in range(bench.effort.runs):
        for size in sizes:
            command = [sys.executable, "-m", "benchmarks.growth", str(size), str(snapshots)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            found[size].append(json.loads(done.stdout))
    rows = []
    for name, unit in (("cost of a report", "µs"), ("peak memory", "MB")):
        least = f"{name}, {sizes[0]} BSs"
        base = [one[name] for one in found[sizes[0]]]
        for size in sizes:
            values = [one[name] for one in found[size]]
            reference = (least, base) if size != sizes[0] else (None, None)
            rows.append(row(f"{name}, {size} BSs", unit, values, *reference))
    return rows


def grid(stations: int) -> Scenario:
    """Return paris-6 with sites on a square grid, one slot, and users in between."""
    paris = load_scenario("paris-6")
    side = math.ceil(math.sqrt(stations))
    place = SPACING_M * (np.stack(np.divmod(np.arange(stations), side), 1) - (side - 1) / 2)
    reach = SPACING_M * side / 2
    base = dataclasses.replace(
        paris,
        name="grid",
        numerology=dataclasses.replace(paris.numerology, slots=1),
        users=dataclasses.replace(paris.users, low=(-reach, -reach, 1.5), high=(reach, reach, 20.0), min_links=1),
    )
    return base.at_layout(np.column_stack([place, np.full(stations, 25.0)]))


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


def plan(stations: int, snapshots: int, output: Path, **changes: Any) -> Plan:
    """Return the plan of a run, with a path-loss model of free space as weights; `changes` are of its settings."""
    scenario = grid(stations)
    settings = EmulateSettings(
        scheme="rss",
        bs=stations,
        bits=8,
        snapshots=snapshots,
        batch=BATCH,
        bundle=BATCH,
        driver="process",
        deadline_ms=30.0 * BATCH + 1000,
        controls=False,
        capture=False,
        report=False,
        output=output,
    )
    area = {"low": scenario.users.low, "high": scenario.users.high}
    config = {"gain_db": [-120.0, -20.0], "estimator": "ls", **area}
    path_loss = torch.tensor([[-43.0, 2.0, 3.0]]).expand(stations, 3)
    weights = Weights(config, {"cloud.path_loss": path_loss})
    settings = dataclasses.replace(settings, **changes)
    return compose(settings, scenario, lines_of_sight(scenario, snapshots), weights)


def main() -> None:
    """Run once, and print CPU time a report [µs], peak memory [MB], and seconds of clock and CPU in all."""
    stations, snapshots = map(int, sys.argv[1:])
    begin_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        planned = plan(stations, snapshots, Path(folder))
        begin_cpu_s = time.process_time()
        result = run_plan(planned)
        cost_us = 1e6 * (time.process_time() - begin_cpu_s) / (stations * snapshots)
        assert result.summary["reports"]["used"] == stations * snapshots
    print(
        json.dumps(
            {
                "cost of a report": cost_us,
                "peak memory": peak_mb(),
                "clock_s": time.perf_counter() - begin_s,
                "cpu_s": time.process_time(),
            }
        )
    )


if __name__ == "__main__":
    main()
