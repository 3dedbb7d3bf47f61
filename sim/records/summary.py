"""Compare fixes with the true positions, which only the driver knows, and summarise a run.

Latency of a fix, along its critical path, the used report that came last [ns]:

    time zero -> start -> estimate -> encode -> pack -> fronthaul -> wait -> fuse -> fix

`start`: delay until the BS began; `fronthaul`: from sent to received; `wait`: from received until fusion begins;
`total`: from time zero to the fix. The in-process driver has a simulated clock on which computing takes no time: there
only estimate, encode, pack and fuse are measured and summarised.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from cloud.fixlog import FixRecord
from fronthaul.account.conservation import Conservation
from fronthaul.account.costs import lossless_bits
from fronthaul.link.link_report import link_report
from fronthaul.log.stream_names import EdgeStart
from fronthaul.message.fates import FrameFate, ReportFate
from fronthaul.message.messages import Direction, PayloadFormat, ReportKey
from sim.plan.outcome import RunRecord
from sim.plan.plan import Plan, weights_notes
from sim.records.books import Books
from sim.records.coverage import coverage_90
from sim.records.links import LinkTotals
from sim.records.statistics import error_statistics, places
from sim.records.stream_bytes import Connection

if TYPE_CHECKING:
    import pyarrow as pa

STAGES = ("start", "estimate", "encode", "pack", "fronthaul", "wait", "fuse", "total")
"""Columns ``<stage>_ns`` of the fixes' table."""
MEASURED = ("estimate", "encode", "pack", "fuse")
"""Stages that are also measured in runs on a simulated clock."""

UNCERTAINTY = "fronthaul_uncertainty"
"""Column: uncertainty of `fronthaul` due to the clock offset between hosts; 0 on one host."""

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FrameTimes:
    """When a report's delivered frame was sent and received [ns]."""

    t_sent_ns: int
    t_received_ns: int


def fix_table(plan: Plan, record: RunRecord, books: Books) -> pa.Table:
    """Join fixes, true positions and latencies: one row per fix, ordered by snapshot.

    Errors and positions are in metres, times in nanoseconds; `sample` is the index of the test user.
    """
    import pyarrow as pa

    fixes = books.fixes
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
        "used_round": pa.array([[key.round for key in fix.used] for fix in fixes], pa.list_(pa.uint8())),
        "rounds": pa.array([fix.rounds for fix in fixes], pa.uint16()),
        "training_distance_m": pa.array(_distance_to_training(plan, truth), pa.float64()),
        "t_zero_ns": pa.array([_time_zero_ns(plan, record, fix) for fix in fixes], pa.int64()),
        "t_fix_ns": pa.array([fix.t_fix_ns for fix in fixes], pa.int64()),
        "last_bs": pa.array([fix.last_bs for fix in fixes], pa.uint16()),
    }
    latencies = _latencies(plan, record, books)
    for name in (*STAGES, UNCERTAINTY):
        columns[f"{name}_ns"] = pa.array([row.get(name) for row in latencies], pa.int64())
    return pa.table(columns)


