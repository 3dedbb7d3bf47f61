"""Offset of the cloud's clock from a base station's, estimated from pings over the fronthaul.

A ping leaves the BS at t1 (its clock), reaches the cloud at t2 and leaves it again at t3 (the cloud's clock), and is
back at t4 (RFC 5905, section 8):

    theta = ((t2 - t1) + (t3 - t4)) / 2        delta = (t4 - t1) - (t3 - t2)

However asymmetric the path, the true offset lies within theta +- delta / 2, so pings with the smallest delta are the
most accurate. The drift is the slope of the line through the best ping and the best of those far from it. For clocks
of constant rate the line's error bound is as hard as that of the two pings, between them and beyond. Times are
integers: a float cannot hold a time since 1970 to the nanosecond.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from fronthaul.errors import LocalError

MIN_DRIFT_SAMPLES = 8
"""Minimum number of pings for a drift estimate: with fewer, a small delay is a matter of luck."""
MIN_DRIFT_SPAN_NS = 1_000_000_000
"""Minimum time span of pings for a drift estimate [ns]: over 1 s, half of a 0.1 ms delay at each end is 100 ppm."""

MAX_DRIFT_PPM = 500
"""Assumed maximum drift between two clocks [ppm]: NTP's limit for a disciplined clock."""


class Sample(Protocol):
    """One ping, such as a `control.ClockSample`: t1 and t4 by the BS's clock, t2 and t3 by the cloud's [ns]."""

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
    """The result of one ping: at `t_ns` by the BS's clock the offset is `offset_ns` +- `uncertainty_ns` [ns]."""

    t_ns: int
    offset_ns: int
    uncertainty_ns: int


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """The cloud's clock minus the BS's; subtract it from the cloud's times to get the BS's.

    Attributes:
        offset_ns: offset from the ping with the smallest delay [ns].
        uncertainty_ns: hard bound of its error: half the delay, plus a margin for rounding and for drift during the
            exchange (500 ppm of half its duration) [ns].
        drift_ppm: growth rate of the offset [ppm]; None if the pings do not determine it and the offset is taken as
            constant.
        samples: number of pings used.
        anchors: the pings that the estimate rests on, one or two, ordered by time.
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
        samples: pings in any order. Impossible ones, whose answer precedes the question or where the cloud took longer
            than the whole exchange, are left out: a clock was set in between.

    Raises:
        LocalError: there is no possible sample.
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
    # On top of half the delay: the clocks' drift during the exchange, and the rounding of four readings and of halves.
    slack_ns = round_ns * MAX_DRIFT_PPM // 2_000_000 + 3
    return Anchor((sample.t1 + sample.t4) // 2, theta_twice // 2, delta // 2 + slack_ns)


def _least_delay(anchor: Anchor) -> int:
    return anchor.uncertainty_ns
