"""Delay line: holds messages back until their time of release, then passes them to a socket, which sends at once.

    caller                         thread, which owns the socket
    send     -> heap by release ->  socket.send at its time
    receive  <- queue           <-  socket.receive, with the time of arrival

There is one thread per transport. It waits in the socket's poll until shortly before the next release, and then checks
every 50 us: on an idle machine, releases are late, and arrivals stamped late, by tens of microseconds. If a release
fails, the next `send` or `receive` raises before it does anything else; the error's `undelivered` is the lost message.
"""

from __future__ import annotations

import heapq
import os
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from itertools import count
from typing import Generic, NamedTuple, Protocol, TypeVar

from fronthaul.errors import FronthaulError, LocalError, QueueFull, TransportError
from fronthaul.transport.transport import (
    CloudTransport,
    ConnectionCount,
    EdgeTransport,
    LinkEvent,
    Received,
    check_sendable,
)
from fronthaul.transport.transport_costs import TransportCosts

HELD_MESSAGES = 100_000
"""Maximum number of messages held back: 1 s of delay at 100 000 messages per second."""
WAITING_MESSAGES = 10_000
"""Maximum number of received messages waiting for the caller; beyond it, the socket's own queue limits apply."""
CLOSE_S = 2.0
"""How long closing waits for releases [s]; messages due later are lost."""
FINE_S = 50e-6
"""How long the thread sleeps at a time shortly before a release [s]."""
POLL_S = 0.001
"""Resolution of the socket's poll [s]."""
COARSE_S = 0.25
"""Maximum wait of the thread while nothing is due [s]."""


class Wakeable(Protocol):
    """What the thread needs besides a transport: to be woken while it waits for a message."""

    def wake_by(self, descriptor: int) -> None:
        """Let `receive` return early once `descriptor` is readable."""


class SocketEdge(EdgeTransport, Wakeable, Protocol):
    """Socket at a base station's end, such as `zeromq.DealerTransport`."""


class SocketCloud(CloudTransport, Wakeable, Protocol):
    """Socket at the cloud's end, such as `zeromq.RouterTransport`."""


Message = TypeVar("Message", bytes, Received)
Result = TypeVar("Result")


class _Held(NamedTuple):
    """A held message, ordered by time of release, then by order of sending."""

    t_release_ns: int
    order: int
    data: bytes
    bs: int | None