def summarise(
    plan: Plan,
    record: RunRecord,
    fixes: pa.Table,
    books: Books,
    conservation: Conservation,
    problems: Sequence[str],
    commit: str | None,
) -> dict[str, Any]:
    """Return the content of `summary.json`."""
    settings = plan.settings
    links = books.links
    up = [link for link in links if link.direction is Direction.UP]
    frames = {fate.value: sum(link.frames[fate] for link in links) for fate in FrameFate}
    reports = {fate.value: sum(link.reports[fate] for link in up) for fate in ReportFate}
    lengths = {
        name: length_statistics(_sent_bits(books, answers=name == "answer"))
        for name, declared in (("report", plan.format), ("answer", plan.answer_format))
        if declared is not None and not declared.fixed
    }
    payload_bits = _bits_each(plan.format, lengths.get("report"))
    truth = true_positions(fixes)
    reported = [_link(plan, books, link) for link in links]
    return {
        "scenario": plan.scenario.name,
        "scheme": settings.scheme,
        "fusion": plan.chosen.fusion,
        "options": dict(plan.chosen.options),
        "bs": settings.bs,
        "bs_present": len(plan.stations),
        "random_subset": settings.random_subset,
        "layout": settings.layout,
        "bits": settings.bits,
        "forward": settings.payload.forwarded,
        "snapshots": settings.snapshots,
        "seed": settings.seed,
        "commit": commit,
        "driver": settings.driver,
        "clock": "wall" if record.wall_clock else "simulated",
        "shuffle_csi": settings.shuffle_csi,
        "weights": plan.weights_path.name,
        "weights_digest": plan.weights_digest,
        # With another B than in training, the quantiser uses a recalibrated step.
        "trained_bits": plan.weights.config.get("bits", settings.bits),
        "fixes": len(fixes),
        "positions": int(places(truth).max(initial=-1)) + 1,
        **{
            name: error_statistics(fixes[name].to_numpy(), settings.seed, truth)
            for name in ("error_3d_m", "error_2d_m", "error_vertical_m")
        },
        "coverage_90": coverage_90(fixes),
        "payload_bits_per_report": payload_bits,
        "payload_ratio": payload_bits / lossless_bits(*plan.scenario.csi_shape),  # ECC Eq. 39
        "payload_bits_per_answer": _bits_each(plan.answer_format, lengths.get("answer"))
        if plan.answer_format
        else None,
        **({"payload_bits": lengths} if lengths else {}),
        "devices": {"edge": settings.edge_device, "cloud": settings.cloud_device},
        "encrypted": settings.encrypted,
        "bytes": _counted_bytes(links, books.connections),
        "bytes_kernel": _kernel_bytes(books.connections),
        "bytes_modelled": {
            "tcpip": sum(link.tcpip_bytes for link in links),
            "ethernet": sum(link.ethernet_bytes for link in links),
            "ecpri_ethernet": sum(link.ecpri_ethernet_bytes for link in links),
            "ecpri_ethernet_mtu_9000": sum(link.ecpri_jumbo_bytes for link in links),
        },
        "frames": frames,
        "strays": sum(conservation.strays.values()),
        "reports": reports,
        "latency_ms": _latency_statistics(plan, record, fixes),
        "warmup": settings.warmup_snapshots,
        "fixes_per_s": len(fixes) / record.seconds if record.seconds > 0 else None,
        "seconds": record.seconds,
        "arrivals": _arrivals(plan, record, books),
        "clock_offsets": _clock_offsets(books),
        "refused_connections": books.sockets.events["kind"].to_pylist().count("refused"),
        "refused_registrations": books.sockets.events["kind"].to_pylist().count("registration"),
        "undetermined": books.sockets.events["kind"].to_pylist().count("fusion"),
        "excluded": _excluded(books),
        "restarts": [dataclasses.asdict(restart) for restart in record.restarts],
        "links": reported,
        "missing_bs": sorted(record.cloud.missing),
        "conservation": {"ok": conservation.ok and not problems, "problems": list(problems)},
        "failures": list(record.failures),
        "notes": [*weights_notes(plan), *overload_notes(plan, reported)],
    }


def true_positions(fixes: pa.Table) -> _Floats:
    """Return the true positions (N, 3) [m] of a table of N fixes."""
    return np.stack([fixes[f"true_{axis}_m"].to_numpy() for axis in "xyz"], 1)


def _link(plan: Plan, books: Books, link: LinkTotals) -> dict[str, Any]:
    """Return the totals of a link in one direction, and its requested and achieved impairments."""
    import pyarrow.compute as pc

    config = plan.settings.links.config(link.bs, link.direction)
    ledger = books.ledgers[link.bs]
    mine = ledger.filter(pc.equal(ledger["direction"], link.direction.value))
    offset = _largest_offset(books, link)
    report = link_report(mine, config, receiver_ahead_ns=offset[0], uncertainty_ns=offset[1])
    return {
        "bs": link.bs,
        "direction": link.direction.value,
        "requested": report.requested if config else None,
        "achieved": report.achieved,
        "within": _judged(plan, report.within) if config else None,
        "frames": sum(link.frames.values()),
        "payload_bits": link.payload_bits,
        "stream_bytes": link.stream_bytes,
    }


def overload_notes(plan: Plan, links: Sequence[dict[str, Any]]) -> list[str]:
    """Return a sentence if links without a queue limit were offered more than their rate; it names the worst.

    In closed loop a base station sends as fast as it can, so that no line keeps up with it.
    """
    seconds = 1e-9 * plan.settings.snapshots * plan.settings.interval_ns
    loads = []
    for link in links:
        asked, found = link["requested"] or {}, link["achieved"]
        if seconds and asked.get("rate_bps") and asked.get("queue_bytes") is None:
            load = found["offered_bits"] / seconds / asked["rate_bps"]
            loads.append((load, found["last_wait_s"] or 0.0, link["bs"], link["direction"], asked["rate_bps"]))
    over = [one for one in loads if one[0] > 1.0]
    if not over:
        return []
    load, wait_s, bs, direction, rate_bps = max(over)
    return [
        f"{len(over)} of {len(loads)} lines with a rate were overloaded; the worst, BS {bs} {direction}, was offered "
        f"{100 * load:.0f} % of its {rate_bps / 1e6:g} Mbit/s, and its last frame waited {wait_s:.3g} s for it. "
        "A queue limit (--queue) would drop what does not fit, and bound that wait to the queue's size by the rate."
    ]


