"""Interface of all transports, which carry messages between base stations and cloud.

Messages arrive whole and, per link, in order. Transports do not interpret their bytes. Times are nanoseconds of the
wall clock, or of the clock given to a transport.
"""

from typing import Literal, NamedTuple, Protocol, TypeVar

from fronthaul.clock import real_ns
from fronthaul.errors import LocalError
from fronthaul.message.wire import MAX_MESSAGE_BYTES
from fronthaul.transport.transport_costs import TransportCosts

MessageT = TypeVar("MessageT", covariant=True)


class Received(NamedTuple):
    """A message as the cloud receives it.

    Attributes:
        owner: base station that the connection belongs to, identified by its key, or by its name without encryption.
            None if it does not belong to a base station.
        data: the message.
    """

    owner: int | None
    data: bytes


Arrived = tuple[int | None, bytes, int]
"""Owner and data of a `Received` message, and its time of arrival [ns]."""


class ConnectionCount(NamedTuple):
    """The kernel's byte counts of one TCP connection, from its first byte to its end.

    Attributes:
        bs: base station that it belongs to; None if that never became known.
        local: our end, "ip:port".
        remote: the other end, "ip:port".
        t_opened_ns: when the open connection was noticed [ns].
        t_closed_ns: when its end was noticed [ns].
        sent_bytes: bytes of the stream acknowledged by the other end [B].
        received_bytes: bytes of the stream received [B].
        cut: whether it ended before we closed our end, by a fault or because the other end closed first.
    """

    bs: int | None
    local: str
    remote: str
    t_opened_ns: int
    t_closed_ns: int
    sent_bytes: int
    received_bytes: int
    cut: bool


EventKind = Literal["connected", "disconnected", "refused"]


class LinkEvent(NamedTuple):
    """Something that happened to a connection.

    Attributes:
        t_ns: when it was noticed [ns].
        kind: "connected", "disconnected", or "refused": a handshake that failed, a key that is not allowed, or a
            connection that we ended because it broke a rule.
        peer: the other end, "ip:port"; "ip" or "" if no more is known.
        detail: one sentence of explanation; may be empty.
        bs: base station that the connection belongs to, if known.
    """

    t_ns: int
    kind: EventKind
    peer: str
    detail: str
    bs: int | None = None


class Load(NamedTuple):
    """What the cloud expects of its base stations. A transport takes more than that for abuse, and limits it.

    Attributes:
        stations: their numbers; others are told that they do not take part.
        message_bytes: length of their longest message [B].
    """

    stations: frozenset[int]
    message_bytes: int = MAX_MESSAGE_BYTES


class Transport(Protocol[MessageT]):
    """One end of links; `MessageT` is what it receives."""

    @property
    def costs(self) -> TransportCosts:
        """Bytes that this transport adds to messages."""

    @property
    def t_received_ns(self) -> int:
        """Arrival time of the message that `receive` returned last [ns]; 0 before the first."""

    def receive(self, timeout_s: float) -> MessageT | None:
        """Return the next message; None if none arrives within `timeout_s` [s].

        Raises:
            LocalError: the transport is closed.
        """

    def take_connections(self) -> list[ConnectionCount]:
        """Return the connections that ended since the last call; after `close`, all remaining ones too."""

    def take_events(self) -> list[LinkEvent]:
        """Return the events since the last call, oldest first."""

    def close(self) -> None:
        """Close all links; closing twice is fine."""


class EdgeTransport(Transport[bytes], Protocol):
    """A base station's end of its link."""

    def send(self, data: bytes, t_release_ns: int = 0) -> None:
        """Send one message to the cloud; never blocks.

        Args:
            data: the message.
            t_release_ns: the message is held back until this time [ns]; 0 or a past time sends it at once.

        Raises:
            LocalError: the message is too long, or the transport is closed or cannot hold messages back.
            QueueFull: too many messages wait already.
            TransportError: the link could not take the message.
        """

    def cut(self, seconds: float) -> None:
        """Break the connection as an injected fault, and reconnect after `seconds` [s].

        Messages waiting to be sent are lost. Messages sent meanwhile wait for the new connection.

        Raises:
            LocalError: the transport is closed.
        """

    def renew(self) -> None:
        """Give up a connection over which nothing comes back, and connect again; no effect without a connection.

        Messages waiting to be sent still are.

        Raises:
            LocalError: the transport is closed.
        """


class CloudTransport(Transport[Received], Protocol):
    """The cloud's end of all links."""

    @property
    def address(self) -> str:
        """Address to which base stations connect."""

    def receive_waiting(self, most: int) -> list[Arrived]:
        """Return up to `most` messages that have arrived already, in order; fewer if no more wait.

        Raises:
            LocalError: the transport is closed.
        """

    def send(self, bs: int, data: bytes, t_release_ns: int = 0) -> None:
        """Send one message to a base station; never blocks.

        Args:
            bs: base station; if it has several connections, the one from which a message arrived last is used.
            data: the message.
            t_release_ns: the message is held back until this time [ns]; 0 or a past time sends it at once.

        Raises:
            LocalError: the message is too long, or the transport is closed or cannot hold messages back.
            QueueFull: too many messages wait already.
            TransportError: the base station is not connected, or nothing has arrived from it yet.
        """


def check_sendable(data: bytes) -> None:
    """Check that a message is not longer than the peer accepts.

    A socket that receives a message over its limit cuts the connection, so the sender must not send one.

    Raises:
        LocalError: the message is too long.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise LocalError(f"a message is at most {MAX_MESSAGE_BYTES} B, not {len(data)} B")


def check_release(t_release_ns: int) -> None:
    """Check that a message need not be held back, for transports without a delay line.

    Raises:
        LocalError: `t_release_ns` is in the future [ns].
    """
    if t_release_ns > 0 and t_release_ns > real_ns():
        raise LocalError("a socket cannot hold messages back: use a delay line")
