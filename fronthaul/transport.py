"""What carries bytes between base stations and cloud, whichever way it does so.

One message in, one message out, whole and in order per link. Transports know nothing of what the bytes mean.
"""

from typing import Protocol

from fronthaul.errors import LocalError
from fronthaul.wire import MAX_MESSAGE_BYTES


class EdgeTransport(Protocol):
    """A base station's end of its link."""

    def send(self, data: bytes) -> None:
        """Send one message to the cloud.

        Raises:
            LocalError: the message is too long, or the transport closed.
            TransportError: the queue stayed full.
        """

    def receive(self, timeout_s: float) -> bytes | None:
        """Return the next message from the cloud; None where none comes within `timeout_s` [s].

        Raises:
            LocalError: the transport is closed.
        """

    def close(self) -> None:
        """Let go of the link; closing twice is fine."""


class CloudTransport(Protocol):
    """The cloud's end of all links."""

    @property
    def address(self) -> str:
        """Where base stations connect to."""

    def receive(self, timeout_s: float) -> tuple[bytes, bytes] | None:
        """Return (identity of the sender, message); None where nothing comes within `timeout_s` [s].

        Raises:
            LocalError: the transport is closed.
        """

    def send(self, peer: bytes, data: bytes) -> None:
        """Send one message to the base station with identity `peer`.

        Raises:
            LocalError: the message is too long, or the transport closed.
            TransportError: no such peer is connected, or its queue stayed full.
        """

    def close(self) -> None:
        """Let go of all links; closing twice is fine."""


def identity(bs: int) -> bytes:
    """Return the name by which the cloud knows the connection of `bs`."""
    return b"bs-%03d" % bs


def bs_of(peer: bytes) -> int | None:
    """Undo `identity`: the base station at the other end of a connection; None for any other name."""
    digits = peer.removeprefix(b"bs-")
    if not digits.isdigit() or len(digits) > 5 or identity(int(digits)) != peer:
        return None
    return int(digits)


def check_sendable(data: bytes) -> None:
    """Refuse what the peer would refuse.

    A socket that meets a message over its limit cuts the connection, so the sender must not let one out.

    Raises:
        LocalError: the message is too long.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise LocalError(f"a message is at most {MAX_MESSAGE_BYTES} B, not {len(data)} B")
