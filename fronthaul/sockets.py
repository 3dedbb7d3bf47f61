"""Links over TCP: one DEALER at each base station, one ROUTER at the cloud. The only file with zmq.

Defaults of ZeroMQ that lose data or hang without a word are overruled here:

    ROUTER_MANDATORY  sending to an unknown peer or a full queue is an error, not silence
    ROUTER_HANDOVER   a BS that crashed and returns with its identity is heard again
    SNDHWM, RCVHWM    what may wait on each side of a link, in messages
    MAXMSGSIZE        the peer cannot make us allocate more than a message
    LINGER            closing waits so long for what is still to be sent, and no longer

Heartbeats stay off: they would be bytes that the ledger does not see. Sockets are not thread-safe and do not
cross a fork: make a transport where it is used. Each has a context of its own.
"""

import math
from collections import deque

import zmq

from fronthaul.errors import LocalError, TransportError
from fronthaul.transport import check_sendable, identity
from fronthaul.wire import MAX_MESSAGE_BYTES

QUEUE_MESSAGES = 1000
"""What may wait on each side of a link: over a second at 500 snapshots/s, under 0.5 MB at 400 B a report."""
LINGER_S = 2.0
"""How long closing waits for bytes that are still to be sent [s]."""


class DealerTransport:
    """A base station's end of its link (an `EdgeTransport`)."""

    def __init__(self, address: str, bs: int, *, send_timeout_s: float = 5.0) -> None:
        """Connect as `bs`; returns before the connection stands.

        Args:
            address: the cloud's `RouterTransport.address`.
            bs: base station, which names the connection.
            send_timeout_s: how long `send` waits on a full queue [s].

        Raises:
            LocalError: `address` is not one.
        """
        self._context, self._socket = _open(zmq.DEALER, send_timeout_s)
        self._socket.setsockopt(zmq.IDENTITY, identity(bs))
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise LocalError(f"cannot connect to {address!r}: {error.strerror}") from error

    def send(self, data: bytes) -> None:
        """Queue one message for the cloud; see `EdgeTransport.send`."""
        _require_open(self._socket)
        check_sendable(data)
        try:
            self._socket.send(data)
        except zmq.Again as error:
            raise TransportError("the queue to the cloud stayed full: is it running?") from error

    def receive(self, timeout_s: float) -> bytes | None:
        """Return the next message from the cloud, or None; see `EdgeTransport.receive`."""
        _require_open(self._socket)
        return self._socket.recv() if self._socket.poll(_milliseconds(timeout_s)) else None

    def close(self) -> None:
        """Send what is queued, for at most `LINGER_S`, and disconnect."""
        _close(self._context, self._socket)


class RouterTransport:
    """The cloud's end of all links (a `CloudTransport`)."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, send_timeout_s: float = 5.0) -> None:
        """Listen.

        Args:
            host: address of the interface to listen at.
            port: TCP port; 0 takes a free one.
            send_timeout_s: how long `send` waits on a full queue [s].

        Raises:
            LocalError: the port is in use, or the host is not ours.
        """
        self._context, self._socket = _open(zmq.ROUTER, send_timeout_s)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._waiting: deque[tuple[bytes, bytes]] = deque()
        try:
            self._socket.bind(f"tcp://{host}:{port or '*'}")
        except zmq.ZMQError as error:
            self.close()
            if error.errno == zmq.EADDRINUSE:
                advice = "choose another, or 0 for a free one"
                raise LocalError(f"port {port} on {host} is in use: {advice}") from error
            raise LocalError(f"cannot listen on {host} port {port}: {error.strerror}") from error
        self._address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    @property
    def address(self) -> str:
        """Where base stations connect to, such as "tcp://127.0.0.1:45671"."""
        return self._address

    def receive(self, timeout_s: float) -> tuple[bytes, bytes] | None:
        """Return (identity of the sender, message), or None; see `CloudTransport.receive`.

        A peer of ours sends one part a message. The parts of anything else come out one by one, to fail on
        their own checksums, rather than joined into bytes that nobody sent.
        """
        _require_open(self._socket)
        if not self._waiting and self._socket.poll(_milliseconds(timeout_s)):
            peer, *parts = self._socket.recv_multipart()
            self._waiting.extend((peer, part) for part in parts)
        return self._waiting.popleft() if self._waiting else None

    def send(self, peer: bytes, data: bytes) -> None:
        """Queue one message for the base station with identity `peer`; see `CloudTransport.send`."""
        _require_open(self._socket)
        check_sendable(data)
        try:
            self._socket.send_multipart([peer, data])
        except zmq.Again as error:
            raise TransportError(f"the queue to {peer!r} stayed full: does it still receive?") from error
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            raise TransportError(f"no base station is connected as {peer!r}") from error

    def close(self) -> None:
        """Send what is queued, for at most `LINGER_S`, and stop listening."""
        _close(self._context, self._socket)


def _open(kind: int, send_timeout_s: float) -> tuple[zmq.Context[zmq.Socket[bytes]], zmq.Socket[bytes]]:
    context = zmq.Context()
    socket = context.socket(kind)
    socket.setsockopt(zmq.SNDHWM, QUEUE_MESSAGES)
    socket.setsockopt(zmq.RCVHWM, QUEUE_MESSAGES)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    socket.setsockopt(zmq.LINGER, _milliseconds(LINGER_S))
    socket.setsockopt(zmq.SNDTIMEO, _milliseconds(send_timeout_s))
    return context, socket


def _close(context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes]) -> None:
    socket.close()
    context.term()


def _require_open(socket: zmq.Socket[bytes]) -> None:
    if socket.closed:
        raise LocalError("the transport is closed")


def _milliseconds(seconds: float) -> int:
    return math.ceil(seconds * 1000)
