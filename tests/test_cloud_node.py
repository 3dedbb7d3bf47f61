"""The cloud's loop on memory links and a simulated clock, with schemes of one round and of several."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_nodes import (
    ANSWER,
    LAST,
    MS,
    REPORT,
    FakeExchange,
    FakeFusion,
    FakeRoundFusion,
    Office,
    Peer,
    cloud_parts,
    controls,
    fill,
    frame,
    office,
    registration,
    site,
    states,
    world,
)

from cloud.center import FusionError
from cloud.fixlog import FixRecord, read_fixes
from cloud.fusion.scheme import Fix
from cloud.node import LINGER_S, CloudNode
from edge.pacing import run_batch
from edge.schedule import Schedule
from fronthaul.clock import SimulatedClock
from fronthaul.conservation import conservation
from fronthaul.errors import LocalError, QueueFull, TransportError
from fronthaul.fates import FrameFate
from fronthaul.journal import TRANSPORT_FULL, read_journal, sent_rows
from fronthaul.ledger import close_ledger
from fronthaul.linkconfig import LinkConfig
from fronthaul.memory import MemoryNetwork
from fronthaul.messages import (
    Abort,
    Codec,
    Frame,
    Goodbye,
    Message,
    Payload,
    Ping,
    Pong,
    Registration,
    Report,
    ReportKey,
    Welcome,
)
from fronthaul.received import read_received
from fronthaul.recorder import EVENTS
from fronthaul.rowstream import read_stream
from fronthaul.transport import Received
from fronthaul.wire import decode, encode, is_control

T0 = 1000 * MS


def fixes(folder: Path, life: int = 0) -> list[FixRecord]:
    return read_fixes(folder / f"cloud-{life}-fixes.arrow")


def fates(folder: Path, life: int = 0) -> list[str | None]:
    rows = read_received(folder / f"cloud-{life}-received.arrow").to_pylist()
    return [row["frame_fate"] for row in rows if row["frame_fate"] is not None]


def sent(folder: Path, life: int = 0) -> list[dict[str, Any]]:
    return sent_rows(read_journal(folder / f"cloud-{life}-sent.arrow"))


# Registration


@pytest.mark.parametrize("rounds", [False, True])
def test_a_base_station_that_fits_is_welcomed(tmp_path: Path, rounds: bool) -> None:
    with office(tmp_path, cloud_parts(rounds=rounds), peers=0) as made:
        peer = Peer(made.network, 1)
        peer.say(registration(1, 3, rounds=rounds))
        made.settle()
        assert peer.hear() == [Welcome(1, 3)]
        assert made.node.registered == {1}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (registration(0), "BS 0 does not own this connection"),
        (registration(1, scheme="two"), "the cloud fuses 'one', not 'two'"),
        (registration(1, rounds=True, scheme="one"), "the cloud's 'one' takes one round"),
        (registration(1, scheme="\x00" * 256), r"the cloud fuses 'one', not '\x00"),
        (registration(1, scheme="é" * 128), "the cloud fuses 'one', not 'éé"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(tmp_path: Path, said: Registration, reason: str) -> None:
    with office(tmp_path, cloud_parts(), peers=0) as made:
        peer = Peer(made.network, 1)
        peer.say(said)
        made.settle()
        (answer,) = peer.hear()
        assert isinstance(answer, Abort) and answer.reason.startswith(reason)
        assert made.node.registered == frozenset()


def test_a_stranger_is_refused_and_so_is_an_older_epoch(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts(), peers=0) as made:
        stranger, peer = Peer(made.network, 9), Peer(made.network, 1)
        stranger.say(registration(9))
        peer.say(registration(1, 4), registration(1, 3), registration(1, 4))
        made.settle()
        assert stranger.hear() == [Abort("BS 9 is not part of this run")]
        assert peer.hear() == [Welcome(1, 4), Abort("BS 1 has registered in epoch 4 already, 3 is over"), Welcome(1, 4)]


@pytest.mark.parametrize(
    ("report", "answer", "reason"),
    [
        (
            Codec(8, 2, 1),
            ANSWER,
            "the cloud's 'several' takes reports of 1 x 8 bit and 1 B beside them, "
            "not of 2 x 8 bit and 1 B beside them",
        ),
        (Codec(4, 2, 1), ANSWER, "the cloud's 'several' takes reports of 1 x 8 bit"),  # as many bits
        (REPORT, Codec(16, 1, 4), "the cloud's 'several' takes answers of 1 x 16 bit and 0 B beside them, not of"),
    ],
)
def test_codecs_that_the_fusion_rule_does_not_expect_are_refused(
    tmp_path: Path, report: Codec, answer: Codec, reason: str
) -> None:
    parts = cloud_parts(rounds=True, report=REPORT, answer=ANSWER)
    with office(tmp_path, parts, peers=0) as made:
        peer, fitting = Peer(made.network, 1), Peer(made.network, 0)
        peer.say(replace(registration(1, rounds=True), report=report, answer=answer), frame(1, 0))
        fitting.say(registration(0, rounds=True))
        made.settle()
        (refusal,) = peer.hear()
        assert isinstance(refusal, Abort) and refusal.reason.startswith(reason)
        assert fitting.hear() == [Welcome(0, 0)] and made.node.registered == {0}
    assert fates(tmp_path) == ["rejected"] and made.node.fixes_made == 0


def test_a_frame_of_the_wrong_size_never_reaches_the_fusion_rule(tmp_path: Path) -> None:
    seen: list[Report] = []

    class Noting(FakeFusion):
        def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
            seen.extend(report for group in groups for report in group)
            return super().fuse(groups)

    parts = replace(cloud_parts(report=REPORT), build=lambda _: Noting())
    with office(tmp_path, parts) as made:
        one, two = made.peers
        key = ReportKey(0, 0, 0)
        one.say(Frame(0, (Report(key, Payload(b"ab", 16), b"s"),)), Frame(1, (Report(key, Payload(b"a", 8), b"ss"),)))
        two.say(frame(1, 0))
        made.at(T0 + 50 * MS)
    assert [report.key for report in seen] == [ReportKey(1, 0, 0)]
    assert sorted(str(fate) for fate in fates(tmp_path)) == ["delivered", "rejected", "rejected"]


# What arrives


def test_everything_that_arrives_is_written_down_with_its_fate(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts()) as made:
        one, two = made.peers
        good, other = encode(frame(0, 0)), encode(frame(1, 0))
        one.say(good, good, good[:-1] + bytes([good[-1] ^ 1]), b"", other, frame(0, 0, epoch=1))
        two.say(other, frame(1, 99))
        made.settle()
    corrupt, rejected = FrameFate.CORRUPT, FrameFate.REJECTED
    assert fates(tmp_path) == ["delivered", "duplicate", corrupt, corrupt, rejected, rejected, "delivered", rejected]
    rows = read_received(tmp_path / "cloud-0-received.arrow").to_pylist()
    assert [row["reason"] for row in rows if row["reason"]] == [
        "checksum",
        "truncated",
        "BS 1 does not own this connection",
        "epoch 1 is not the registered 0",
        "the run has 8 snapshots",
    ]
    assert [fix.used for fix in fixes(tmp_path)] == [(ReportKey(0, 0, 0), ReportKey(1, 0, 0))]


def test_frames_before_the_start_are_rejected(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts(), t0_ns=None) as made:
        made.peers[0].say(frame(0, 0))
        made.settle()
        assert not made.node.finished
    assert fates(tmp_path) == ["rejected"]


def test_a_restarted_base_station_goes_on_in_its_newer_epoch(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts()) as made:
        one, two = made.peers
        one.say(frame(0, 0))
        two.say(frame(1, 0), frame(1, 1))
        made.settle()
        made.node.ask(("gone", 0))
        made.settle()
        again = Peer(made.network, 0)
        again.say(registration(0, 1), frame(0, 1, epoch=0), frame(0, 1, epoch=1), frame(0, 2, epoch=1))
        two.say(frame(1, 2))
        made.settle()
        assert again.hear() == [Welcome(0, 1)]
    assert [fix.used for fix in fixes(tmp_path)] == [
        (ReportKey(0, 0, 0), ReportKey(1, 0, 0)),
        (ReportKey(1, 0, 1),),  # closed when BS 0 was gone
        (ReportKey(0, 1, 2), ReportKey(1, 0, 2)),
    ]
    assert fates(tmp_path).count("rejected") == 1


def test_pings_are_answered_with_both_times(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts()) as made:
        peer = made.peers[1]
        peer.transport.send(encode(Ping(1, 0, 77)), T0 + 5)
        peer.transport.send(encode(Ping(0, 0, 78)), T0 + 5)  # in another's name
        made.at(T0 + 9)
        assert peer.hear() == [Pong(1, 0, 77, T0 + 5, T0 + 9)]


def test_who_aborts_is_not_waited_for(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts()) as made:
        one, two = made.peers
        one.say(frame(0, 0))
        two.say(Abort("the roof leaks"))
        made.settle()
    assert [len(fix.used) for fix in fixes(tmp_path)] == [1]


def test_a_goodbye_is_answered_at_once_where_a_fix_takes_one_round(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts()) as made:
        one, two = made.peers
        one.say(frame(0, 0), Goodbye(0, 0, 1), Goodbye(1, 0, 0))
        made.settle()
        assert one.hear() == [Goodbye(0, 0, 0)]  # and none in another's name
        assert not made.node.finished
        two.say(Goodbye(1, 0, 0))
        made.settle()
        assert two.hear() == [Goodbye(1, 0, 0)] and made.node.finished
    assert [len(fix.used) for fix in fixes(tmp_path)] == [1]


# Fusion in one round


def test_a_batch_is_fused_at_once_and_a_part_of_one_does_not_wait_for_ever(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts(batch=2)) as made:
        one, two = made.peers
        one.say(*(frame(0, snapshot, seq=snapshot) for snapshot in range(5)))
        two.say(*(frame(1, snapshot, seq=snapshot) for snapshot in range(5)))
        assert made.node.poll(0.0)
        assert made.node.fixes_made == 4  # more may come for the last one
        assert not made.node.poll(0.0)
        assert made.node.fixes_made == 5 and made.node.closed_snapshots == 5
    assert [(fix.snapshot, fix.position) for fix in fixes(tmp_path)] == [(n, (2.0, float(n), 0.0)) for n in range(5)]


def test_a_deadline_makes_a_fix_of_what_is_there_and_the_minimum_none(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts(3, minimum=2)) as made:
        one, two, three = made.peers
        one.say(frame(0, 0), frame(0, 1))
        two.say(frame(1, 0))
        made.settle()
        assert made.node.next_deadline_ns == T0 + 50 * MS
        made.at(T0 + 50 * MS)
        three.say(frame(2, 0))
        made.at(T0 + 150 * MS)
    assert [(fix.snapshot, len(fix.used)) for fix in fixes(tmp_path)] == [(0, 2)]
    rows = read_received(tmp_path / "cloud-0-received.arrow").to_pylist()
    assert [row["late"] for row in rows if row["frame_fate"] is not None] == [0, 0, 0, 1]


def test_a_rehearsal_leaves_no_trace(tmp_path: Path) -> None:
    for rounds in (False, True):
        folder = tmp_path / str(rounds)
        folder.mkdir()
        parts = cloud_parts(rounds=rounds, rehearsal=frame(0, 0).reports)
        with office(folder, parts, peers=0) as made:
            made.node.rehearse()
        assert fixes(folder) == [] and sent(folder) == [] and fates(folder) == []


# Rules that do not cope


def broken(say: Callable[[int], Fix], *, rounds: bool) -> Any:
    """Return a builder of the fake rules whose fix of a snapshot is what `say` says."""

    class Rule(FakeFusion):
        def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
            return [say(group[0].key.snapshot) for group in groups]

    class Exchange(FakeExchange):
        snapshot = 0

        def fix(self) -> Fix:
            return say(self.snapshot)

    class Rounds(FakeRoundFusion):
        def open(self, snapshot: int) -> FakeExchange:
            exchange = Exchange()
            exchange.snapshot = snapshot
            return exchange

    return lambda _: Rounds() if rounds else Rule()


def through_all_rounds(made: Office, snapshot: int, *, rounds: bool) -> None:
    for round_ in range(LAST + 1 if rounds else 1):
        for peer in made.peers:
            peer.say(frame(peer.bs, snapshot, seq=10 * snapshot + round_, round=round_))
        made.settle()


def events(folder: Path, kind: str) -> list[str]:
    return [row["detail"] for row in read_stream(folder / f"cloud-0{EVENTS}").to_pylist() if row["kind"] == kind]


@pytest.mark.parametrize("rounds", [False, True])
def test_a_rule_that_raises_ends_the_run_by_name_and_leaves_what_there_was(tmp_path: Path, rounds: bool) -> None:
    def say(snapshot: int) -> Fix:
        if snapshot == 1:
            raise ValueError("no such\nroot")
        return Fix((1.0, 2.0, 3.0))

    parts = replace(cloud_parts(rounds=rounds), build=broken(say, rounds=rounds))
    with office(tmp_path, parts) as made:
        through_all_rounds(made, 0, rounds=rounds)
        with pytest.raises(FusionError, match=r"^snapshot 1 cannot be fused: no such root \(ValueError\)$"):
            through_all_rounds(made, 1, rounds=rounds)
    assert [fix.snapshot for fix in fixes(tmp_path)] == [0]
    assert fates(tmp_path) == 2 * 2 * (LAST + 1 if rounds else 1) * ["delivered"]


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize(
    "bad",
    [Fix((math.nan, 0.0, 0.0)), Fix((0.0, math.inf, 0.0)), Fix((0.0, 0.0, 0.0), np.full((3, 3), math.nan))],
    ids=["nan", "inf", "covariance"],
)
def test_numbers_that_ran_away_are_no_fix(tmp_path: Path, rounds: bool, bad: Fix) -> None:
    def say(snapshot: int) -> Fix:
        return bad if snapshot == 1 else Fix((1.0, 2.0, 3.0), np.eye(3))

    parts = replace(cloud_parts(rounds=rounds, snapshots=3), build=broken(say, rounds=rounds))
    with office(tmp_path, parts) as made:
        for snapshot in range(3):
            through_all_rounds(made, snapshot, rounds=rounds)
        for peer in made.peers:
            peer.say(Goodbye(peer.bs, 0, 3))
        made.settle()
        assert made.node.finished and made.node.fixes_made == 2
    assert [fix.snapshot for fix in fixes(tmp_path)] == [0, 2]
    assert events(tmp_path, "fusion") == ["snapshot 1 came to no finite position"]
    assert events(tmp_path, "clock") == ["simulated"]


# Rounds


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


def close(folder: Path, stations: Any, found: list[FixRecord], lives: int = 1) -> None:
    """Check that everything adds up."""
    import pyarrow as pa

    ends = [f"cloud-{life}" for life in range(lives)]
    ends += [path.name.removesuffix("-sent.arrow") for path in sorted(folder.glob("bs-*-sent.arrow"))]
    journal = pa.concat_tables([read_journal(folder / f"{end}-sent.arrow") for end in ends])
    received = pa.concat_tables([read_received(folder / f"{end}-received.arrow") for end in ends])
    ledger = close_ledger(journal, received, {key for fix in found for key in fix.used})
    assert conservation(ledger, [(fix.snapshot, fix.used) for fix in found]).problems == ()


def in_rounds(folder: Path, **changes: Any) -> Any:
    return office(folder, cloud_parts(2, rounds=True, **changes))


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


# Silence


def test_silence_counts_from_the_start(tmp_path: Path) -> None:
    """Others may take minutes to come up, and nobody has to say anything meanwhile."""
    with office(tmp_path, cloud_parts(deadline_ms=5000, silence_ns=3000 * MS), t0_ns=60_000 * MS) as made:
        one, two = made.peers
        made.at(60_001 * MS)
        one.say(frame(0, 0))
        made.at(60_200 * MS)
        assert made.node.fixes_made == 0
        two.say(frame(1, 0))
        made.settle()
        assert made.node.fixes_made == 1
    assert [len(fix.used) for fix in fixes(tmp_path)] == [2]


def test_who_is_silent_for_too_long_is_not_waited_for_until_it_speaks(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts(deadline_ms=50_000, silence_ns=300 * MS)) as made:
        one, two = made.peers
        for tenth in range(5):
            one.say(Ping(0, 0, 1), frame(0, tenth))
            made.at(T0 + tenth * 100 * MS)
        assert made.node.fixes_made == 5  # BS 1 was given up, and what waited for it closed
        one.say(frame(0, 5))
        two.say(Ping(1, 0, 1))
        made.settle()
        assert made.node.fixes_made in (5, 6)
        one.say(frame(0, 6))
        made.settle()
        before = made.node.fixes_made
        two.say(frame(1, 6))
        made.settle()
        assert made.node.fixes_made == before + 1
    assert len(fixes(tmp_path)[-1].used) == 2


def test_what_is_sent_to_the_dead_changes_nothing_for_them(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts()) as made:
        one, two = made.peers
        two.say(Ping(1, 0, 1))
        two.transport.close()
        made.node.ask(("gone", 1))
        made.settle()  # the answer finds nobody
        one.say(Goodbye(0, 0, 0))
        made.settle()
        assert made.node.finished
    assert [row["drop_reason"] for row in sent(tmp_path) if b"pong" in row["message"]] == ["disconnected"]


# What cannot be sent


class Stubborn:
    """The cloud's end of memory links, which does not take everything."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.inner = network.cloud()
        self.on_send: list[TransportError] = []
        self.on_receive: list[TransportError] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def send(self, bs: int, data: bytes, t_release_ns: int = 0) -> None:
        if self.on_send and not is_control(data):
            raise self.on_send.pop(0)
        self.inner.send(bs, data, t_release_ns)

    def receive(self, timeout_s: float) -> Received | None:
        if self.on_receive:
            raise self.on_receive.pop(0)
        return self.inner.receive(timeout_s)


