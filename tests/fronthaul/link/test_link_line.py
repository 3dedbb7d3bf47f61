"""The link model's line: its queue against a simulation of its own, outages, controls, and what must never happen."""

from __future__ import annotations

import heapq
import math
from collections import deque
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fronthaul.account.costs import modelled_ethernet_bytes
from fronthaul.link.link_config import JitterShape
from fronthaul.link.link_model import LinkConfig, LinkModel, Passage
from fronthaul.message.messages import Direction

MS, SECOND = 1_000_000, 1_000_000_000
START = 1_700_000_000 * SECOND  # a wall clock's: times beyond what a float holds to the nanosecond
SHAPES: list[JitterShape] = ["uniform", "normal", "exponential", "pareto"]


def model(config: LinkConfig) -> LinkModel:
    return LinkModel(config, seed=1, bs=3, direction=Direction.UP, epoch=0, t0_ns=START)


def line_bytes(stream_bytes: int) -> int:
    return modelled_ethernet_bytes(stream_bytes, preamble_fcs_gap=True)


# -------------------------------------------------------------------------------------------------- line and queue


@pytest.mark.parametrize("rate_bps", [9_600.0, 1e6, 1e7, 123_456_789.0, 1e10, 0.5])
def test_the_line_has_its_rate(rate_bps: float) -> None:
    link = model(LinkConfig(rate_bps=rate_bps))
    ends = [link.frame(seq, 400, 3000, START).t_release_ns for seq in range(1000)]
    bits = 8 * line_bytes(400)
    for number, end in enumerate(ends, start=1):
        exact = Fraction(number * bits * SECOND) / Fraction(rate_bps)
        assert exact <= end - START < exact + 1
    rate = 999 * bits / ((ends[-1] - ends[0]) * 1e-9)
    assert rate == pytest.approx(rate_bps, rel=0.05)


def test_the_rate_counts_modelled_ethernet_bytes() -> None:
    link = model(LinkConfig(rate_bps=8e9))
    assert link.frame(0, 1448, 3000, START).t_release_ns - START == 1448 + 90
    assert link.frame(1, 1449, 3000, START + SECOND).t_release_ns - START - SECOND == 1449 + 180


class Fifo:
    """An independent simulation of a line with tail drop: events and exact times, nothing shared with the model."""

    def __init__(self, rate_bps: float, limit: int) -> None:
        self.rate, self.limit = Fraction(rate_bps), limit
        self.queue: deque[tuple[int, int]] = deque()
        self.events: list[Fraction] = []
        self.serving: int | None = None
        self.done: dict[int, Fraction] = {}

    def run_until(self, now: Fraction) -> None:
        while self.events and self.events[0] <= now:
            at = heapq.heappop(self.events)
            assert self.serving is not None
            self.done[self.serving] = at
            self.serving = None
            if self.queue:
                self.serve(*self.queue.popleft(), at)

    def serve(self, name: int, size: int, at: Fraction) -> None:
        self.serving = name
        heapq.heappush(self.events, at + Fraction(8 * size * SECOND) / self.rate)

    def arrive(self, name: int, size: int, now: int) -> bool:
        self.run_until(Fraction(now))
        if sum(waiting for _, waiting in self.queue) + size > self.limit:
            return False
        if self.serving is None:
            self.serve(name, size, Fraction(now))
        else:
            self.queue.append((name, size))
        return True


@given(
    st.lists(st.tuples(st.integers(0, 3 * MS), st.integers(1, 5000)), max_size=60),
    st.sampled_from([1e6, 7e6, 1.3e7]),
    st.integers(100, 12_000),
)
def test_tail_drop_agrees_with_an_independent_simulation(
    traffic: list[tuple[int, int]], rate_bps: float, limit: int
) -> None:
    link, fifo = model(LinkConfig(rate_bps=rate_bps, queue_bytes=limit)), Fifo(rate_bps, limit)
    now, released = START, {}
    for seq, (gap, size) in enumerate(traffic):
        now += gap
        passage = link.frame(seq, size, 8 * size, now)
        assert (passage.drop_reason is None) == fifo.arrive(seq, line_bytes(size), now)
        if passage.drop_reason is None:
            released[seq] = passage.t_release_ns
        else:
            assert passage == Passage(now, "queue")
    fifo.run_until(Fraction(now + 10**15))
    assert released == {seq: math.ceil(at) for seq, at in fifo.done.items()}


