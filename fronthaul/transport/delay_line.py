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

from fronthaul.clock import real_ns
from fronthaul.errors import FronthaulError, LocalError, QueueFull, TransportError
from fronthaul.transport.transport import (
    Arrived,
    CloudTransport,
    ConnectionCount,
    EdgeTransport,
    LinkEvent,
    MessageT,
    Received,
    Transport,
    check_sendable,
)

HELD_MESSAGES = 100_000
"""Maximum number of messages held back: 1 s of delay at 100 000 messages per second."""
WAITING_MESSAGES = 2_000
"""Maximum number of received messages waiting for the caller; beyond it, the socket's own queue limits apply."""
CLOSE_S = 2.0
"""How long closing waits for releases [s]; messages due later are lost."""
FINE_S = 50e-6
"""How long the thread sleeps at a time shortly before a release [s]."""
POLL_S = 0.001
"""Resolution of the socket's poll [s]."""
COARSE_S = 0.25
"""Maximum wait of the thread while nothing is due [s]."""


class Wakeable(Transport[MessageT], Protocol[MessageT]):
    """What the thread needs: a transport that can be woken while it waits for a message."""

    def wake_by(self, descriptor: int) -> None:
        """Let `receive` return early once `descriptor` is readable."""


class SocketEdge(EdgeTransport, Wakeable[bytes], Protocol):
    """Socket at a base station's end, such as `zeromq.DealerTransport`."""


class SocketCloud(CloudTransport, Wakeable[Received], Protocol):
    """Socket at the cloud's end, such as `zeromq.RouterTransport`."""


Message = TypeVar("Message", bytes, Received)
Result = TypeVar("Result")


class _Held(NamedTuple):
    """A held message, ordered by time of release, then by order of sending."""

    t_release_ns: int
    order: int
    data: bytes
    bs: int | None


class _Waiting(NamedTuple):
    """A message that found its link's queue full, and those of that link that fell due after it, in order."""

    give_up_ns: int  # until when the first of them waits for room
    messages: deque[_Held]


class _Delayed(ABC, Generic[Message]):
    """Common part of both ends: the thread, and everything it shares with the caller."""

    def __init__(self, factory: Callable[[], Wakeable[Message]], *, patience_s: float = 0.0) -> None:
        self.t_received_ns = 0
        self._patience_ns = round(patience_s * 1e9)
        self._waiting: dict[int | None, _Waiting] = {}  # links whose queue is full
        self._factory: Callable[[], Wakeable[Message]] = factory
        self._socket: Wakeable[Message]
        self._thread = threading.Thread(target=self._live, name=type(self).__name__, daemon=True)
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
        self._closed = False
        self._started: Future[None] = Future()
        self._thread.start()
        try:
            self._started.result()
        except BaseException:
            self.close()
            raise
        self.costs = self._socket.costs

    # --- the caller's side

    def receive(self, timeout_s: float) -> Message | None:
        """Return the next message, or None; see `Transport.receive`."""
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

    def take_connections(self) -> list[ConnectionCount]:
        """See `Transport.take_connections`."""
        return self._run(self._socket.take_connections)

    def take_events(self) -> list[LinkEvent]:
        """See `Transport.take_events`."""
        return self._run(self._socket.take_events)

    def close(self) -> None:
        """Release the messages due within `CLOSE_S`, and close the socket."""
        if self._closed:
            return
        self._closed = True
        self._close_by_ns = real_ns() + round(CLOSE_S * 1e9)
        self._wake()
        self._thread.join()
        os.close(self._wake_out)
        os.close(self._wake_in)

    def _hold(self, data: bytes, t_release_ns: int, bs: int | None = None) -> None:
        self._require_open()
        check_sendable(data)
        self._raise_errors()
        if bs in self._waiting:
            raise QueueFull("messages that were held back wait for room in the queue")
        with self._lock:
            if len(self._held) >= HELD_MESSAGES:
                raise QueueFull(f"{HELD_MESSAGES} messages are held back already")
            heapq.heappush(self._held, _Held(t_release_ns, next(self._order), data, bs))
            must_wake = t_release_ns < self._asleep_until_ns
        if must_wake:
            self._wake()

    def _run(self, errand: Callable[[], Result]) -> Result:
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

    def _require_open(self) -> None:
        if self._closed:
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

    @abstractmethod
    def _release(self, held: _Held) -> None:
        """Send a message that was held back."""

    def _live(self) -> None:
        try:
            self._socket = self._factory()
            self._socket.wake_by(self._wake_out)
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
            self._socket.close()

    def _serve(self) -> None:
        while True:
            while self._errands:
                self._errands.popleft()()
            self._release_due()
            if self._close_by_ns and (
                real_ns() > self._close_by_ns
                if self._waiting
                else not self._held or self._held[0].t_release_ns > self._close_by_ns
            ):
                return
            wait_s = self._plan()
            if wait_s < 2 * POLL_S:
                self._take(0.0)
                time.sleep(POLL_S if self._waiting else min(wait_s, FINE_S))
            else:
                self._take(wait_s - POLL_S)
            self._asleep_until_ns = 0
            with suppress(BlockingIOError):
                os.read(self._wake_out, 4096)

    def _plan(self) -> float:
        """Return the time to the next release [s], at most `COARSE_S`; a message due earlier wakes the thread."""
        now_ns = real_ns()
        with self._lock:
            until_ns = now_ns + round((POLL_S if self._waiting else COARSE_S) * 1e9)
            if self._held:
                until_ns = min(until_ns, self._held[0].t_release_ns)
            self._asleep_until_ns = until_ns
        return max(until_ns - now_ns, 0) / 1e9

    def _release_due(self) -> None:
        for bs, waiting in list(self._waiting.items()):
            self._release_waiting(bs, waiting)
        while True:
            with self._lock:
                if not self._held or self._held[0].t_release_ns > real_ns():
                    return
                first = heapq.heappop(self._held)
            if (behind := self._waiting.get(first.bs)) is not None:
                behind.messages.append(first)
            elif not self._released(first, give_up_ns := real_ns() + self._patience_ns):
                self._waiting[first.bs] = _Waiting(give_up_ns, deque([first]))

    def _release_waiting(self, bs: int | None, waiting: _Waiting) -> None:
        """Send what waits for room on a link, in order, until its queue is full again."""
        give_up_ns, messages = waiting
        while messages and self._released(messages[0], give_up_ns):
            messages.popleft()
            give_up_ns = real_ns() + self._patience_ns
        if messages:
            self._waiting[bs] = _Waiting(give_up_ns, messages)
        else:
            del self._waiting[bs]

    def _released(self, held: _Held, give_up_ns: int) -> bool:
        """Send a message; return False if it may wait for room until `give_up_ns`. It is lost on any other error."""
        try:
            self._release(held)
        except TransportError as error:
            if isinstance(error, QueueFull) and real_ns() < give_up_ns:
                return False
            error.undelivered = held.data
            self._errors.append(error)
            self._inbox.put(None)
        return True

    def _take(self, timeout_s: float) -> None:
        while self._inbox.qsize() < WAITING_MESSAGES:
            message = self._socket.receive(timeout_s)
            if message is None:
                return
            self._inbox.put((self._socket.t_received_ns, message))
            timeout_s = 0.0
            if self._held and self._held[0].t_release_ns <= real_ns():
                return  # arrivals without a pause must not delay releases
        time.sleep(min(timeout_s, POLL_S))


