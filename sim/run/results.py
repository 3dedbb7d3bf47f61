"""Fixes meet the truth, and a run is summed up. The only place of a run that knows where users are.

Latency of a fix, along its critical path, the used report that came last [ns]:

    time zero -> start -> estimate -> encode -> pack -> fronthaul -> wait -> fuse -> fix

`start`: how late the BS began; `fronthaul`: sent until received; `wait`: received until fusion begins;
`total`: time zero until fix. In process the clock is simulated and computing takes none of it: there only
estimate, encode, pack and fuse are measured, and only they are summarised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from cloud.node import FixRecord
from edge.node import StageRow
from fronthaul.accounting import lossless_bits
from fronthaul.draws import generator
from fronthaul.fates import FrameFate, ReportFate
from fronthaul.ledger import Conservation
from fronthaul.messages import ReportKey
from sim.run.compose import Plan, weights_notes
from sim.run.links import Connection, LinkTotals
from sim.run.record import RunRecord

if TYPE_CHECKING:
    import pyarrow as pa

STAGES = ("start", "estimate", "encode", "pack", "fronthaul", "wait", "fuse", "total")
"""Columns ``<stage>_ns`` of the fixes' table."""
MEASURED = ("estimate", "encode", "pack", "fuse")
"""Stages that are measured on a simulated clock too."""

_RESAMPLES = 1000
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FrameTimes:
    """When a report's delivered frame was sent and received [ns]."""

    t_sent_ns: int
    t_received_ns: int


def fix_table(plan: Plan, record: RunRecord, ledgers: dict[int | None, pa.Table]) -> pa.Table:
    """Join fixes, truth and latencies: one row a fix, ordered by snapshot.

    Errors and positions are in metres, times in nanoseconds; `sample` is the row of the test user.
    """
    import pyarrow as pa

    fixes = sorted(record.cloud.fixes, key=lambda fix: fix.snapshot)
    sample = np.array([fix.snapshot % len(plan.truth) for fix in fixes], np.int64)
    truth = plan.truth[sample].reshape(-1, 3)
    estimate = np.array([fix.position for fix in fixes], np.float64).reshape(-1, 3)
    error = estimate - truth
    columns: dict[str, Any] = {
        "snapshot": pa.array([fix.snapshot for fix in fixes], pa.uint32()),
        "sample": pa.array(sample),
    }
    for axis, name in enumerate("xyz"):
        columns[f"true_{name}_m"] = truth[:, axis]
        columns[f"{name}_m"] = estimate[:, axis]
    columns |= {
        "error_3d_m": np.linalg.norm(error, axis=1),
        "error_2d_m": np.linalg.norm(error[:, :2], axis=1),
        "error_vertical_m": np.abs(error[:, 2]),
        "covariance_m2": pa.array([_flat(fix.covariance) for fix in fixes], pa.list_(pa.float64(), 9)),
        "used_bs": pa.array([[key.bs for key in fix.used] for fix in fixes], pa.list_(pa.uint16())),
        "used_epoch": pa.array([[key.epoch for key in fix.used] for fix in fixes], pa.list_(pa.uint16())),
        "training_distance_m": pa.array(_distance_to_training(plan, truth), pa.float64()),
        "t_zero_ns": pa.array([_time_zero_ns(plan, record, fix) for fix in fixes], pa.int64()),
        "t_fix_ns": pa.array([fix.t_fix_ns for fix in fixes], pa.int64()),
        "last_bs": pa.array([fix.last_bs for fix in fixes], pa.uint16()),
    }
    latencies = _latencies(plan, record, fixes, ledgers)
    for stage in STAGES:
        columns[f"{stage}_ns"] = pa.array([row.get(stage) for row in latencies], pa.int64())
    return pa.table(columns)


def used_reports(fixes: pa.Table) -> list[tuple[int, list[ReportKey]]]:
    """Return snapshot and used reports of each fix, as the conservation check wants them."""
    rows = zip(*(fixes[name].to_pylist() for name in ("snapshot", "used_bs", "used_epoch")), strict=True)
    return [
        (snapshot, [ReportKey(bs, epoch, snapshot) for bs, epoch in zip(stations, epochs, strict=True)])
        for snapshot, stations, epochs in rows
    ]


