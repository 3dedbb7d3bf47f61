"""What a link shall do: the numbers behind `link.LinkModel`, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from fronthaul.errors import LocalError

JitterShape = Literal["uniform", "normal", "exponential", "pareto"]
MAX_DELAY_S = 3600.0
"""No link holds a message back for longer [s]; times are whole nanoseconds, which much larger numbers are not."""
JITTER_SHAPES: tuple[str, ...] = get_args(JitterShape)


@dataclass(frozen=True, slots=True)
class GilbertElliott:
    """Loss in bursts: a chain of two states that takes one step a frame (Gilbert 1960, Elliott 1963).

    Attributes:
        to_bad: probability of a step from the good state to the bad one.
        to_good: probability of a step back; bad states last 1 / to_good frames on average.
        loss_bad: probability of a loss in the bad state.
        loss_good: probability of a loss in the good state.

    Raises:
        LocalError: a value that is no probability, or a bad state without end.
    """

    to_bad: float
    to_good: float
    loss_bad: float = 1.0
    loss_good: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("to_bad", "to_good", "loss_bad", "loss_good"):
            _require_probability(f"burst.{name}", getattr(self, name))
        if self.to_good == 0.0:
            raise LocalError("burst.to_good must be above 0, or the bad state never ends")

    @property
    def share_bad(self) -> float:
        """Stationary share of frames in the bad state."""
        return self.to_bad / (self.to_bad + self.to_good)

    @property
    def mean_loss(self) -> float:
        """Stationary probability of a loss."""
        return self.share_bad * self.loss_bad + (1.0 - self.share_bad) * self.loss_good

    @property
    def mean_burst_frames(self) -> float:
        """Mean stay in the bad state [frames]."""
        return 1.0 / self.to_good


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """One direction of one link; the default changes nothing.

    Attributes:
        rate_bps: of modelled Ethernet bytes [bit/s]; None is without limit.
        delay_s: floor of the delay after the line [s].
        jitter_s: mean of what is added to the delay [s], so that the mean delay is delay_s + jitter_s.
        jitter: how it is distributed, see `link.unit_jitter`.
        loss: probability that a frame is lost, whatever happens to others.
        burst: loss in bursts, on top of `loss`.
        duplicate: probability that the link copies a frame; the copy takes its own turn on the line.
        reorder: probability that a frame skips delay and jitter.
        corrupt: probability that one to three bits of a frame flip.
        outages: (start, end) [s] after time zero, rising: frames sent in one are dropped, the end not included.
        queue_bytes: what may wait for the line, the arriving frame included, in modelled Ethernet bytes [B]; None is
            without limit. What is on the line already does not count; without a rate nothing waits.

    Raises:
        LocalError: a value out of range, named in one sentence.
    """

    rate_bps: float | None = None
    delay_s: float = 0.0
    jitter_s: float = 0.0
    jitter: JitterShape = "uniform"
    loss: float = 0.0
    burst: GilbertElliott | None = None
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    outages: tuple[tuple[float, float], ...] = field(default=())
    queue_bytes: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.rate_bps is not None and not (_is_number(self.rate_bps) and self.rate_bps > 0):
            raise LocalError(f"rate_bps must be a finite number above 0 bit/s, not {self.rate_bps!r}")
        for name in ("delay_s", "jitter_s"):
            value = getattr(self, name)
            if not (_is_number(value) and 0 <= value <= MAX_DELAY_S):
                raise LocalError(f"{name} must be 0 to {MAX_DELAY_S:g} s, not {value!r}")
        if self.jitter not in JITTER_SHAPES:
            raise LocalError(f"jitter must be one of {', '.join(JITTER_SHAPES)}, not {self.jitter!r}")
        for name in ("loss", "duplicate", "reorder", "corrupt"):
            _require_probability(name, getattr(self, name))
        self._check_outages()
        queue = self.queue_bytes
        if queue is not None and (not isinstance(queue, int) or isinstance(queue, bool) or queue < 1):
            raise LocalError(f"queue_bytes must be a whole number of bytes above 0, not {queue!r}")

    def _check_outages(self) -> None:
        last_end = 0.0
        for outage in self.outages:
            if not (isinstance(outage, tuple) and len(outage) == 2 and all(_is_number(edge) for edge in outage)):
                raise LocalError(f"an outage is a pair of finite numbers of seconds, not {outage!r}")
            start, end = outage
            if start < 0 or end <= start:
                raise LocalError(
                    f"an outage starts at 0 s or later and ends after its start, unlike {start} s to {end} s"
                )
            if start < last_end:
                raise LocalError(f"outages must rise without overlap: one starts at {start} s, before {last_end} s")
            last_end = end

    @property
    def mean_delay_s(self) -> float:
        """Mean delay after the line, for a frame that is neither reordered nor held back [s]."""
        return self.delay_s + self.jitter_s

    @property
    def mean_loss(self) -> float:
        """Probability that a frame which reaches the line is lost, bursts included."""
        kept = 1.0 if self.burst is None else 1.0 - self.burst.mean_loss
        return 1.0 - (1.0 - self.loss) * kept


def _is_number(value: object) -> bool:
    # bool is an int to Python; here it is a slip.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _require_probability(name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0.0 <= value <= 1.0:
        raise LocalError(f"{name} must be a probability from 0 to 1, not {value!r}")