def test_a_full_queue_drops_whatever_the_draws_say() -> None:
    link = model(LinkConfig(rate_bps=1e6, queue_bytes=2 * line_bytes(400), loss=1.0))
    reasons = [link.frame(seq, 400, 3000, START).drop_reason for seq in range(5)]
    assert reasons == ["loss", "loss", "loss", "queue", "queue"]  # one on the line and two that wait


def test_what_is_on_the_line_does_not_wait() -> None:
    serial_ns = 1000 * line_bytes(400)
    link = model(LinkConfig(rate_bps=8e6, queue_bytes=line_bytes(400)))
    assert link.frame(0, 400, 3000, START).drop_reason is None
    assert link.frame(1, 400, 3000, START).drop_reason is None
    assert link.frame(2, 400, 3000, START + serial_ns - 1).drop_reason == "queue"
    assert link.frame(3, 400, 3000, START + serial_ns).drop_reason is None  # the second has just begun


# ---------------------------------------------------------------------------------------------------------- outages


@pytest.mark.parametrize(
    ("offset_ns", "dropped"),
    [(-1, False), (0, True), (SECOND // 2, True), (SECOND - 1, True), (SECOND, False), (2 * SECOND, True)],
)
def test_outages_include_their_start_and_not_their_end(offset_ns: int, dropped: bool) -> None:
    link = model(LinkConfig(outages=((2.0, 3.0), (4.0, 4.000000001))))
    now = START + 2 * SECOND + offset_ns
    assert link.frame(0, 400, 3000, now) == Passage(now, "outage" if dropped else None)


def test_time_zero_may_be_set_later() -> None:
    link = model(LinkConfig(outages=((0.0, 1.0),)))
    link.t0_ns = START + 10 * SECOND
    assert link.frame(0, 400, 3000, START).drop_reason is None
    assert link.frame(1, 400, 3000, START + 10 * SECOND).drop_reason == "outage"


def test_dropped_frames_do_not_load_the_line() -> None:
    link = model(LinkConfig(rate_bps=1e6, outages=((0.0, 1.0),)))
    for seq in range(100):
        link.frame(seq, 400, 3000, START)
    assert link.frame(100, 400, 3000, START + SECOND).t_release_ns == START + SECOND + 8000 * line_bytes(400)


# --------------------------------------------------------------------------------------------------------- controls


def test_control_messages_are_paced_and_delayed_like_frames() -> None:
    link = model(LinkConfig(rate_bps=1e6, delay_s=0.003, jitter_s=0.001, jitter="pareto", loss=1.0, queue_bytes=1))
    first = link.control(60, START)
    assert first == START + 8000 * line_bytes(60) + 4 * MS
    assert link.control(60, START) == first + 8000 * line_bytes(60)


def test_control_messages_wait_for_the_end_of_an_outage() -> None:
    link = model(LinkConfig(rate_bps=1e6, delay_s=0.003, outages=((1.0, 2.0),)))
    serial_ns = 8000 * line_bytes(60)
    assert link.control(60, START + SECOND) == START + 2 * SECOND + serial_ns + 3 * MS
    # Who comes after the outage takes its turn behind.
    after = link.frame(0, 60, 400, START + 2 * SECOND)
    assert after.t_release_ns == START + 2 * SECOND + 2 * serial_ns + 3 * MS


def test_outages_one_right_after_the_other_end_with_the_last() -> None:
    link = model(LinkConfig(outages=((1.0, 2.0), (2.0, 3.0), (4.0, 5.0))))
    assert link.outage_end_ns(START + SECOND) == START + 3 * SECOND
    assert link.control(60, START + SECOND) == START + 3 * SECOND


def test_a_reordered_frame_does_not_overtake_a_registration() -> None:
    link = model(LinkConfig(delay_s=0.05, reorder=1.0))
    registered = link.control(60, START)
    assert link.frame(0, 400, 3000, START).t_release_ns == registered


def test_a_link_without_impairments_lets_everything_pass_at_once() -> None:
    link = model(LinkConfig())
    assert link.frame(0, 400, 3000, START) == Passage(START)
    assert link.control(60, START) == START


class AnyTraffic(RuleBasedStateMachine):
    """Whatever is sent whenever: the promises that do not depend on chance."""

    @initialize(
        rate=st.sampled_from([None, 1e5, 1e6, 3e7]),
        delay=st.sampled_from([0.0, 0.004]),
        jitter=st.sampled_from([0.0, 0.003]),
        shape=st.sampled_from(SHAPES),
        reorder=st.sampled_from([0.0, 0.3]),
        queue=st.sampled_from([None, 4000]),
        loss=st.sampled_from([0.0, 0.2]),
    )
    def start(
        self,
        rate: float | None,
        delay: float,
        jitter: float,
        shape: JitterShape,
        reorder: float,
        queue: int | None,
        loss: float,
    ) -> None:
        self.config = LinkConfig(
            rate_bps=rate,
            delay_s=delay,
            jitter_s=jitter,
            jitter=shape,
            reorder=reorder,
            queue_bytes=queue,
            loss=loss,
            duplicate=0.2,
            outages=((0.02, 0.03),),
        )
        self.link = model(self.config)
        self.now = START
        self.seq = 0
        self.latest = self.latest_control = 0
        self.on_line: list[tuple[int, int, int]] = []  # (sent [ns], line bytes [B], released [ns]), in order

    @rule(gap_ns=st.integers(0, 8 * MS))
    def wait(self, gap_ns: int) -> None:
        self.now += gap_ns

    @rule(size=st.integers(1, 3000))
    def frame(self, size: int) -> None:
        passage = self.link.frame(self.seq, size, 8 * size, self.now)
        self.check(passage, size)
        if passage.duplicate:
            copy = self.link.copy(self.seq, size, 8 * size, self.now)
            assert not copy.duplicate
            self.check(copy, size)

    def check(self, passage: Passage, size: int) -> None:
        self.seq += 1
        assert passage.t_release_ns >= self.now
        in_outage = 20 * MS <= self.now - START < 30 * MS
        assert (passage.drop_reason == "outage") == in_outage
        assert passage.drop_reason != "queue" or self.config.queue_bytes is not None
        if passage.drop_reason in ("outage", "queue"):
            return
        lost_ns = round(self.config.delay_s * 1e9) if passage.drop_reason and self.config.reorder == 0.0 else 0
        self.on_line.append((self.now, line_bytes(size), passage.t_release_ns + lost_ns))
        if passage.drop_reason is None:
            assert passage.t_release_ns >= self.latest_control
            if self.config.reorder == 0.0:
                assert passage.t_release_ns >= self.latest
            self.latest = max(self.latest, passage.t_release_ns)

    @rule(size=st.integers(1, 300))
    def control(self, size: int) -> None:
        release = self.link.control(size, self.now)
        floor_ns = round(self.config.delay_s * 1e9)
        assert release >= max(self.now + floor_ns, self.latest)
        assert not 20 * MS <= release - floor_ns - START < 30 * MS or self.now < START + 20 * MS
        self.on_line.append((self.now, line_bytes(size), release))
        self.latest = self.latest_control = release

    @invariant()
    def the_line_is_never_faster_than_its_rate(self) -> None:
        """All bits since any message that found the line idle fit into the time since then."""
        for first in range(len(self.on_line)):
            since_ns = self.on_line[first][0]
            bits = 8 * sum(size for _, size, _ in self.on_line[first:])
            span_ns = max(release for *_, release in self.on_line[first:]) - since_ns
            if self.config.rate_bps is not None and self.config.jitter_s == 0.0:
                span_ns -= round(self.config.delay_s * 1e9) if self.config.reorder == 0.0 else 0
                assert Fraction(bits * SECOND) <= Fraction(self.config.rate_bps) * span_ns


TestAnyTraffic = AnyTraffic.TestCase
TestAnyTraffic.settings = settings(max_examples=60, stateful_step_count=30)