def summarise(
    plan: Plan,
    record: RunRecord,
    fixes: pa.Table,
    links: Sequence[LinkTotals],
    connections: Sequence[Connection],
    conservation: Conservation,
    problems: Sequence[str],
    commit: str | None,
) -> dict[str, Any]:
    """Return `summary.json` (design, "A run's folder")."""
    settings = plan.settings
    frames = {fate.value: sum(link.frames[fate] for link in links) for fate in FrameFate}
    reports = {fate.value: sum(link.reports[fate] for link in links) for fate in ReportFate}
    payload_bits = plan.codec.bits * plan.codec.coefficients
    return {
        "scenario": plan.scenario.name,
        "scheme": settings.scheme,
        "fusion": settings.scheme,
        "bs": settings.bs,
        "bits": settings.bits,
        "snapshots": settings.snapshots,
        "seed": settings.seed,
        "commit": commit,
        "driver": settings.driver,
        "clock": "wall" if record.wall_clock else "simulated",
        "shuffle_csi": settings.shuffle_csi,
        "weights": plan.weights_path.name,
        "weights_digest": plan.weights_digest,
        # Another B than the weights were trained for runs on their recalibrated quantiser step.
        "trained_bits": plan.weights.config.get("bits", settings.bits),
        "fixes": len(fixes),
        **{
            name: error_statistics(fixes[name].to_numpy(), settings.seed)
            for name in ("error_3d_m", "error_2d_m", "error_vertical_m")
        },
        "payload_bits_per_report": payload_bits,
        "payload_ratio": payload_bits / lossless_bits(*plan.scenario.csi_shape),  # ECC Eq. 39
        "bytes": _counted_bytes(links, connections),
        "bytes_kernel": None,
        "bytes_modelled": {
            "tcpip": sum(link.tcpip_bytes for link in links),
            "ethernet": sum(link.ethernet_bytes for link in links),
            "ecpri_ethernet": sum(link.ecpri_ethernet_bytes for link in links),
        },
        "frames": frames,
        "strays": sum(conservation.strays.values()),
        "reports": reports,
        "latency_ms": _latency_statistics(plan, record, fixes),
        "warmup": settings.warmup_snapshots,
        "fixes_per_s": len(fixes) / record.seconds if record.seconds > 0 else None,
        "seconds": record.seconds,
        "links": [
            {
                "bs": link.bs,
                "requested": None,
                "achieved": None,
                "frames": sum(link.frames.values()),
                "payload_bits": link.payload_bits,
                "stream_bytes": link.stream_bytes,
            }
            for link in links
        ],
        "missing_bs": sorted(record.cloud.missing),
        "conservation": {"ok": conservation.ok and not problems, "problems": list(problems)},
        "failures": list(record.failures),
        "notes": weights_notes(plan),
    }


def error_statistics(error_m: _Floats, seed: int) -> dict[str, Any] | None:
    """Return mean, median, RMSE, percentiles [m] and the 95 % interval of the mean; None for no fixes.

    The interval is a bootstrap's: percentiles of the means of 1000 resamples, drawn from the run's seed.
    """
    if len(error_m) == 0:
        return None
    draw = generator(seed, "bootstrap")
    means = [error_m[draw.integers(0, len(error_m), len(error_m))].mean() for _ in range(_RESAMPLES)]
    return {
        "mean": float(error_m.mean()),
        "median": float(np.median(error_m)),
        "rmse": float(np.sqrt((error_m**2).mean())),
        "p90": float(np.percentile(error_m, 90)),
        "p95": float(np.percentile(error_m, 95)),
        "ci95_of_mean": [float(value) for value in np.percentile(means, [2.5, 97.5])],
    }