class DelayedEdge(_Delayed[bytes]):
    """A base station's end of its link, behind a delay line (an `EdgeTransport`)."""

    _socket: SocketEdge

    def __init__(self, factory: Callable[[], SocketEdge], *, patience_s: float = 0.0) -> None:
        """Start the thread and create the socket there; an exception of `factory` is raised here.

        Args:
            factory: creates the socket.
            patience_s: how long what finds the socket's queue full at its time of release waits for room [s]; `send`
                raises `QueueFull` meanwhile.
        """
        super().__init__(factory, patience_s=patience_s)

    def send(self, data: bytes, t_release_ns: int = 0) -> None:
        """Send a message; see `EdgeTransport.send`, and the module docstring for errors of earlier messages."""
        self._hold(data, t_release_ns)

    def cut(self, seconds: float) -> None:
        """Break the connection for a while; see `EdgeTransport.cut`. Messages held back are lost too."""
        self._run(lambda: self._cut(seconds))

    def renew(self) -> None:
        """Give up a mute connection, and connect again; see `EdgeTransport.renew`. Messages held back stay."""
        self._run(self._socket.renew)

    def _cut(self, seconds: float) -> None:
        with self._lock:
            self._held.clear()
        self._waiting.clear()
        self._socket.cut(seconds)

    def _release(self, held: _Held) -> None:
        self._socket.send(held.data)


class DelayedCloud(_Delayed[Received]):
    """The cloud's end of all links, behind a delay line (a `CloudTransport`)."""

    _socket: SocketCloud

    def __init__(self, factory: Callable[[], SocketCloud], *, patience_s: float = 0.0) -> None:
        """Start the thread and create the socket there; an exception of `factory` is raised here.

        Args:
            factory: creates the socket.
            patience_s: how long what finds a link's queue full at its time of release waits for room [s]; `send` to
                that link raises `QueueFull` meanwhile, and other links go on.
        """
        super().__init__(factory, patience_s=patience_s)
        self.address = self._socket.address

    def receive_waiting(self, most: int) -> list[Arrived]:
        """Return messages that have arrived already; see `CloudTransport`. Errors wait for `receive`."""
        self._require_open()
        arrived: list[Arrived] = []
        with suppress(queue.Empty):
            while len(arrived) < most:
                if (item := self._inbox.get_nowait()) is not None:  # None announces an error
                    t_received_ns, received = item
                    arrived.append((*received, t_received_ns))
        return arrived

    def send(self, bs: int, data: bytes, t_release_ns: int = 0) -> None:
        """Send a message; see `CloudTransport.send`, and the module docstring for errors of earlier messages."""
        self._hold(data, t_release_ns, bs)

    def _release(self, held: _Held) -> None:
        assert held.bs is not None
        self._socket.send(held.bs, held.data)
