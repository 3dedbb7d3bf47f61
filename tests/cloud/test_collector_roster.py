"""The collector's rules where each snapshot has its own part of the base stations."""

from dataclasses import replace

import pytest
from collecting import (
    CLOSED_LOOP,
    DEADLINE,
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

from cloud.collector import CollectorRules
from fronthaul.message.messages import Goodbye
from fronthaul.roster import Roster

ROSTER = Roster(1, len(STATIONS), 2)
MEMBERS = [sorted(ROSTER.of(snapshot)) for snapshot in range(4)]
OUT = [min(STATIONS - ROSTER.of(snapshot)) for snapshot in range(4)]
"""Whoever does not measure a snapshot."""


@pytest.mark.parametrize("rules", [RULES, CLOSED_LOOP])
def test_those_who_measure_a_snapshot_are_waited_for_alone(rules: CollectorRules) -> None:
    assert len(set(OUT)) > 1
    made = collector(replace(rules, roster=ROSTER))
    for snapshot, (first, last) in enumerate(MEMBERS):
        assert made.frame(single(last, snapshot), last, T0) == (D, None, 0) and made.take_ready() == []
        assert made.frame(single(first, snapshot), first, T0) == (D, None, 0)
        assert handed_out(made) == [(snapshot, [first, last])]
    assert made.next_deadline_ns is None and made.closed_snapshots == 4


def test_a_frame_of_whoever_is_not_to_measure_is_rejected_as_a_whole() -> None:
    made = collector(replace(RULES, roster=ROSTER))
    fate, why, late = made.frame(single(OUT[0], 0), OUT[0], T0)
    assert (fate, why, late) == (REJ, f"snapshot 0 is not measured by BS {OUT[0]}", 0)
    mine = next(snapshot for snapshot in range(4) if OUT[snapshot] != OUT[0])
    assert made.frame(frame(report(OUT[0], mine), report(OUT[0], 0)), OUT[0], T0).fate is REJ
    assert made.next_deadline_ns is None and made.delivered_reports == 0


def test_who_is_gone_is_waited_for_in_none_of_its_snapshots() -> None:
    made = collector(replace(RULES, roster=ROSTER, minimum_bs=1))
    made.leave(MEMBERS[0][0], T0)
    made.frame(single(MEMBERS[0][1], 0), MEMBERS[0][1], T0)
    assert handed_out(made) == [(0, [MEMBERS[0][1]])]


def test_the_goodbye_of_another_closes_nothing_and_that_of_a_member_does() -> None:
    made = collector(replace(RULES, roster=ROSTER, minimum_bs=1))
    first, last = MEMBERS[0]
    made.frame(single(first, 0), first, T0)
    made.goodbye(Goodbye(OUT[0], 0, 0), T0)
    assert made.take_ready() == []
    made.goodbye(Goodbye(last, 0, 0), T0)
    assert handed_out(made) == [(0, [first])]


def test_a_lost_report_is_waited_for_until_the_deadline() -> None:
    made = collector(replace(RULES, roster=ROSTER, minimum_bs=1))
    made.frame(single(MEMBERS[0][0], 0), MEMBERS[0][0], T0)
    made.advance(T0 + DEADLINE - 1)
    assert made.take_ready() == []
    made.advance(T0 + DEADLINE)
    assert handed_out(made) == [(0, [MEMBERS[0][0]])]


def test_a_restarted_member_speaks_for_its_own_snapshots_alone() -> None:
    made = collector(replace(RULES, roster=ROSTER, minimum_bs=1))
    back = OUT[0]
    mine = next(snapshot for snapshot in range(4) if back in MEMBERS[snapshot])
    assert made.register(registration(back, epoch=1)) is None
    assert made.frame(single(back, 0, epoch=1), back, T0).fate is REJ
    assert made.frame(single(back, mine, epoch=1), back, T0).fate is D
