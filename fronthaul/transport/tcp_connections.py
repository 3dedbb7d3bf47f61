"""The TCP connections of one socket, from opening to end, with the kernel's byte counts.

The socket's monitor reports connections by file descriptor, in order but with a delay. A descriptor may be reused soon
after its connection ended, so messages received over it are attributed to the last connection that had it. A connection
that opens and ends between two readings of the monitor is not counted; an event records this. The monitor is therefore
read as soon as a first message arrives over a connection that is not `known`. On systems without these kernel counts
(other than Linux), connections are not recorded.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field

from fronthaul.transport.tcp_info import Tap
from fronthaul.transport.transport import ConnectionCount, LinkEvent

PATIENCE_S = 0.9
"""How long closing waits for the other end to acknowledge, and cutting for the socket to disconnect [s]."""


@dataclass(slots=True)
class _Open:
    tap: Tap
    bs: int | None
    t_opened_ns: int = field(default_factory=time.time_ns)


class ConnectionBook:
    """Records connections and their events until they are taken.

    Attributes:
        heard: base station that sent the messages since the last `settle`, by descriptor; set by the socket for each
            message.
        closing: whether we have closed our end; connections that end from then on do not count as cut.
        port: the cloud's port. A connection with another port is an unrelated one that reused the descriptor.
    """

    def __init__(self, *, connecting: bool, owner: int | None = None) -> None:
        """Start without connections.

        Args:
            connecting: whether this end calls connect.
            owner: base station that owns all connections; None if each has its own owner.
        """
        self.heard: dict[int, int] = {}
        self.closing = False
        self.port = ""
        self._connecting = connecting
        self._owner = owner
        self._open: dict[int, _Open] = {}
        self._counts: list[ConnectionCount] = []
        self._events: list[LinkEvent] = []
        self._failure = ""  # of a handshake, until its connection ends
        self._missed: set[int] = set()  # descriptors of connections that ended before we looked
        self._unsettled: dict[int, tuple[int, int]] = {}  # descriptor to index in _counts and _events

    def opened(self, descriptor: int) -> None:
        """Record a new connection, unless it has ended already."""
        if not hasattr(socket, "TCP_INFO"):
            return
        try:
            tap = Tap(descriptor, connecting=self._connecting)
        except OSError:
            self._missed.add(descriptor)
            return
        if not (tap.remote if self._connecting else tap.local).endswith(f":{self.port}"):
            tap.close()
            self._missed.add(descriptor)
            return
        self._open[descriptor] = _Open(tap, self._owner)
        self._events.append(LinkEvent(time.time_ns(), "connected", tap.remote, "", self._owner))

    def known(self, descriptor: int) -> bool:
        """Whether `descriptor` is, at this moment, that of a recorded connection."""
        connection = self._open.get(descriptor)
        return connection is not None and not connection.tap.alone

    def failed(self, detail: str) -> None:
        """Record that a handshake failed; the end of its connection is reported next."""
        self._failure = f"the handshake failed: {detail}"

    def refused(self, peer: str, detail: str) -> None:
        """Record that a peer was refused, such as for its key; its connection may last a moment longer."""
        self._events.append(LinkEvent(time.time_ns(), "refused", peer, detail, self._owner))

    def ended(self, descriptor: int) -> None:
        """Record that a connection has ended, and close our descriptor of it."""
        failure, self._failure = self._failure, ""
        connection = self._open.pop(descriptor, None)
        if connection is None:
            if failure:
                self.refused("", failure)
            elif descriptor in self._missed:
                # Recorded, since otherwise its bytes would be missing from the counts silently.
                detail = "it was opened and closed between two readings of the monitor and was not counted"
                self._events.append(LinkEvent(time.time_ns(), "disconnected", "", detail, self._owner))
            self._missed.discard(descriptor)
            return
        self._unsettled[descriptor] = len(self._counts), len(self._events)
        self._count(connection, cut=not self.closing)
        if failure:
            self.refused(connection.tap.remote, failure)
        else:
            self._disconnected(connection, "closed by the other end, or broken")

    def settle(self) -> None:
        """Attribute received messages to their connections; call it after all events of the monitor are processed."""
        for descriptor, bs in self.heard.items():
            if descriptor in self._open:
                self._open[descriptor].bs = bs
            elif descriptor in self._unsettled:
                count, event = self._unsettled[descriptor]
                self._counts[count] = self._counts[count]._replace(bs=bs)
                self._events[event] = self._events[event]._replace(bs=bs)
        self.heard.clear()
        self._unsettled.clear()

    @property
    def alone(self) -> bool:
        """Whether the socket has closed all connections, so that only our descriptors keep them open."""
        return all(connection.tap.alone for connection in self._open.values())

    def cut(self) -> None:
        """Reset all connections; data in flight is lost."""
        for connection in self._open.values():
            self._count(connection, cut=True, reset=True)
            self._disconnected(connection, "cut on purpose")
        self._open.clear()

    def close(self) -> None:
        """Close all connections, after waiting up to `PATIENCE_S` for everything sent to be acknowledged."""
        deadline = time.monotonic() + PATIENCE_S
        for connection in self._open.values():
            connection.tap.wait_acknowledged(deadline - time.monotonic())
            self._count(connection, cut=False)
        self._open.clear()

    def take_connections(self) -> list[ConnectionCount]:
        """Return the connections that ended since the last call."""
        taken, self._counts = self._counts, []
        return taken

    def take_events(self) -> list[LinkEvent]:
        """Return what happened since the last call."""
        taken, self._events = self._events, []
        return taken

    def _count(self, connection: _Open, *, cut: bool, reset: bool = False) -> None:
        tap = connection.tap
        counters = tap.read()
        tap.close(reset=reset)
        self._counts.append(
            ConnectionCount(
                bs=connection.bs,
                local=tap.local,
                remote=tap.remote,
                t_opened_ns=connection.t_opened_ns,
                t_closed_ns=time.time_ns(),
                sent_bytes=counters.sent,
                received_bytes=counters.received,
                cut=cut,
            )
        )

    def _disconnected(self, connection: _Open, detail: str) -> None:
        event = LinkEvent(time.time_ns(), "disconnected", connection.tap.remote, detail, connection.bs)
        self._events.append(event)
