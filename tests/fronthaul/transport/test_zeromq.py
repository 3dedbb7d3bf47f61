"""Links over TCP: limits, faults, and what is told about connections."""

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import zmq

from fronthaul import clock
from fronthaul.errors import LocalError, QueueFull, TransportError
from fronthaul.message.wire import MAX_MESSAGE_BYTES
from fronthaul.transport.keys import KeyRing
from fronthaul.transport.new_keys import ephemeral
from fronthaul.transport.transport import ConnectionCount, LinkEvent, Load, Received
from fronthaul.transport.zeromq import PER_STATION, DealerTransport, RouterTransport

SOON_S = 30.0
"""Longer than anything takes; nothing waits for it unless a test fails."""


@pytest.fixture(params=[False, True], ids=["null", "curve"])
def ring(request: pytest.FixtureRequest) -> KeyRing | None:
    return ephemeral(4) if request.param else None


@pytest.fixture
def cloud(ring: KeyRing | None) -> Iterator[RouterTransport]:
    with closing(RouterTransport(keys=ring.cloud if ring else None)) as transport:
        yield transport


def edge_of(cloud: RouterTransport, bs: int, ring: KeyRing | None) -> DealerTransport:
    return DealerTransport(cloud.address, bs, keys=ring.edges[bs] if ring else None)


def forget(*edges: DealerTransport) -> None:
    """Close edges whose messages nobody will take any more."""
    for edge in edges:
        edge._socket.setsockopt(zmq.LINGER, 0)
        edge.close()


def wait_for(cloud: RouterTransport, kind: str, *edges: DealerTransport) -> list[LinkEvent]:
    """Return the cloud's events up to the first of a kind; no message may come meanwhile."""
    events: list[LinkEvent] = []
    deadline = time.monotonic() + SOON_S
    while not any(event.kind == kind for event in events):
        assert time.monotonic() < deadline, events
        assert cloud.receive(0.01) is None
        for edge in edges:
            edge.receive(0.0)
        events += cloud.take_events()
    return events


def test_a_port_in_use_is_one_sentence() -> None:
    with closing(RouterTransport()) as cloud:
        port = int(cloud.address.rsplit(":", 1)[1])
        with pytest.raises(LocalError, match=f"port {port} on 127.0.0.1 is in use"):
            RouterTransport(port=port)


def test_a_foreign_host_and_a_wrong_address_are_refused() -> None:
    with pytest.raises(LocalError, match="cannot listen"):
        RouterTransport(host="192.0.2.1")
    with pytest.raises(LocalError, match="cannot connect"):
        DealerTransport("nowhere", 0)


def test_a_full_queue_to_the_cloud_is_an_error_at_once() -> None:
    edge = DealerTransport("tcp://127.0.0.1:9", 0, queue_messages=20)  # nobody listens at "discard"
    for _ in range(20):
        edge.send(b"")
    with pytest.raises(QueueFull, match="is it running"):
        edge.send(b"")
    forget(edge)


def test_a_full_queue_to_a_base_station_is_an_error_at_once(ring: KeyRing | None) -> None:
    with closing(RouterTransport(keys=ring.cloud if ring else None, queue_messages=5)) as cloud:
        edge = edge_of(cloud, 1, ring)
        edge.send(b"here")
        assert cloud.receive(SOON_S) is not None
        with pytest.raises(QueueFull, match="BS 1"):  # beyond what queues and kernel hold
            for _ in range(10_000):
                cloud.send(1, bytes(100_000))
        forget(edge)


def test_the_queue_of_a_link_that_is_cut_is_bounded_too(cloud: RouterTransport, ring: KeyRing | None) -> None:
    edge = DealerTransport(cloud.address, 1, keys=ring.edges[1] if ring else None, queue_messages=10)
    edge.cut(3600.0)
    for _ in range(10):
        edge.send(b"")
    with pytest.raises(QueueFull, match="cut"):
        edge.send(b"")
    edge.close()


