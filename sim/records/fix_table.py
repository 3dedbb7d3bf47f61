"""The table of fixes: fixes compared with the true positions, which only the driver knows, and their latencies.

Latency of a fix, along its critical path, the used report that came last [ns]:

    time zero -> start -> estimate -> encode -> pack -> fronthaul -> wait -> fuse -> fix

`start`: delay until the BS began; `fronthaul`: from sent to received; `wait`: from received until fusion begins;
`total`: from time zero to the fix. The in-process driver has a simulated clock on which computing takes no time: there
only estimate, encode, pack and fuse are measured and summarised.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from fronthaul.account.conservation import codes
from fronthaul.account.used import UsedReports
from fronthaul.log.stream_names import EdgeStart
from fronthaul.message.fates import FrameFate, ReportFate
from sim.plan.outcome import RunRecord
from sim.plan.plan import Plan
from sim.records.books import Books
from sim.records.links import numbers, report_keys
from sim.records.position_table import dilution
from sim.records.stages import stages_of
from sim.world.scenario import Scenario

if TYPE_CHECKING:
    import pyarrow as pa

STAGES = ("start", "estimate", "encode", "pack", "fronthaul", "wait", "fuse", "total")
"""Columns ``<stage>_ns`` of the fixes' table."""
MEASURED = ("estimate", "encode", "pack", "fuse")
"""Stages that are also measured in runs on a simulated clock."""

UNCERTAINTY = "fronthaul_uncertainty"
"""Column: uncertainty of `fronthaul` due to the clock offset between hosts; 0 on one host."""

_Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def fix_table(plan: Plan, record: RunRecord, books: Books) -> pa.Table:
    """Join fixes, true positions and latencies: one row per fix, ordered by snapshot.

    Errors and positions are in metres, times in nanoseconds; `sample` is the index of the test user.
    """
    import pyarrow as pa

    fixes = books.fixes
    snapshot = numbers(fixes, "snapshot")
    sample = snapshot % len(plan.truth)
    truth = plan.truth[sample].reshape(-1, 3)
    estimate = fixes["position"].combine_chunks().flatten().to_numpy().reshape(-1, 3)
    columns: dict[str, Any] = {"snapshot": fixes["snapshot"], "sample": sample}
    for axis, name in enumerate("xyz"):
        columns[f"true_{name}_m"] = truth[:, axis]
        columns[f"{name}_m"] = estimate[:, axis]
    columns |= {
        **errors_of(estimate - truth),
        "covariance_m2": fixes["covariance"].cast(pa.list_(pa.float64(), 9)),
        **{name: fixes[name] for name in ("used_bs", "used_epoch", "used_round", "rounds", "note")},
        "training_distance_m": pa.array(distance_to_training(plan.training, truth), pa.float64()),
        "gdop": dilution_of(plan.scenario, truth, UsedReports.of_table(fixes)),
        "t_zero_ns": record.t0_ns + snapshot * plan.settings.interval_ns,
        **{name: fixes[name] for name in ("t_last_received_ns", "t_fuse_ns", "t_fix_ns", "last_bs")},
    }
    latencies = fix_latencies(books, fixes, columns["t_zero_ns"], open_loop=plan.settings.interval_ns > 0)
    return pa.table(columns | {f"{name}_ns": latencies[name] for name in (*STAGES, UNCERTAINTY)})


def errors_of(step: _Floats) -> dict[str, _Floats]:
    """Return the error columns of estimates that are `step` (N, 3) away from the truth [m]."""
    return {
        "error_3d_m": np.linalg.norm(step, axis=1),
        "error_2d_m": np.linalg.norm(step[:, :2], axis=1),
        "error_vertical_m": np.abs(step[:, 2]),
    }


def true_positions(fixes: pa.Table) -> _Floats:
    """Return the true positions (N, 3) [m] of a table of N fixes."""
    return np.stack([fixes[f"true_{axis}_m"].to_numpy() for axis in "xyz"], 1)


def estimated_positions(fixes: pa.Table) -> _Floats:
    """Return the estimates (N, 3) [m] of a table of N fixes."""
    return np.stack([fixes[f"{axis}_m"].to_numpy() for axis in "xyz"], 1)


def distance_to_training(training: _Floats | None, truth: _Floats) -> Any:
    """Return the distance of positions (N, 3) to the nearest training position [m]; None each if there is none."""
    if training is None or len(training) == 0:
        return [None] * len(truth)
    return cKDTree(training).query(truth)[0] if len(truth) else []


def dilution_of(scenario: Scenario, truth: _Floats, used: UsedReports) -> pa.Array:
    """Return the geometric dilution of precision (N,) of fixes at true positions (N, 3) [m]; null where there is none.

    The user's clock counts as unknown in scenarios where it is biased.
    """
    import pyarrow as pa

    site = np.array([site.position for site in scenario.sites])
    taken = np.zeros((len(truth), len(site)), np.bool_)
    real = used.bs < len(site)  # in a damaged table others may be listed, too
    taken[used.fix[real], used.bs[real]] = True
    found = dilution(site, truth, taken, clock=scenario.clock.ue_bias_ns > 0)
    return pa.array(found, pa.float64(), from_pandas=True)  # NaN is null


