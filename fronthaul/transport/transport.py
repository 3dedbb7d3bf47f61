"""What carries bytes between base stations and cloud, whichever way it does so.

One message in, one message out, whole and in order per link. Transports know nothing of what the bytes mean.
Times are wall-clock nanoseconds, or those of the clock that a transport was given.
"""

import time
from typing import Literal, NamedTuple, Protocol

from fronthaul.errors import LocalError
from fronthaul.message.wire import MAX_MESSAGE_BYTES
from fronthaul.transport.transport_costs import TransportCosts


class Received(NamedTuple):
    """A message as the cloud receives it.

    Attributes:
        owner: base station that the connection belongs to, as the transport knows it: by its key, or without
            encryption by its name. None where it is no base station's.
        peer: what the transport calls the connection.
        data: the message.
    """

    owner: int | None
    peer: bytes
    data: bytes


class ConnectionCount(NamedTuple):
    """What the kernel counted on one TCP connection, from its first byte to its end (accounting, "Equality").

    Attributes:
        bs: whose it is; None where that never became known.
        local: our end, "ip:port".
        remote: the other end.
        t_opened_ns: when we noticed that it stood [ns].
        t_closed_ns: when we noticed that it had ended [ns].
        sent_bytes: of the stream, acknowledged by the other end [B].
        received_bytes: of the stream, as it came in [B].
        cut: it ended before we closed our end: by a fault, or because the other end closed first.
    """

    bs: int | None
    local: str
    remote: str
    t_opened_ns: int
    t_closed_ns: int
    sent_bytes: int
    received_bytes: int
    cut: bool


class LinkEvent(NamedTuple):
    """Something that happened to a connection.

    Attributes:
        t_ns: when we noticed [ns].
        kind: "connected", "disconnected", or "refused": a handshake that failed, or a key that is not allowed.
        peer: the other end, "ip:port"; "ip" alone where no more is known.
        detail: one sentence for people; may be empty.
        bs: whose connection it is, where that is known.
    """

    t_ns: int
    kind: Literal["connected", "disconnected", "refused"]
    peer: str
    detail: str
    bs: int | None = None


class EdgeTransport(Protocol):
    """A base station's end of its link."""

    @property
    def costs(self) -> TransportCosts:
        """What this transport adds to the messages that it carries."""

    @property
    def t_received_ns(self) -> int:
        """When the message that `receive` returned last had come in [ns]; 0 before the first."""

    def send(self, data: bytes, t_release_ns: int = 0) -> None:
        """Send one message to the cloud, without ever waiting.

        Args:
            data: the message.
            t_release_ns: it is held back until then [ns]; 0, or a time that is past, is at once.

        Raises:
            LocalError: the message is too long, the transport is closed or cannot hold messages back.
            QueueFull: too many wait already.
            TransportError: the link could not take the message.
        """

    def receive(self, timeout_s: float) -> bytes | None:
        """Return the next message from the cloud; None where none comes within `timeout_s` [s].

        Raises:
            LocalError: the transport is closed.
        """

    def cut(self, seconds: float) -> None:
        """Break the connection, a fault on purpose, and make it again after `seconds` [s].

        What waited to be sent is lost. What is sent meanwhile waits for the new connection.

        Raises:
            LocalError: the transport is closed.
        """

    def take_connections(self) -> list[ConnectionCount]:
        """Return the connections that ended since the last call; after `close`, all the others too."""

    def take_events(self) -> list[LinkEvent]:
        """Return what happened since the last call, oldest first."""

    def close(self) -> None:
        """Let go of the link; closing twice is fine."""


class CloudTransport(Protocol):
    """The cloud's end of all links."""

    @property
    def costs(self) -> TransportCosts:
        """What this transport adds to the messages that it carries."""

    @property
    def address(self) -> str:
        """Where base stations connect to."""

    @property
    def t_received_ns(self) -> int:
        """When the message that `receive` returned last had come in [ns]; 0 before the first."""

    def send(self, bs: int, data: bytes, t_release_ns: int = 0) -> None:
        """Send one message to a base station, without ever waiting.

        Args:
            bs: base station; of several connections that it owns, the one that was heard last is meant.
            data: the message.
            t_release_ns: it is held back until then [ns]; 0, or a time that is past, is at once.

        Raises:
            LocalError: the message is too long, the transport is closed or cannot hold messages back.
            QueueFull: too many wait already.
            TransportError: that base station is not connected, or was not heard yet.
        """

    def receive(self, timeout_s: float) -> Received | None:
        """Return the next message; None where nothing comes within `timeout_s` [s].

        Raises:
            LocalError: the transport is closed.
        """

    def take_connections(self) -> list[ConnectionCount]:
        """Return the connections that ended since the last call; after `close`, all the others too."""

    def take_events(self) -> list[LinkEvent]:
        """Return what happened since the last call, oldest first."""

    def close(self) -> None:
        """Let go of all links; closing twice is fine."""


def check_sendable(data: bytes) -> None:
    """Refuse what the peer would refuse.

    A socket that meets a message over its limit cuts the connection, so the sender must not let one out.

    Raises:
        LocalError: the message is too long.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise LocalError(f"a message is at most {MAX_MESSAGE_BYTES} B, not {len(data)} B")


def check_release(t_release_ns: int) -> None:
    """Refuse to hold a message back, where nothing can.

    Raises:
        LocalError: `t_release_ns` is to come [ns].
    """
    if t_release_ns > 0 and t_release_ns > time.time_ns():
        raise LocalError("a bare socket holds no message back: put a delay line before it")