class _Line(ABC, Generic[Message]):
    """The thread, and everything it shares with the caller."""

    def __init__(self, name: str) -> None:
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._order = count()
        self._lock = threading.Lock()
        self._held: list[_Held] = []
        self._errands: deque[Callable[[], None]] = deque()
        self._errors: deque[FronthaulError] = deque()
        self._broken: BaseException | None = None
        self._inbox: queue.SimpleQueue[tuple[int, Message] | None] = queue.SimpleQueue()
        self._asleep_until_ns = 0  # 0 while the thread is awake anyway
        self._close_by_ns = 0  # 0 while open
        self._wake_out, self._wake_in = os.pipe()
        os.set_blocking(self._wake_out, False)
        os.set_blocking(self._wake_in, False)
        self._started: Future[None] = Future()
        self.closed = False
        self.t_received_ns = 0

    @abstractmethod
    def open_transport(self, wake: int) -> None:
        """Create the transport; called in the thread, like the following methods."""

    @abstractmethod
    def close_transport(self) -> None:
        """Close the transport."""

    @abstractmethod
    def release(self, held: _Held) -> None:
        """Send a message that was held back."""

    @abstractmethod
    def arrived(self, timeout_s: float) -> tuple[int, Message] | None:
        """Return (time of arrival [ns], message); None if none arrives within `timeout_s` [s]."""

    # --- the caller's side

    def start(self) -> None:
        self._thread.start()
        try:
            self._started.result()
        except BaseException:
            self.close()
            raise

    def send(self, data: bytes, t_release_ns: int, bs: int | None = None) -> None:
        self._require_open()
        check_sendable(data)
        self._raise_errors()
        with self._lock:
            if len(self._held) >= HELD_MESSAGES:
                raise QueueFull(f"{HELD_MESSAGES} messages are held back already")
            heapq.heappush(self._held, _Held(t_release_ns, next(self._order), data, bs))
            must_wake = t_release_ns < self._asleep_until_ns
        if must_wake:
            self._wake()

    def receive(self, timeout_s: float) -> Message | None:
        self._require_open()
        self._raise_errors()
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                item = self._inbox.get(timeout=max(deadline - time.monotonic(), 0.0))
            except queue.Empty:
                return None
            if item is not None:
                self.t_received_ns, message = item
                return message
            self._raise_errors()  # None announces an error, which an earlier call may have raised already

    def run(self, errand: Callable[[], Result]) -> Result:
        """Run `errand` in the thread and return its result; in the caller's thread once the line's thread has ended."""
        if not self._thread.is_alive():
            return errand()
        future: Future[Result] = Future()

        def run() -> None:
            try:
                future.set_result(errand())
            except Exception as error:
                future.set_exception(error)

        with self._lock:
            self._errands.append(run)
        self._wake()
        while self._thread.is_alive():
            with suppress(FutureTimeoutError):
                return future.result(timeout=COARSE_S)
        self._raise_errors()
        raise LocalError("the transport is closed")

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._close_by_ns = time.time_ns() + round(CLOSE_S * 1e9)
        self._wake()
        self._thread.join()
        os.close(self._wake_out)
        os.close(self._wake_in)

    def _require_open(self) -> None:
        if self.closed:
            raise LocalError("the transport is closed")

    def _raise_errors(self) -> None:
        if self._errors:
            raise self._errors.popleft()
        if self._broken is not None:
            raise TransportError("the thread of the delay line broke down") from self._broken

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # a full pipe wakes just as well
            os.write(self._wake_in, b"!")

    # --- the thread's side

    def _live(self) -> None:
        try:
            self.open_transport(self._wake_out)
        except BaseException as error:
            self._started.set_exception(error)
            return
        self._started.set_result(None)
        try:
            self._serve()
        except BaseException as error:
            self._broken = error
            self._inbox.put(None)
        finally:
            self.close_transport()

    def _serve(self) -> None:
        while True:
            while self._errands:
                self._errands.popleft()()
            self._release_due()
            if self._close_by_ns and (not self._held or self._held[0].t_release_ns > self._close_by_ns):
                return
            wait_s = self._plan()
            if wait_s < 2 * POLL_S:
                self._take(0.0)
                time.sleep(min(wait_s, FINE_S))
            else:
                self._take(wait_s - POLL_S)
            self._asleep_until_ns = 0
            with suppress(BlockingIOError):
                os.read(self._wake_out, 4096)

    def _plan(self) -> float:
        """Return the time to the next release [s], at most `COARSE_S`; a message due earlier wakes the thread."""
        now_ns = time.time_ns()
        with self._lock:
            until_ns = now_ns + round(COARSE_S * 1e9)
            if self._held:
                until_ns = min(until_ns, self._held[0].t_release_ns)
            self._asleep_until_ns = until_ns
        return max(until_ns - now_ns, 0) / 1e9

    def _release_due(self) -> None:
        while True:
            with self._lock:
                if not self._held or self._held[0].t_release_ns > time.time_ns():
                    return
                first = heapq.heappop(self._held)
            try:
                self.release(first)
            except TransportError as error:
                error.undelivered = first.data
                self._errors.append(error)
                self._inbox.put(None)

    def _take(self, timeout_s: float) -> None:
        while self._inbox.qsize() < WAITING_MESSAGES:
            item = self.arrived(timeout_s)
            if item is None:
                return
            self._inbox.put(item)
            timeout_s = 0.0
            if self._held and self._held[0].t_release_ns <= time.time_ns():
                return  # arrivals without a pause must not delay releases
        time.sleep(min(timeout_s, POLL_S))


class _EdgeLine(_Line[bytes]):
    def __init__(self, factory: Callable[[], SocketEdge]) -> None:
        super().__init__("delay line")
        self._factory = factory
        self.transport: SocketEdge

    def open_transport(self, wake: int) -> None:
        self.transport = self._factory()
        self.transport.wake_by(wake)

    def close_transport(self) -> None:
        self.transport.close()

    def release(self, held: _Held) -> None:
        self.transport.send(held.data)

    def cut(self, seconds: float) -> None:
        with self._lock:
            self._held.clear()
        self.transport.cut(seconds)

    def arrived(self, timeout_s: float) -> tuple[int, bytes] | None:
        data = self.transport.receive(timeout_s)
        return None if data is None else (self.transport.t_received_ns, data)