def _judged(plan: Plan, within: dict[str, bool | None]) -> dict[str, bool | None]:
    """Keep only what can be judged: in namespaces the kernel acts below TCP, which repairs all but rate and delay."""
    if not plan.settings.netns:
        return within
    return {name: ok if name in ("rate", "delay") else None for name, ok in within.items()}


def _largest_offset(books: Books, link: LinkTotals) -> tuple[int, int]:
    """Return how far the receiver's clock is ahead of the sender's, and its uncertainty [ns], over all starts."""
    known = [offset for (bs, _), offset in books.clocks.items() if bs == link.bs and offset is not None]
    if not known:
        return 0, 0
    worst = max(known, key=lambda offset: offset.uncertainty_ns)
    sign = 1 if link.direction is Direction.UP else -1
    return sign * worst.offset_ns, worst.uncertainty_ns


def _kernel_bytes(connections: Sequence[Connection]) -> dict[str, Any] | None:
    """Return the kernels' byte counts over both directions; None for links in memory."""
    ways = [way for connection in connections if connection.connections for way in (connection.up, connection.down)]
    if not ways:
        return None
    known = [way for way in ways if way.kernel_sent is not None and way.kernel_received is not None]
    return {
        "predicted_least": sum(way.least for way in ways),
        "predicted_most": sum(way.most for way in ways),
        "sent": sum(way.kernel_sent or 0 for way in known) if len(known) == len(ways) else None,
        "received": sum(way.kernel_received or 0 for way in known) if len(known) == len(ways) else None,
        "exact": all(connection.exact for connection in connections),
        "cut_connections": sum(connection.cut for connection in connections),
    }


def _excluded(books: Books) -> dict[str, int]:
    """Count, by base station, the snapshots for which the fusion rule could not use it."""
    found = [row["bs"] for row in books.sockets.events.to_pylist() if row["kind"] == "excluded"]
    return {str(bs): found.count(bs) for bs in sorted(set(found))}


def _arrivals(plan: Plan, record: RunRecord, books: Books) -> dict[str, int]:
    """Count reports of round 0 by arrival: before the receive window, within it, or after the deadline."""
    settings = plan.settings
    counts = {"early": 0, "on_time": 0, "late": 0}
    if not settings.interval_ns:
        return counts
    schedule = plan.schedule(record.t0_ns)
    for bs, ledger in books.ledgers.items():
        if bs is None:
            continue
        names = ("snapshot", "round", "direction", "t_received_ns", "frame_fate")
        for snapshot, round_, way, t_received_ns, fate in zip(*(ledger[n].to_pylist() for n in names), strict=True):
            if way == Direction.UP and round_ == 0 and fate == FrameFate.DELIVERED:
                after_ns = t_received_ns - schedule.time_zero_ns(snapshot)
                early = after_ns < settings.window_ns
                counts["early" if early else "on_time" if after_ns < settings.deadline_ns else "late"] += 1
    return counts


def _clock_offsets(books: Books) -> list[dict[str, Any]]:
    """Return the offsets of the cloud's clock from those of base stations on other hosts."""
    return [
        {
            "bs": bs,
            "epoch": epoch,
            "offset_ns": offset.offset_ns,
            "uncertainty_ns": offset.uncertainty_ns,
            "drift_ppm": offset.drift_ppm,
            "samples": offset.samples,
        }
        for (bs, epoch), offset in sorted(books.clocks.items())
        if offset is not None
    ]


def length_statistics(bits: npt.NDArray[np.int64]) -> dict[str, float] | None:
    """Return mean, extremes and percentiles of payload lengths [bit]; None if there are no payloads."""
    if len(bits) == 0:
        return None
    p50, p95 = (float(value) for value in np.percentile(bits, [50, 95]))
    return {"mean": float(bits.mean()), "min": int(bits.min()), "p50": p50, "p95": p95, "max": int(bits.max())}


def _bits_each(declared: PayloadFormat, found: dict[str, float] | None) -> int | float:
    """Return the payload length, or the mean where it varies [bit]."""
    if declared.fixed:
        return declared.max_bits
    return found["mean"] if found else 0.0


