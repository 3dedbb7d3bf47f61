"""Requested against achieved link behaviour, from the ledger of one link and direction.

A frame's path is sent -> line -> delay and jitter -> received. Its time on the line (waiting and serialisation) is not
measured but recomputed from the journal's times and the rate, and excluded from the delay; the recomputation ignores
control messages, which are few and short. The rate is measured where frames followed each other without a gap, so a
link that was never loaded has no measured rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fronthaul.account.conservation import codes
from fronthaul.account.costs import modelled_ethernet_bytes
from fronthaul.errors import LocalError
from fronthaul.link.link_config import IMPAIRMENTS, LinkConfig
from fronthaul.link.link_model import JITTER_DEVIATIONS, Line
from fronthaul.message.fates import FrameFate
from fronthaul.transport.endpoint import IPV4_HEADER_BYTES

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

LINK_COLUMNS = (
    *("bs", "direction", "epoch", "seq", "part", "snapshot", "round", "t_sent_ns", "t_release_ns", "t_received_ns"),
    *("payload_bits", "padding_bits", "side_bits", "header_bytes", "zmtp_bytes", "curve_bytes"),
    *("frame_fate", "reason"),
)
"""The columns of a ledger that a report needs."""


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


Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Frames:
    """The journaled frames of a link and direction, in order of epoch and seq, as arrays (F,).

    Attributes:
        epoch: epoch of each frame.
        seq: its sequence number.
        t_sent_ns: when it was sent [ns].
        t_release_ns: when the link model released it [ns].
        t_received_ns: when it arrived [ns]; 0 if it did not.
        arrived: whether it did.
        corrupt: whether it arrived corrupt.
        reason: why the sender dropped it, by number in `_REASONS`; -1 for any other reason, -2 for none.
        stream_bytes: what it takes on the stream [B].
        is_copy: whether it is a copy of an earlier frame's reports.
        on_line: whether it got onto the line.
        t_line_ns: when it left the line [ns].
        waited: whether it waited for the line.
        skipped: whether it skipped delay and jitter, being reordered.
        held: whether it was held back to keep the order, behind a frame with more jitter.
        ip_header_bytes: header of each IP packet on the line, a number [B].
    """

    epoch: Array
    seq: Array
    t_sent_ns: Array
    t_release_ns: Array
    t_received_ns: Array
    arrived: Array
    corrupt: Array
    reason: Array
    stream_bytes: Array
    is_copy: Array
    on_line: Array
    t_line_ns: Array
    waited: Array
    skipped: Array
    held: Array
    ip_header_bytes: int

    def where(self, chosen: Array) -> _Frames:
        """Return the chosen frames."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "ip_header_bytes"}
        return replace(self, **{name: array[chosen] for name, array in arrays.items()})

    def line_bytes(self) -> Array:
        """Return what each frame takes on the line, modelled [B]."""
        sizes, which = np.unique(self.stream_bytes, return_inverse=True)
        modelled = [modelled_ethernet_bytes(int(size), self.ip_header_bytes, preamble_fcs_gap=True) for size in sizes]
        found: Array = np.array(modelled, np.int64)[which]
        return found


_REASONS = ("loss", "queue", "outage")
_LOSS, _QUEUE, _OUTAGE = range(3)
_NO_REASON = -2


def link_report(
    ledger: pa.Table,
    config: LinkConfig | None,
    *,
    receiver_ahead_ns: int = 0,
    uncertainty_ns: int = 0,
    ip_header_bytes: int = IPV4_HEADER_BYTES,
) -> LinkReport:
    """Check a ledger against the configuration of its link.

    Args:
        ledger: `ledger.ledger_schema()`, of one link and direction; strays are left out.
        config: what was requested; None for a link without a model.
        receiver_ahead_ns: how far the receiver's clock is ahead of the sender's [ns].
        uncertainty_ns: uncertainty of `receiver_ahead_ns`, added to the tolerance of the delay [ns].
        ip_header_bytes: header of each IP packet of the link [B].

    Raises:
        LocalError: rows of several links or directions.
    """
    config = config or LinkConfig()
    frames = _retraced(_frames(ledger, ip_header_bytes), config)
    on_line = frames.where(frames.on_line)
    arrived = frames.where(frames.arrived)
    report = LinkReport(
        requested={
            impairment.report.requested: getattr(config, impairment.report.of)
            for impairment in IMPAIRMENTS.values()
            if impairment.report is not None
        },
        achieved={"frames": len(frames.seq)},
        within={},
    )
    _rate(report, on_line, config)
    _load(report, frames, on_line)
    _delay(report, on_line, config, receiver_ahead_ns, uncertainty_ns)
    lost = _count(on_line.reason == _LOSS)
    _share(report, "loss", lost, len(on_line.seq), config.mean_loss, _inflation(config, len(on_line.seq)))
    copies = _count(frames.is_copy)
    _share(report, "duplicate", copies, len(frames.seq) - copies, config.duplicate)
    # Without delay there is nothing to skip.
    sent_on = on_line.where((on_line.reason == _NO_REASON) & bool(config.mean_delay_s))
    _share(report, "reorder", _count(sent_on.skipped), len(sent_on.seq), config.reorder)
    _share(report, "corrupt", _count(arrived.corrupt), len(arrived.seq), config.corrupt)
    report.achieved["out_of_order"] = late = _out_of_order(arrived)
    report.within["order"] = late == 0 if config.reorder == 0 and len(arrived.seq) else None
    for name, number, is_requested in (
        ("outage", _OUTAGE, bool(config.outages)),
        ("queue", _QUEUE, config.queue_bytes is not None),
    ):
        report.achieved[f"{name}_drops"] = drops = _count(frames.reason == number)
        report.within[name] = drops == 0 if len(frames.seq) and not is_requested else None
    return report