def test_a_bare_socket_holds_nothing_back(cloud: RouterTransport, ring: KeyRing | None) -> None:
    with closing(edge_of(cloud, 1, ring)) as edge:
        edge.send(b"past", time.time_ns())
        with pytest.raises(LocalError, match="delay line"):
            edge.send(b"to come", time.time_ns() + 10**12)
        assert cloud.receive(SOON_S) is not None
        with pytest.raises(LocalError, match="delay line"):
            cloud.send(1, b"to come", time.time_ns() + 10**12)


def test_a_message_of_several_parts_ends_the_connection(cloud: RouterTransport, ring: KeyRing | None) -> None:
    rude = edge_of(cloud, 3, ring)
    rude.send(b"one part")
    assert cloud.receive(SOON_S) == Received(3, b"one part")
    rude._socket.send_multipart([b"two", b"parts"])
    event = wait_for(cloud, "refused", rude)[-1]
    assert event.bs == 3 and "a message of several parts" in event.detail
    forget(rude)


def test_a_message_over_the_limit_cuts_the_connection(cloud: RouterTransport, ring: KeyRing | None) -> None:
    rude, polite = edge_of(cloud, 1, ring), edge_of(cloud, 2, ring)
    for edge in (rude, polite):
        edge.send(bytes(MAX_MESSAGE_BYTES))  # the longest there is
        assert cloud.receive(SOON_S) is not None
    cloud.take_events()
    rude._socket.send(bytes(MAX_MESSAGE_BYTES + 1))  # what `send` refuses
    (event,) = wait_for(cloud, "disconnected")
    assert event.bs == 1
    polite.send(b"still here")
    assert cloud.receive(SOON_S) == Received(2, b"still here")
    (count,) = (c for c in cloud.take_connections() if c.bs == 1)
    assert count.cut and count.received_bytes > MAX_MESSAGE_BYTES
    forget(rude, polite)


def test_a_cut_resets_the_connection_and_loses_what_waits(cloud: RouterTransport, ring: KeyRing | None) -> None:
    edge = edge_of(cloud, 1, ring)
    edge.send(b"before")
    assert cloud.receive(SOON_S) is not None
    cloud.send(1, b"never read")
    edge.cut(0.05)
    edge.send(b"meanwhile")
    events = wait_for(cloud, "disconnected")
    assert [(event.kind, event.bs) for event in events][-1] == ("disconnected", 1)
    with pytest.raises(TransportError, match="not connected"):
        cloud.send(1, b"during the cut")
    received = None
    deadline = time.monotonic() + SOON_S
    while received is None and time.monotonic() < deadline:
        assert edge.receive(0.01) is None  # makes the connection again
        received = cloud.receive(0.01)
    assert received is not None and (received.owner, received.data) == (1, b"meanwhile")
    cloud.send(1, b"back")
    assert edge.receive(SOON_S) == b"back"
    kinds = [event.kind for event in edge.take_events()]
    assert kinds == ["connected", "disconnected", "connected"]
    edge.close()
    first, second = edge.take_connections()
    assert (first.cut, second.cut) == (True, False)
    assert first.local != second.local and first.t_closed_ns <= second.t_opened_ns
    (at_cloud, *_) = cloud.take_connections()
    assert at_cloud.cut and at_cloud.bs == 1
    # Of a connection that was cut each end counts what it saw: no more arrived than was sent.
    assert first.sent_bytes <= at_cloud.received_bytes
    assert first.received_bytes <= at_cloud.sent_bytes or first.cut


def test_a_connection_keeps_its_times_where_somebody_has_set_the_clock(
    cloud: RouterTransport, ring: KeyRing | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "_origin", replace(clock.origin(), t_ns=clock.origin().t_ns - 3600 * 10**9))
    begin_ns = clock.real_ns()
    edge = edge_of(cloud, 1, ring)
    edge.send(b"hello")
    assert cloud.receive(SOON_S) == Received(1, b"hello")
    edge.close()
    (count,) = edge.take_connections()
    assert begin_ns <= count.t_opened_ns <= count.t_closed_ns


def test_a_cut_may_follow_a_cut(cloud: RouterTransport, ring: KeyRing | None) -> None:
    edge = edge_of(cloud, 1, ring)
    for _ in range(3):
        edge.cut(3600.0)
        edge.send(b"lost")
    edge.cut(0.0)
    edge.send(b"there")
    received = cloud.receive(SOON_S)
    assert received is not None and received.data == b"there"
    edge.close()


