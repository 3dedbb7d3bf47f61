"""Links over TCP: one DEALER at each base station, one ROUTER at the cloud. The only file with zmq.

Defaults of ZeroMQ that lose data or hang without a word are overruled here:

    ROUTER_MANDATORY  sending to an unknown peer or a full queue is an error, not silence
    ROUTER_HANDOVER   a BS that crashed and returns with its identity is heard again (without keys)
    SNDHWM, RCVHWM    what may wait on each side of a link, in messages
    MAXMSGSIZE        the peer cannot make us allocate more than a message
    LINGER            how long closing waits for what is still to be sent

Without keys (NULL) a connection is whose it says: fit for one machine. With keys (CURVE) it is whose key it has
proven; names are neither sent nor believed, so none can be stolen. Who is let in is decided in the thread that
calls `receive`, which must be called now and then.

Heartbeats stay off: they would be bytes that the ledger does not see. Sockets are not thread-safe and do not
cross a fork: make a transport where it is used. Each has a context of its own.
"""

from __future__ import annotations

import math
import struct
import time
from abc import ABC, abstractmethod
from collections import deque
from functools import lru_cache
from typing import Any, Generic, TypeVar

import zmq

from fronthaul.errors import LocalError, QueueFull, TransportError
from fronthaul.message.wire import MAX_MESSAGE_BYTES
from fronthaul.transport.identity import bs_of, identity
from fronthaul.transport.keys import CloudKeys, EdgeKeys, admit
from fronthaul.transport.tcp_connections import PATIENCE_S, ConnectionBook
from fronthaul.transport.transport import ConnectionCount, LinkEvent, Received, check_release, check_sendable
from fronthaul.transport.transport_costs import TransportCosts
from fronthaul.transport.zmtp import ZMTP_CURVE, ZMTP_NULL

QUEUE_MESSAGES = 1000
"""What may wait on each side of a link: over a second at 500 snapshots/s, under 0.5 MB at 400 B a report."""
LINGER_S = 2.0
"""How long closing waits for bytes that are still to be sent [s]."""
LOOK_S = 0.05
"""How often news of connections is looked at while messages keep coming [s]."""

KNOWN_FAILURES: dict[int, str] = {
    zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH: "one end has keys and the other has none",
    zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC: "it was encrypted for another key",
}
"""Failures of a handshake that people meet, by the monitor's value."""

Message = TypeVar("Message", bytes, Received)

REFUSED = "the cloud does not know this base station's key"
_owner_of_name = lru_cache(maxsize=4096)(bs_of)


def new_key_pair() -> tuple[bytes, bytes]:
    """Return (public, secret) of a new key pair in Z85."""
    return zmq.curve_keypair()