def _count(mask: Array) -> int:
    return int(np.count_nonzero(mask))


def _frames(ledger: pa.Table, ip_header_bytes: int) -> _Frames:
    """Return the journaled frames, before the line; rows of reports that share a frame are merged."""
    import pyarrow.compute as pc

    links = max(len(pc.unique(ledger[name])) for name in ("bs", "direction"))
    if links > 1:
        raise LocalError(f"a link report is of one link and direction, not of {links}")
    rows = ledger.select(LINK_COLUMNS).filter(ledger["t_sent_ns"].is_valid())
    order = [("epoch", "ascending"), ("seq", "ascending"), ("part", "ascending")]
    rows = rows.sort_by(order)

    def numbers(name: str) -> Array:
        found: Array = rows[name].fill_null(0).to_numpy().astype(np.int64)
        return found

    epoch, seq = numbers("epoch"), numbers("seq")
    bits = numbers("payload_bits") + numbers("padding_bits") + numbers("side_bits")
    each_bytes = bits // 8 + numbers("header_bytes") + numbers("zmtp_bytes") + numbers("curve_bytes")
    begins = np.flatnonzero(np.append(True, (np.diff(epoch) != 0) | (np.diff(seq) != 0))[: len(seq)])
    report = epoch << 40 | numbers("snapshot") << 8 | numbers("round")
    _, first = np.unique(report[begins], return_index=True)
    is_copy = np.ones(len(begins), np.bool_)
    is_copy[first] = False
    none = np.zeros(len(begins), np.bool_)
    reason = codes(rows["reason"], _REASONS).astype(np.int8)
    reason[rows["reason"].is_null().to_numpy()] = _NO_REASON
    return _Frames(
        epoch=epoch[begins],
        seq=seq[begins],
        t_sent_ns=numbers("t_sent_ns")[begins],
        t_release_ns=numbers("t_release_ns")[begins],
        t_received_ns=numbers("t_received_ns")[begins],
        arrived=rows["t_received_ns"].is_valid().to_numpy()[begins],
        corrupt=codes(rows["frame_fate"], [FrameFate.CORRUPT.value])[begins] == 0,
        reason=reason[begins],
        stream_bytes=np.add.reduceat(each_bytes, begins) if len(begins) else each_bytes,
        is_copy=is_copy,
        **{name: none for name in ("on_line", "waited", "skipped", "held")},
        t_line_ns=np.zeros(len(begins), np.int64),
        ip_header_bytes=ip_header_bytes,
    )


def _retraced(frames: _Frames, config: LinkConfig) -> _Frames:
    """Recompute what the link model did to each frame, from times and rate."""
    # Half the floor of the delay tells a reordered frame from others; without a floor, being released at once does.
    skip_ns = max(round(config.delay_s * 5e8), 1)
    # Others were dropped by the link model before the line.
    before = (frames.reason == _QUEUE) | (frames.reason == _OUTAGE)
    on_line = ~(before & (frames.t_release_ns == frames.t_sent_ns))
    t_line_ns = np.where(on_line, frames.t_sent_ns, 0)
    waited = np.zeros(len(on_line), np.bool_)
    if config.rate_bps is not None:
        epoch = None
        times, sizes, epochs = frames.t_sent_ns.tolist(), frames.line_bytes().tolist(), frames.epoch.tolist()
        for at in np.flatnonzero(on_line).tolist():
            if epoch != (epoch := epochs[at]):  # a new process has an idle line
                line = Line(config.rate_bps)
            start_ns, t_line_ns[at] = line.put(sizes[at], times[at])
            waited[at] = start_ns > times[at]
    released = on_line & (frames.reason != _LOSS)
    skipped = released & (config.mean_delay_s > 0) & (frames.t_release_ns - t_line_ns < skip_ns)
    if config.reorder == 0:  # jitter may be that short too: only who overtakes is reordered
        skipped &= _overtakes(frames, released)
    held = np.zeros(len(on_line), np.bool_)
    if config.jitter_s > 0:
        kept = np.flatnonzero(released & ~skipped)
        same = (np.diff(frames.t_release_ns[kept]) == 0) & (np.diff(frames.epoch[kept]) == 0)
        held[kept[1:][same]] = True
    return replace(frames, on_line=on_line, t_line_ns=t_line_ns, waited=waited, skipped=skipped, held=held)


