"""Start of base stations on Ray, from the driver's first step until all are registered, and the memory of each.

Six base stations of `ecc` on paris-6 are processes of their own; 64 and 256 of `rss`, on the grid of `benchmarks.grid`,
share eight processes. Starts are held against one Python process that imports the same libraries, in the same
repetition. Memory is the processes' proportional set size (proc_pid_smaps(5)): pages that they share count once.
"""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from benchmarks import grid, world
from benchmarks.samples import STATIONS
from benchmarks.timing import Bench, Row, row
from fronthaul.clock import real_ns
from sim.emulate.emulator import run_plan
from sim.emulate.ray_driver import LEAD_S, Run
from sim.emulate.ray_forks import LIBRARIES
from sim.plan.outcome import Progress
from sim.plan.plan import Plan, load_plan

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = 8
SIZES = (64, 256)
SNAPSHOTS = 8
IMPORTS = "one process imports the libraries"
SIX = "6 BSs"


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    """Time from the driver's first step until the last base station was registered [s], and their memory [MB]."""

    seconds: float
    megabytes: float


def run(bench: Bench) -> list[Row]:
    """Measure starts of growing size, in turn."""
    few, many = (8, 16) if bench.quick else SIZES
    shared = [f"{size} BSs, {size // PROCESSES} a process" for size in (few, many)]
    plans = {SIX: _six(bench)}
    plans |= {name: packed(size, bench.folder / "runs") for name, size in zip(shared, (few, many), strict=True)}
    imports: list[float] = []
    found: dict[str, list[Start]] = {name: [] for name in plans}
    for _ in range(bench.effort.runs):
        imports.append(_imports_s())
        for name, plan in plans.items():
            found[name].append(measure(plan))
    rows = [row(IMPORTS, "s", imports)]
    rows += [row(f"{name}: ready", "s", [one.seconds for one in of], IMPORTS, imports) for name, of in found.items()]
    alone = [one.megabytes / STATIONS for one in found[SIX]]
    further = [(b.megabytes - a.megabytes) / (many - few) for a, b in zip(*map(found.get, shared), strict=True)]
    rows.append(row("a BS alone in its process", "MB", alone))
    rows.append(row("a further BS of a process", "MB", further, "a BS alone in its process", alone))
    return rows


def packed(stations: int, output: Path, scheme: str = "rss") -> Plan:
    """Return the plan of `stations` base stations in eight processes, or in fewer where there are fewer."""
    room = {"cpus_per_bs": 0.001, "cloud_cpus": 0.1}  # reservations, not limits: any machine has room for them
    each = math.ceil(stations / PROCESSES)
    return grid.plan(stations, SNAPSHOTS, output, scheme, driver="ray", bs_per_actor=each, **room)


class _Started(Exception):
    """Ends a run that has shown how it starts."""


def measure(plan: Plan) -> Start:
    """Begin a run of a plan on Ray, and return how it started."""
    begin_ns: list[int] = []
    started: list[Start] = []

    def begin(progress: Progress) -> None:
        if progress.stage == "start":
            begin_ns.append(real_ns())

    def tick(running: Run) -> None:
        if running.t0_ns and not started:
            seconds = (running.t0_ns - begin_ns[0]) / 1e9 - LEAD_S
            started.append(Start(seconds, sum(_pss_mb(edge.pid) for edge in running.edges if edge.pid is not None)))
            raise _Started

    with suppress(_Started):
        run_plan(plan, begin, tick)
    return started[0]


def _six(bench: Bench) -> Plan:
    settings = dataclasses.replace(
        world.settings(bench), driver="ray", snapshots=SNAPSHOTS, cpus_per_bs=0.1, cloud_cpus=0.1, controls=False,
        capture=False, report=False,
    )  # fmt: skip
    return load_plan(settings)


def _pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3


def _imports_s() -> float:
    begin_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {', '.join(LIBRARIES)}"], cwd=ROOT, check=True)
    return time.perf_counter() - begin_s
