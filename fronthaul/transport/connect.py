"""Which transport a link needs: sockets in the caller's thread, or behind a delay line where messages are held back."""

from __future__ import annotations

from fronthaul.transport.delay_line import DelayedCloud, DelayedEdge
from fronthaul.transport.keys import CloudKeys, EdgeKeys
from fronthaul.transport.transport import CloudTransport, EdgeTransport
from fronthaul.transport.zeromq import DealerTransport, RouterTransport


def edge_transport(
    address: str, bs: int, *, keys: EdgeKeys | None, queue_messages: int, delayed: bool
) -> EdgeTransport:
    """Return a base station's end of its link; `delayed` if its link model may hold messages back."""

    def connect() -> DealerTransport:
        return DealerTransport(address, bs, keys=keys, queue_messages=queue_messages)

    return DelayedEdge(connect) if delayed else connect()


def cloud_transport(
    host: str, port: int, *, keys: CloudKeys | None, queue_messages: int, delayed: bool
) -> CloudTransport:
    """Return the cloud's end of all links; `delayed` if a link model may hold messages back.

    Raises:
        LocalError: the port is in use, or the host is not ours.
    """

    def listen() -> RouterTransport:
        return RouterTransport(host, port, keys=keys, queue_messages=queue_messages)

    return DelayedCloud(listen) if delayed else listen()
