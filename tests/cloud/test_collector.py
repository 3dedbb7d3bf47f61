"""The collector's rules where a fix takes one round: one table of cases."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from collecting import (
    CLOSED_LOOP,
    DEADLINE,
    DUP,
    REJ,
    RULES,
    STATIONS,
    T0,
    D,
    collector,
    frame,
    handed_out,
    registration,
    report,
    single,
)

from cloud.collector import Collector, History
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Frame, Goodbye, ReportKey
from fronthaul.message.wire import decode, encode


@dataclass
class Case:
    """Frames as (BS, snapshot, time); then what they came to."""

    frames: list[tuple[int, int, int]]
    fates: list[FrameFate]
    ready: list[tuple[int, list[int]]]
    end_ns: int = T0
    gone: list[int] = field(default_factory=list)
    late: tuple[int, ...] = ()


CASES = {
    "complete closes at once": Case([(0, 0, T0), (2, 0, T0), (1, 0, T0)], [D, D, D], [(0, [0, 1, 2])]),
    "one missing waits": Case([(0, 0, T0), (1, 0, T0)], [D, D], [], T0 + DEADLINE - 1),
    "the deadline closes": Case([(0, 0, T0), (1, 0, T0)], [D, D], [(0, [0, 1])], T0 + DEADLINE),
    "below the minimum is not handed out": Case([(0, 0, T0)], [D], [], T0 + DEADLINE),
    "on the last nanosecond": Case([(0, 0, T0), (1, 0, T0 + DEADLINE - 1)], [D, D], [(0, [0, 1])], T0 + DEADLINE),
    "late at the deadline": Case(
        [(0, 0, T0), (1, 0, T0), (2, 0, T0 + DEADLINE)], [D, D, D], [(0, [0, 1])], T0 + DEADLINE, late=(2,)
    ),
    "late without company": Case([(0, 0, T0 + DEADLINE)], [D], [], T0 + 2 * DEADLINE, late=(0,)),
    "duplicate": Case([(0, 0, T0), (0, 0, T0)], [D, DUP], []),
    "duplicate after closing": Case(
        [(0, 0, T0), (1, 0, T0), (2, 0, T0), (1, 0, T0 + 1)], [D, D, D, DUP], [(0, [0, 1, 2])]
    ),
    "duplicate of a late one": Case(
        [(0, 0, T0 + DEADLINE), (0, 0, T0 + DEADLINE)], [D, DUP], [], T0 + DEADLINE, late=(0,)
    ),
    "deadlines by number and not by arrival": Case(
        [(0, 1, T0), (0, 0, T0 + 1), (1, 1, T0 + 2), (1, 0, T0 + 3)], [D, D, D, D], [(0, [0, 1])], T0 + DEADLINE
    ),
    "who is gone is not waited for": Case([(0, 0, T0), (1, 0, T0)], [D, D], [(0, [0, 1])], T0, [2]),
    "gone, and too few are left": Case([(0, 0, T0)], [D], [], T0, [1, 2]),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_rules(case: Case) -> None:
    made = collector()
    verdicts = [made.frame(single(bs, snapshot), bs, t) for bs, snapshot, t in case.frames]
    for bs in case.gone:
        made.leave(bs, T0)
    made.advance(case.end_ns)
    assert [verdict.fate for verdict in verdicts] == case.fates
    assert tuple(index for index, verdict in enumerate(verdicts) if verdict.late) == case.late
    assert handed_out(made) == case.ready
    assert made.take_ready() == []


@pytest.mark.parametrize(
    ("sent", "owner", "reason"),
    [
        (single(0, 0), 1, "does not own"),
        (single(0, 0), None, "does not own"),
        (single(7, 0), 7, "has not registered"),
        (single(0, 0, epoch=1), 0, "epoch 1"),
        (single(0, 4), 0, "4 snapshots"),
        (single(0, 0, round=1), 0, "one round"),
        (frame(report(0, 0, bits=16)), 0, "8 bits"),
        (frame(report(0, 0, side=b"g")), 0, "8 bits"),
        (frame(report(0, 0), report(0, 4)), 0, "4 snapshots"),
    ],
)
def test_rejected_frames_change_nothing(sent: Frame, owner: int | None, reason: str) -> None:
    made = collector()
    fate, why, late = made.frame(sent, owner, T0)
    assert (fate, late) == (REJ, 0) and why is not None and reason in why
    assert made.next_deadline_ns is None and made.frame(single(0, 0), 0, T0).fate is D


def test_before_the_start_and_before_registering_frames_are_rejected() -> None:
    assert collector(started=False).frame(single(0, 0), 0, T0).reason == "the run has not started"
    assert collector(registered=False).frame(single(0, 0), 0, T0).reason == "BS 0 has not registered"


def test_a_bundle_is_judged_as_a_whole_and_its_reports_one_by_one() -> None:
    made = collector()
    now = T0 + DEADLINE  # snapshot 0 is over, 1 and 2 are not
    bundle = frame(report(0, 1), report(0, 0), report(0, 2))
    assert made.frame(bundle, 0, now) == (D, None, 0b010)
    assert made.frame(bundle, 0, now).fate is DUP
    mixed = made.frame(frame(report(0, 2), report(0, 3)), 0, now)
    assert mixed.fate is REJ and "new reports with ones" in str(mixed.reason)
    assert made.frame(single(0, 3), 0, now) == (D, None, 0)


def test_a_restarted_station_replaces_its_older_self() -> None:
    made = collector()
    made.frame(single(0, 0), 0, T0)
    made.leave(0, T0)
    assert made.register(registration(0, epoch=1)) is None
    assert made.waited_for == {0, 1, 2}
    assert made.frame(single(0, 1), 0, T0).fate is REJ  # its older self
    again = made.frame(single(0, 0, epoch=1), 0, T0)
    assert again.fate is REJ and again.reason == "an earlier epoch has reported on this snapshot"
    assert made.frame(single(0, 1, epoch=1), 0, T0).fate is D
    assert "epoch 1" in str(made.register(registration(0, epoch=0)))
    made.goodbye(Goodbye(0, 0, 1), T0)  # of the older self
    assert 0 in made.waited_for
    made.goodbye(Goodbye(0, 1, 1), T0)
    assert 0 not in made.waited_for


def test_a_second_registration_in_the_same_epoch_undoes_no_goodbye() -> None:
    made = collector()
    made.goodbye(Goodbye(0, 0, 1), T0)
    assert made.register(registration(0)) is None
    assert made.waited_for == {1, 2}


def test_a_stranger_is_refused() -> None:
    assert (
        collector().register(registration(9))
        == f"BS 9 is not part of this run, which has {len(STATIONS)} base stations"
    )


def test_a_first_registration_after_having_been_given_up_counts() -> None:
    made = collector(registered=False)
    made.leave(0, T0)
    made.register(registration(0, epoch=1))
    assert made.present == {0} and made.waited_for == STATIONS


def test_a_silent_station_is_not_waited_for_until_it_is_heard() -> None:
    made = collector()
    made.frame(single(1, 0), 1, T0)
    made.frame(single(2, 0), 2, T0)
    made.leave(0, T0, silent=True)
    assert handed_out(made) == [(0, [1, 2])]
    assert made.waited_for == {1, 2} and made.missing == STATIONS and made.present == {1, 2}
    assert not made.finished
    made.heard(0)
    assert made.waited_for == made.present == STATIONS


def test_a_silent_station_that_registers_again_is_back() -> None:
    made = collector()
    made.leave(0, T0, silent=True)
    made.register(registration(0))
    assert made.present == made.missing == STATIONS


@pytest.mark.parametrize("order", [(False, True), (True, False)])
def test_silence_and_being_gone_in_either_order_is_being_gone(order: Iterable[bool]) -> None:
    made = collector()
    for silent in order:
        made.leave(0, T0, silent=silent)
    assert made.missing == {1, 2}
    made.heard(0)  # something that was still on its way
    assert made.present == {1, 2}
    for bs in (1, 2):
        made.goodbye(Goodbye(bs, 0, 0), T0)
    assert made.finished


def test_closed_loop_has_no_deadline() -> None:
    made = collector(CLOSED_LOOP)
    made.frame(single(0, 3), 0, T0 + 10**12)
    assert made.next_deadline_ns is None
    for bs in (1, 2):
        made.frame(single(bs, 3), bs, T0 + 2 * 10**12)
    assert handed_out(made) == [(3, [0, 1, 2])]


def test_finished_when_all_have_left_and_all_is_closed() -> None:
    made = collector()
    made.frame(single(0, 0), 0, T0)
    for bs in STATIONS:
        assert not made.finished
        made.goodbye(Goodbye(bs, 0, 1), T0)
    assert made.finished and made.missing == frozenset()


# A second incarnation


def test_a_second_incarnation_goes_on_from_its_history() -> None:
    delivered = frozenset({ReportKey(0, 1, 0), ReportKey(1, 0, 0), ReportKey(2, 0, 0), ReportKey(0, 1, 1)})
    registrations = tuple(registration(bs, epoch=int(bs == 0)) for bs in sorted(STATIONS))
    made = Collector(RULES, History(registrations, frozenset({2}), frozenset({0}), delivered))
    made.start(T0)
    assert made.registered == made.present == STATIONS and made.waited_for == {0, 1}
    assert made.closed_snapshots == 2
    assert made.frame(single(1, 0), 1, T0).fate is DUP
    assert made.frame(single(1, 1), 1, T0) == (D, None, 1)  # begun in the first incarnation, so over
    for bs in (0, 1):
        assert made.frame(single(bs, 2, epoch=int(bs == 0)), bs, T0) == (D, None, 0)
    assert handed_out(made) == [(2, [0, 1])]
    assert made.register(registration(0, epoch=2)) is None
    assert made.frame(single(0, 2, epoch=2), 0, T0).fate is REJ  # has reported on it


def test_reports_stay_in_their_frames_until_they_are_asked_for() -> None:
    made = collector()
    for bs in sorted(STATIONS):
        sent = decode(encode(frame(report(bs, 1), report(bs, 0))))
        assert isinstance(sent, Frame)
        made.frame(sent, bs, T0)
        assert isinstance(sent._content, bytes)
    for gathered in made.take_ready():
        assert gathered.reports == tuple(report(bs, gathered.snapshot) for bs in sorted(STATIONS))
