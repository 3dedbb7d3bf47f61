"""Hosts by name and address, of both IP versions."""

import socket
from contextlib import closing

import pytest

from fronthaul.errors import LocalError
from fronthaul.transport.endpoint import host_of, ip_header_bytes, is_ipv6, is_loopback
from fronthaul.transport.keys import CloudKeys, EdgeKeys
from fronthaul.transport.new_keys import ephemeral
from fronthaul.transport.transport import Received
from fronthaul.transport.zeromq import DealerTransport, RouterTransport

SOON_S = 30.0


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("*", "0.0.0.0"),
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
        ("0:0:0:0:0:0:0:1", "[::1]"),
        ("::", "[::]"),
        ("fd00::5", "[fd00::5]"),
    ],
)
def test_a_host_is_an_address_as_in_a_url(name: str, host: str) -> None:
    assert host_of(name) == host
    assert host_of(host) == host
    assert is_ipv6(host) == is_ipv6(f"tcp://{host}:5") == (":" in host)
    assert ip_header_bytes(f"tcp://{host}:5") == (40 if ":" in host else 20)


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a..b", "1.2.3.4.5", "[::1", ":::", "x" * 300])
def test_an_unknown_host_is_one_sentence(name: str) -> None:
    for use in (host_of, RouterTransport, lambda host: DealerTransport(f"tcp://{host}:5", 0)):
        with pytest.raises(LocalError, match=r"there is no host '"):
            use(name)


def test_loopback() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]", "tcp://127.0.0.1"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "10.0.0.1", "example.org", "::", "tcp://10.0.0.1"))


@pytest.mark.parametrize("curve", [False, True])
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_messages_cross_ipv6_and_the_kernel_counts_them(host: str, curve: bool) -> None:
    ring = ephemeral(1) if curve else None
    cloud_keys: CloudKeys | None = ring.cloud if ring else None
    edge_keys: EdgeKeys | None = ring.edges[0] if ring else None
    with closing(RouterTransport(host, keys=cloud_keys)) as cloud:
        assert cloud.address.startswith("tcp://[::1]:")
        with closing(DealerTransport(cloud.address, 0, keys=edge_keys)) as edge:
            assert edge.costs == cloud.costs and edge.costs.ip_header_bytes == 40
            edge.send(b"report")
            assert cloud.receive(SOON_S) == Received(0, b"report")
            cloud.send(0, b"state")
            assert edge.receive(SOON_S) == b"state"
        (counted,) = edge.take_connections()
        assert counted.local.startswith("[::1]:") and counted.remote == cloud.address.removeprefix("tcp://")
        up, down = edge.costs.handshake_bytes(0)
        assert counted.sent_bytes == up + edge.costs.stream_bytes(6)
        assert counted.received_bytes == down + edge.costs.stream_bytes(5)


def test_an_address_of_another_machine_is_one_sentence() -> None:
    with pytest.raises(LocalError, match="cannot listen on 2001:db8::1 port 0"):
        RouterTransport("2001:db8::1")


def test_a_port_in_use_is_told_for_ipv6_too() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LocalError, match=f"port {port} on ::1 is in use"):
            RouterTransport("::1", port)
