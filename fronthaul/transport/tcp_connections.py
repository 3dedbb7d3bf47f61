"""The TCP connections of one socket, from opening to end, with the kernel's byte counts.

The socket's monitor reports connections by file descriptor, in order but with a delay. A descriptor may be reused soon
after its connection ended, so messages received over it are attributed to the last connection that had it. A connection
that opens and ends between two readings of the monitor is not counted; an event records this. The monitor is therefore
read as soon as it has events, or as a first message arrives over a connection that is not `known`. On systems without
these kernel counts (other than Linux), connections are not recorded, and no limits apply.

Limits. ZeroMQ bounds a queue by messages and a message's parts by their length, but nothing bounds the parts of a
message that never ends, and nobody sees them before that end. So the kernel's count is held against what the socket
handed over: the difference is what a connection holds. The connections of a base station may together hold a full queue
of the longest messages; those of strangers as many queues as there are base stations that have no connection yet, and
at least one: a base station may come again while its old connection stands. The one that holds most ends when they hold
more. When there are too many, the oldest ends of a base station's. Of strangers
it is any of those that have sent nothing, or any at all: so one that is about to become a base station's is most likely
spared, whether the others come in a flood or stay.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from fronthaul.clock import real_ns
from fronthaul.transport.tcp_info import CLOSE, CLOSE_WAIT, Tap, end_connection
from fronthaul.transport.transport import ConnectionCount, EventKind, LinkEvent

PATIENCE_S = 0.9
"""How long closing waits for the other end to acknowledge, and cutting for the socket to disconnect [s]."""


SEGMENT_BYTES = 1220
"""Segments of a message are this long, except the last: the payload of the smallest IPv6 packet, RFC 8200, 5 [B]."""
BUFFER_BYTES = 8192
"""What ZeroMQ reads at a time, and keeps while a queue is full [B]."""
SPARE_BYTES, SPARE_SEGMENTS = 4096, 64
"""What connections may hold beyond queues: messages that are not whole yet."""


class Limits(NamedTuple):
    """What the peers of a socket may occupy.

    Attributes:
        queue_messages: messages of a connection that wait to be handed over.
        message_bytes: the longest message on the stream [B].
        handshake_bytes: what comes before the first message [B].
        stations: the base stations; everybody else is a stranger, and a connection is one's until it is heard.
        strangers: number of connections of strangers.
        per_station: number of connections of one base station.
    """

    queue_messages: int
    message_bytes: int
    handshake_bytes: int
    stations: frozenset[int]
    strangers: int
    per_station: int

    @property
    def strange_events(self) -> int:
        """Events of strangers in a second; more are counted only."""
        return 2 * self.strangers

    def may_hold(self, queues: int) -> tuple[int, int]:
        """Return what so many full queues occupy: bytes of the stream [B], and segments.

        The socket may keep a buffer for each segment, however short that is.
        """
        messages = queues * (self.queue_messages + 1)
        may_bytes = messages * self.message_bytes + queues * BUFFER_BYTES + SPARE_BYTES
        return may_bytes, messages * _segments(self.message_bytes) + (1 + queues) * SPARE_SEGMENTS


@dataclass(slots=True)
class OpenConnection:
    """A connection, until it has ended.

    Attributes:
        tap: our descriptor of it.
        bs: base station that owns it; None if that is not known.
        t_opened_ns: when it was noticed [ns].
        taken_bytes: its messages that the socket handed over, on the stream [B].
        free_at: the kernel's count of its segments when it held no message last.
        taken_segments: segments that the messages since then may have come in.
        ended: why it ended, or is about to; empty while it is open.
    """

    tap: Tap
    bs: int | None
    t_opened_ns: int = field(default_factory=real_ns)
    taken_bytes: int = 0
    free_at: int = 0
    taken_segments: int = 0
    ended: str = ""


class _News(NamedTuple):
    """What happened to a connection; `descriptor` if it has ended, and who owned it may still turn out."""

    event: LinkEvent
    counts: ConnectionCount | None = None
    descriptor: int | None = None


class ConnectionBook:
    """Records connections and their events until they are taken, and applies limits to them.

    Attributes:
        lock: held by every method; a thread that calls several, whose effects belong together, holds it too.
        taken: messages that the socket has handed over since the last `settle`: descriptor, base station, and bytes on
            the stream [B]. Who receives adds to it without the lock, which another thread may hold.
        closing: whether we have closed our end; connections that end from then on do not count as cut.
        port: the cloud's port. A connection with another port is an unrelated one that reused the descriptor.
    """

    def __init__(self, *, connecting: bool, owner: int | None = None, limits: Limits | None = None) -> None:
        """Start without connections.

        Args:
            connecting: whether this end calls connect.
            owner: base station that owns all connections; None if each has its own owner.
            limits: applied by `enforce`.
        """
        self.lock = threading.RLock()
        self.closing = False
        self.port = ""
        self._connecting = connecting
        self._owner = owner
        self._limits = limits
        self._open: dict[int, OpenConnection] = {}  # oldest first
        self.taken: deque[tuple[int, int | None, int]] = deque()
        self._failure = ""  # of a handshake, until its connection ends
        self._missed: set[int] = set()  # descriptors of connections that ended before we looked
        self._news: list[_News] = []  # until `settle`
        self._counts: list[ConnectionCount] = []
        self._events: list[LinkEvent] = []
        self._crowded = False  # strangers come faster than they are ended
        self._second = 0
        self._strange_events = 0  # of this second

    def opened(self, descriptor: int) -> None:
        """Record a new connection, unless it has ended already."""
        if not hasattr(socket, "TCP_INFO"):
            return
        with self.lock:
            if self._crowded:
                end_connection(descriptor)
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
            self._was_missed(tap)
            self._open[descriptor] = OpenConnection(tap, self._owner)
            self._note("connected", tap.remote, "", self._owner)

    def known(self, descriptor: int) -> bool:
        """Whether `descriptor` is, at this moment, that of a recorded connection."""
        with self.lock:
            connection = self._open.get(descriptor)
            return connection is not None and not connection.tap.alone

    def failed(self, detail: str) -> None:
        """Record that a handshake failed; the end of its connection is reported next."""
        with self.lock:
            self._failure = f"the handshake failed: {detail}"

    def refused(self, peer: str, detail: str) -> None:
        """Record that a peer was refused, such as for its key; its connection may last a moment longer."""
        with self.lock:
            self._note("refused", peer, detail, self._owner)

    def ended(self, descriptor: int) -> None:
        """Record that a connection has ended, and close our descriptor of it."""
        with self.lock:
            failure, self._failure = self._failure, ""
            connection = self._open.pop(descriptor, None)
            if connection is None:
                if failure:
                    self.refused("", failure)
                elif descriptor in self._missed:
                    self._note_missed()
                self._missed.discard(descriptor)
                return
            why = connection.ended or failure
            kind: EventKind = "refused" if why else "disconnected"
            event = self._event(kind, connection, why or "closed by the other end, or broken")
            self._news.append(_News(event, self._count(connection, cut=not self.closing), descriptor))

    def settle(self) -> None:
        """Attribute received messages to their connections; call it after all events of the monitor are processed."""
        with self.lock:
            taken = [self.taken.popleft() for _ in range(len(self.taken))]
            owners = {descriptor: bs for descriptor, bs, _ in taken}
            for (descriptor, _, stream_bytes), count in Counter(taken).items():  # most are alike
                connection = self._open.get(descriptor)
                if connection is not None:
                    connection.bs = owners[descriptor]
                    connection.taken_bytes += count * stream_bytes
                    connection.taken_segments += count * _segments(stream_bytes)
            news, self._news = self._news, []
            for event, counts, ended in news:
                if counts is not None and ended in owners and ended not in self._open:
                    bs = owners[ended]
                    event, counts = event._replace(bs=bs), counts._replace(bs=bs)
                self._record(event, counts)

    def enforce(self) -> None:
        """End connections until the limits hold; call it often, since a peer may send a gigabyte in a second."""
        limits = self._limits
        if limits is None:
            return
        with self.lock:
            groups: dict[int | None, list[OpenConnection]] = {}
            for connection in self._open.values():
                if not connection.ended:
                    whose = connection.bs if connection.bs in limits.stations else None
                    groups.setdefault(whose, []).append(connection)
            missing = len(limits.stations - groups.keys())
            self._crowded = len(groups.get(None, ())) > 2 * limits.strangers
            for whose, connections in groups.items():
                most = limits.strangers if whose is None else limits.per_station
                who = "strangers" if whose is None else f"BS {whose}"
                if len(connections) > most:
                    dispensable = connections if whose in limits.stations else _by_use(connections)
                    for connection in dispensable[: len(connections) - most]:
                        self._end(connection, f"there are more than {most} connections of {who}")
                self._end_fullest(connections, limits, max(missing, 1) if whose is None else 1)

    def end(self, descriptor: int, detail: str) -> None:
        """End the connection of `descriptor`, if there is one, because of what it sent."""
        with self.lock:
            if descriptor in self._open:
                self._end(self._open[descriptor], detail)

    def connection(self, descriptor: int) -> OpenConnection | None:
        """Return the connection of `descriptor`; None if it is not known yet."""
        with self.lock:
            return self._open.get(descriptor)

    def lives(self, connection: OpenConnection) -> bool:
        """Return whether a connection is open at both ends, as far as the kernel knows."""
        with self.lock:
            return not connection.ended and connection.tap.read().state not in (CLOSE, CLOSE_WAIT)

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._open)

    @property
    def alone(self) -> bool:
        """Whether the socket has closed all connections, so that only our descriptors keep them open."""
        return all(connection.tap.alone for connection in self._open.values())

    def cut(self) -> None:
        """Reset all connections; data in flight is lost."""
        self._drop("cut on purpose", reset=True)

    def give_up(self) -> None:
        """Close all connections, of which the socket has closed its ends; what it sent still arrives."""
        self._drop("given up: nothing came back", reset=False)

    def close(self) -> None:
        """Close all connections, after waiting up to `PATIENCE_S` for everything sent to be acknowledged."""
        deadline = time.monotonic() + PATIENCE_S
        with self.lock:
            for connection in self._open.values():
                connection.tap.wait_acknowledged(deadline - time.monotonic())
                self._counts.append(self._count(connection, cut=False))
            self._open.clear()
            for _ in self._missed:  # the monitor does not tell their ends
                self._note_missed()
            self._missed.clear()
            self.settle()

    def take_connections(self) -> list[ConnectionCount]:
        """Return the connections that ended since the last call."""
        with self.lock:
            taken, self._counts = self._counts, []
            return taken

    def take_events(self) -> list[LinkEvent]:
        """Return what happened since the last call."""
        with self.lock:
            self._say_left_out()
            taken, self._events = self._events, []
            return taken

    def _drop(self, detail: str, *, reset: bool) -> None:
        with self.lock:
            for connection in self._open.values():
                count = self._count(connection, cut=reset, reset=reset)
                self._news.append(_News(self._event("disconnected", connection, detail), count))
            self._open.clear()
            self.settle()

    def _end_fullest(self, connections: list[OpenConnection], limits: Limits, queues: int) -> None:
        """End those that hold most, until the others hold no more than so many queues do."""
        held = [(*_held(connection, limits.handshake_bytes), connection) for connection in connections]
        held.sort(key=lambda item: item[:2])
        may_bytes, may_segments = limits.may_hold(queues)
        while sum(item[0] for item in held) > may_bytes or sum(item[1] for item in held) > may_segments:
            held_bytes, _, connection = held.pop()
            self._end(connection, f"it holds {held_bytes} B and no message of them")

    def _end(self, connection: OpenConnection, detail: str) -> None:
        connection.ended = detail
        connection.tap.end()

    def _count(self, connection: OpenConnection, *, cut: bool, reset: bool = False) -> ConnectionCount:
        """Return the final counts of a connection, and close our descriptor of it."""
        tap = connection.tap
        counters = tap.read()
        tap.close(reset=reset)
        connection.ended = connection.ended or "closed"
        return ConnectionCount(
            bs=connection.bs,
            local=tap.local,
            remote=tap.remote,
            t_opened_ns=connection.t_opened_ns,
            t_closed_ns=real_ns(),
            sent_bytes=counters.sent,
            received_bytes=counters.received,
            cut=cut,
        )

    def _event(self, kind: EventKind, connection: OpenConnection, detail: str) -> LinkEvent:
        return LinkEvent(real_ns(), kind, connection.tap.remote, detail, connection.bs)

    def _note(self, kind: EventKind, peer: str, detail: str, bs: int | None) -> None:
        self._news.append(_News(LinkEvent(real_ns(), kind, peer, detail, bs)))

    def _was_missed(self, tap: Tap) -> None:
        """Take back the end of a connection that only opens now: an earlier one's, which had its descriptor before."""
        for number, news in enumerate(self._news):
            if news.counts is not None and (news.counts.local, news.counts.remote) == (tap.local, tap.remote):
                del self._news[number]
                self._note_missed()
                return

    def _note_missed(self) -> None:
        """Record a connection that was not counted, since otherwise its bytes would be missing silently."""
        detail = "it was opened and closed between two readings of the monitor and was not counted"
        self._note("disconnected", "", detail, self._owner)

    def _record(self, event: LinkEvent, counts: ConnectionCount | None) -> None:
        if self._limits is not None and event.bs not in self._limits.stations:
            second = event.t_ns // 1_000_000_000
            if second != self._second:
                self._say_left_out()
                self._second, self._strange_events = second, 0
            self._strange_events += 1
            if self._strange_events > self._limits.strange_events:
                return
        self._events.append(event)
        if counts is not None:
            self._counts.append(counts)

    def _say_left_out(self) -> None:
        if self._limits is not None and (left_out := self._strange_events - self._limits.strange_events) > 0:
            self._strange_events -= left_out
            detail = f"{left_out} more events of strangers are left out"
            self._events.append(LinkEvent(real_ns(), "refused", "", detail))


def _by_use(connections: list[OpenConnection]) -> list[OpenConnection]:
    """Return connections in random order, first those that have received nothing."""
    shuffled = random.sample(connections, len(connections))
    return sorted(shuffled, key=lambda connection: connection.tap.read().received > 0)


def _held(connection: OpenConnection, handshake_bytes: int) -> tuple[int, int]:
    """Return what was read from a connection and not handed over: bytes, and segments as far as they are known.

    A connection that the socket has closed holds nothing any more, also where the monitor has not told so yet.
    """
    if connection.tap.alone:
        return 0, 0
    kernel = connection.tap.read()
    unread_bytes = connection.tap.unread_bytes()
    held_bytes = kernel.received - unread_bytes - connection.taken_bytes - handshake_bytes
    if held_bytes <= 0:
        connection.free_at, connection.taken_segments = kernel.segments, 0
        return 0, 0
    if unread_bytes:  # nobody knows in how many segments
        return held_bytes, 0
    return held_bytes, max(0, kernel.segments - connection.free_at - connection.taken_segments)


def _segments(stream_bytes: int) -> int:
    """Return the number of segments that a message may come in."""
    return 1 + stream_bytes // SEGMENT_BYTES
