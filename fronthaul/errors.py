"""Exceptions, by who caused the error.

`LocalError`: this end would break the protocol. `RemoteError`: the peer's bytes break it.
`TransportError`: the bytes are valid, but the link could not take them.
"""

from typing import Literal

Reason = Literal["truncated", "checksum", "version", "type", "length", "field", "trailing"]


class FronthaulError(Exception):
    """Base class of all exceptions that this package defines."""


class LocalError(FronthaulError):
    """An error at this end: a value that cannot be encoded, a port that is taken, a closed transport."""


class RemoteError(FronthaulError):
    """An error of the peer: bytes that are not a message of this protocol.

    Attributes:
        reason: "truncated" (ends early), "checksum" (CRC-32 differs), "version", "type", "length" (too long,
            or bits that do not add up), "field" (a value out of range) or "trailing" (bytes after the end).
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        """Keep `reason` for the ledger; `detail` is one sentence for the user."""
        # Both in args, so that the error survives pickling across an actor boundary.
        super().__init__(reason, detail)
        self.reason: Reason = reason
        self.detail = detail

    def __str__(self) -> str:
        """Return the detail followed by the reason."""
        return f"{self.detail} [{self.reason}]"


class RegistrationError(RemoteError):
    """A base station registers with an impossible value; the message is recorded and also answered."""


class TransportError(FronthaulError):
    """The link could not take the bytes: no such peer, or its queue was full.

    Attributes:
        undelivered: the lost message, if it is an earlier one than that of the failed call (`delay_line`); else None.
    """

    undelivered: bytes | None = None


class QueueFull(TransportError):
    """The link's send queue is full; sending never blocks until there is room."""