def stubborn(folder: Path) -> tuple[CloudNode, Stubborn, list[Peer]]:
    clock = SimulatedClock(T0)
    network = MemoryNetwork(clock)
    transport = Stubborn(network)
    node = CloudNode(cloud_parts(rounds=True, interval_ms=0), transport, folder, clock)
    peers = [Peer(network, bs) for bs in range(2)]
    for peer in peers:
        peer.say(registration(peer.bs, rounds=True))
    node.ask(("start", T0))
    while node.poll(0.0):
        pass
    for peer in peers:
        peer.hear()
    return node, transport, peers


def ask_round_1(node: CloudNode, peers: list[Peer]) -> None:
    for peer in peers:
        peer.say(frame(peer.bs, 0))
    while node.poll(0.0):
        pass


def test_what_a_full_queue_does_not_take_is_amended(tmp_path: Path) -> None:
    node, transport, peers = stubborn(tmp_path)
    transport.on_send = [QueueFull("full")]
    ask_round_1(node, peers)
    assert [states(peer.hear()) for peer in peers] == [[], [(0, 1)]]
    node.close()
    rows = [row for row in sent(tmp_path) if not is_control(row["message"])]
    assert [(row["bs"], row["drop_reason"]) for row in rows] == [(0, TRANSPORT_FULL), (1, None)]


