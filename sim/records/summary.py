"""The summary of a run: errors, bits, bytes, fates, latencies, links."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fronthaul.account.conservation import Conservation, codes
from fronthaul.account.costs import lossless_bits
from fronthaul.link.link_report import LINK_COLUMNS, link_report
from fronthaul.message.fates import FrameFate, ReportFate
from fronthaul.message.messages import Direction, PayloadFormat
from sim.plan.options import run_label
from sim.plan.outcome import RunRecord
from sim.plan.plan import Plan, weights_notes
from sim.plan.settings import EmulateSettings
from sim.records.books import Books
from sim.records.coverage import coverage_90
from sim.records.fix_table import MEASURED, STAGES, true_positions
from sim.records.folder import RunConfiguration
from sim.records.links import LinkTotals, numbers, report_keys
from sim.records.statistics import error_statistics, numbered
from sim.records.stream_bytes import Connection

if TYPE_CHECKING:
    import pyarrow as pa


def summarise(
    plan: Plan,
    record: RunRecord,
    fixes: pa.Table,
    books: Books,
    conservation: Conservation,
    problems: Sequence[str],
    configuration: RunConfiguration,
) -> dict[str, Any]:
    """Return the content of `summary.json`; `configuration` is what the run has recorded of the plan."""
    settings = plan.settings
    figures = measured(configuration, record, fixes, books, conservation)
    return {
        "scenario": plan.scenario.name,
        "scheme": settings.scheme,
        "label": run_label(settings, plan.chosen.options),
        "fusion": plan.chosen.fusion,
        "options": dict(plan.chosen.options),
        **configured(configuration),
        "weights": plan.weights_path.name,
        # With another B than in training, the quantiser uses a recalibrated step.
        "trained_bits": plan.weights.config.get("bits", settings.bits),
        **figures,
        "restarts": [dataclasses.asdict(restart) for restart in record.restarts],
        "conservation": {"ok": conservation.ok and not problems, "problems": list(problems)},
        "failures": list(record.failures),
        "notes": [
            *weights_notes(plan),
            *overload_notes(settings, figures["links"]),
            *step_notes(record),
            *([] if len(fixes) else [_why_no_fix(settings, figures)]),
        ],
    }


STEP_NS = 20_000_000
"""Least step of the wall clock that is worth a note [ns]: more than a busy machine makes of two readings."""


def step_notes(record: RunRecord) -> list[str]:
    """Return a sentence if somebody set the wall clock during the run."""
    if abs(record.step_ns) < STEP_NS:
        return []
    return [
        f"The wall clock was set by {record.step_ns / 1e9:+.3g} s during the run, whose times go on as if it had not "
        "been."
    ]


def _why_no_fix(settings: EmulateSettings, figures: Mapping[str, Any]) -> str:
    """Return a sentence on why a run has no fix at all."""
    reports = figures["reports"]
    lost, late, total = reports["lost"], reports["late"], sum(reports.values())
    if not total:
        why = "no base station sent a report"
    elif lost == total:
        why = f"all {total} reports were lost"
    elif lost + late == total:
        why = f"all reports that arrived came after the deadline of {settings.deadline_ms:g} ms"
    elif figures["undetermined"]:
        why = f"the fusion rule came to no finite position in {figures['undetermined']} snapshots"
        why += "; links/events.parquet says why for each" if figures["excluded"] else ""
    else:
        why = f"no snapshot had reports of {settings.minimum_bs} base stations in time"
    return f"The run has no fix: {why}."


def configured(run: RunConfiguration) -> dict[str, Any]:
    """Return the part of a summary that repeats the run's configuration."""
    settings = run.settings
    return {
        "bs": settings.bs,
        "bs_present": len(run.stations),
        "random_subset": settings.random_subset,
        "layout": settings.layout,
        "bits": settings.bits,
        "forward": settings.payload.forwarded,
        "snapshots": settings.snapshots,
        "seed": settings.seed,
        "commit": run.commit,
        "configuration_digest": run.digest,
        "driver": settings.driver,
        "shuffle_csi": settings.shuffle_csi,
        "weights_digest": run.weights_digest,
        "devices": {"edge": settings.edge_device, "cloud": settings.cloud_device},
        "encrypted": settings.encrypted,
        "warmup": settings.warmup_snapshots,
    }


