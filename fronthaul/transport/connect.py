"""Chooses the transport of a link by the scheme of the address, behind a delay line if messages are held back."""

from __future__ import annotations

from fronthaul.errors import LocalError
from fronthaul.transport.delay_line import DelayedCloud, DelayedEdge, SocketCloud, SocketEdge
from fronthaul.transport.keys import CloudKeys, EdgeKeys
from fronthaul.transport.transport import CloudTransport, EdgeTransport, Load
from fronthaul.transport.zeromq import DealerTransport, RouterTransport

TRANSPORTS = {"tcp": (DealerTransport, RouterTransport)}
"""Transports of the base station's and the cloud's end, by the scheme of the cloud's address."""


def edge_transport(
    address: str, bs: int, *, keys: EdgeKeys | None, queue_messages: int, delayed: bool, patience_s: float = 0.0
) -> EdgeTransport:
    """Return a base station's end of its link; `delayed` if its link model may hold messages back.

    `patience_s`: how long what was held back waits for room in a full queue [s]; see `DelayedEdge`.

    Raises:
        LocalError: `address` is not valid, or names no known transport.
    """
    edge, _ = TRANSPORTS[_scheme(address)]

    def connect() -> SocketEdge:
        return edge(address, bs, keys=keys, queue_messages=queue_messages)

    return DelayedEdge(connect, patience_s=patience_s) if delayed else connect()


def cloud_transport(
    host: str,
    port: int,
    *,
    keys: CloudKeys | None,
    queue_messages: int,
    delayed: bool,
    load: Load,
    patience_s: float = 0.0,
) -> CloudTransport:
    """Return the cloud's end of all links.

    Args:
        host: address to listen at; "scheme://address" chooses another transport than ZeroMQ over TCP.
        port: port to listen at; 0 picks a free one.
        keys: keys for encryption; None leaves the links unencrypted.
        queue_messages: maximum number of messages queued on each side of each link.
        delayed: whether a link model may hold messages back.
        load: what the base stations send at most.
        patience_s: how long what was held back waits for room in a full queue [s]; see `DelayedCloud`.

    Raises:
        LocalError: the port is in use, the host is not an address of this machine, there is no such transport, or the
            system allows too few open files.
    """
    named, _, own = host.rpartition("://")
    _, cloud = TRANSPORTS[_scheme(f"{named or 'tcp'}://{own}")]

    def listen() -> SocketCloud:
        return cloud(own, port, keys=keys, queue_messages=queue_messages, load=load)

    return DelayedCloud(listen, patience_s=patience_s) if delayed else listen()


def _scheme(address: str) -> str:
    scheme = address.partition("://")[0]
    if scheme not in TRANSPORTS:
        raise LocalError(f"{address!r} names no transport: an address begins with {' or '.join(TRANSPORTS)}")
    return scheme