class _Endpoint(ABC, Generic[Message]):
    """What both ends share: the socket, its monitor, its connections and waiting for all of these."""

    def __init__(self, kind: int, queue_messages: int, *, curve: bool, book: ConnectionBook) -> None:
        self.costs: TransportCosts = ZMTP_CURVE if curve else ZMTP_NULL
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(kind)
        self._socket.setsockopt(zmq.SNDHWM, queue_messages)
        self._socket.setsockopt(zmq.RCVHWM, queue_messages)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES + self.costs.encryption_bytes)
        self._socket.setsockopt(zmq.LINGER, _milliseconds(LINGER_S))
        self._polled: list[tuple[Any, int]] = [(self._socket, zmq.POLLIN)]
        self._helpers: list[zmq.Socket[bytes]] = []
        # News must never wait for room: it would stop the thread that serves all connections.
        self._socket.monitor("inproc://monitor")
        self._monitor = self._helper(zmq.PAIR)
        self._monitor.setsockopt(zmq.RCVHWM, 0)
        self._monitor.connect("inproc://monitor")
        self._book = book
        self._look_at = 0.0
        self._reconnect_at = math.inf
        self._wake = -1
        self._stopped = False
        self.t_received_ns = 0

    def _helper(self, kind: int) -> zmq.Socket[bytes]:
        helper = self._context.socket(kind)
        self._helpers.append(helper)
        self._polled.append((helper, zmq.POLLIN))
        return helper

    def wake_by(self, descriptor: int) -> None:
        """Let `receive` return early, with None, once `descriptor` is readable; the caller reads it."""
        self._wake = descriptor
        self._polled.append((descriptor, zmq.POLLIN))

    def receive(self, timeout_s: float) -> Message | None:
        """Return the next message, or None; see `EdgeTransport.receive` and `CloudTransport.receive`."""
        self._begin()
        message = self._take()
        if message is not None or timeout_s <= 0:
            return message
        deadline = time.monotonic() + timeout_s
        while (now := time.monotonic()) < deadline:
            woken = self._wait(max(min(deadline, self._reconnect_at) - now, 0.0))
            message = self._take()
            if message is not None or woken:
                break
        return message

    def take_connections(self) -> list[ConnectionCount]:
        """Return the connections that ended; see `EdgeTransport.take_connections`."""
        self._look()
        return self._book.take_connections()

    def take_events(self) -> list[LinkEvent]:
        """Return what happened; see `EdgeTransport.take_events`."""
        self._look()
        return self._book.take_events()

    def close(self) -> None:
        """Send what is queued, for at most `LINGER_S`, and let go."""
        if self._socket.closed:
            return
        self._look()
        self._book.closing = True
        self._socket.close()
        # Connections may come to stand only now: the socket lives on, and its monitor tells, until all is sent.
        deadline = time.monotonic() + LINGER_S + 1.0
        while not self._stopped and (remaining_s := deadline - time.monotonic()) > 0:
            zmq.zmq_poll([(helper, zmq.POLLIN) for helper in self._helpers], _milliseconds(remaining_s))
            self._look()
        for helper in self._helpers:
            helper.close(linger=0)
        self._context.term()
        self._book.close()

    @abstractmethod
    def _take(self) -> Message | None:
        """Return a message that is there already."""

    def _begin(self) -> None:
        """Begin a call: refuse it once closed, and look at what happened now and then."""
        if self._socket.closed:
            raise LocalError("the transport is closed")
        if time.monotonic() >= self._look_at:
            self._look()

    def _look(self) -> None:
        """Take in all news of connections."""
        if self._monitor.closed:
            return
        self._look_at = time.monotonic() + LOOK_S
        while (news := _poll_message(self._monitor)) is not None:
            event, value = struct.unpack("=hi", news[0])
            self._hear(event, value)
        self._book.settle()

    def _hear(self, event: int, value: int) -> None:
        """Take in one piece of news; `value` is a descriptor, or says why a handshake failed."""
        if event in (zmq.EVENT_CONNECTED, zmq.EVENT_ACCEPTED):
            self._book.opened(value)
        elif event == zmq.EVENT_DISCONNECTED:
            self._book.ended(value)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self._book.failed(KNOWN_FAILURES.get(value, f"ZeroMQ's protocol error {value:#x}"))
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self._book.failed("it was broken off")
        elif event == zmq.EVENT_MONITOR_STOPPED:
            self._stopped = True

    def _wait(self, timeout_s: float) -> bool:
        """Wait for a message, news, or the caller's descriptor; whether it was the latter."""
        ready = [source for source, _ in zmq.zmq_poll(self._polled, _milliseconds(timeout_s))]
        if ready != [self._socket]:
            self._look()
        return self._wake in ready