def _overtakes(frames: _Frames, released: Array) -> Array:
    """Return whether each frame was released before an earlier one of its epoch."""
    found = np.zeros(len(released), np.bool_)
    for epoch in np.unique(frames.epoch):
        mine = np.flatnonzero(released & (frames.epoch == epoch))
        t_release_ns = frames.t_release_ns[mine]
        found[mine[1:]] = t_release_ns[1:] < np.maximum.accumulate(t_release_ns)[:-1]
    return found


def _rate(report: LinkReport, on_line: _Frames, config: LinkConfig) -> None:
    bits, span_ns = 0, 0
    if config.rate_bps is not None and len(on_line.seq):
        line_bits = np.cumsum(8 * on_line.line_bytes())
        ends = np.flatnonzero(on_line.arrived & ~on_line.skipped)
        # Busy times: frames that followed each other on the line without a gap.
        busy = np.cumsum(~on_line.waited)[ends]
        for together in np.split(ends, np.flatnonzero(np.diff(busy)) + 1):
            if len(together) < 2:
                continue
            first, last = together[0], together[-1]
            busy_bits = int(line_bits[last] - line_bits[first])
            if busy_bits / config.rate_bps >= _LOADED * (_TIMER_S + config.jitter_s):
                bits += busy_bits
                span_ns += int(on_line.t_received_ns[last] - on_line.t_received_ns[first])
    rate_bps = 1e9 * bits / span_ns if span_ns > 0 else None
    report.achieved["rate_bps"] = rate_bps
    report.within["rate"] = None
    if rate_bps is not None and config.rate_bps is not None:
        report.within["rate"] = abs(rate_bps / config.rate_bps - 1.0) <= TOLERANCE


def _load(report: LinkReport, frames: _Frames, on_line: _Frames) -> None:
    """Note what the line was offered, and how long the last frame waited for it."""
    report.achieved["offered_bits"] = 8 * int(frames.line_bytes().sum())
    report.achieved["last_wait_s"] = None
    if len(on_line.seq):
        report.achieved["last_wait_s"] = 1e-9 * int(on_line.t_line_ns[-1] - on_line.t_sent_ns[-1])


def _delay(
    report: LinkReport, on_line: _Frames, config: LinkConfig, receiver_ahead_ns: int, uncertainty_ns: int
) -> None:
    # A copy immediately follows its original, and half of the copies would wait for its jitter.
    frames = on_line.where(on_line.arrived & ~on_line.skipped & ~on_line.is_copy)
    held, count = _count(frames.held), len(frames.seq)
    report.achieved["held_back"] = held
    names = ("delay_mean_s", "delay_p50_s", "delay_p99_s", "planned_delay_mean_s")
    report.achieved.update(dict.fromkeys(names))
    report.within["delay"] = None
    if not count:
        return
    # Differences of integers first: a float cannot hold a time since 1970 to the nanosecond.
    delays_s = 1e-9 * (frames.t_received_ns - receiver_ahead_ns - frames.t_line_ns)
    mean_s, p50_s, p99_s = float(delays_s.mean()), *(float(p) for p in np.percentile(delays_s, (50, 99)))
    planned_s = 1e-9 * int((frames.t_release_ns - frames.t_line_ns).sum()) / count
    report.achieved.update(zip(names, (mean_s, p50_s, p99_s, planned_s), strict=True))
    if config.mean_delay_s > 0 and held <= _HELD_SHARE * count:
        deviation_s = config.jitter_s * JITTER_DEVIATIONS[config.jitter] / math.sqrt(count)
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


def _out_of_order(arrived: _Frames) -> int:
    """Count arrivals after one with a higher seq (RFC 4737, section 3.3)."""
    order = np.lexsort((arrived.seq, arrived.t_received_ns, arrived.epoch))
    # Epochs in the high bits, so that one running maximum serves all of them.
    number = arrived.epoch[order] << 32 | arrived.seq[order]
    return _count(number < np.maximum.accumulate(number)) if len(number) else 0
