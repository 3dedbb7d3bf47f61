"""Growth of runs from 1 base station to 1024, of `rss` and `vinloc` on the grid of `benchmarks.grid`.

For each size a process of its own runs once in process on the simulated clock: processor time of a fix, from time zero
to the last fix; processor time of the rest of a run (plan, base stations, books), and peak memory, which includes the
interpreter, its libraries and the paths of all links. Another runs on Ray, where base stations share eight processes,
for the time until all are registered. An exponent is the slope of a straight line through the logarithms, of 16 base
stations and more.

    python -m benchmarks.growth SCHEME BASE_STATIONS SNAPSHOTS      one run of any size in process
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks import grid, start
from benchmarks.machine import peak_mb
from benchmarks.timing import Bench, Row, row
from sim.emulate.emulator import run_plan
from sim.plan.outcome import Progress

ROOT = Path(__file__).resolve().parent.parent
SIZES = (1, 16, 128, 1024)
LEAST = 16
"""Base stations from which exponents are fitted: below, what any run costs hides what one more base station does."""
SNAPSHOTS = 128
REPORTS = 1 << 15
"""Snapshots of a run, and fewer, but a batch at least, where their reports would be more than these."""
FIGURES = {"fix": "ms", "rest of the run": "s", "peak memory": "MB", "start on Ray": "s"}
"""What is measured of each run, and its unit."""


def run(bench: Bench) -> list[Row]:
    """Measure runs of growing size, each once, and the exponents."""
    sizes = (2, 4) if bench.quick else SIZES
    rows = []
    for scheme in grid.SCHEMES[-1:] if bench.quick else grid.SCHEMES:
        found = [measure(bench, scheme, size) for size in sizes]
        for name, unit in FIGURES.items():
            values = [one[name] for one in found]
            cases = [f"{scheme}, {size} BSs: {name}" for size in sizes]
            first = next((place for place, size in enumerate(sizes) if size >= LEAST), 0)
            for place, (case, value) in enumerate(zip(cases, values, strict=True)):
                reference = (None, None) if place == first else (cases[first], [values[first]])
                rows.append(row(case, unit, [value], *reference))
            slope = float(np.polyfit(np.log(sizes[first:]), np.log(values[first:]), 1)[0])
            rows.append(row(f"{scheme}: {name}, exponent", "", [slope]))
    return rows


def measure(bench: Bench, scheme: str, stations: int) -> Mapping[str, float]:
    """Return the `FIGURES` of a scheme on some base stations."""
    snapshots = 8 if bench.quick else max(grid.BATCH, min(SNAPSHOTS, REPORTS // stations))
    command = [sys.executable, "-m", "benchmarks.growth", scheme, str(stations), str(snapshots)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    begun = start.measure(start.packed(stations, bench.folder / "runs", scheme))
    return {**json.loads(done.stdout), "start on Ray": begun.seconds}


@dataclasses.dataclass(slots=True)
class _Marks:
    """Processor time at time zero and after the last fix [s]."""

    zero_s: float = 0.0
    last_s: float = 0.0

    def note(self, progress: Progress) -> None:
        if progress.stage == "run" and progress.done == 0:
            self.zero_s = time.process_time()
        elif progress.stage == "write":
            self.last_s = time.process_time()


def main() -> None:
    """Run once, and print the processor time of a fix [ms] and of the rest [s], and the peak memory [MB]."""
    scheme, stations, snapshots = sys.argv[1], *map(int, sys.argv[2:])
    begin_s, marks = time.process_time(), _Marks()
    with tempfile.TemporaryDirectory() as folder:
        result = run_plan(grid.plan(stations, snapshots, Path(folder), scheme), marks.note)
        reports = result.summary["reports"]
        assert reports["used"] == stations * snapshots, reports
    fixes_s = marks.last_s - marks.zero_s
    rest_s = time.process_time() - begin_s - fixes_s
    print(json.dumps({"fix": 1e3 * fixes_s / snapshots, "rest of the run": rest_s, "peak memory": peak_mb()}))


if __name__ == "__main__":
    main()
