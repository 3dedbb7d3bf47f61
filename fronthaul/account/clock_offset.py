"""How far the cloud's clock is ahead of a base station's, from pings over the fronthaul.

A ping leaves the BS at t1 (its clock), reaches the cloud at t2 and leaves it again at t3 (the cloud's clock), and is
back at t4 (RFC 5905, section 8):

    theta = ((t2 - t1) + (t3 - t4)) / 2        delta = (t4 - t1) - (t3 - t2)

However asymmetric the path, the true offset lies within theta +- delta / 2, so pings with the least delta say most.
A drift is the line through the best ping and the best of those far from it; for clocks of constant rate its bound is
as hard as theirs, between them and beyond. Times are integers: a float holds no time since 1970 to the nanosecond.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from fronthaul.errors import LocalError

MIN_DRIFT_SAMPLES = 8
"""Fewer pings than this give no drift: the least delay of a few is luck."""
MIN_DRIFT_SPAN_NS = 1_000_000_000
"""Nor do pings within a shorter time [ns]: half a delay of 0.1 ms at both ends is 100 ppm over it already."""

MAX_DRIFT_PPM = 500
"""No two clocks in use drift apart faster than this [ppm]; NTP's limit for one that is still disciplined."""


class Sample(Protocol):
    """One ping; `traffic.ClockSample` is one. t1 and t4 by the BS's clock, t2 and t3 by the cloud's [ns]."""

    @property
    def t1(self) -> int:
        """When the BS sent it [ns]."""

    @property
    def t2(self) -> int:
        """When the cloud received it [ns]."""

    @property
    def t3(self) -> int:
        """When the cloud answered [ns]."""

    @property
    def t4(self) -> int:
        """When the BS received the answer [ns]."""


class Anchor(NamedTuple):
    """What one ping says: at `t_ns` by the BS's clock the offset is `offset_ns` +- `uncertainty_ns` [ns]."""

    t_ns: int
    offset_ns: int
    uncertainty_ns: int


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """The cloud's clock minus the BS's: what to subtract from the cloud's times to have the BS's.

    Attributes:
        offset_ns: by the ping with the least delay [ns].
        uncertainty_ns: hard bound of its error: half its delay, and a little for rounding and drift within the round
            (500 ppm of half the round) [ns].
        drift_ppm: how fast the offset grows, parts in a million; None where the pings do not tell, and the offset is
            taken as constant.
        samples: pings that were used.
        anchors: the pings that the estimate rests on, one or two, in order of time.
    """

    offset_ns: int
    uncertainty_ns: int
    drift_ppm: float | None
    samples: int
    anchors: tuple[Anchor, ...]

    def at(self, t_ns: int) -> tuple[int, int]:
        """Return (offset, uncertainty) [ns] at `t_ns` by the BS's clock [ns].

        The uncertainty is a hard bound for clocks of constant rate; without a drift, for clocks of equal rate.
        """
        if len(self.anchors) == 1:
            return self.offset_ns, self.uncertainty_ns
        first, last = self.anchors
        span_ns = last.t_ns - first.t_ns
        since_ns = t_ns - first.t_ns
        offset_ns = first.offset_ns + round((last.offset_ns - first.offset_ns) * since_ns / span_ns)
        # The error of a line is a line: bounded at two points, it is bounded everywhere.
        weight = since_ns / span_ns
        bound_ns = abs(1.0 - weight) * first.uncertainty_ns + abs(weight) * last.uncertainty_ns
        return offset_ns, int(bound_ns) + 1


def clock_offset(samples: Iterable[Sample]) -> ClockOffset:
    """Estimate the offset from the pings of one link.

    Args:
        samples: in any order. Those that cannot be true, because an answer comes before its question or the cloud
            took longer than the whole round, are left out: a clock was set meanwhile.

    Raises:
        LocalError: no sample can be true.
    """
    anchors = sorted(_anchor(sample) for sample in samples if _possible(sample))
    if not anchors:
        raise LocalError("a clock offset needs at least one ping with its answer")
    best = min(anchors, key=_least_delay)
    span_ns = anchors[-1].t_ns - anchors[0].t_ns
    chosen: tuple[Anchor, ...] = (best,)
    drift_ppm = None
    if len(anchors) >= MIN_DRIFT_SAMPLES and span_ns >= MIN_DRIFT_SPAN_NS:
        # One of the ends is half the span away from anywhere, so there is always another a third away.
        far = [anchor for anchor in anchors if 3 * abs(anchor.t_ns - best.t_ns) >= span_ns]
        first, last = sorted((best, min(far, key=_least_delay)))
        drift_ppm = 1e6 * (last.offset_ns - first.offset_ns) / (last.t_ns - first.t_ns)
        chosen = (first, last)
    return ClockOffset(best.offset_ns, best.uncertainty_ns, drift_ppm, len(anchors), chosen)


def _possible(sample: Sample) -> bool:
    took_ns = sample.t3 - sample.t2
    return 0 <= took_ns <= sample.t4 - sample.t1


def _anchor(sample: Sample) -> Anchor:
    theta_twice = (sample.t2 - sample.t1) + (sample.t3 - sample.t4)
    round_ns = sample.t4 - sample.t1
    delta = round_ns - (sample.t3 - sample.t2)
    # Beyond half the delay: what the clocks drift apart within the round, and that four readings and halves round.
    slack_ns = round_ns * MAX_DRIFT_PPM // 2_000_000 + 3
    return Anchor((sample.t1 + sample.t4) // 2, theta_twice // 2, delta // 2 + slack_ns)


def _least_delay(anchor: Anchor) -> int:
    return anchor.uncertainty_ns