def test_a_state_to_one_that_is_gone_is_amended_and_nobody_waits_for_it(tmp_path: Path) -> None:
    node, transport, peers = stubborn(tmp_path)
    transport.on_send = [TransportError("BS 0 is not connected")]
    ask_round_1(node, peers)
    peers[1].say(frame(1, 0, round=1))
    while node.poll(0.0):
        pass
    assert states(peers[1].hear()) == [(0, 1), (0, 2)]
    node.close()
    rows = [row for row in sent(tmp_path) if not is_control(row["message"])]
    assert [(row["bs"], row["drop_reason"]) for row in rows] == [(0, "disconnected"), (1, None), (1, None)]


@pytest.mark.parametrize("where", ["on_send", "on_receive"])
@pytest.mark.parametrize(
    ("kind", "reason"), [(QueueFull, TRANSPORT_FULL), (TransportError, "disconnected")], ids=["full", "gone"]
)
def test_what_was_lost_after_being_held_back_is_amended_and_nothing_else(
    tmp_path: Path, where: str, kind: type[TransportError], reason: str
) -> None:
    node, transport, peers = stubborn(tmp_path)
    welcome = encode(Welcome(0, 0))
    error, corrupt = kind("of an earlier one"), kind("of one with flipped bits")
    error.undelivered, corrupt.undelivered = welcome, welcome[:-1] + b"?"
    setattr(transport, where, [error, corrupt])
    ask_round_1(node, peers)
    assert transport.on_send == transport.on_receive == []
    assert states(peers[1].hear()) == [(0, 1)]
    node.close()
    rows = sent(tmp_path)
    assert [row["drop_reason"] for row in rows if row["message"] == welcome] == [reason]
    assert {row["drop_reason"] for row in rows if row["message"] != welcome} == {None}


