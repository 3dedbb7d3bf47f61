"""The cloud's loop on memory links and a simulated clock: who is let in, what arrives, and how it ends."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cloud_streams import T0, fates, fixes, sent
from tiny_nodes import ANSWER, MS, REPORT, FakeFusion, Peer, cloud_parts, fill, frame, office, registration

from cloud.fusion.scheme import Fix
from cloud.node import LINGER_S, CloudNode
from fronthaul.clock import SimulatedClock
from fronthaul.errors import LocalError
from fronthaul.log.received import read_received
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import (
    Abort,
    Frame,
    Goodbye,
    Payload,
    PayloadFormat,
    Ping,
    Pong,
    Registration,
    Report,
    ReportKey,
    Welcome,
)
from fronthaul.message.wire import decode, encode
from fronthaul.transport.memory import MemoryNetwork
from fronthaul.transport.transport import CloudTransport, Received

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
        (registration(1, scheme="two"), "the cloud runs scheme 'one', not 'two'"),
        (registration(1, rounds=True, scheme="one"), "the cloud's 'one' takes one round"),
        (registration(1, scheme="\x00" * 256), r"the cloud runs scheme 'one', not '\x00"),
        (registration(1, scheme="é" * 128), "the cloud runs scheme 'one', not 'éé"),
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
        assert stranger.hear() == [Abort("BS 9 is not part of this run, which has 2 base stations")]
        assert peer.hear() == [Welcome(1, 4), Abort("BS 1 has registered in epoch 4 already, 3 is over"), Welcome(1, 4)]


@pytest.mark.parametrize(
    ("report", "answer", "reason"),
    [
        (
            PayloadFormat.uniform(8, 2, 1),
            ANSWER,
            "the cloud's 'several' takes reports of 1 x 8 bit and 1 B of side information, "
            "not of 2 x 8 bit and 1 B of side information",
        ),
        (PayloadFormat.uniform(4, 2, 1), ANSWER, "the cloud's 'several' takes reports of 1 x 8 bit"),  # as many bits
        (
            REPORT,
            PayloadFormat.uniform(16, 1, 4),
            "the cloud's 'several' takes answers of 1 x 16 bit and 0 B of side information, not of",
        ),
        (
            PayloadFormat(8, 1, fixed=False),
            ANSWER,
            "the cloud's 'several' takes reports of 1 x 8 bit and 1 B of side information, not of up to 8 bit",
        ),
    ],
)
def test_formats_that_the_fusion_rule_does_not_expect_are_refused(
    tmp_path: Path, report: PayloadFormat, answer: PayloadFormat, reason: str
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
        self.sleep_until(super().now_ns() + MS)
        return super().now_ns()


@pytest.mark.parametrize("incarnation", [0, 1])
def test_a_run_ends_with_whoever_is_missing_and_a_second_incarnation_lingers(tmp_path: Path, incarnation: int) -> None:
    clock = TickingClock()
    network = MemoryNetwork()
    with_incarnations = CloudNode(cloud_parts(), network.cloud(), tmp_path, clock, incarnation=incarnation)
    peer = Peer(network, 0)
    peer.say(registration(0), frame(0, 0), Goodbye(0, 0, 1))
    with_incarnations.ask(("start", 0))
    with_incarnations.run(2.0)
    took_s = clock.now_ns() / 1e9
    assert took_s > 2.0 and (took_s > 2.0 + LINGER_S) == (incarnation > 0)
    assert with_incarnations.outcome().registered == {0} and with_incarnations.outcome().missing == {1}
    with_incarnations.close()
    with_incarnations.close()
    assert Goodbye(0, 0, 0) in peer.hear()


class Chatty:
    """The transport of a cloud to which a base station goes on talking for 12 s, once a second."""

    def __init__(self, inner: CloudTransport, clock: SimulatedClock, peer: Peer) -> None:
        self._inner, self._clock, self._peer = inner, clock, peer
        self._next_s = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def receive(self, timeout_s: float) -> Received | None:
        if self._next_s <= min(12, self._clock.now_ns() / 1e9):
            self._next_s += 1
            self._peer.say(Ping(self._peer.bs, 0, 1))
        return self._inner.receive(timeout_s)


@pytest.mark.parametrize(("talker", "ends_s"), [(0, 5.0), (1, 17.0)])
def test_only_who_is_still_missing_holds_up_the_end(tmp_path: Path, talker: int, ends_s: float) -> None:
    """BS 0 has left, BS 1 has not: what the former goes on saying is no reason to wait for the latter."""
    clock = TickingClock()
    network = MemoryNetwork(clock)
    peers = [Peer(network, 0), Peer(network, 1)]
    node = CloudNode(cloud_parts(), Chatty(network.cloud(), clock, peers[talker]), tmp_path, clock)
    for peer in peers:
        peer.say(registration(peer.bs))
    peers[0].say(Goodbye(0, 0, 0))
    node.ask(("start", 0))
    node.run(5.0)
    assert clock.now_ns() / 1e9 == pytest.approx(ends_s, abs=0.5) and node.outcome().missing == {1}
    node.close()
