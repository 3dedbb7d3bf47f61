"""The whole system: base stations and cloud as processes over ZeroMQ, against one process.

Both run the same snapshots in closed loop (`interval_ms=0`) with the same batch size and torch threads, in turn.
Journals are inside the measured time; run folders, ledgers and the start of processes are not. Actors warm up before
the measurement, which loads libraries (half a second for the first row of a journal); the in-process driver does not,
so it is warmed up here by an unmeasured run. Without it the ratio would favour Ray.

Processor time is that of all processes, Ray's own included, between the first and the last sight of the run's progress;
the first is just before time zero on Ray, and after the first batch in process.
One process at work has a core's caches to itself, several have not: the in-process driver, at work as often at once as
there are cores, shows what that alone costs.

The latency of a fix is that over links of 5 ms with a snapshot every 100 ms; what is beyond compute and link delay is
the time from the snapshot to the fix without the computing of the last report and of the fusion, and without the link.
"""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from benchmarks import processor, world
from benchmarks.samples import STATIONS
from benchmarks.timing import Bench, Row, row
from fronthaul.link.link_file import LinkPlan
from sim.arithmetic import THREADS, fixed_arithmetic
from sim.cores import cores
from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.plan.outcome import Progress
from sim.plan.settings import EmulateSettings

STAGES = ("estimate", "encode", "pack", "fronthaul", "wait", "fuse")
PROCESS, RAY = "process", "Ray + ZeroMQ"

DELAY_S, INTERVAL_MS, PACED = 0.005, 100.0, 50

Summary = dict[str, Any]


class Measured(NamedTuple):
    """A run: its folder, its summary, and the processor time of a fix [ms]; NaN if it was too short to tell."""

    folder: Path
    summary: Summary
    cost_ms: float


Pair = tuple[Measured, Measured]


def run(bench: Bench) -> list[Row]:
    """Measure the whole at each batch size, and the stages of a fix at batch size 1."""
    rows: list[Row] = []
    for batch in world.BATCHES[:1] if bench.quick else world.BATCHES:
        settings = dataclasses.replace(_settings(bench), batch=batch)
        emulate(dataclasses.replace(settings.in_process(), snapshots=2 * batch))  # warm-up
        pairs, crowds = [], []
        for _ in range(bench.effort.runs):
            pairs.append(_both(settings))
            if not bench.quick:  # whose runs are too short to tell
                crowds.append(_crowd_ms(settings.in_process()))
        rows += _rates(batch, pairs)
        rows += costs(batch, pairs, crowds) if crowds else []
        if batch == 1:
            rows += _stages(settings, pairs)
    return [*rows, *_latencies(bench, 1), *([] if bench.quick else _latencies(bench, STATIONS))]


def _settings(bench: Bench) -> EmulateSettings:
    settings = dataclasses.replace(
        world.settings(bench),
        driver="ray",
        snapshots=bench.effort.snapshots,
        cpus_per_bs=0.1,  # reservations, not limits: any machine has room for them
        cloud_cpus=0.1,
    )
    # Two processes instead of seven suffice for a smoke test.
    return dataclasses.replace(settings, bs=2, bs_per_actor=2) if bench.quick else settings


def _both(settings: EmulateSettings) -> Pair:
    """Run the same emulation in process and on Ray.

    Raises:
        UserError: the fixes differ, so the times are not comparable.
    """
    process, ray = _measured(settings.in_process()), _measured(settings)
    require_same_fixes(process.folder, ray.folder)
    return process, ray


def _measured(settings: EmulateSettings) -> Measured:
    """Run an emulation, and take its processor time whenever it tells its progress."""
    pids: list[int] = []
    seen: list[tuple[int, float]] = []

    def note(progress: Progress) -> None:
        if progress.stage == "run":
            pids.extend([] if pids else processor.family())
            seen.append((progress.done, processor.spent_s(pids)))

    result = emulate(settings, note)
    fixes, cpu_s = (last - first for first, last in zip(seen[0], seen[-1], strict=True)) if seen else (0, 0.0)
    return Measured(result.folder, result.summary, 1e3 * cpu_s / fixes if fixes else math.nan)


def _crowd_ms(settings: EmulateSettings) -> float:
    """Return the processor time of a fix [ms] of the in-process driver at work as often at once as there are cores."""
    many = cores()
    with ProcessPoolExecutor(many, multiprocessing.get_context("spawn")) as pool:
        return statistics.mean(pool.map(_cost_ms, [settings] * many))


def _cost_ms(settings: EmulateSettings) -> float:
    with fixed_arithmetic(THREADS):
        return _measured(settings).cost_ms