def test_a_transport_that_breaks_down_is_no_lost_message(tmp_path: Path) -> None:
    node, transport, _ = stubborn(tmp_path)
    transport.on_receive = [TransportError("the thread of the delay line broke down")]
    with pytest.raises(TransportError, match="broke down"):
        node.poll(0.0)
    node.close()


def test_a_link_model_holds_back_and_loses_states_but_no_control(tmp_path: Path) -> None:
    down = {1: LinkConfig(delay_s=0.004), 0: LinkConfig(loss=1.0)}
    with in_rounds(tmp_path, down=down) as made:
        one, two = made.peers
        made.at(T0 + 10 * MS)
        assert two.hear() == [Welcome(1, 0)]  # had been held back
        one.say(frame(0, 0))
        two.say(frame(1, 0), Ping(1, 0, 5))
        made.settle()
        assert one.hear() == two.hear() == []
        made.at(T0 + 14 * MS)
        pong, state = two.hear()
        assert isinstance(pong, Pong) and states([state]) == [(0, 1)] and one.hear() == []
    rows = [row for row in sent(tmp_path) if not is_control(row["message"])]
    assert [(row["bs"], row["drop_reason"], row["t_release_ns"]) for row in rows] == [
        (0, "loss", T0 + 10 * MS),
        (1, None, T0 + 14 * MS),
    ]


