"""Requested against achieved link behaviour, from the ledger of one link and direction.

A frame's path is sent -> line -> delay and jitter -> received. Its time on the line (waiting and serialisation) is not
measured but recomputed from the journal's times and the rate, and excluded from the delay; the recomputation ignores
control messages, which are few and short. The rate is measured where frames followed each other without a gap, so a
link that was never loaded has no measured rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fronthaul.account.costs import modelled_ethernet_bytes
from fronthaul.errors import LocalError
from fronthaul.link.link_config import IMPAIRMENTS, LinkConfig
from fronthaul.link.link_model import JITTER_DEVIATIONS, Line
from fronthaul.message.fates import FrameFate

if TYPE_CHECKING:
    import pyarrow as pa

TOLERANCE = 0.05
"""Relative tolerance within which rate and mean delay count as achieved."""
CONFIDENCE = 0.99
"""Confidence level of the intervals for probabilities and for the mean of a random delay."""
_NORMAL_QUANTILE = 2.5758293035489004  # two-sided, for CONFIDENCE
_TIMER_S = 1e-4  # how late the release of a frame may be, on average
_LOADED = 20  # a busy period must be this many times longer than the uncertainty of its ends to give a rate
_HELD_SHARE = 0.01  # with more frames held back to keep the order, the mean delay is not delay + jitter

_COLUMNS = (
    *("bs", "direction", "epoch", "seq", "snapshot", "round", "t_sent_ns", "t_release_ns", "t_received_ns"),
    *("payload_bits", "padding_bits", "side_bits", "header_bytes", "zmtp_bytes", "curve_bytes"),
    *("frame_fate", "reason"),
)


@dataclass(frozen=True, slots=True)
class LinkReport:
    """Requested against achieved values of one link and direction; times in s, rates in bit/s, ready for JSON.

    Attributes:
        requested: rate_bps (None: without limit), delay_s (its mean, jitter included), loss (bursts included),
            duplicate, reorder, corrupt, outages, queue_bytes.
        achieved: frames; rate_bps and delay_mean_s, delay_p50_s, delay_p99_s (None if not measurable);
            planned_delay_mean_s, the mean delay that the model chose; held_back, frames that waited for an earlier
            one's jitter (delays and held_back are of originals, not of copies);
            for each of loss, duplicate, reorder and corrupt the share and the ends of its 99 % interval (loss,
            loss_low, loss_high ...); out_of_order, arrivals after one with a higher seq; outage_drops, queue_drops.
        within: by rate, delay, loss, duplicate, reorder, corrupt, order, outage and queue: whether achieved agrees with
            requested; None if nothing was requested or there is too little data.
    """

    requested: dict[str, float | None]
    achieved: dict[str, float | None]
    within: dict[str, bool | None]


@dataclass(slots=True)
class _Frame:
    row: dict[str, Any]  # of the frame's first report
    stream_bytes: int
    is_copy: bool  # of an earlier frame's reports
    t_line_ns: int | None = None  # when it left the line; None if it never got there
    waited: bool = False  # for the line
    skipped: bool = False  # skipped delay and jitter, being reordered
    held: bool = False  # held back to keep the order, behind a frame with more jitter

    @property
    def arrived(self) -> bool:
        return self.row["t_received_ns"] is not None


def link_report(
    ledger: pa.Table, config: LinkConfig | None, *, receiver_ahead_ns: int = 0, uncertainty_ns: int = 0
) -> LinkReport:
    """Check a ledger against the configuration of its link.

    Args:
        ledger: `ledger.ledger_schema()`, of one link and direction; strays are left out.
        config: what was requested; None for a link without a model.
        receiver_ahead_ns: how far the receiver's clock is ahead of the sender's [ns].
        uncertainty_ns: uncertainty of `receiver_ahead_ns`, added to the tolerance of the delay [ns].

    Raises:
        LocalError: rows of several links or directions.
    """
    config = config or LinkConfig()
    frames = _frames(ledger)
    _retrace(frames, config)
    on_line = [frame for frame in frames if frame.t_line_ns is not None]
    arrived = [frame for frame in frames if frame.arrived]
    report = LinkReport(
        requested={
            impairment.report.requested: getattr(config, impairment.report.of)
            for impairment in IMPAIRMENTS.values()
            if impairment.report is not None
        },
        achieved={"frames": len(frames)},
        within={},
    )
    _rate(report, on_line, config)
    _load(report, frames, on_line)
    _delay(report, on_line, config, receiver_ahead_ns, uncertainty_ns)
    lost = sum(frame.row["reason"] == "loss" for frame in on_line)
    _share(report, "loss", lost, len(on_line), config.mean_loss, _inflation(config, len(on_line)))
    copies = sum(frame.is_copy for frame in frames)
    _share(report, "duplicate", copies, len(frames) - copies, config.duplicate)
    # Without delay there is nothing to skip.
    sent_on = [frame for frame in on_line if frame.row["reason"] is None] if config.mean_delay_s else []
    _share(report, "reorder", sum(frame.skipped for frame in sent_on), len(sent_on), config.reorder)
    corrupt = sum(frame.row["frame_fate"] == FrameFate.CORRUPT for frame in arrived)
    _share(report, "corrupt", corrupt, len(arrived), config.corrupt)
    report.achieved["out_of_order"] = late = _out_of_order(arrived)
    report.within["order"] = late == 0 if config.reorder == 0 and arrived else None
    for name, is_requested in (("outage", bool(config.outages)), ("queue", config.queue_bytes is not None)):
        report.achieved[f"{name}_drops"] = drops = sum(frame.row["reason"] == name for frame in frames)
        report.within[name] = drops == 0 if frames and not is_requested else None
    return report


def _frames(ledger: pa.Table) -> list[_Frame]:
    """Return the journaled frames in order of epoch and seq; rows of reports that share a frame are merged."""
    order = [("epoch", "ascending"), ("seq", "ascending"), ("part", "ascending")]
    rows = ledger.sort_by(order).select(_COLUMNS).to_pylist()
    links = {(row["bs"], row["direction"]) for row in rows}
    if len(links) > 1:
        raise LocalError(f"a link report is of one link and direction, not of {len(links)}")
    frames: list[_Frame] = []
    reports: set[tuple[int, int, int]] = set()
    key = None
    for row in rows:
        if row["t_sent_ns"] is None:
            continue
        bits = row["payload_bits"] + row["padding_bits"] + row["side_bits"]
        stream_bytes = bits // 8 + row["header_bytes"] + row["zmtp_bytes"] + row["curve_bytes"]
        if key == (key := (row["epoch"], row["seq"])):
            frames[-1].stream_bytes += stream_bytes
        else:
            report = (row["epoch"], row["snapshot"], row["round"])
            frames.append(_Frame(row, stream_bytes, report in reports))
            reports.add(report)
    return frames


def _retrace(frames: Sequence[_Frame], config: LinkConfig) -> None:
    """Recompute what the link model did to each frame, from times and rate."""
    # Half the floor of the delay tells a reordered frame from others; without a floor, being released at once does.
    skip_ns = max(round(config.delay_s * 5e8), 1_000)
    epoch = None
    for frame in frames:
        row = frame.row
        if epoch != (epoch := row["epoch"]):  # a new process has an idle line
            line, last_ns = Line(config.rate_bps), None
        # Dropped by the link model before the line.
        if row["reason"] in ("queue", "outage") and row["t_release_ns"] == row["t_sent_ns"]:
            continue
        line_bytes = modelled_ethernet_bytes(frame.stream_bytes, preamble_fcs_gap=True)
        start_ns, frame.t_line_ns = line.put(line_bytes, row["t_sent_ns"])
        frame.waited = start_ns > row["t_sent_ns"]
        if row["reason"] == "loss":
            continue
        frame.skipped = config.mean_delay_s > 0 and row["t_release_ns"] - frame.t_line_ns < skip_ns
        if not frame.skipped:
            frame.held = config.jitter_s > 0 and row["t_release_ns"] == last_ns
            last_ns = row["t_release_ns"]


def _rate(report: LinkReport, on_line: Sequence[_Frame], config: LinkConfig) -> None:
    bits, span_ns = 0, 0
    if config.rate_bps is not None:
        for busy in _busy_times(on_line):
            ends = [at for at, frame in enumerate(busy) if frame.arrived and not frame.skipped]
            if len(ends) < 2:
                continue
            between = busy[ends[0] + 1 : ends[-1] + 1]
            busy_bits = 8 * sum(modelled_ethernet_bytes(f.stream_bytes, preamble_fcs_gap=True) for f in between)
            if busy_bits / config.rate_bps >= _LOADED * (_TIMER_S + config.jitter_s):
                bits += busy_bits
                span_ns += busy[ends[-1]].row["t_received_ns"] - busy[ends[0]].row["t_received_ns"]
    rate_bps = 1e9 * bits / span_ns if span_ns > 0 else None
    report.achieved["rate_bps"] = rate_bps
    report.within["rate"] = None
    if rate_bps is not None and config.rate_bps is not None:
        report.within["rate"] = abs(rate_bps / config.rate_bps - 1.0) <= TOLERANCE


def _load(report: LinkReport, frames: Sequence[_Frame], on_line: Sequence[_Frame]) -> None:
    """Note what the line was offered, and how long the last frame waited for it."""
    offered = 8 * sum(modelled_ethernet_bytes(frame.stream_bytes, preamble_fcs_gap=True) for frame in frames)
    report.achieved["offered_bits"] = offered
    report.achieved["last_wait_s"] = None
    if on_line:
        last = on_line[-1]
        report.achieved["last_wait_s"] = 1e-9 * ((last.t_line_ns or 0) - last.row["t_sent_ns"])


def _busy_times(on_line: Sequence[_Frame]) -> Iterator[list[_Frame]]:
    """Yield frames that followed each other on the line without a gap."""
    busy: list[_Frame] = []
    for frame in on_line:
        if not frame.waited and busy:
            yield busy
            busy = []
        busy.append(frame)
    if busy:
        yield busy


def _delay(
    report: LinkReport, on_line: Sequence[_Frame], config: LinkConfig, receiver_ahead_ns: int, uncertainty_ns: int
) -> None:
    import numpy as np

    # A copy immediately follows its original, and half of the copies would wait for its jitter.
    frames = [frame for frame in on_line if frame.arrived and not frame.skipped and not frame.is_copy]
    held = sum(frame.held for frame in frames)
    report.achieved["held_back"] = held
    names = ("delay_mean_s", "delay_p50_s", "delay_p99_s", "planned_delay_mean_s")
    report.achieved.update(dict.fromkeys(names))
    report.within["delay"] = None
    if not frames:
        return
    # Differences of integers first: a float cannot hold a time since 1970 to the nanosecond.
    lines = [frame.t_line_ns or 0 for frame in frames]
    times = [
        frame.row["t_received_ns"] - receiver_ahead_ns - t_line for frame, t_line in zip(frames, lines, strict=True)
    ]
    planned = [frame.row["t_release_ns"] - t_line for frame, t_line in zip(frames, lines, strict=True)]
    delays_s = 1e-9 * np.array(times, dtype=np.float64)
    mean_s, p50_s, p99_s = float(delays_s.mean()), *(float(p) for p in np.percentile(delays_s, (50, 99)))
    planned_s = 1e-9 * sum(planned) / len(planned)
    report.achieved.update(zip(names, (mean_s, p50_s, p99_s, planned_s), strict=True))
    if config.mean_delay_s > 0 and held <= _HELD_SHARE * len(frames):
        deviation_s = config.jitter_s * JITTER_DEVIATIONS[config.jitter] / math.sqrt(len(frames))
        allowed_s = TOLERANCE * config.mean_delay_s + _NORMAL_QUANTILE * deviation_s + 1e-9 * uncertainty_ns
        report.within["delay"] = abs(mean_s - config.mean_delay_s) <= allowed_s


def _share(report: LinkReport, name: str, hits: int, trials: int, requested: float, inflation: float = 1.0) -> None:
    low, high = share_interval(hits, trials, inflation)
    report.achieved[name] = hits / trials if trials else None
    report.achieved[f"{name}_low"] = low if trials else None
    report.achieved[f"{name}_high"] = high if trials else None
    report.within[name] = None
    if trials:
        report.within[name] = low <= requested <= high if requested > 0 else hits == 0


def share_interval(hits: int, trials: int, inflation: float = 1.0) -> tuple[float, float]:
    """Return the 99 % confidence interval of a probability (Clopper and Pearson 1934); (0, 1) without trials.

    Args:
        hits: number of trials with the outcome.
        trials: number of trials.
        inflation: factor by which the variance of the count exceeds that of independent trials; trials in bursts are
            worth fewer independent ones, by this factor.
    """
    from scipy.special import betaincinv

    k, n = hits / inflation, trials / inflation
    tail = (1.0 - CONFIDENCE) / 2.0
    low = float(betaincinv(k, n - k + 1.0, tail)) if hits > 0 else 0.0
    high = float(betaincinv(k + 1.0, n - k, 1.0 - tail)) if hits < trials else 1.0
    return low, high


def _inflation(config: LinkConfig, trials: int) -> float:
    """Return the factor by which bursts inflate the variance of the number of losses in `trials` frames."""
    burst = config.burst
    if burst is None or not 0.0 < config.mean_loss < 1.0:
        return 1.0
    step = 1.0 - burst.to_bad - burst.to_good  # correlation of the state with the next one
    # Independent losses thin out the frames that the chain keeps.
    contrast = (burst.loss_bad - burst.loss_good) * (1.0 - config.loss)
    covariance = contrast**2 * burst.share_bad * (1.0 - burst.share_bad)
    # Sum of 2 (1 - k/n) step^k over k = 1..n-1, in the limit of many frames.
    inflation = 1.0 + 2.0 * covariance / (config.mean_loss * (1.0 - config.mean_loss)) * step / (1.0 - step)
    return max(1.0, min(inflation, float(trials)))


def _out_of_order(arrived: Sequence[_Frame]) -> int:
    """Count arrivals after one with a higher seq (RFC 4737, section 3.3)."""
    highest: dict[int, int] = {}
    count = 0
    for frame in sorted(arrived, key=lambda frame: (frame.row["t_received_ns"], frame.row["seq"])):
        epoch, seq = frame.row["epoch"], frame.row["seq"]
        count += seq < highest.get(epoch, 0)
        highest[epoch] = max(seq, highest.get(epoch, 0))
    return count
