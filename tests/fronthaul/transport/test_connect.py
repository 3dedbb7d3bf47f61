"""Which transport an address chooses."""

from contextlib import closing
from dataclasses import dataclass

import pytest

from fronthaul.errors import LocalError
from fronthaul.transport.connect import TRANSPORTS, cloud_transport, edge_transport
from fronthaul.transport.delay_line import DelayedCloud, DelayedEdge
from fronthaul.transport.transport import Load
from fronthaul.transport.zeromq import DealerTransport, RouterTransport


@dataclass
class ToyEdge:
    address: str
    bs: int
    keys: object
    queue_messages: int


@dataclass
class ToyCloud:
    host: str
    port: int
    keys: object
    queue_messages: int
    load: Load


LOAD = Load(frozenset({3}), 2000)


@pytest.mark.parametrize("host", ["127.0.0.1", "tcp://127.0.0.1"])
@pytest.mark.parametrize("delayed", [False, True])
def test_sockets_are_the_choice_without_a_scheme_and_with_tcp(host: str, delayed: bool) -> None:
    with closing(cloud_transport(host, 0, keys=None, queue_messages=10, delayed=delayed, load=LOAD)) as cloud:
        assert cloud.address.startswith("tcp://127.0.0.1:")
        with closing(edge_transport(cloud.address, 3, keys=None, queue_messages=10, delayed=delayed)) as edge:
            assert isinstance(edge, DelayedEdge if delayed else DealerTransport)
            assert isinstance(cloud, DelayedCloud if delayed else RouterTransport)
            assert edge.costs == cloud.costs
            edge.send(b"hello")
            received = cloud.receive(10.0)
            assert received is not None and (received.owner, received.data) == (3, b"hello")


def test_one_line_adds_a_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRANSPORTS, "toy", (ToyEdge, ToyCloud))  # type: ignore[arg-type]
    cloud = cloud_transport("toy://here", 7, keys=None, queue_messages=10, delayed=False, load=LOAD)
    edge = edge_transport("toy://here:7", 3, keys=None, queue_messages=10, delayed=False)
    assert cloud == ToyCloud("here", 7, None, 10, LOAD) and edge == ToyEdge("toy://here:7", 3, None, 10)


@pytest.mark.parametrize("address", ["udp://127.0.0.1:1", "127.0.0.1:1", ""])
def test_an_address_of_no_transport_is_refused(address: str) -> None:
    with pytest.raises(LocalError, match="begins with tcp"):
        edge_transport(address, 0, keys=None, queue_messages=10, delayed=False)
    if "://" in address:
        with pytest.raises(LocalError, match="begins with tcp"):
            cloud_transport(address, 0, keys=None, queue_messages=10, delayed=False, load=LOAD)