class _CloudLine(_Line[Received]):
    def __init__(self, factory: Callable[[], SocketCloud]) -> None:
        super().__init__("delay lines")
        self._factory = factory
        self.transport: SocketCloud

    def open_transport(self, wake: int) -> None:
        self.transport = self._factory()
        self.transport.wake_by(wake)

    def close_transport(self) -> None:
        self.transport.close()

    def release(self, held: _Held) -> None:
        assert held.bs is not None
        self.transport.send(held.bs, held.data)

    def arrived(self, timeout_s: float) -> tuple[int, Received] | None:
        received = self.transport.receive(timeout_s)
        return None if received is None else (self.transport.t_received_ns, received)


class DelayedEdge:
    """A base station's end of its link, behind a delay line (an `EdgeTransport`)."""

    def __init__(self, factory: Callable[[], SocketEdge]) -> None:
        """Start the thread and create the transport there; an exception of `factory` is raised here."""
        self._line = _EdgeLine(factory)
        self._line.start()
        self._costs = self._line.transport.costs

    @property
    def costs(self) -> TransportCosts:
        """See `EdgeTransport.costs`."""
        return self._costs

    @property
    def t_received_ns(self) -> int:
        """See `EdgeTransport.t_received_ns`."""
        return self._line.t_received_ns

    def send(self, data: bytes, t_release_ns: int = 0) -> None:
        """Send a message; see `EdgeTransport.send`, and the module docstring for errors of earlier messages."""
        self._line.send(data, t_release_ns)

    def receive(self, timeout_s: float) -> bytes | None:
        """Return the next message, or None; see `EdgeTransport.receive`."""
        return self._line.receive(timeout_s)

    def cut(self, seconds: float) -> None:
        """Break the connection for a while; see `EdgeTransport.cut`. Messages held back are lost too."""
        self._line.run(lambda: self._line.cut(seconds))

    def take_connections(self) -> list[ConnectionCount]:
        """See `EdgeTransport.take_connections`."""
        return self._line.run(self._line.transport.take_connections)

    def take_events(self) -> list[LinkEvent]:
        """See `EdgeTransport.take_events`."""
        return self._line.run(self._line.transport.take_events)

    def close(self) -> None:
        """Release the messages due within `CLOSE_S`, and close the transport."""
        self._line.close()


class DelayedCloud:
    """The cloud's end of all links, behind a delay line (a `CloudTransport`)."""

    def __init__(self, factory: Callable[[], SocketCloud]) -> None:
        """Start the thread and create the transport there; an exception of `factory` is raised here."""
        self._line = _CloudLine(factory)
        self._line.start()
        self._address = self._line.transport.address
        self._costs = self._line.transport.costs

    @property
    def address(self) -> str:
        """See `CloudTransport.address`."""
        return self._address

    @property
    def costs(self) -> TransportCosts:
        """See `CloudTransport.costs`."""
        return self._costs

    @property
    def t_received_ns(self) -> int:
        """See `CloudTransport.t_received_ns`."""
        return self._line.t_received_ns

    def send(self, bs: int, data: bytes, t_release_ns: int = 0) -> None:
        """Send a message; see `CloudTransport.send`, and the module docstring for errors of earlier messages."""
        self._line.send(data, t_release_ns, bs)

    def receive(self, timeout_s: float) -> Received | None:
        """Return the next message, or None; see `CloudTransport.receive`."""
        return self._line.receive(timeout_s)

    def take_connections(self) -> list[ConnectionCount]:
        """See `CloudTransport.take_connections`."""
        return self._line.run(self._line.transport.take_connections)

    def take_events(self) -> list[LinkEvent]:
        """See `CloudTransport.take_events`."""
        return self._line.run(self._line.transport.take_events)

    def close(self) -> None:
        """Release the messages due within `CLOSE_S`, and close the transport."""
        self._line.close()