# Ends


@pytest.mark.parametrize("stream", ["_log", "_journal"])
def test_a_full_disk_stops_the_cloud_and_leaves_what_was_written(tmp_path: Path, stream: str) -> None:
    with office(tmp_path, cloud_parts()) as made:
        one, two = made.peers
        one.say(frame(0, 0))
        two.say(frame(1, 0))
        made.settle()
        fill(getattr(made.node._recorder, stream)._rows)
        one.say(frame(0, 1), Ping(0, 0, 1))
        with pytest.raises(LocalError, match="the disk is full"):
            made.settle()
        with pytest.raises(LocalError, match="the disk is full"):
            made.node.close()
        made.node.close()
    assert fates(tmp_path)[:2] == ["delivered", "delivered"] and len(fixes(tmp_path)) == 1
    assert [decode(row["message"]) for row in sent(tmp_path)] == [Welcome(0, 0), Welcome(1, 0)]


class TickingClock(SimulatedClock):
    """Every look at it takes a millisecond: a loop that waits comes to its end."""

    def now_ns(self) -> int:
        self.advance_to(super().now_ns() + MS)
        return super().now_ns()


@pytest.mark.parametrize("life", [0, 1])
def test_a_run_ends_with_whoever_is_missing_and_a_second_life_lingers(tmp_path: Path, life: int) -> None:
    clock = TickingClock()
    network = MemoryNetwork()
    with_lives = CloudNode(cloud_parts(), network.cloud(), tmp_path, clock, life=life)
    peer = Peer(network, 0)
    peer.say(registration(0), frame(0, 0), Goodbye(0, 0, 1))
    with_lives.ask(("start", 0))
    with_lives.run(2.0)
    took_s = clock.now_ns() / 1e9
    assert took_s > 2.0 and (took_s > 2.0 + LINGER_S) == (life > 0)
    assert with_lives.outcome().registered == {0} and with_lives.outcome().missing == {1}
    with_lives.close()
    with_lives.close()
    assert Goodbye(0, 0, 0) in peer.hear()
