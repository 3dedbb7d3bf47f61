"""The collector's rules: one table of cases, and what no order of events can break."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.collector import Collector, CollectorRules
from fronthaul.fates import FrameFate, ReportFate
from fronthaul.messages import Frame, Goodbye, Payload, Registration, Report, ReportKey

INTERVAL, DEADLINE, T0 = 100, 250, 1000
RULES = CollectorRules(
    stations=frozenset({0, 1, 2}), snapshots=4, interval_ns=INTERVAL, deadline_ns=DEADLINE, minimum_bs=2
)


def frame(bs: int, snapshot: int, *, epoch: int = 0, round: int = 0, bits: int = 8, side: bytes = b"") -> Frame:
    return Frame(0, Report(ReportKey(bs, epoch, snapshot, round), Payload(bytes(bits // 8), bits), side))


def registration(bs: int, epoch: int = 0) -> Registration:
    here = (0.0, 0.0, 0.0)
    return Registration(bs, epoch, "s", bits=4, coefficients=2, side_bytes=0, position=here, orientation=here)


def collector(rules: CollectorRules = RULES, *, started: bool = True, registered: bool = True) -> Collector:
    made = Collector(rules)
    for bs in rules.stations if registered else ():
        assert made.register(registration(bs)) is None
    if started:
        made.start(T0)
    return made


@dataclass
class Case:
    """Frames as (BS, snapshot, time); then what they came to."""

    frames: list[tuple[int, int, int]]
    fates: list[FrameFate]
    reports: dict[tuple[int, int], ReportFate]
    ready: list[tuple[int, list[int]]]
    end_ns: int = T0
    gone: list[int] = field(default_factory=list)


D, DUP = FrameFate.DELIVERED, FrameFate.DUPLICATE
USED, UNUSED, LATE = ReportFate.USED, ReportFate.UNUSED, ReportFate.LATE
CASES = {
    "complete closes at once": Case(
        [(0, 0, T0), (2, 0, T0), (1, 0, T0)],
        [D, D, D],
        {(0, 0): USED, (1, 0): USED, (2, 0): USED},
        [(0, [0, 1, 2])],
    ),
    "one missing waits": Case([(0, 0, T0), (1, 0, T0)], [D, D], {}, [], T0 + DEADLINE - 1),
    "the deadline closes": Case(
        [(0, 0, T0), (1, 0, T0)], [D, D], {(0, 0): USED, (1, 0): USED}, [(0, [0, 1])], T0 + DEADLINE
    ),
    "below the minimum is unused": Case([(0, 0, T0)], [D], {(0, 0): UNUSED}, [], T0 + DEADLINE),
    "on the last nanosecond": Case(
        [(0, 0, T0), (1, 0, T0 + DEADLINE - 1)],
        [D, D],
        {(0, 0): USED, (1, 0): USED},
        [(0, [0, 1])],
        T0 + DEADLINE,
    ),
    "late at the deadline": Case(
        [(0, 0, T0), (1, 0, T0), (2, 0, T0 + DEADLINE)],
        [D, D, D],
        {(0, 0): USED, (1, 0): USED, (2, 0): LATE},
        [(0, [0, 1])],
    ),
    "late without company": Case([(0, 0, T0 + DEADLINE)], [D], {(0, 0): LATE}, [], T0 + 2 * DEADLINE),
    "duplicate": Case([(0, 0, T0), (0, 0, T0)], [D, DUP], {}, []),
    "duplicate after closing": Case(
        [(0, 0, T0), (1, 0, T0), (2, 0, T0), (1, 0, T0 + 1)],
        [D, D, D, DUP],
        {(0, 0): USED, (1, 0): USED, (2, 0): USED},
        [(0, [0, 1, 2])],
    ),
    "deadlines by number and not by arrival": Case(
        [(0, 1, T0), (0, 0, T0 + 1), (1, 1, T0 + 2), (1, 0, T0 + 3)],
        [D, D, D, D],
        {(0, 0): USED, (1, 0): USED},
        [(0, [0, 1])],
        T0 + DEADLINE,
    ),
    "who is gone is not waited for": Case(
        [(0, 0, T0), (1, 0, T0)], [D, D], {(0, 0): USED, (1, 0): USED}, [(0, [0, 1])], T0, [2]
    ),
    "gone, and too few are left": Case([(0, 0, T0)], [D], {(0, 0): UNUSED}, [], T0, [1, 2]),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_rules(case: Case) -> None:
    made = collector()
    fates = [made.frame(frame(bs, snapshot), bs, t).fate for bs, snapshot, t in case.frames]
    for bs in case.gone:
        made.leave(bs, T0)
    made.advance(case.end_ns)
    assert fates == case.fates
    assert {(k.bs, k.snapshot): fate for k, fate in made.report_fates.items()} == case.reports
    ready = [(s.snapshot, [report.key.bs for report in s.reports]) for s in made.take_ready()]
    assert ready == case.ready
    assert made.take_ready() == []


@pytest.mark.parametrize(
    ("sent", "peer", "reason"),
    [
        (frame(0, 0), 1, "does not own"),
        (frame(0, 0), None, "does not own"),
        (frame(7, 0), 7, "has not registered"),
        (frame(0, 0, epoch=1), 0, "epoch 1"),
        (frame(0, 4), 0, "4 snapshots"),
        (frame(0, 0, round=1), 0, "one round"),
        (frame(0, 0, bits=16), 0, "8 bits"),
        (frame(0, 0, side=b"g"), 0, "8 bits"),
    ],
)
def test_rejected_frames_change_nothing(sent: Frame, peer: int | None, reason: str) -> None:
    made = collector()
    fate, why = made.frame(sent, peer, T0)
    assert fate is FrameFate.REJECTED and why is not None and reason in why
    assert made.report_fates == {} and made.next_deadline_ns is None


def test_before_the_start_and_before_registering_frames_are_rejected() -> None:
    assert collector(started=False).frame(frame(0, 0), 0, T0).reason == "the run has not started"
    assert collector(registered=False).frame(frame(0, 0), 0, T0).reason == "BS 0 has not registered"


def test_a_restarted_station_replaces_its_older_self() -> None:
    made = collector()
    made.frame(frame(0, 0), 0, T0)
    made.leave(0, T0)
    assert made.register(registration(0, epoch=1)) is None
    assert made.waited_for == {0, 1, 2}
    assert made.frame(frame(0, 1), 0, T0).fate is FrameFate.REJECTED  # its older self
    assert made.frame(frame(0, 0, epoch=1), 0, T0).fate is FrameFate.REJECTED  # has reported on that
    assert made.frame(frame(0, 1, epoch=1), 0, T0).fate is FrameFate.DELIVERED
    assert "epoch 1" in str(made.register(registration(0, epoch=0)))
    made.goodbye(Goodbye(0, 0, 1), T0)  # of the older self
    assert 0 in made.waited_for
    made.goodbye(Goodbye(0, 1, 1), T0)
    assert 0 not in made.waited_for


def test_a_stranger_is_refused() -> None:
    assert collector().register(registration(9)) == "BS 9 is not part of this run"


def test_closed_loop_has_no_deadline() -> None:
    rules = CollectorRules(stations=frozenset({0, 1}), snapshots=4, interval_ns=0, deadline_ns=DEADLINE)
    made = collector(rules)
    made.frame(frame(0, 3), 0, T0 + 10**12)
    assert made.next_deadline_ns is None
    made.frame(frame(1, 3), 1, T0 + 2 * 10**12)
    assert [s.snapshot for s in made.take_ready()] == [3]


def test_finished_when_all_have_left_and_all_is_closed() -> None:
    made = collector()
    made.frame(frame(0, 0), 0, T0)
    for bs in RULES.stations:
        assert not made.finished
        made.goodbye(Goodbye(bs, 0, 1), T0)
    assert made.finished


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["frame", "goodbye", "restart", "wait"]),
        st.integers(0, 3),  # BS, one of them a stranger
        st.integers(0, 4),  # snapshot, one of them too high
        st.integers(0, 150),  # time passes
    ),
    max_size=60,
)


@given(EVENTS, st.integers(1, 3), st.sampled_from([0, INTERVAL]))
def test_no_interleaving_breaks_conservation(
    events: list[tuple[str, int, int, int]], minimum: int, interval: int
) -> None:
    rules = CollectorRules(
        stations=RULES.stations, snapshots=4, interval_ns=interval, deadline_ns=DEADLINE, minimum_bs=minimum
    )
    made = collector(rules)
    now, epochs = T0, Counter[int]()
    delivered: set[ReportKey] = set()
    ready = []
    for kind, bs, snapshot, passed in events:
        now += passed
        if kind == "frame":
            sent = frame(bs, snapshot, epoch=epochs[bs])
            fate = made.frame(sent, bs, now).fate
            assert (fate is FrameFate.DUPLICATE) == (sent.report.key in delivered)
            if fate is FrameFate.DELIVERED:
                delivered.add(sent.report.key)
        elif kind == "goodbye":
            made.goodbye(Goodbye(bs, epochs[bs], 0), now)
        elif kind == "restart":
            epochs[bs] += 1
            made.register(registration(bs, epochs[bs]))
        else:
            made.advance(now)
        ready += made.take_ready()
    made.close_all()
    ready += made.take_ready()

    assert made.finished and made.next_deadline_ns is None
    assert made.report_fates.keys() == delivered  # every delivered report has a fate, and nothing else
    assert len({s.snapshot for s in ready}) == len(ready)  # no snapshot is fused twice
    listed = Counter(report.key for s in ready for report in s.reports)
    used = {key for key, fate in made.report_fates.items() if fate is ReportFate.USED}
    assert listed == Counter(used)  # fixes list exactly the used reports
    for s in ready:
        stations = [report.key.bs for report in s.reports]
        assert len(stations) >= minimum and stations == sorted(set(stations))
        assert all(report.key.snapshot == s.snapshot for report in s.reports)
        if interval:
            assert s.t_last_received_ns < T0 + s.snapshot * interval + DEADLINE