def _counted_bytes(links: Sequence[LinkTotals], connections: Sequence[Connection]) -> dict[str, Any]:
    return {
        "payload": _octets(sum(link.payload_bits for link in links)),
        "side": _octets(sum(link.side_bits for link in links)),
        "header": sum(link.header_bytes for link in links),
        "padding": _octets(sum(link.padding_bits for link in links)),
        "zmtp": sum(link.zmtp_bytes for link in links),
        "curve": sum(link.curve_bytes for link in links),
        "handshake": sum(c.handshake_up + c.handshake_down for c in connections),
        "heartbeat": sum(c.heartbeat_up + c.heartbeat_down for c in connections),
        "control": sum(c.control_up + c.control_down for c in connections),
    }


def _octets(bits: int) -> int | float:
    """Return bits in bytes, which need not be whole: the payload is exact to the bit."""
    return bits // 8 if bits % 8 == 0 else bits / 8


def _flat(covariance: _Floats | None) -> list[float] | None:
    return None if covariance is None else np.asarray(covariance, np.float64).ravel().tolist()


def _distance_to_training(plan: Plan, truth: _Floats) -> Any:
    if plan.training is None or len(plan.training) == 0:
        return [None] * len(truth)
    return cKDTree(plan.training).query(truth)[0] if len(truth) else []


def _time_zero_ns(plan: Plan, record: RunRecord, fix: FixRecord) -> int:
    return plan.schedule(record.t0_ns).time_zero_ns(fix.snapshot)


def _latencies(
    plan: Plan, record: RunRecord, fixes: Sequence[FixRecord], ledgers: dict[int | None, pa.Table]
) -> list[dict[str, int]]:
    """Return the stages of each fix; what nobody knows (of a BS that died) is left out."""
    links = [(bs, ledger) for bs, ledger in ledgers.items() if bs is not None]
    times = {key: value for bs, ledger in links for key, value in _times(bs, ledger)}
    stages: dict[tuple[int, int], StageRow] = {
        (bs, row.snapshot): row for bs, edge in record.edges.items() for row in edge.stages
    }
    open_loop = plan.settings.interval_ns > 0
    table = []
    for fix in fixes:
        row = {"wait": fix.t_fuse_ns - fix.t_last_received_ns, "fuse": fix.fuse_ns}
        time_zero_ns = _time_zero_ns(plan, record, fix)
        if open_loop:  # in closed loop all snapshots share one time zero
            row["total"] = fix.t_fix_ns - time_zero_ns
        frame = times.get((fix.last_bs, fix.snapshot))
        if frame is not None:
            row["fronthaul"] = frame.t_received_ns - frame.t_sent_ns
        stage = stages.get((fix.last_bs, fix.snapshot))
        if stage is not None:
            row |= {"estimate": stage.estimate_ns, "encode": stage.encode_ns, "pack": stage.pack_ns}
            if open_loop:
                row["start"] = stage.t_start_ns - time_zero_ns
        table.append(row)
    return table


def _times(bs: int, ledger: pa.Table) -> list[tuple[tuple[int, int], FrameTimes]]:
    names = ("snapshot", "t_sent_ns", "t_received_ns", "frame_fate", "report_fate")
    rows = zip(*(ledger[name].to_pylist() for name in names), strict=True)
    return [
        ((bs, snapshot), FrameTimes(t_sent_ns, t_received_ns))
        for snapshot, t_sent_ns, t_received_ns, frame_fate, report_fate in rows
        if t_sent_ns is not None and (frame_fate, report_fate) == (FrameFate.DELIVERED, ReportFate.USED)
    ]


def _latency_statistics(plan: Plan, record: RunRecord, fixes: pa.Table) -> dict[str, Any]:
    """Return percentiles by stage [ms], without the warm-up."""
    counted = fixes["snapshot"].to_numpy() >= plan.settings.warmup_snapshots
    table: dict[str, Any] = {}
    for stage in STAGES if record.wall_clock else MEASURED:
        column = fixes[f"{stage}_ns"].to_pylist()
        known = [ns / 1e6 for ns, counts in zip(column, counted, strict=True) if counts and ns is not None]
        if known:
            p50, p95, p99 = (float(value) for value in np.percentile(known, [50, 95, 99]))
            table[stage] = {"p50": p50, "p95": p95, "p99": p99}
    return table
