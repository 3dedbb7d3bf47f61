"""Links within one process: queues that never block, never fill up and need no threads.

With a clock, a message can be received once the clock has reached its time of release; without one, at once. Messages
are not framed here; the accounts use the sizes of unencrypted ZeroMQ links, which these links stand for.
"""

import heapq
from dataclasses import replace
from itertools import count
from typing import Generic, NamedTuple, TypeVar

from fronthaul.clock import Clock, WallClock
from fronthaul.errors import LocalError, TransportError
from fronthaul.transport.transport import (
    Arrived,
    CloudTransport,
    ConnectionCount,
    EdgeTransport,
    LinkEvent,
    Received,
    check_sendable,
)
from fronthaul.transport.zmtp import ZMTP_NULL

MEMORY = replace(ZMTP_NULL, name="memory", kernel_counts=False)
"""Costs that the accounts use for links in memory."""

Message = TypeVar("Message", bytes, Received)


class MemoryNetwork:
    """One cloud and any number of base stations.

    Example:
        >>> network = MemoryNetwork()
        >>> cloud, edge = network.cloud(), network.edge(3)
        >>> edge.send(b"hello")
        >>> cloud.receive(0.0)
        Received(owner=3, data=b'hello')
    """

    def __init__(self, clock: Clock | None = None) -> None:
        """Start with empty queues.

        Args:
            clock: clock of the times of release; None ignores them.
        """
        self._clock = clock or WallClock()
        self._holds = clock is not None
        self._order = count()
        self._to_cloud: _Queue[Received] = _Queue(self._clock, self._holds, self._order)
        self._to_edge: dict[int, _Queue[bytes]] = {}
        self._events: list[LinkEvent] = []

    @property
    def next_release_ns(self) -> int | None:
        """When the next message can be received, at either end [ns]; None if none waits.

        A time in the past means that one can be received now.
        """
        times = [self._to_cloud.next_release_ns, *(queue.next_release_ns for queue in self._to_edge.values())]
        return min((t_ns for t_ns in times if t_ns is not None), default=None)

    def cloud(self) -> CloudTransport:
        """Return the cloud's end."""
        return _MemoryCloud(self._to_cloud, self._to_edge, self._events)

    def edge(self, bs: int) -> EdgeTransport:
        """Return the end of `bs`; a second one replaces the first as the receiver, like a restarted BS."""
        inbox: _Queue[bytes] = _Queue(self._clock, self._holds, self._order)
        self._to_edge[bs] = inbox
        return _MemoryEdge(bs, inbox, self._to_cloud, self._to_edge, self._events, self._clock)


class _Waiting(NamedTuple, Generic[Message]):
    """A waiting message, ordered by time of release, then by order of sending."""

    t_release_ns: int
    order: int
    message: Message


class _Queue(Generic[Message]):
    """Messages that wait for one reader."""

    def __init__(self, clock: Clock, holds: bool, order: "count[int]") -> None:
        self._clock = clock
        self._holds = holds
        self._order = order
        self._waiting: list[_Waiting[Message]] = []
        self.not_before_ns = 0
        self.t_received_ns = 0

    @property
    def next_release_ns(self) -> int | None:
        return self._waiting[0].t_release_ns if self._waiting else None

    def put(self, message: Message, t_release_ns: int, not_before_ns: int) -> None:
        # A release time in the past becomes the present, so that times of arrival never run backwards.
        t_ns = max(self._clock.now_ns(), t_release_ns, not_before_ns) if self._holds else 0
        heapq.heappush(self._waiting, _Waiting(t_ns, next(self._order), message))

    def get(self) -> Message | None:
        now_ns = self._clock.now_ns()
        if not self._waiting or (self._holds and self._waiting[0].t_release_ns > now_ns):
            return None
        first = heapq.heappop(self._waiting)
        self.t_received_ns = first.t_release_ns if self._holds else now_ns
        return first.message

    def forget(self, owner: int | None = None) -> None:
        """Discard waiting messages: all in a base station's queue, or those of `owner` in the cloud's."""
        kept = [w for w in self._waiting if isinstance(w.message, Received) and w.message.owner != owner]
        self._waiting = kept
        heapq.heapify(self._waiting)


class _End(Generic[Message]):
    costs = MEMORY

    def __init__(self, inbox: _Queue[Message], edges: dict[int, _Queue[bytes]], events: list[LinkEvent]) -> None:
        self._inbox: _Queue[Message] = inbox
        self._edges = edges
        self._events = events
        self._closed = False

    @property
    def t_received_ns(self) -> int:
        return self._inbox.t_received_ns

    def receive(self, timeout_s: float) -> Message | None:
        self._require_open()
        return self._inbox.get()

    def take_connections(self) -> list[ConnectionCount]:
        return []  # there are none over TCP

    def take_events(self) -> list[LinkEvent]:
        taken = list(self._events)
        self._events.clear()
        return taken

    def close(self) -> None:
        self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            raise LocalError("the transport is closed")


class _MemoryCloud(_End[Received]):
    address = "memory"

    def receive_waiting(self, most: int) -> list[Arrived]:
        arrived: list[Arrived] = []
        while len(arrived) < most and (received := self.receive(0.0)) is not None:
            arrived.append((*received, self.t_received_ns))
        return arrived

    def send(self, bs: int, data: bytes, t_release_ns: int = 0) -> None:
        self._require_open()
        check_sendable(data)
        queue = self._edges.get(bs)
        if queue is None:
            raise TransportError(f"BS {bs} is not connected")
        queue.put(data, t_release_ns, queue.not_before_ns)


class _MemoryEdge(_End[bytes]):
    def __init__(
        self,
        bs: int,
        inbox: _Queue[bytes],
        outbox: _Queue[Received],
        edges: dict[int, _Queue[bytes]],
        events: list[LinkEvent],
        clock: Clock,
    ) -> None:
        super().__init__(inbox, edges, [])
        self._bs = bs
        self._outbox = outbox
        self._cloud_events = events
        self._clock = clock
        self._note(LinkEvent(clock.now_ns(), "connected", "memory", "", bs))

    def send(self, data: bytes, t_release_ns: int = 0) -> None:
        self._require_open()
        check_sendable(data)
        message = Received(self._bs, data)
        self._outbox.put(message, t_release_ns, self._inbox.not_before_ns)

    def cut(self, seconds: float) -> None:
        self._require_open()
        now_ns = self._clock.now_ns()
        self._inbox.not_before_ns = now_ns + round(seconds * 1e9)
        self._inbox.forget()
        self._outbox.forget(self._bs)
        self._note(LinkEvent(now_ns, "disconnected", "memory", "cut on purpose", self._bs))

    def renew(self) -> None:
        self._require_open()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._edges.get(self._bs) is self._inbox:  # not if a later end of this BS has taken over
            del self._edges[self._bs]
        self._note(LinkEvent(self._clock.now_ns(), "disconnected", "memory", "", self._bs))

    def _note(self, event: LinkEvent) -> None:
        self._events.append(event)
        self._cloud_events.append(event)