class DealerTransport(_Endpoint[bytes]):
    """A base station's end of its link (an `EdgeTransport`)."""

    def __init__(
        self, address: str, bs: int, *, keys: EdgeKeys | None = None, queue_messages: int = QUEUE_MESSAGES
    ) -> None:
        """Connect as `bs`; returns before the connection stands.

        Args:
            address: the cloud's `RouterTransport.address`.
            bs: base station, which names the connection where there are no keys.
            keys: encrypt with these, and let them say who we are; None sends in the clear.
            queue_messages: how many may wait on each side.

        Raises:
            LocalError: `address` is not one.
        """
        book = ConnectionBook(connecting=True, owner=bs)
        super().__init__(zmq.DEALER, queue_messages, curve=keys is not None, book=book)
        if keys is None:
            self._socket.setsockopt(zmq.IDENTITY, identity(bs))
        else:
            self._socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server_public)
            self._socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        self._address = address
        self._queue_messages = queue_messages
        self._during_cut: deque[bytes] = deque()
        self._refused = False
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise LocalError(f"cannot connect to {address!r}: {error.strerror}") from error
        book.port = address.rsplit(":", 1)[-1]

    def send(self, data: bytes, t_release_ns: int = 0) -> None:
        """Queue one message for the cloud; see `EdgeTransport.send`. Nothing is held back here."""
        self._begin()
        check_sendable(data)
        check_release(t_release_ns)
        if not self._connected():
            if len(self._during_cut) >= self._queue_messages:
                raise QueueFull("the queue to the cloud is full: the link is cut")
            self._during_cut.append(data)
            return
        try:
            self._socket.send(data, zmq.NOBLOCK)
        except zmq.Again as error:
            self._look()
            if self._refused:
                raise TransportError(REFUSED) from error
            raise QueueFull("the queue to the cloud is full: is it running?") from error

    def cut(self, seconds: float) -> None:
        """Reset the connection, and connect again after `seconds` [s]; see `EdgeTransport.cut`.

        The new connection is made by the next call of `send` or `receive` that is not too early.
        """
        self._begin()
        self._look()
        if self._reconnect_at == math.inf:
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.disconnect(self._address)
            self._socket.setsockopt(zmq.LINGER, _milliseconds(LINGER_S))
        deadline = time.monotonic() + PATIENCE_S
        while not self._book.alone and time.monotonic() < deadline:
            self._socket.getsockopt(zmq.EVENTS)  # lets the socket get on with it
            time.sleep(0.001)
        self._during_cut.clear()
        self._book.cut()
        self._reconnect_at = time.monotonic() + seconds

    def _take(self) -> bytes | None:
        self._connected()
        try:
            data = self._socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return None
        self.t_received_ns = time.time_ns()
        return data

    def _hear(self, event: int, value: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._refused = True
            self._book.failed(REFUSED)
        else:
            super()._hear(event, value)

    def _connected(self) -> bool:
        """Whether no cut lasts; one whose time is over ends here."""
        if self._reconnect_at == math.inf:
            return True
        if time.monotonic() < self._reconnect_at:
            return False
        self._reconnect_at, self._refused = math.inf, False
        self._socket.connect(self._address)
        while self._during_cut:
            self._socket.send(self._during_cut.popleft(), zmq.NOBLOCK)
        return True


class RouterTransport(_Endpoint[Received]):
    """The cloud's end of all links (a `CloudTransport`).

    Attributes:
        address: where base stations connect to, such as "tcp://127.0.0.1:45671".
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        keys: CloudKeys | None = None,
        queue_messages: int = QUEUE_MESSAGES,
    ) -> None:
        """Listen.

        Args:
            host: address of the interface to listen at.
            port: TCP port; 0 takes a free one.
            keys: encrypt with these, and let in whom they allow; None lets anybody in, in the clear.
            queue_messages: how many may wait on each side of each link.

        Raises:
            LocalError: the port is in use, or the host is not ours.
        """
        super().__init__(zmq.ROUTER, queue_messages, curve=keys is not None, book=ConnectionBook(connecting=False))
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._waiting: deque[Received] = deque()
        self._allowed: dict[bytes, int] | None = None
        self._door: zmq.Socket[bytes] | None = None  # where ZeroMQ asks whom to let in (ZAP, RFC 27)
        self._routes: dict[int, bytes] = {}
        if keys is None:
            self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        else:
            self._allowed = dict(keys.allowed)
            self._socket.setsockopt(zmq.CURVE_SERVER, 1)
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
            self._door = self._helper(zmq.REP)
            self._door.bind("inproc://zeromq.zap.01")
        try:
            self._socket.bind(f"tcp://{host}:{port or '*'}")
        except zmq.ZMQError as error:
            self.close()
            if error.errno == zmq.EADDRINUSE:
                raise LocalError(f"port {port} on {host} is in use: choose another, or 0 for a free one") from error
            raise LocalError(f"cannot listen on {host} port {port}: {error.strerror}") from error
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        self._book.port = self.address.rsplit(":", 1)[-1]

    def send(self, bs: int, data: bytes, t_release_ns: int = 0) -> None:
        """Queue one message for base station `bs`; see `CloudTransport.send`. Nothing is held back here."""
        self._begin()
        check_sendable(data)
        check_release(t_release_ns)
        route = identity(bs) if self._allowed is None else self._routes.get(bs)
        if route is None:
            raise TransportError(f"BS {bs} is not connected")
        try:
            self._socket.send(route, zmq.SNDMORE | zmq.NOBLOCK)
            self._socket.send(data, zmq.NOBLOCK)
        except zmq.Again as error:
            raise QueueFull(f"the queue to BS {bs} is full: does it still receive?") from error
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            raise TransportError(f"BS {bs} is not connected") from error

    def _take(self) -> Received | None:
        # A peer of ours sends one part a message. The parts of anything else come out one by one, to fail on
        # their own checksums, rather than joined into bytes that nobody sent.
        if self._waiting:
            return self._waiting.popleft()
        try:
            peer = self._socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return None
        part = self._socket.recv(copy=False)
        self.t_received_ns = time.time_ns()
        if self._allowed is None:
            owner = _owner_of_name(peer)
        else:
            # Asked of each message: a route can name another connection tomorrow.
            owner = int(part.get("User-Id"))
            self._routes[owner] = peer
        if owner is not None:
            self._book.heard[part.get(zmq.SRCFD)] = owner
        received = Received(owner, peer, part.bytes)
        while part.more:
            part = self._socket.recv(copy=False)
            self._waiting.append(Received(owner, peer, part.bytes))
        return received

    def _look(self) -> None:
        if self._door is not None and not self._door.closed:
            while (request := _poll_message(self._door)) is not None:
                reply, stranger = admit(request, self._allowed or {})
                self._door.send_multipart(reply)
                if stranger is not None:
                    self._book.refused(stranger, "its key is no base station's")
        super()._look()


def _poll_message(socket: zmq.Socket[bytes]) -> list[bytes] | None:
    try:
        return socket.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None


def _milliseconds(seconds: float) -> int:
    return math.ceil(seconds * 1000)
