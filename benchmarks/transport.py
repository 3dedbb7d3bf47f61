"""One round of a fix over the links: six reports to the cloud, then six answers back.

All endpoints run in one thread, and each socket has a context of its own, as in separate processes: our sockets and
bare pyzmq differ only in our code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import TypeVar

import zmq

from benchmarks.samples import STATIONS, frame
from benchmarks.timing import Bench, Case, Row, measure
from fronthaul.errors import TransportError
from fronthaul.message.messages import Welcome
from fronthaul.message.wire import encode
from fronthaul.transport.identity import identity
from fronthaul.transport.memory import MemoryNetwork
from fronthaul.transport.transport import CloudTransport, EdgeTransport
from fronthaul.transport.zeromq import DealerTransport, RouterTransport

REPORT = encode(frame())
ANSWER = encode(Welcome(5, 0))
TIMEOUT_S = 5.0

Message = TypeVar("Message")


def run(bench: Bench) -> list[Row]:
    """Time rounds over TCP on loopback, with and without our code, and in memory."""
    network = MemoryNetwork()
    with _sockets() as over_sockets, _bare_pyzmq() as over_pyzmq:
        cases = [
            Case("round over sockets", over_sockets, reference="round over bare pyzmq"),
            Case("round over bare pyzmq", over_pyzmq),
            Case(
                "round in memory",
                _round(network.cloud(), [network.edge(bs) for bs in range(STATIONS)]),
                reference="round over sockets",
            ),
        ]
        return measure(cases, bench.effort)


@contextmanager
def _sockets() -> Iterator[Callable[[], None]]:
    with ExitStack() as stack:
        cloud = stack.enter_context(closing(RouterTransport()))
        edges = [stack.enter_context(closing(DealerTransport(cloud.address, bs))) for bs in range(STATIONS)]
        yield _round(cloud, edges)


def _round(cloud: CloudTransport, edges: Sequence[EdgeTransport]) -> Callable[[], None]:
    def once() -> None:
        for edge in edges:
            edge.send(REPORT)
        reports = [_there(cloud.receive(TIMEOUT_S)) for _ in edges]
        for received in reports:
            assert received.owner is not None
            cloud.send(received.owner, ANSWER)
        for edge in edges:
            _there(edge.receive(TIMEOUT_S))

    return once


@contextmanager
def _bare_pyzmq() -> Iterator[Callable[[], None]]:
    with ExitStack() as stack:

        def socket(kind: int) -> zmq.Socket[bytes]:
            made = stack.enter_context(stack.enter_context(zmq.Context()).socket(kind))
            made.setsockopt(zmq.RCVTIMEO, round(TIMEOUT_S * 1000))
            made.setsockopt(zmq.LINGER, 0)
            return made

        router = socket(zmq.ROUTER)
        port = router.bind_to_random_port("tcp://127.0.0.1")
        dealers = [socket(zmq.DEALER) for _ in range(STATIONS)]
        for bs, dealer in enumerate(dealers):
            dealer.setsockopt(zmq.IDENTITY, identity(bs))
            dealer.connect(f"tcp://127.0.0.1:{port}")

        def once() -> None:
            for dealer in dealers:
                dealer.send(REPORT)
            reports = [router.recv_multipart() for _ in dealers]
            for peer, _ in reports:
                router.send_multipart([peer, ANSWER])
            for dealer in dealers:
                dealer.recv()

        yield once


def _there(message: Message | None) -> Message:
    if message is None:
        raise TransportError(f"a message of the benchmark did not arrive within {TIMEOUT_S:g} s")
    return message
