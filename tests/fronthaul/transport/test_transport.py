"""Links in memory and over TCP: the same script gives the same result."""

import time
from collections.abc import Callable, Iterator
from itertools import product

import pytest

from fronthaul.clock import SimulatedClock
from fronthaul.errors import LocalError, QueueFull, TransportError
from fronthaul.message.wire import MAX_MESSAGE_BYTES
from fronthaul.transport.delay_line import DelayedCloud, DelayedEdge
from fronthaul.transport.identity import bs_of, identity
from fronthaul.transport.memory import MemoryNetwork
from fronthaul.transport.new_keys import ephemeral
from fronthaul.transport.transport import CloudTransport, EdgeTransport
from fronthaul.transport.zeromq import DealerTransport, RouterTransport

SOON_S = 30.0
"""Longer than anything takes; nothing waits for it unless a test fails."""
STATIONS = 8

Links = tuple[CloudTransport, Callable[[int], EdgeTransport]]


@pytest.fixture(params=["memory", "sockets", "sockets with keys", "delay lines"])
def links(request: pytest.FixtureRequest) -> Iterator[Links]:
    """Yield a cloud, and a function that makes the edge of a BS."""
    edges: list[EdgeTransport] = []
    network = MemoryNetwork()
    keys = ephemeral(STATIONS) if request.param == "sockets with keys" else None
    delayed = request.param == "delay lines"
    cloud: CloudTransport
    if request.param == "memory":
        cloud = network.cloud()
    elif delayed:
        cloud = DelayedCloud(RouterTransport)
    else:
        cloud = RouterTransport(keys=keys.cloud if keys else None)

    def connect(bs: int) -> EdgeTransport:
        edge: EdgeTransport
        if request.param == "memory":
            edge = network.edge(bs)
        elif delayed:
            edge = DelayedEdge(lambda: DealerTransport(cloud.address, bs))
        else:
            edge = DealerTransport(cloud.address, bs, keys=keys.edges[bs] if keys else None)
        edges.append(edge)
        return edge

    yield cloud, connect
    for edge in edges:
        edge.close()
    cloud.close()


def received_by(cloud: CloudTransport) -> tuple[int | None, bytes]:
    received = cloud.receive(SOON_S)
    assert received is not None
    return received.owner, received.data


def test_messages_arrive_whole_and_in_order(links: Links) -> None:
    cloud, connect = links
    for bs in (0, 7):
        edge = connect(bs)
        messages = [b"", b"a", bytes(222), bytes(223), bytes(255), bytes(256), bytes(MAX_MESSAGE_BYTES)]
        for message in messages:
            edge.send(message)
        assert [received_by(cloud) for _ in messages] == [(bs, message) for message in messages]
        for message in messages:
            cloud.send(bs, message)
        assert [edge.receive(SOON_S) for _ in messages] == messages
        assert 0 < cloud.t_received_ns <= edge.t_received_ns


def test_what_waits_is_taken_at_once(links: Links) -> None:
    cloud, connect = links
    edges = [connect(bs) for bs in range(2)]
    for edge, data in product(edges, (b"first", b"second", b"third")):
        edge.send(data)
    before_ns = time.time_ns()
    came = [(*received_by(cloud), cloud.t_received_ns)]
    assert cloud.receive_waiting(0) == []
    while len(came) < 6 and time.time_ns() < before_ns + SOON_S * 1e9:
        taken = cloud.receive_waiting(2)
        assert len(taken) <= 2
        came += taken
        time.sleep(0.0 if taken else 0.001)
    for bs in range(2):
        assert [data for owner, data, _ in came if owner == bs] == [b"first", b"second", b"third"]
    times = [t_ns for _, _, t_ns in came]
    assert times == sorted(times) and times[0] > 0
    assert cloud.receive_waiting(2) == []


def test_nothing_comes_from_nobody(links: Links) -> None:
    cloud, connect = links
    edge = connect(0)
    assert cloud.receive(0.0) is None
    assert edge.receive(0.0) is None
    assert cloud.t_received_ns == edge.t_received_ns == 0


def test_replies_reach_their_base_station_alone(links: Links) -> None:
    cloud, connect = links
    edges = [connect(bs) for bs in range(3)]
    for bs, edge in enumerate(edges):
        edge.send(b"here")
        assert received_by(cloud) == (bs, b"here")
    cloud.send(1, b"you")
    assert edges[1].receive(SOON_S) == b"you"
    assert [edge.receive(0.0) for edge in edges] == [None] * 3


def test_a_second_start_takes_over(links: Links) -> None:
    cloud, connect = links
    for start in (b"first", b"second"):
        edge = connect(5)
        edge.send(start)
        assert received_by(cloud) == (5, start)
        cloud.send(5, start)
        assert edge.receive(SOON_S) == start
        edge.close()


def test_an_unknown_peer_is_an_error(links: Links) -> None:
    cloud, _ = links
    with pytest.raises(TransportError, match="BS 6 is not connected"):
        cloud.send(6, b"hello?")
        cloud.receive(SOON_S)  # a delay line tells at the next call


