"""Fixes per second of the whole system: base stations and cloud as processes over ZeroMQ, against one process.

Both run the same snapshots in closed loop (`interval_ms=0`) with the same batch size and torch threads, in turn.
Journals are inside the measured time; run folders, ledgers and the start of processes are not. Actors warm up before
the measurement, which loads libraries (half a second for the first row of a journal); the in-process driver does not,
so it is warmed up here by an unmeasured run. Without it the ratio would favour Ray.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks import world
from benchmarks.timing import Bench, Row, row
from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.plan.settings import EmulateSettings

STAGES = ("estimate", "encode", "pack", "fronthaul", "wait", "fuse")
PROCESS, RAY = "process", "Ray + ZeroMQ"

Summary = dict[str, Any]
Pair = tuple[Summary, Summary]


def run(bench: Bench) -> list[Row]:
    """Measure the whole at each batch size, and the stages of a fix at batch size 1."""
    rows: list[Row] = []
    for batch in world.BATCHES[:1] if bench.quick else world.BATCHES:
        settings = dataclasses.replace(_settings(bench), batch=batch)
        emulate(dataclasses.replace(settings.in_process(), snapshots=2 * batch))  # warm-up
        pairs = [_both(settings) for _ in range(bench.effort.runs)]
        rows += _rates(batch, pairs)
        if batch == 1:
            rows += _stages(settings, pairs)
    return rows


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
    process, ray = emulate(settings.in_process()), emulate(settings)
    require_same_fixes(process.folder, ray.folder)
    return process.summary, ray.summary


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
    process, ray = ([summary["fixes_per_s"] for summary in side] for side in zip(*pairs, strict=True))
    name = f"{PROCESS}, batch {batch}"
    return [row(name, "fixes/s", process), row(f"{RAY}, batch {batch}", "fixes/s", ray, name, process)]


def _stages(settings: EmulateSettings, pairs: Sequence[Pair]) -> list[Row]:
    """Return rows of stages (medians over a run's snapshots) of both drivers, and the rest of an in-process fix."""
    process, ray = zip(*pairs, strict=True)
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