def _sent_bits(books: Books, *, answers: bool) -> npt.NDArray[np.int64]:
    """Return the payload length of each sent report, of round 0 or of later rounds, counting copies once [bit]."""
    names = ("epoch", "snapshot", "round", "direction", "t_sent_ns", "payload_bits")
    bits: dict[tuple[int | None, int, int, int], int] = {}
    for bs, ledger in books.ledgers.items():
        for epoch, snapshot, round_, way, sent, size in zip(*(ledger[n].to_pylist() for n in names), strict=True):
            if sent is not None and way == Direction.UP and (round_ > 0) == answers:
                bits[bs, epoch, snapshot, round_] = size
    return np.array(list(bits.values()), np.int64)


def _counted_bytes(links: Sequence[LinkTotals], connections: Sequence[Connection]) -> dict[str, Any]:
    return {
        "payload": _octets(sum(link.payload_bits for link in links)),
        "side": _octets(sum(link.side_bits for link in links)),
        "header": sum(link.header_bytes for link in links),
        "padding": _octets(sum(link.padding_bits for link in links)),
        "zmtp": sum(link.zmtp_bytes for link in links),
        "curve": sum(link.curve_bytes for link in links),
        "handshake": sum(c.up.handshake + c.down.handshake for c in connections),
        "heartbeat": sum(c.up.heartbeat + c.down.heartbeat for c in connections),
        "control": sum(c.up.control + c.down.control for c in connections),
    }


def _octets(bits: int) -> int | float:
    """Convert bits to bytes, which may be fractional since payloads are exact to the bit."""
    return bits // 8 if bits % 8 == 0 else bits / 8


def _flat(covariance: _Floats | None) -> list[float] | None:
    return None if covariance is None else np.asarray(covariance, np.float64).ravel().tolist()


def _distance_to_training(plan: Plan, truth: _Floats) -> Any:
    if plan.training is None or len(plan.training) == 0:
        return [None] * len(truth)
    return cKDTree(plan.training).query(truth)[0] if len(truth) else []


def _time_zero_ns(plan: Plan, record: RunRecord, fix: FixRecord) -> int:
    return plan.schedule(record.t0_ns).time_zero_ns(fix.snapshot)


def _latencies(plan: Plan, record: RunRecord, books: Books) -> list[dict[str, int]]:
    """Return the stage times of each fix; unknown ones (for a BS on another host that died) are left out.

    Times between two hosts refer to the cloud's clock: the base station's times are shifted by the estimated offset.
    """
    links = [(bs, ledger) for bs, ledger in books.ledgers.items() if bs is not None]
    times = {key: value for bs, ledger in links for key, value in _times(bs, ledger)}
    open_loop = plan.settings.interval_ns > 0
    table = []
    for fix in books.fixes:
        row = {"wait": fix.t_fuse_ns - fix.t_last_received_ns, "fuse": fix.fuse_ns}
        time_zero_ns = _time_zero_ns(plan, record, fix)
        if open_loop:  # in closed loop all snapshots share one time zero
            row["total"] = fix.t_fix_ns - time_zero_ns
        last = next((key for key in reversed(fix.used) if key.bs == fix.last_bs), None)
        if last is None:  # the last report could not be used: no other stages are known
            table.append(row)
            continue
        frame, stage = times.get(last), books.stages.get((last.bs, last.snapshot, last.round))
        clock = _clock(books, last, frame)
        if frame is not None and clock is not None:
            row["fronthaul"] = frame.t_received_ns - frame.t_sent_ns - clock[0]
            row[UNCERTAINTY] = clock[1]
        if stage is not None:
            row |= {"estimate": stage.estimate_ns, "encode": stage.encode_ns, "pack": stage.pack_ns}
            if open_loop and clock is not None and last.round == 0:
                row["start"] = stage.t_start_ns + clock[0] - time_zero_ns
        table.append(row)
    return table


def _clock(books: Books, key: ReportKey, frame: FrameTimes | None) -> tuple[int, int] | None:
    """Return (offset, uncertainty) [ns] of the cloud's clock from that of a report's BS; None if unknown."""
    start = EdgeStart(key.bs, key.epoch)
    if start not in books.clocks:
        return None
    offset = books.clocks[start]
    if offset is None:
        return 0, 0
    return None if frame is None else offset.at(frame.t_sent_ns)


def _times(bs: int, ledger: pa.Table) -> list[tuple[ReportKey, FrameTimes]]:
    names = ("epoch", "snapshot", "round", "t_sent_ns", "t_received_ns", "frame_fate", "report_fate")
    rows = zip(*(ledger[name].to_pylist() for name in names), strict=True)
    return [
        (ReportKey(bs, epoch, snapshot, round_), FrameTimes(t_sent_ns, t_received_ns))
        for epoch, snapshot, round_, t_sent_ns, t_received_ns, frame_fate, report_fate in rows
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
