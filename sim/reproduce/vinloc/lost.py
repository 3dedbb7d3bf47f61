"""``vinloc-lost``: VIn-Loc's error when base stations fail at run time, from emulations with real payloads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fronthaul.draws import generator
from fronthaul.link.link_file import LinkPlan, link_plan
from sim.emulate.emulator import emulate
from sim.plan.outcome import RunResult
from sim.plan.settings import EmulateSettings
from sim.records.links import read_table
from sim.reproduce.rows import Result, Row
from sim.reproduce.vinloc.bench import Bench
from sim.reproduce.vinloc.measures import position_statistics
from sim.reproduce.vinloc.method_rows import SHIPPED
from sim.world.pilot_store import PilotStore
from sim.world.store import DATA_FOLDER

NAME = "vinloc-lost"
LOST = (0, 3, 6, 9, 12)
RUNS = 1
"""Number of random draws of the lost base stations, for each count."""
SNAPSHOTS, BATCH = 200, 25
"""Snapshots and batch size of a run; half of the snapshots are whole batches, so that none spans the cut."""
INTERVAL_MS = 10.0
BITS = 4


def lost_rows(_: Bench) -> list[Row]:
    """Make a row for each number of lost base stations."""
    return [
        Row(f"{lost} of 18 lost", emulated, SHIPPED, {"lost": lost, "snapshots": SNAPSHOTS}, section=f"B = {BITS}")
        for lost in LOST
    ]  # fmt: skip


def emulated(bench: Bench, jobs: Sequence[str], *, lost: int, snapshots: int) -> Result:
    """Measure runs in which `lost` base stations are cut off half-way, on the positions of the second half."""
    scenario = bench.scenario(jobs[0])
    settings = EmulateSettings(
        scenario=bench.job(jobs[0]).scenario,
        scheme="vinloc",
        bs=len(scenario.sites),
        bits=BITS,
        snapshots=snapshots,
        driver="process",
        interval_ms=INTERVAL_MS,
        batch=BATCH,
        weights=bench.weights_file(jobs[0]),
        capture=False,
        controls=False,
        output=DATA_FOLDER / scenario.data_name / "runs" / NAME,
    )
    parts, store = [], PilotStore()
    for number in range(RUNS if lost else 1):
        order = generator(0, "lost", number).permutation(len(scenario.sites))
        cut = sorted(int(bs) for bs in order[:lost])
        run = emulate(replace(settings, links=cut_links(cut, snapshots)), store=store)
        parts.append(_after_the_cut(run, cut, snapshots))
    estimate, truth = (np.concatenate([part[way] for part in parts]) for way in (0, 1))
    return {
        "errors": position_statistics(estimate, truth),
        "lost": lost,
        "runs": len(parts),
        "fixes": len(estimate),
        "snapshots": len(parts) * (snapshots - snapshots // 2),
    }


def cut_links(stations: Sequence[int], snapshots: int) -> LinkPlan:
    """Return a link plan in which the links of `stations` are down from the middle of the run on."""
    begin = (snapshots // 2 - 0.5) * INTERVAL_MS
    outage = f"{begin:g}ms-{(snapshots + 100) * INTERVAL_MS:g}ms"
    return link_plan({"bs": {str(bs): {"outage": outage} for bs in stations}} if stations else {})


def _after_the_cut(run: RunResult, cut: Sequence[int], snapshots: int) -> tuple[Any, Any]:
    """Return estimated and true positions [m] of the fixes after the cut; none may have used a base station cut off."""
    axes = [f"{axis}_m" for axis in "xyz"]
    fixes = read_table(run.folder / "fixes.parquet")
    late = fixes.filter(np.asarray(fixes["snapshot"]) >= snapshots // 2)
    used = {bs for stations in late["used_bs"].to_pylist() for bs in stations}
    assert not used & set(cut), f"{run.folder}: links were cut, and still carried reports of {sorted(used & set(cut))}"
    return tuple(np.stack([np.asarray(late[f"{kind}{axis}"]) for axis in axes], 1) for kind in ("", "true_"))  # type: ignore[return-value]