def require_same_fixes(one: Path, other: Path) -> None:
    """Check that two runs have fixes of the same snapshots at the same positions, to within 1 mm.

    Raises:
        UserError: they do not.
    """
    columns = ("snapshot", "x_m", "y_m", "z_m")
    fixes = (pq.read_table(folder / "fixes.parquet", columns=list(columns)) for folder in (one, other))
    a, b = (np.stack([table[name].to_numpy() for name in columns], 1) for table in fixes)
    if not np.array_equal(a[:, 0], b[:, 0]):
        raise UserError(f"The drivers disagree: they fixed {len(a)} and {len(b)} snapshots, which are not the same.")
    apart_m = float(np.max(np.linalg.norm(a[:, 1:] - b[:, 1:], axis=1), initial=0.0))
    if not apart_m <= 1e-3:
        raise UserError(f"The drivers disagree: their fixes are up to {apart_m:g} m apart.")


def _rates(batch: int, pairs: Sequence[Pair]) -> list[Row]:
    process, ray = ([run.summary["fixes_per_s"] for run in side] for side in zip(*pairs, strict=True))
    name = f"{PROCESS}, batch {batch}"
    return [row(name, "fixes/s", process), row(f"{RAY}, batch {batch}", "fixes/s", ray, name, process)]


def costs(batch: int, pairs: Sequence[Pair], crowds: Sequence[float]) -> list[Row]:
    """Return rows of the processor time of a fix: in process, there on each core at once [ms], and on Ray."""
    process, ray = ([run.cost_ms for run in side] for side in zip(*pairs, strict=True))
    name = f"{PROCESS}, batch {batch}: CPU"
    return [
        row(name, "ms", process),
        row(f"{PROCESS} on each core, batch {batch}: CPU", "ms", crowds, name, process),
        row(f"{RAY}, batch {batch}: CPU", "ms", ray, name, process),
    ]


def _latencies(bench: Bench, stations: int) -> list[Row]:
    """Return rows of the latency of fixes over Ray and ZeroMQ, and of what of it is neither computing nor the link."""
    settings = dataclasses.replace(
        _settings(bench), bs=stations, links=LinkPlan({(None, None): {"delay": DELAY_S}}), interval_ms=INTERVAL_MS
    )
    if not bench.quick:
        settings = dataclasses.replace(settings, snapshots=settings.warmup_snapshots + PACED)
    computing = ("estimate_ns", "encode_ns", "pack_ns", "fuse_ns")
    whole, beyond = [], []
    for _ in range(bench.effort.runs):
        fixes = pq.read_table(emulate(settings).folder / "fixes.parquet").to_pydict()
        taken = {
            name: np.array(fixes[name], float)[settings.warmup_snapshots :] / 1e6 for name in ("total_ns", *computing)
        }
        rest = taken["total_ns"] - sum(taken[name] for name in computing) - 1e3 * DELAY_S
        whole.append(float(np.median(taken["total_ns"])))
        beyond.append(float(np.median(rest)))
    name = f"Ray, {'1 BS' if stations == 1 else f'{stations} BSs'}, 5 ms links: latency"
    without = f"{name.removesuffix('latency')}of it no computing, no link"
    return [row(name, "ms", whole), row(without, "ms", beyond, name, whole)]


def _stages(settings: EmulateSettings, pairs: Sequence[Pair]) -> list[Row]:
    """Return rows of stages (medians over a run's snapshots) of both drivers, and the rest of an in-process fix."""
    process, ray = ([run.summary for run in side] for side in zip(*pairs, strict=True))
    rows = []
    for stage in STAGES:
        here, there = _medians(process, stage), _medians(ray, stage)
        name = f"{PROCESS}: {stage}"
        if here:
            rows.append(row(name, "ms", here))
        if there:
            rows.append(row(f"{RAY}: {stage}", "ms", there, name if here else None, here or None))
    whole = [1e3 / summary["fixes_per_s"] for summary in process]
    known = [
        settings.bs * sum(summary["latency_ms"][stage]["p50"] for stage in ("estimate", "encode", "pack"))
        + summary["latency_ms"]["fuse"]["p50"]
        for summary in process
    ]
    rest = [total - part for total, part in zip(whole, known, strict=True)]
    name = f"{PROCESS}: a fix of {settings.bs} reports"
    rows.append(row(name, "ms", whole))
    rows.append(row(f"{PROCESS}: of it radio, wire, journal, collector", "ms", rest, name, whole))
    return rows


def _medians(summaries: Sequence[Summary], stage: str) -> list[float]:
    """Return the median of a stage in each run [ms]; empty if the driver does not measure it."""
    return [summary["latency_ms"][stage]["p50"] for summary in summaries if stage in summary["latency_ms"]]