def fix_latencies(books: Books, fixes: pa.Table, t_zero_ns: Ints, *, open_loop: bool) -> dict[str, pa.Array]:
    """Return the stage times of fixes (N,) by stage; null where unknown, as for a BS on another host that died.

    Times between two hosts refer to the cloud's clock: the base station's times are shifted by the estimated offset.

    Args:
        books: the ledgers, stage times and clocks.
        fixes: columns of `fix_schema()`.
        t_zero_ns: (N,) time zero of the snapshots [ns].
        open_loop: whether snapshots have time zeros of their own; in closed loop all share one.
    """
    import pyarrow as pa

    count = len(fixes)
    values = {name: np.zeros(count, np.int64) for name in (*STAGES, UNCERTAINTY)}
    known = {name: np.zeros(count, np.bool_) for name in values}

    def put(name: str, rows: Any, found: Ints) -> None:
        values[name][rows], known[name][rows] = found, True

    put("wait", slice(None), numbers(fixes, "t_fuse_ns") - numbers(fixes, "t_last_received_ns"))
    put("fuse", slice(None), numbers(fixes, "fuse_ns"))
    if open_loop:
        put("total", slice(None), numbers(fixes, "t_fix_ns") - t_zero_ns)
    for start, rows, keys in _last_reports(fixes):
        times, found = _sought(_frame_times(books, start), keys)
        at, rounds = rows[found], keys[found] & 0xFF
        offset, uncertainty = _offsets(books, start, times["t_sent_ns"])
        if offset is not None:
            put("fronthaul", at, times["t_received_ns"] - times["t_sent_ns"] - offset)
            put(UNCERTAINTY, at, uncertainty)
        stage, staged = _sought(_stage_times(books, start), keys)
        for name in ("estimate", "encode", "pack"):
            put(name, rows[staged], stage[f"{name}_ns"])
        if open_loop and offset is not None:
            both = np.isin(found, staged) & (rounds == 0)
            started = dict(zip(staged.tolist(), stage["t_start_ns"].tolist(), strict=True))
            begun = np.array([started[n] for n in found[both].tolist()], np.int64)
            put("start", at[both], begun + offset[both] - t_zero_ns[at[both]])
    return {name: pa.array(values[name], pa.int64(), mask=~known[name]) for name in values}


def _last_reports(fixes: pa.Table) -> Iterator[tuple[EdgeStart, Ints, Ints]]:
    """Yield, by start of a base station, the fixes whose last report came from it and the key of that report.

    A fix whose last report could not be used is left out.
    """
    used = UsedReports.of_table(fixes)
    mine = np.flatnonzero(used.bs == numbers(fixes, "last_bs")[used.fix])
    last = mine[np.append(np.diff(used.fix[mine]) != 0, True)[: len(mine)]]
    bs, epoch, round_ = (values[last].astype(np.int64) for values in (used.bs, used.epoch, used.round))
    start = bs << 16 | epoch
    keys = epoch << 40 | used.snapshots[used.fix[last]] << 8 | round_
    for number in np.unique(start).tolist():
        chosen = start == number
        yield EdgeStart(number >> 16, number & 0xFFFF), used.fix[last][chosen], keys[chosen]


def _frame_times(books: Books, start: EdgeStart) -> tuple[Ints, dict[str, Ints]]:
    """Return the keys of a start's used reports, and when the frame that delivered each was sent and received [ns]."""
    found: list[tuple[Ints, ...]] = [(np.zeros(0, np.int64),) * 3]
    names = ("epoch", "snapshot", "round", "direction", "frame_fate", "report_fate", "t_sent_ns", "t_received_ns")
    for rows in books.ledgers.batches(start.bs, names) if start.bs in books.ledgers else ():
        chosen = codes(rows["frame_fate"], [FrameFate.DELIVERED]) == 0
        chosen &= codes(rows["report_fate"], [ReportFate.USED]) == 0
        chosen &= rows["t_sent_ns"].is_valid().to_numpy(zero_copy_only=False)
        chosen &= numbers(rows, "epoch") == start.epoch
        found.append((report_keys(rows)[chosen], *(numbers(rows, name)[chosen] for name in names[-2:])))
    keys, *columns = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return keys, dict(zip(names[-2:], columns, strict=True))


def _stage_times(books: Books, start: EdgeStart) -> tuple[Ints, dict[str, Ints]]:
    """Return the keys of a start's reports and the times of their stages [ns]."""
    stages = stages_of(books.folder, start)
    keys = start.epoch << 40 | numbers(stages, "snapshot") << 8 | numbers(stages, "round")
    return keys, {name: numbers(stages, name) for name in stages.column_names if name.endswith("_ns")}


def _sought(table: tuple[Ints, dict[str, Ints]], keys: Ints) -> tuple[dict[str, Ints], Ints]:
    """Return the rows of a table with the given keys, and the indices of the keys that it has."""
    order = np.argsort(table[0], kind="stable")
    known = table[0][order]
    if not len(known):
        return {name: column[:0] for name, column in table[1].items()}, np.zeros(0, np.int64)
    at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    found = np.flatnonzero(known[at] == keys)
    return {name: column[order[at[found]]] for name, column in table[1].items()}, found


def _offsets(books: Books, start: EdgeStart, t_sent_ns: Ints) -> tuple[Ints | None, Ints]:
    """Return offset and uncertainty [ns] of the cloud's clock from that of a start at each time; None if unknown."""
    none = np.zeros(len(t_sent_ns), np.int64)
    if start not in books.clocks:
        return None, none
    clock = books.clocks[start]
    if clock is None:
        return none, none
    offset, uncertainty = np.array([clock.at(t_ns) for t_ns in t_sent_ns.tolist()], np.int64).reshape(-1, 2).T
    return offset, uncertainty