def measured(
    run: RunConfiguration, record: RunRecord, fixes: pa.Table, books: Books, conservation: Conservation
) -> dict[str, Any]:
    """Return the part of a summary that follows from the tables of the run."""
    settings, links = run.settings, books.links
    up = [link for link in links if link.direction is Direction.UP]
    lengths = {
        name: length_statistics(_sent_bits(books, answers=name == "answer"))
        for name, declared in (("report", run.format), ("answer", run.answer_format))
        if declared is not None and not declared.fixed
    }
    payload_bits = _bits_each(run.format, lengths.get("report"))
    events = Counter(books.sockets.events["kind"].to_pylist())
    truth = true_positions(fixes)
    return {
        "clock": "wall" if record.wall_clock else "simulated",
        "t0_ns": record.t0_ns,
        "fixes": len(fixes),
        "positions": int(numbered(truth).max(initial=-1)) + 1,
        **{
            name: error_statistics(fixes[name].to_numpy(), settings.seed, truth)
            for name in ("error_3d_m", "error_2d_m", "error_vertical_m")
        },
        "coverage_90": coverage_90(fixes),
        "fix_notes": dict(Counter(note for note in fixes["note"].to_pylist() if note)),
        "payload_bits_per_report": payload_bits,
        "payload_ratio": payload_bits / lossless_bits(*run.scenario.csi_shape),  # ECC Eq. 39
        "payload_bits_per_answer": _bits_each(run.answer_format, lengths.get("answer")) if run.answer_format else None,
        **({"payload_bits": lengths} if lengths else {}),
        "bytes": _counted_bytes(links, books.connections),
        "bytes_kernel": _kernel_bytes(books.connections),
        "bytes_modelled": {
            "tcpip": sum(link.tcpip_bytes for link in links),
            "ethernet": sum(link.ethernet_bytes for link in links),
            "ecpri_ethernet": sum(link.ecpri_ethernet_bytes for link in links),
            "ecpri_ethernet_mtu_9000": sum(link.ecpri_jumbo_bytes for link in links),
        },
        "frames": {fate.value: sum(link.frames[fate] for link in links) for fate in FrameFate},
        "strays": sum(conservation.strays.values()),
        "reports": {fate.value: sum(link.reports[fate] for link in up) for fate in ReportFate},
        "latency_ms": _latency_statistics(settings, record, fixes),
        "fixes_per_s": len(fixes) / record.seconds if record.seconds > 0 else None,
        "seconds": record.seconds,
        "arrivals": _arrivals(settings, record, books),
        "clock_offsets": _clock_offsets(books),
        "refused_connections": events["refused"],
        "refused_registrations": events["registration"],
        "undetermined": events["fusion"],
        "excluded": _excluded(books),
        "links": [_link(settings, books, link) for link in links],
        "missing_bs": sorted(record.cloud.missing),
    }


def _link(settings: EmulateSettings, books: Books, link: LinkTotals) -> dict[str, Any]:
    """Return the totals of a link in one direction, and its requested and achieved impairments."""
    import pyarrow.compute as pc

    config = settings.links.config(link.bs, link.direction)
    ledger = books.ledgers.table(link.bs, LINK_COLUMNS)
    mine = ledger.filter(pc.equal(ledger["direction"], link.direction.value))
    offset = _largest_offset(books, link)
    report = link_report(
        mine,
        config,
        receiver_ahead_ns=offset[0],
        uncertainty_ns=offset[1],
        ip_header_bytes=books.transport.ip_header_bytes,
    )
    return {
        "bs": link.bs,
        "direction": link.direction.value,
        "requested": report.requested if config else None,
        "achieved": report.achieved,
        "within": _judged(settings, report.within) if config else None,
        "frames": sum(link.frames.values()),
        "payload_bits": link.payload_bits,
        "stream_bytes": link.stream_bytes,
    }


def overload_notes(settings: EmulateSettings, links: Sequence[dict[str, Any]]) -> list[str]:
    """Return a sentence if links without a queue limit were offered more than their rate; it names the worst.

    In closed loop a base station sends as fast as it can, so that no line keeps up with it.
    """
    seconds = 1e-9 * settings.snapshots * settings.interval_ns
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


def _judged(settings: EmulateSettings, within: dict[str, bool | None]) -> dict[str, bool | None]:
    """Keep only what can be judged: in namespaces the kernel acts below TCP, which repairs all but rate and delay."""
    if not settings.netns:
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
    events = books.sockets.events
    told = zip(events["bs"].to_pylist(), events["kind"].to_pylist(), strict=True)
    found = Counter(bs for bs, kind in told if kind == "excluded")
    return {str(bs): found[bs] for bs in sorted(found)}


def _arrivals(settings: EmulateSettings, record: RunRecord, books: Books) -> dict[str, int]:
    """Count reports of round 0 by arrival: before the receive window, within it, or after the deadline."""
    counts = {"early": 0, "on_time": 0, "late": 0}
    if not settings.interval_ns:
        return counts
    for bs in books.ledgers.stations:
        for rows in books.ledgers.batches(bs, ("snapshot", "round", "direction", "t_received_ns", "frame_fate")):
            came = (codes(rows["direction"], [Direction.UP]) == 0) & (numbers(rows, "round") == 0)
            came &= codes(rows["frame_fate"], [FrameFate.DELIVERED]) == 0
            t_zero_ns = record.t0_ns + numbers(rows, "snapshot") * settings.interval_ns
            after_ns = (numbers(rows, "t_received_ns") - t_zero_ns)[came]
            early, late = after_ns < settings.window_ns, after_ns >= settings.deadline_ns
            late &= ~early
            for name, count in (("early", early), ("on_time", ~early & ~late), ("late", late)):
                counts[name] += int(np.count_nonzero(count))
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
    found = [np.zeros(0, np.int64)]
    for bs in books.ledgers.stations:
        rows = books.ledgers.table(bs, ("epoch", "snapshot", "round", "direction", "t_sent_ns", "payload_bits"))
        mine = rows["t_sent_ns"].is_valid().to_numpy() & (codes(rows["direction"], [Direction.UP]) == 0)
        mine &= (numbers(rows, "round") > 0) == answers
        keys = report_keys(rows)[mine]
        _, first = np.unique(keys, return_index=True)
        found.append(numbers(rows, "payload_bits")[mine][first])
    return np.concatenate(found)


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


def _latency_statistics(settings: EmulateSettings, record: RunRecord, fixes: pa.Table) -> dict[str, Any]:
    """Return percentiles by stage [ms], without the warm-up."""
    counted = fixes["snapshot"].to_numpy() >= settings.warmup_snapshots
    table: dict[str, Any] = {}
    for stage in STAGES if record.wall_clock else MEASURED:
        column = fixes[f"{stage}_ns"]
        known = numbers(fixes, f"{stage}_ns")[counted & column.is_valid().to_numpy()] / 1e6
        if len(known):
            p50, p95, p99 = (float(value) for value in np.percentile(known, [50, 95, 99]))
            table[stage] = {"p50": p50, "p95": p95, "p99": p99}
    return table