def test_a_mute_connection_is_made_anew_and_loses_nothing(cloud: RouterTransport, ring: KeyRing | None) -> None:
    with closing(edge_of(cloud, 1, ring)) as edge:
        edge.send(b"first")
        assert cloud.receive(SOON_S) == Received(1, b"first")
        for message in (b"second", b"third"):
            edge.send(message)
        edge.renew()
        edge.send(b"fourth")
        received = [cloud.receive(SOON_S) for _ in range(3)]
        assert received == [Received(1, message) for message in (b"second", b"third", b"fourth")]
        cloud.send(1, b"answer")
        assert edge.receive(SOON_S) == b"answer"
        kinds = [(event.kind, event.detail) for event in edge.take_events()]
    assert kinds[1:] == [("disconnected", "given up: nothing came back"), ("connected", "")]
    first, second = edge.take_connections()
    assert not first.cut and not second.cut
    assert first.local != second.local


def test_a_name_has_one_owner_while_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without keys anybody may take a name that is free, and nobody one that is not."""
    with closing(RouterTransport()) as cloud, closing(DealerTransport(cloud.address, 1)) as honest:
        honest.send(b"mine")
        assert cloud.receive(SOON_S) == Received(1, b"mine")
        impostor = DealerTransport(cloud.address, 1)
        impostor.send(b"no, mine")
        event = wait_for(cloud, "refused", impostor)[-1]
        assert "claims to be BS 1, which is connected already" in event.detail
        cloud.send(1, b"to its owner")
        assert honest.receive(SOON_S) == b"to its owner"
        monkeypatch.setattr("fronthaul.transport.zeromq.LIVING_S", 0.0)  # its owner is silent for long
        impostor.send(b"now it is")
        assert cloud.receive(SOON_S) == Received(1, b"now it is")
        monkeypatch.undo()
        honest.send(b"refused, and connected again")
        assert "BS 1" in wait_for(cloud, "refused", honest)[-1].detail
        impostor.close()
        received = None
        deadline = time.monotonic() + SOON_S
        while received is None and time.monotonic() < deadline:
            honest.send(b"here again")
            received = cloud.receive(0.2)
        assert received == Received(1, b"here again")


def test_too_many_connections_of_one_base_station_end_the_oldest() -> None:
    ring = ephemeral(2)
    with closing(RouterTransport(keys=ring.cloud)) as cloud, closing(edge_of(cloud, 0, ring)) as other:
        other.send(b"first")
        assert cloud.receive(SOON_S) == Received(0, b"first")
        edges = []
        for number in range(PER_STATION + 1):
            edges.append(edge_of(cloud, 1, ring))
            edges[-1].send(b"%d" % number)
            assert cloud.receive(SOON_S) == Received(1, b"%d" % number)
        event = wait_for(cloud, "refused")[-1]
        assert (event.bs, event.detail) == (1, f"there are more than {PER_STATION} connections of BS 1")
        edges[-1].send(b"the newest stays")
        assert cloud.receive(SOON_S) == Received(1, b"the newest stays")
        other.send(b"and so does another's")
        assert cloud.receive(SOON_S) == Received(0, b"and so does another's")
        forget(*edges)


def test_a_full_queue_is_no_reason_to_be_cut_off(ring: KeyRing | None) -> None:
    """What a cloud finds that was stopped for a while, of a base station that it knows and of one that it does not."""
    load = Load(frozenset({1, 2}), 600)
    with closing(RouterTransport(keys=ring.cloud if ring else None, queue_messages=100, load=load)) as cloud:
        known, new = edge_of(cloud, 1, ring), edge_of(cloud, 2, ring)
        known.send(b"known")
        assert cloud.receive(SOON_S) == Received(1, b"known")
        for edge in (known, new):
            for _ in range(200):  # twice what the queue holds
                edge.send(bytes(600))
        time.sleep(1.0)
        received = [cloud.receive(SOON_S) for _ in range(400)]
        assert [message and len(message.data) for message in received] == [600] * 400
        assert [event.kind for event in cloud.take_events()] == ["connected", "connected"]
        forget(known, new)


def test_a_guard_that_broke_down_is_an_error(cloud: RouterTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise MemoryError

    monkeypatch.setattr(cloud._book, "enforce", broken)
    deadline = time.monotonic() + SOON_S
    with pytest.raises(TransportError, match="broke down"):
        while time.monotonic() < deadline:
            cloud.receive(0.01)


CRASH = """
import os, sys
from fronthaul.transport.zeromq import DealerTransport
edge = DealerTransport(sys.argv[1], 1)
edge.send(b"alive")
edge.receive(10.0)
os._exit(9)
"""


def test_a_process_that_dies_is_counted_and_may_return() -> None:
    with closing(RouterTransport()) as cloud:
        root = Path(__file__).resolve().parents[3]
        child = subprocess.Popen([sys.executable, "-c", CRASH, cloud.address], cwd=root)
        assert cloud.receive(60.0) == Received(1, b"alive")
        cloud.send(1, b"die")
        assert wait_for(cloud, "disconnected")[-1].bs == 1
        child.wait()
        with closing(DealerTransport(cloud.address, 1)) as edge:
            edge.send(b"once more")
            assert cloud.receive(SOON_S) == Received(1, b"once more")
            cloud.send(1, b"hello")
            assert edge.receive(SOON_S) == b"hello"
        (count,) = (c for c in cloud.take_connections() if c.received_bytes == 124 + 2 + 5)
        assert count.cut and count.sent_bytes == 107 + 2 + 3


def test_a_connection_that_is_reset_is_counted_as_cut(cloud: RouterTransport, ring: KeyRing | None) -> None:
    port = int(cloud.address.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        name = "{}:{}".format(*stranger.getsockname())
        wait_for(cloud, "connected")
        stranger.sendall(b"\xff" + bytes(7))
        time.sleep(0.01)
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for_count = time.monotonic() + SOON_S
    counts: list[ConnectionCount] = []
    while not counts and time.monotonic() < wait_for_count:
        assert cloud.receive(0.01) is None
        counts = cloud.take_connections()
    (count,) = counts
    assert count.remote == name and count.bs is None and count.cut
    assert count.received_bytes == 8


def test_connections_of_several_base_stations_are_told_apart(cloud: RouterTransport, ring: KeyRing | None) -> None:
    edges = [edge_of(cloud, bs, ring) for bs in range(4)]
    for bs, edge in enumerate(edges):
        for _ in range(bs + 1):
            edge.send(bytes(100))
            assert cloud.receive(SOON_S) is not None
    for edge in edges:
        edge.close()
    at_edges = {count.bs: count for edge in edges for count in edge.take_connections()}
    cloud.close()
    at_cloud = {count.bs: count for count in cloud.take_connections()}
    assert set(at_edges) == set(at_cloud) == {0, 1, 2, 3}
    for bs, count in at_cloud.items():
        assert count.received_bytes == at_edges[bs].sent_bytes
        assert count.remote == at_edges[bs].local
    assert [e.bs for e in cloud.take_events() if e.kind == "disconnected"] != [None]


def test_a_descriptor_ends_a_wait(cloud: RouterTransport, ring: KeyRing | None) -> None:
    with closing(edge_of(cloud, 1, ring)) as edge:
        edge.send(b"served")
        assert cloud.receive(SOON_S) is not None
        for transport in (cloud, edge):
            out, into = os.pipe()
            transport.wake_by(out)
            threading.Timer(0.02, os.write, (into, b"!")).start()
            begin = time.monotonic()
            assert transport.receive(60.0) is None
            assert time.monotonic() - begin < 30.0
            os.close(out)
            os.close(into)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_descriptors_do_not_leak(ring: KeyRing | None) -> None:
    def once() -> None:
        cloud = RouterTransport(keys=ring.cloud if ring else None)
        edge = edge_of(cloud, 1, ring)
        edge.send(b"up")
        assert cloud.receive(SOON_S) is not None
        cloud.send(1, b"down")
        assert edge.receive(SOON_S) == b"down"
        edge.cut(0.0)
        edge.send(b"again")
        assert cloud.receive(SOON_S) is not None
        edge.close()
        cloud.close()

    once()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        once()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
