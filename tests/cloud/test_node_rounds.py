"""The cloud's loop with a scheme of several rounds, on memory links and a simulated clock."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from cloud_streams import T0, fates, fixes, in_rounds
from tiny_nodes import LAST, MS, Office, Peer, cloud_parts, controls, frame, registration, site, states, world
from whole_ledger import close_ledger

from cloud.fixlog import FixRecord
from edge.pacing import run_batch
from edge.schedule import Schedule
from fronthaul.account.conservation import conservation
from fronthaul.account.used import UsedReports
from fronthaul.log.received import Received, read_received
from fronthaul.log.sent import Journal
from fronthaul.message.messages import Goodbye, Message, ReportKey, Welcome
from fronthaul.roster import Roster


def answers(made: Office, heard: list[Message]) -> list[Any]:
    return [frame(0, snapshot, round=round_) for snapshot, round_ in states(heard)]


def test_a_fix_takes_all_its_rounds(tmp_path: Path) -> None:
    schedule = Schedule(T0, 100 * MS, 4)
    parts = cloud_parts(3, rounds=True, snapshots=4)
    with world(tmp_path, parts, [site(bs, rounds=True) for bs in range(3)]) as made:
        made.cloud.ask(("start", T0))
        for snapshots in schedule.batches():
            made.advance(schedule.time_zero_ns(snapshots[-1]))
            run_batch(made.edges, snapshots, schedule)
            made.settle()
        for edge in made.edges:
            edge.leave()
        made.settle()
        assert made.cloud.finished and not any(edge.ended for edge in made.edges)
        made.cloud.finish()
        made.settle()
        assert all(edge.ended for edge in made.edges)
    found = fixes(tmp_path)
    assert [fix.position for fix in found] == 4 * [(3.0 * (LAST + 1), LAST + 1.0, 0.0)]
    assert [fix.rounds for fix in found] == 4 * [LAST + 1]
    assert [[key.round for key in fix.used] for fix in found] == 4 * [[n for n in range(LAST + 1) for _ in range(3)]]
    close(tmp_path, range(3), found)


def close(folder: Path, stations: Any, found: list[FixRecord], incarnations: int = 1) -> None:
    """Check that everything adds up."""
    ends = [f"cloud-{incarnation}" for incarnation in range(incarnations)]
    ends += [path.name.removesuffix("-sent.arrow") for path in sorted(folder.glob("bs-*-sent.arrow"))]
    journals = [Journal(folder / f"{end}-sent.arrow") for end in ends]
    logs = [Received(folder / f"{end}-received.arrow") for end in ends]
    used = UsedReports.of_fixes((fix.snapshot, fix.used) for fix in found)
    assert conservation([close_ledger(journals, logs, used)], used).problems == ()


def begin_round_1(made: Office) -> None:
    one, two = made.peers
    one.say(frame(0, 0))
    two.say(frame(1, 0))
    made.settle()
    assert states(one.hear()) == states(two.hear()) == [(0, 1)]


def test_a_base_station_silent_in_the_middle_costs_the_time_of_a_round(tmp_path: Path) -> None:
    with in_rounds(tmp_path, round_ms=10) as made:
        begin_round_1(made)
        one, two = made.peers
        one.say(frame(0, 0, round=1))
        made.settle()
        assert one.hear() == [] and made.node.next_deadline_ns == T0 + 10 * MS
        made.at(T0 + 10 * MS)
        assert states(one.hear()) == states(two.hear()) == [(0, 2)]  # it may have missed one only
        two.say(frame(1, 0, round=1), frame(1, 0, round=2))
        one.say(frame(0, 0, round=2))
        made.settle()
        assert states(one.hear()) == [(0, 3)]
    rows = read_received(tmp_path / "cloud-0-received.arrow").to_pylist()
    assert [row["late"] for row in rows if row["frame_fate"] == "delivered"] == [0, 0, 0, 1, 0, 0]


def test_a_deadline_between_two_rounds_concludes(tmp_path: Path) -> None:
    with in_rounds(tmp_path) as made:
        begin_round_1(made)
        made.peers[0].say(frame(0, 0, round=1))
        made.settle()
        made.at(T0 + 50 * MS)
        assert made.node.next_deadline_ns is None
        for peer in made.peers:
            peer.say(Goodbye(peer.bs, 0, 1))
        made.settle()
        assert made.node.finished
    (fix,) = fixes(tmp_path)
    assert fix.position == (3.0, 2.0, 0.0) and fix.rounds == 2
    assert fix.used == (ReportKey(0, 0, 0), ReportKey(1, 0, 0), ReportKey(0, 0, 0, 1))


def test_a_round_below_the_minimum_leaves_what_the_rounds_before_gave(tmp_path: Path) -> None:
    with in_rounds(tmp_path, minimum=2) as made:
        begin_round_1(made)
        made.peers[0].say(frame(0, 0, round=1))
        made.at(T0 + 50 * MS)
        one, two = made.peers
        one.say(frame(0, 1, seq=2))
        two.say(frame(1, 1, seq=2))
        made.settle()
        for peer in made.peers:
            peer.say(frame(peer.bs, 1, seq=3, round=1))
        made.settle()
        one.say(frame(0, 1, seq=4, round=2))
        made.at(T0 + 150 * MS)
    (fix,) = fixes(tmp_path)  # of snapshot 0 the exchange knew nothing yet
    assert fix.snapshot == 1 and fix.position == (4.0, 2.0, 0.0) and fix.rounds == 2
    assert {key.round for key in fix.used} == {0, 1}


def test_a_round_that_nobody_is_left_to_answer_ends_at_once(tmp_path: Path) -> None:
    with in_rounds(tmp_path, round_ms=10) as made:
        begin_round_1(made)
        one = made.peers[0]
        one.say(frame(0, 0, round=1))
        made.settle()
        for bs in (0, 1):
            made.node.ask(("gone", bs))
        made.node.poll(0.0)
        assert made.node.fixes_made == 1
    (fix,) = fixes(tmp_path)
    assert fix.rounds == 2 and len(fix.used) == 3


def test_who_leaves_in_the_middle_of_many_rounds_holds_none_of_them_up(tmp_path: Path) -> None:
    with in_rounds(tmp_path, interval_ms=0) as made:
        one, two = made.peers
        for snapshot in range(8):
            one.say(frame(0, snapshot, seq=snapshot))
            two.say(frame(1, snapshot, seq=snapshot))
        made.settle()
        one.say(*(frame(0, snapshot, round=1) for snapshot in range(8)))
        made.settle()
        assert states(one.hear()) == [(snapshot, 1) for snapshot in range(8)]
        made.node.ask(("gone", 1))
        for round_ in range(2, LAST + 1):
            made.settle()
            assert states(one.hear()) == [(snapshot, round_) for snapshot in range(8)]
            one.say(*(frame(0, snapshot, round=round_) for snapshot in range(8)))
        one.say(Goodbye(0, 0, 0))
        made.settle()
        assert made.node.finished and one.hear() == []
        made.node.finish()
        assert one.hear() == [Goodbye(0, 0, 8 * LAST)]
    assert [len(fix.used) for fix in fixes(tmp_path)] == 8 * [2 + LAST]


def test_who_restarts_in_the_middle_of_a_round_holds_nothing_up(tmp_path: Path) -> None:
    with in_rounds(tmp_path, interval_ms=0) as made:
        begin_round_1(made)
        made.peers[0].say(frame(0, 0, round=1))
        again = Peer(made.network, 1)
        again.say(registration(1, 1, rounds=True))
        made.settle()
        made.settle()
        heard = again.hear()
        assert heard[0] == Welcome(1, 1) and states(heard) == [(0, 2)]
        assert made.peers[0].hear() != []


def test_the_end_concludes_and_asks_no_more(tmp_path: Path) -> None:
    """A state or an answer may be lost: in closed loop nothing but the end closes that round."""
    with in_rounds(tmp_path, interval_ms=0) as made:
        begin_round_1(made)
        one, two = made.peers
        one.say(frame(0, 0, round=1), Goodbye(0, 0, 1))
        two.say(Goodbye(1, 0, 1))
        made.settle()
        assert not made.node.finished
        made.node.finish()
        assert controls(one.hear()) == [Goodbye(0, 0, 1)] and states(two.hear()) == []
        two.say(frame(1, 0, round=1))
        one.say(Goodbye(0, 0, 2))
        made.settle()
        assert one.hear() == [Goodbye(0, 0, 1)]  # who missed it asks again
    (fix,) = fixes(tmp_path)
    assert fix.position == (3.0, 2.0, 0.0)


def test_an_end_in_the_middle_of_a_round_makes_no_second_fix(tmp_path: Path) -> None:
    with in_rounds(tmp_path, interval_ms=0) as made:
        begin_round_1(made)
        for peer in made.peers:
            peer.say(frame(peer.bs, 0, round=1))
        made.settle()
        made.node.finish()
        for peer in made.peers:
            peer.say(frame(peer.bs, 0, round=2))
        made.settle()
    assert [fix.position for fix in fixes(tmp_path)] == [(4.0, 2.0, 0.0)]
    assert fates(tmp_path) == 6 * ["delivered"]


def test_states_go_to_those_who_measured(tmp_path: Path) -> None:
    roster = Roster(1, 3, 2)
    parts = cloud_parts(3, rounds=True, snapshots=4, deadline_ms=500)
    parts = replace(parts, rules=replace(parts.rules, roster=roster))
    schedule = Schedule(T0, 100 * MS, 4, batch=2)
    with world(tmp_path, parts, [site(bs, rounds=True, roster=roster, bundle=2) for bs in range(3)]) as made:
        made.cloud.ask(("start", T0))
        for snapshots in schedule.batches():
            made.advance(schedule.time_zero_ns(snapshots[-1]))
            run_batch(made.edges, snapshots, schedule)
            made.settle()
        made.advance(None)
    found = fixes(tmp_path)
    assert [fix.snapshot for fix in found] == [0, 1, 2, 3]
    for fix in found:
        members = sorted(roster.of(fix.snapshot))
        assert [key.bs for key in fix.used] == (1 + LAST) * members and fix.t_fix_ns == fix.t_last_received_ns
    assert set(fates(tmp_path)) == {"delivered"}