def test_a_message_over_the_limit_is_refused(links: Links) -> None:
    cloud, connect = links
    edge = connect(0)
    with pytest.raises(LocalError, match="at most"):
        edge.send(bytes(MAX_MESSAGE_BYTES + 1))
    with pytest.raises(LocalError, match="at most"):
        cloud.send(0, bytes(MAX_MESSAGE_BYTES + 1))


def test_a_closed_transport_is_refused(links: Links) -> None:
    cloud, connect = links
    edge = connect(0)
    for transport in (edge, cloud):
        transport.close()
        transport.close()
        with pytest.raises(LocalError, match="closed"):
            transport.receive(0.0)
        transport.take_connections()
        transport.take_events()
    with pytest.raises(LocalError, match="closed"):
        edge.send(b"")
    with pytest.raises(LocalError, match="closed"):
        cloud.send(0, b"")
    with pytest.raises(LocalError, match="closed"):
        cloud.receive_waiting(1)


def test_a_cut_link_comes_back(links: Links) -> None:
    cloud, connect = links
    edge = connect(2)
    edge.send(b"before")
    assert received_by(cloud) == (2, b"before")
    edge.cut(0.05)
    edge.send(b"meanwhile")
    edge.receive(0.05)  # whoever sends only from time to time reconnects then
    edge.send(b"after")
    received: list[bytes] = []
    deadline = time.monotonic() + SOON_S
    while len(received) < 2 and time.monotonic() < deadline:
        edge.receive(0.0)
        if (item := cloud.receive(0.005)) is not None:
            received.append(item.data)
    assert received == [b"meanwhile", b"after"]
    assert cloud.receive(0.0) is None
    assert [event.kind for event in edge.take_events()][:2] == ["connected", "disconnected"]


def test_a_peer_that_left_memory_is_unknown() -> None:
    network = MemoryNetwork()
    cloud, first = network.cloud(), network.edge(0)
    second = network.edge(0)
    first.close()
    cloud.send(0, b"to the second")
    assert second.receive(0.0) == b"to the second"
    second.close()
    with pytest.raises(TransportError):
        cloud.send(0, b"to nobody")
    kinds = [(event.kind, event.bs) for event in cloud.take_events()]
    assert kinds == [("connected", 0), ("connected", 0), ("disconnected", 0), ("disconnected", 0)]
    assert cloud.take_events() == []


def test_memory_holds_messages_until_their_release() -> None:
    clock = SimulatedClock(100)
    network = MemoryNetwork(clock)
    cloud, edge = network.cloud(), network.edge(1)
    assert network.next_release_ns is None
    for data, release_ns in ((b"c", 300), (b"a", 200), (b"d", 300), (b"now", 0), (b"b", 200)):
        edge.send(data, release_ns)
    cloud.send(1, b"down", 250)
    arrived = []
    while (next_ns := network.next_release_ns) is not None:
        clock.sleep_until(next_ns)
        if (received := cloud.receive(0.0)) is not None:
            arrived.append((received.data, cloud.t_received_ns))
        elif (down := edge.receive(0.0)) is not None:
            arrived.append((down, edge.t_received_ns))
    # At the same time in the order of sending, else in the order of release.
    assert arrived == [(b"now", 100), (b"a", 200), (b"b", 200), (b"down", 250), (b"c", 300), (b"d", 300)]


def test_memory_without_a_clock_holds_nothing() -> None:
    network = MemoryNetwork()
    edge = network.edge(1)
    edge.send(b"at once", 1 << 62)
    edge.send(b"too", 0)
    cloud = network.cloud()
    assert [received_by(cloud) for _ in range(2)] == [(1, b"at once"), (1, b"too")]


def test_a_cut_in_simulated_time_loses_what_waits_and_holds_what_follows() -> None:
    clock = SimulatedClock()
    network = MemoryNetwork(clock)
    cloud, edge, other = network.cloud(), network.edge(1), network.edge(2)
    edge.send(b"lost", 10)
    other.send(b"not mine", 20)
    cloud.send(1, b"lost too", 10)
    edge.cut(1e-6)
    edge.send(b"held", 10)
    cloud.send(1, b"held too")
    clock.sleep_until(999)
    assert received_by(cloud) == (2, b"not mine")
    assert cloud.receive(0.0) is None and edge.receive(0.0) is None
    assert network.next_release_ns == 1000
    clock.sleep_until(1000)
    assert received_by(cloud) == (1, b"held")
    assert edge.receive(0.0) == b"held too"


def test_identities() -> None:
    assert [identity(bs) for bs in (0, 12, 65535)] == [b"bs-000", b"bs-012", b"bs-65535"]
    assert all(bs_of(identity(bs)) == bs for bs in range(0, 65536, 257))
    strangers = b"", b"bs-", b"bs-1", b"bs-0001", b"xx-001", b"bs--01", b"\x00ab12", b"bs-123456", b"bs-65536", b"001"
    assert not [stranger for stranger in strangers if bs_of(stranger) is not None]


def test_a_full_queue_is_a_transport_error() -> None:
    assert issubclass(QueueFull, TransportError)
    assert QueueFull("full").undelivered is None
