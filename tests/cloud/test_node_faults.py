"""The cloud's loop where rules do not cope, base stations fall silent, and messages cannot be sent."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from cloud_streams import T0, events, fates, fixes, in_rounds, sent
from tiny_nodes import (
    LAST,
    MS,
    FakeExchange,
    FakeFusion,
    FakeRoundFusion,
    Office,
    Peer,
    cloud_parts,
    frame,
    office,
    registration,
    states,
)

from cloud.center import FusionError
from cloud.fusion.scheme import Fix
from cloud.node import FRAMES_PER_POLL, CloudNode
from fronthaul.clock import SimulatedClock
from fronthaul.errors import QueueFull, TransportError
from fronthaul.link.link_config import LinkConfig
from fronthaul.log.received import read_received
from fronthaul.log.sent import TRANSPORT_FULL
from fronthaul.message.messages import Goodbye, Ping, Pong, Report, Welcome
from fronthaul.message.wire import encode, is_control
from fronthaul.transport.memory import MemoryNetwork
from fronthaul.transport.transport import Received

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


@pytest.mark.parametrize("timing", [{"interval_ms": 0}, {}])
def test_what_waits_for_a_busy_cloud_is_neither_silence_nor_late(tmp_path: Path, timing: dict[str, int]) -> None:
    with office(tmp_path, cloud_parts(silence_ns=300 * MS, **timing)) as made:
        one, two = made.peers
        one.say(frame(0, 0), *[Ping(0, 0, 1)] * FRAMES_PER_POLL)
        two.say(frame(1, 0))
        made.clock.sleep_until(T0 + 5000 * MS)  # the cloud was busy with something else
        made.settle()
    (fix,) = fixes(tmp_path)
    assert [key.bs for key in fix.used] == [0, 1]


def test_what_waits_for_a_busy_cloud_is_not_late_because_somebody_else_is_gone(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts(3)) as made:
        one, two, _ = made.peers
        one.say(frame(0, 0))
        made.settle()
        two.say(frame(1, 0))
        made.clock.sleep_until(T0 + 5000 * MS)  # past the deadline
        made.node.ask(("gone", 2))
        made.settle()
    (fix,) = fixes(tmp_path)
    assert [key.bs for key in fix.used] == [0, 1]


def test_who_falls_silent_while_others_never_pause_is_not_waited_for(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts(interval_ms=0, silence_ns=300 * MS)) as made:
        one, _ = made.peers
        one.say(frame(0, 0))
        for tenth in range(1, 6):
            one.say(*[Ping(0, 0, 1)] * 2 * FRAMES_PER_POLL)
            made.clock.sleep_until(T0 + tenth * 100 * MS)
            made.node.poll(0.0)
        assert made.node.fixes_made == 0  # a backlog: only what arrived by 0.2 s has been looked at
        for tenth in range(6, 10):
            made.clock.sleep_until(T0 + tenth * 100 * MS)
            made.node.poll(0.0)
        assert made.node.fixes_made == 1
    assert [len(fix.used) for fix in fixes(tmp_path)] == [1]


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


def stubborn(folder: Path, *, interval_ms: float = 0) -> tuple[CloudNode, Stubborn, list[Peer]]:
    clock = SimulatedClock(T0)
    network = MemoryNetwork(clock)
    transport = Stubborn(network)
    node = CloudNode(cloud_parts(rounds=True, interval_ms=interval_ms), transport, folder, clock)
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
    node, transport, peers = stubborn(tmp_path, interval_ms=10)
    transport.on_send = [QueueFull("full")]
    ask_round_1(node, peers)
    assert [states(peer.hear()) for peer in peers] == [[], [(0, 1)]]
    node.close()
    rows = [row for row in sent(tmp_path) if not is_control(row["message"])]
    assert [(row["bs"], row["drop_reason"]) for row in rows] == [(0, TRANSPORT_FULL), (1, None)]


def test_in_closed_loop_a_state_waits_for_room_and_the_cloud_goes_on(tmp_path: Path) -> None:
    node, transport, peers = stubborn(tmp_path)
    transport.on_send = [QueueFull("full")] * 4
    for peer in peers:
        peer.say(frame(peer.bs, 0))
    node.poll(0.0)
    node.poll(0.0)
    assert [states(peer.hear()) for peer in peers] == [[], []]
    while transport.on_send:
        node.poll(0.0)
    node.poll(0.0)
    assert [states(peer.hear()) for peer in peers] == [[(0, 1)]] * 2
    node.close()
    rows = [row for row in sent(tmp_path) if not is_control(row["message"])]
    assert [(row["bs"], row["drop_reason"]) for row in rows] == [(0, None), (1, None)]


def test_what_still_waits_for_room_when_the_cloud_closes_is_amended(tmp_path: Path) -> None:
    node, transport, peers = stubborn(tmp_path)
    transport.on_send = [QueueFull("full")] * 50
    for peer in peers:
        peer.say(frame(peer.bs, 0))
    node.poll(0.0)
    node.close()
    rows = [row for row in sent(tmp_path) if not is_control(row["message"])]
    assert [(row["bs"], row["drop_reason"]) for row in rows] == [(0, TRANSPORT_FULL), (1, TRANSPORT_FULL)]


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


def test_what_waits_for_a_busy_cloud_is_not_late_because_a_message_was_lost(tmp_path: Path) -> None:
    node, transport, peers = stubborn(tmp_path, interval_ms=10)
    peers[0].say(frame(0, 0))
    node.poll(0.0)
    peers[1].say(frame(1, 0))
    lost = TransportError("BS 0 is not connected")
    lost.undelivered = encode(Welcome(0, 0))
    transport.on_receive = [lost]
    node._clock.sleep_until(T0 + 5000 * MS)  # past the deadline
    node.poll(0.0)
    node.close()
    arrived = read_received(tmp_path / "cloud-0-received.arrow").filter(pc.field("frame_fate") == "delivered")
    assert arrived["late"].to_pylist() == [0, 0]


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
