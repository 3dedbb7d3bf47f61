"""The link model, a pure state machine that maps sending times to release times and fates.

The model sits at the sender, before the socket (docs/fronthaul.md, "Links"). A frame passes, in order:

    outage -> queue (tail drop) -> line, at its rate -> loss -> corruption -> delay and jitter -> released

The rate applies to modelled Ethernet bytes, preamble, FCS and gap included. Loss, duplication and corruption happen
above TCP: a lost frame never enters the TCP stream, so it is not retransmitted.

Random draws are keyed by (seed, bs, direction, epoch, seq), with a fixed number per frame in a fixed order: they depend
neither on other options nor on the time or order of calls. Loss, corruption, duplication, reordering and jitter are
therefore the same in both drivers. What depends on time (queue, outage, waiting for an earlier frame) is reproducible
on the simulated clock only.

A frame is released after delay_s + J. J >= 0 has mean jitter_s for every shape, so delay_s is the minimum delay and
delay_s + jitter_s the mean, as long as frames are further apart than the jitter. Only reordered frames overtake others:
a frame behind a late one waits for it. A reordered frame skips delay and jitter, as with netem, and overtakes
everything still on the way except control messages.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Literal, NamedTuple

from fronthaul.account.costs import modelled_ethernet_bytes
from fronthaul.draws import generator
from fronthaul.errors import LocalError
from fronthaul.link.impairment import GilbertElliott, JitterShape
from fronthaul.link.link_config import LinkConfig
from fronthaul.message.messages import Direction
from fronthaul.transport.endpoint import IPV4_HEADER_BYTES

__all__ = ["DropReason", "GilbertElliott", "Line", "LinkConfig", "LinkModel", "Passage", "unit_jitter"]

DropReason = Literal["loss", "queue", "outage"]

ALWAYS_NOTICED_BITS = 91_607
"""Up to this length CRC-32 detects any three flipped bits (Koopman, "32-bit cyclic redundancy codes for internet
applications", DSN 2002); beyond it, any two."""

# The draws of a frame, in order. Add new ones at the end, or every recorded run changes.
_LOSS, _BURST_STATE, _BURST_LOSS, _DUPLICATE, _REORDER, _CORRUPT, _JITTER, _FLIPS, _FIRST_FLIP = range(9)
_MAX_FLIPS = 3
_DRAWS = _FIRST_FLIP + _MAX_FLIPS
_NOTHING_HAPPENS = (1.0,) * _DRAWS

_PARETO_SHAPE = 3.0  # the smallest integer shape (heaviest tail) with finite variance
_NORMAL_CUT = 3.0
_NORMAL = statistics.NormalDist()
_NORMAL_LOW = _NORMAL.cdf(-_NORMAL_CUT)


class Passage(NamedTuple):
    """The result of passing a frame.

    Attributes:
        t_release_ns: when it leaves the link model [ns]; for a lost frame, when it left the line; for one dropped by
            queue or outage, when it was sent.
        drop_reason: why it never arrives; None if it does.
        flipped: bit positions to invert, ascending; 0 is the most significant bit of byte 0.
        duplicate: whether the link makes a copy, to be passed to `copy` under the next seq. A dropped frame may have a
            copy, too, with its own fate: frame numbers then depend on the draws alone.
    """

    t_release_ns: int
    drop_reason: DropReason | None = None
    flipped: tuple[int, ...] = ()
    duplicate: bool = False


class LinkModel:
    """One direction of one link, for one epoch of its base station.

    Attributes:
        t0_ns: time zero of the run, the reference of outages [ns]; may be set when the run starts.
    """

    def __init__(
        self,
        config: LinkConfig,
        *,
        seed: int,
        bs: int,
        direction: Direction,
        epoch: int,
        t0_ns: int = 0,
        ip_header_bytes: int = IPV4_HEADER_BYTES,
    ) -> None:
        """Start with an idle line.

        Args:
            config: what the link does.
            seed: the run's seed.
            bs: base station at the link's edge.
            direction: which way the messages go.
            epoch: number of earlier starts of this BS.
            t0_ns: time zero of the run [ns].
            ip_header_bytes: header of each IP packet on the line [B].
        """
        self.t0_ns = t0_ns
        self._ip_header_bytes = ip_header_bytes
        self._config = config
        self._seed = seed
        self._key = (bs, 0 if direction is Direction.UP else 1, epoch)
        self._draws_needed = _needs_draws(config)
        self._delay_ns = round(config.delay_s * 1e9)
        self._jitter_ns = config.jitter_s * 1e9
        self._outages_ns = [(round(start * 1e9), round(end * 1e9)) for start, end in config.outages]
        self._line = Line(config.rate_bps)
        self._burst_seq = -1
        self._burst_bad = False
        self._last_in_order_ns = -(1 << 63)  # release of the last message that was not reordered
        self._last_control_ns = -(1 << 63)

    def frame(self, seq: int, stream_bytes: int, message_bits: int, now_ns: int) -> Passage:
        """Pass one frame.

        Args:
            seq: of the frame; any order gives the same draws, ascending order is fast if bursts are modelled.
            stream_bytes: what the frame costs on the TCP stream [B].
            message_bits: length of the message whose bits may flip [bit].
            now_ns: when it is sent [ns].

        Raises:
            LocalError: `seq` is negative, or `stream_bytes` or `message_bits` is below 1.
        """
        if seq < 0 or stream_bytes < 1 or message_bits < 1:
            raise LocalError(f"no frame has seq {seq}, {stream_bytes} B on the stream and {message_bits} bits")
        config = self._config
        draws = self._draws(seq) if self._draws_needed else _NOTHING_HAPPENS
        lost = draws[_LOSS] < config.loss
        if config.burst is not None:
            bad = self._in_burst(seq, draws[_BURST_STATE])
            lost |= draws[_BURST_LOSS] < (config.burst.loss_bad if bad else config.burst.loss_good)
        duplicate = draws[_DUPLICATE] < config.duplicate

        if self.outage_end_ns(now_ns) is not None:
            return Passage(now_ns, "outage", (), duplicate)
        line_bytes = self._line_bytes(stream_bytes)
        if config.queue_bytes is not None and self._line.waiting_bytes(now_ns) + line_bytes > config.queue_bytes:
            return Passage(now_ns, "queue", (), duplicate)
        _, t_line_ns = self._line.put(line_bytes, now_ns)
        if lost:
            return Passage(t_line_ns, "loss", (), duplicate)
        flipped = _flips(draws, message_bits) if draws[_CORRUPT] < config.corrupt else ()
        if draws[_REORDER] < config.reorder:
            # Not even a reordered frame overtakes a control message: it could arrive before its registration.
            t_release_ns = max(t_line_ns, self._last_control_ns)
        else:
            t_release_ns = t_line_ns + self._delay_ns
            if self._jitter_ns:
                t_release_ns += round(self._jitter_ns * unit_jitter(config.jitter, draws[_JITTER]))
            t_release_ns = max(t_release_ns, self._last_in_order_ns)
            self._last_in_order_ns = t_release_ns
        return Passage(t_release_ns, None, flipped, duplicate)

    def copy(self, seq: int, stream_bytes: int, message_bits: int, now_ns: int) -> Passage:
        """Pass a copy that the link made, under its own seq: like `frame`, but never copied again."""
        return self.frame(seq, stream_bytes, message_bits, now_ns)._replace(duplicate=False)

    def control(self, stream_bytes: int, now_ns: int) -> int:
        """Return when a control message leaves the link model [ns].

        It takes its turn on the line, then delay_s + jitter_s. It is never lost: the queue always has room for it, and
        in an outage it waits for the end. It does not overtake earlier messages, and no message overtakes it.

        Args:
            stream_bytes: what the message costs on the TCP stream [B].
            now_ns: when it is sent [ns].

        Raises:
            LocalError: `stream_bytes` is below 1.
        """
        if stream_bytes < 1:
            raise LocalError(f"no message has {stream_bytes} B on the stream")
        outage_end_ns = self.outage_end_ns(now_ns)
        ready_ns = now_ns if outage_end_ns is None else outage_end_ns
        _, t_line_ns = self._line.put(self._line_bytes(stream_bytes), ready_ns)
        # A reordered frame before it left the line before it, and without delay.
        t_release_ns = max(t_line_ns + self._delay_ns + round(self._jitter_ns), self._last_in_order_ns)
        self._last_in_order_ns = self._last_control_ns = t_release_ns
        return t_release_ns

    def _line_bytes(self, stream_bytes: int) -> int:
        return modelled_ethernet_bytes(stream_bytes, self._ip_header_bytes, preamble_fcs_gap=True)

    def _draws(self, seq: int) -> list[float]:
        draws: list[float] = generator(self._seed, "link", *self._key, seq).random(_DRAWS).tolist()
        return draws

    def _in_burst(self, seq: int, draw: float) -> bool:
        """Return the state of the Gilbert-Elliott chain at `seq`: a function of the draws of frames 0..seq."""
        burst = self._config.burst
        assert burst is not None  # the caller looked
        if seq < self._burst_seq:
            self._burst_seq = -1
        for at in range(self._burst_seq + 1, seq + 1):
            step = draw if at == seq else self._draws(at)[_BURST_STATE]
            if at == 0:  # the stationary distribution, so that short runs have the same loss as long ones
                self._burst_bad = step < burst.share_bad
            elif self._burst_bad:
                self._burst_bad = step >= burst.to_good
            else:
                self._burst_bad = step < burst.to_bad
        self._burst_seq = seq
        return self._burst_bad

    def outage_end_ns(self, now_ns: int) -> int | None:
        """Return when the link is back after an outage at `now_ns` [ns]; None without one.

        An outage includes its start, not its end, at which the next may start.
        """
        since_ns = now_ns - self.t0_ns
        for start_ns, end_ns in self._outages_ns:  # in order
            if start_ns <= since_ns < end_ns:
                since_ns = end_ns
        back_ns = self.t0_ns + since_ns
        return back_ns if back_ns > now_ns else None


class Line:
    """A serial line with a fixed rate; a message that finds the line busy waits."""

    def __init__(self, rate_bps: float | None) -> None:
        """Start idle, with `rate_bps` [bit/s] or without limit."""
        # As a fraction of integers: a float cannot hold a time since 1970 to the nanosecond.
        self._rate = None if rate_bps is None else rate_bps.as_integer_ratio()
        self._busy_from_ns = self._free_ns = -(1 << 63)
        self._busy_bits = 0  # put on the line since it was last idle
        self._waiting: deque[tuple[int, int]] = deque()  # (start of its serialisation [ns], bytes)
        self._waiting_bytes = 0

    def put(self, line_bytes: int, now_ns: int) -> tuple[int, int]:
        """Append `line_bytes` at `now_ns` [ns]; return when its first bit leaves, and when its last has left [ns]."""
        start_ns = max(now_ns, self._free_ns)
        if start_ns > now_ns:
            self._waiting.append((start_ns, line_bytes))
            self._waiting_bytes += line_bytes
        else:
            self._busy_from_ns, self._busy_bits = now_ns, 0
        if self._rate is None:
            self._free_ns = start_ns
        else:
            # Rounded up once per busy period, not once per message: never faster than the rate, nor 1 ns too late.
            bps, scale = self._rate
            self._busy_bits += 8 * line_bytes
            self._free_ns = self._busy_from_ns - (-self._busy_bits * 1_000_000_000 * scale // bps)
        return start_ns, self._free_ns

    def waiting_bytes(self, now_ns: int) -> int:
        """Return the bytes whose serialisation has not begun at `now_ns` [B]."""
        while self._waiting and self._waiting[0][0] <= now_ns:
            self._waiting_bytes -= self._waiting.popleft()[1]
        return self._waiting_bytes


JITTER_DEVIATIONS: dict[JitterShape, float] = {
    "uniform": 1.0 / math.sqrt(3.0),
    # Variance of the normal truncated at c: 1 - 2 c phi(c) / (2 Phi(c) - 1) (both tails; the mean stays).
    "normal": math.sqrt(1.0 - 2.0 * _NORMAL_CUT * _NORMAL.pdf(_NORMAL_CUT) / (1.0 - 2.0 * _NORMAL_LOW)) / _NORMAL_CUT,
    "exponential": 1.0,
    "pareto": math.sqrt(_PARETO_SHAPE / (_PARETO_SHAPE - 2.0)),
}
"""Standard deviation of jitter with mean 1."""


def unit_jitter(shape: JitterShape, draw: float) -> float:
    """Return jitter with mean 1 from a uniform draw in [0, 1), by inversion.

    Uniform: over [0, 2]. Normal: standard deviation 1/3 about 1, truncated to [0, 2]. Exponential. Pareto: Lomax of
    shape 3, heavy-tailed (standard deviation 1.73).
    """
    if shape == "uniform":
        return 2.0 * draw
    if shape == "normal":
        return 1.0 + _NORMAL.inv_cdf(_NORMAL_LOW + draw * (1.0 - 2.0 * _NORMAL_LOW)) / _NORMAL_CUT
    if shape == "exponential":
        return -math.log1p(-draw)
    return (_PARETO_SHAPE - 1.0) * math.expm1(-math.log1p(-draw) / _PARETO_SHAPE)


def _flips(draws: list[float] | tuple[float, ...], message_bits: int) -> tuple[int, ...]:
    """Return one to three positions, few enough for CRC-32 to detect: a flipped frame must never be delivered."""
    most = _MAX_FLIPS if message_bits <= ALWAYS_NOTICED_BITS else _MAX_FLIPS - 1
    flips = 1 + int(draws[_FLIPS] * most)
    return tuple(sorted({int(draw * message_bits) for draw in draws[_FIRST_FLIP : _FIRST_FLIP + flips]}))


def _needs_draws(config: LinkConfig) -> bool:
    """Return whether anything about the link is random; unnecessary draws cost 12 us per frame."""
    chances = (config.loss, config.duplicate, config.reorder, config.corrupt, config.jitter_s)
    return any(chances) or config.burst is not None
