"""Links in memory and over TCP: the same script gives the same result."""

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from fronthaul.accounting import frame_cost, handshake_bytes, zmtp_frame_bytes
from fronthaul.errors import LocalError, TransportError
from fronthaul.memory import MemoryNetwork
from fronthaul.messages import Frame, Payload, Report, ReportKey, Welcome
from fronthaul.sockets import DealerTransport, RouterTransport
from fronthaul.transport import CloudTransport, EdgeTransport, bs_of, identity
from fronthaul.wire import MAX_MESSAGE_BYTES, encode

SOON_S = 5.0
"""Longer than anything takes; nothing waits for it unless a test fails."""

Links = tuple[CloudTransport, Callable[[int], EdgeTransport]]


@pytest.fixture(params=["memory", "sockets"])
def links(request: pytest.FixtureRequest) -> Iterator[Links]:
    """Yield a cloud, and a function that makes the edge of a BS."""
    edges: list[EdgeTransport] = []
    network = MemoryNetwork()
    cloud: CloudTransport = network.cloud() if request.param == "memory" else RouterTransport()

    def connect(bs: int) -> EdgeTransport:
        edge = network.edge(bs) if request.param == "memory" else DealerTransport(cloud.address, bs)
        edges.append(edge)
        return edge

    yield cloud, connect
    for edge in edges:
        edge.close()
    cloud.close()


def test_messages_arrive_whole_and_in_order(links: Links) -> None:
    cloud, connect = links
    for bs in (0, 7, 1234):
        edge = connect(bs)
        messages = [b"", b"a", bytes(255), bytes(256), bytes(MAX_MESSAGE_BYTES)]
        for message in messages:
            edge.send(message)
        assert [cloud.receive(SOON_S) for _ in messages] == [(identity(bs), message) for message in messages]
        for message in messages:
            cloud.send(identity(bs), message)
        assert [edge.receive(SOON_S) for _ in messages] == messages


def test_nothing_comes_from_nobody(links: Links) -> None:
    cloud, connect = links
    edge = connect(0)
    assert cloud.receive(0.0) is None
    assert edge.receive(0.0) is None


def test_replies_reach_their_base_station_alone(links: Links) -> None:
    cloud, connect = links
    edges = [connect(bs) for bs in range(3)]
    for edge in edges:
        edge.send(b"here")
        assert cloud.receive(SOON_S) is not None
    cloud.send(identity(1), b"you")
    assert edges[1].receive(SOON_S) == b"you"
    assert [edge.receive(0.0) for edge in edges] == [None] * 3


def test_a_second_start_takes_over_the_identity(links: Links) -> None:
    cloud, connect = links
    for start in (b"first", b"second"):
        edge = connect(5)
        edge.send(start)
        assert cloud.receive(SOON_S) == (identity(5), start)
        cloud.send(identity(5), start)
        assert edge.receive(SOON_S) == start


def test_an_unknown_peer_is_an_error(links: Links) -> None:
    cloud, _ = links
    with pytest.raises(TransportError, match="bs-009"):
        cloud.send(identity(9), b"hello?")


def test_a_message_over_the_limit_is_refused(links: Links) -> None:
    cloud, connect = links
    edge = connect(0)
    with pytest.raises(LocalError, match="at most"):
        edge.send(bytes(MAX_MESSAGE_BYTES + 1))
    with pytest.raises(LocalError, match="at most"):
        cloud.send(identity(0), bytes(MAX_MESSAGE_BYTES + 1))


def test_a_closed_transport_is_refused(links: Links) -> None:
    cloud, connect = links
    edge = connect(0)
    for transport in (edge, cloud):
        transport.close()
        transport.close()
        with pytest.raises(LocalError, match="closed"):
            transport.receive(0.0)
    with pytest.raises(LocalError, match="closed"):
        edge.send(b"")
    with pytest.raises(LocalError, match="closed"):
        cloud.send(identity(0), b"")


def test_a_peer_that_left_memory_is_unknown() -> None:
    network = MemoryNetwork()
    cloud, first = network.cloud(), network.edge(0)
    second = network.edge(0)
    first.close()
    cloud.send(identity(0), b"to the second")
    assert second.receive(0.0) == b"to the second"
    second.close()
    with pytest.raises(TransportError):
        cloud.send(identity(0), b"to nobody")


def test_identities() -> None:
    assert [identity(bs) for bs in (0, 12, 65535)] == [b"bs-000", b"bs-012", b"bs-65535"]
    assert all(bs_of(identity(bs)) == bs for bs in range(0, 65536, 257))
    for stranger in (
        b"",
        b"bs-",
        b"bs-1",
        b"bs-0001",
        b"xx-001",
        b"bs--01",
        b"\x00ab12",
        b"bs-123456",
        b"001",
    ):
        assert bs_of(stranger) is None


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


def test_a_queue_that_stays_full_is_an_error() -> None:
    edge = DealerTransport("tcp://127.0.0.1:9", 0, send_timeout_s=0.05)  # nobody listens at "discard"
    with pytest.raises(TransportError, match="stayed full"):
        for _ in range(2000):
            edge.send(b"")
    edge._socket.setsockopt(zmq.LINGER, 0)  # nobody will ever take what is queued
    edge.close()


def test_parts_of_a_strangers_message_come_out_one_by_one() -> None:
    with closing(RouterTransport()) as cloud, closing(DealerTransport(cloud.address, 3)) as edge:
        edge._socket.send_multipart([b"two", b"parts"])
        edge.send(b"one")
        received = [cloud.receive(SOON_S) for _ in range(3)]
        assert received == [(b"bs-003", b"two"), (b"bs-003", b"parts"), (b"bs-003", b"one")]


def tcp_bytes(descriptor: int) -> tuple[int, int]:
    """Return (acknowledged, received) of a connection, as the kernel counts them [B]."""
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)
    # struct tcp_info: 8 B of flags, 24 u32, two rates u64, then tcpi_bytes_acked and tcpi_bytes_received.
    acknowledged, received = struct.unpack_from("=QQ", information, 120)
    return acknowledged, received


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="needs Linux")
@pytest.mark.parametrize("bs", [0, 12345])
def test_stream_bytes_equal_what_the_kernel_counts(bs: int) -> None:
    """Accounting, "Equality": handshake and frames, to the byte, each way."""
    frames = [
        Frame(seq, Report(ReportKey(bs, 0, seq), Payload(bytes(size), 8 * size), bytes(side)))
        for seq, (size, side) in enumerate([(384, 4), (0, 0), (236, 0), (237, 0), (3000, 31)])
    ]
    welcome = encode(Welcome(bs, 0))
    with closing(RouterTransport()) as cloud:
        monitor = cloud._socket.get_monitor_socket(zmq.EVENT_ACCEPTED)
        with closing(DealerTransport(cloud.address, bs)) as edge:
            for frame in frames:
                edge.send(encode(frame))
                assert cloud.receive(SOON_S) == (identity(bs), encode(frame))
            cloud.send(identity(bs), welcome)
            assert edge.receive(SOON_S) == welcome
            accepted = recv_monitor_message(monitor)["value"]

            up, down = handshake_bytes(identity(bs))
            up += sum(frame_cost(frame).stream_bytes for frame in frames)
            down += zmtp_frame_bytes(len(welcome))
            deadline = time.monotonic() + SOON_S
            while (counted := tcp_bytes(accepted)) < (down, up) and time.monotonic() < deadline:
                time.sleep(0.01)  # the last acknowledgement may be under way
            assert counted == (down, up)
        cloud._socket.disable_monitor()
        monitor.close()
