"""Errors that say whose fault it was.

`LocalError`: we were about to break the rules. `RemoteError`: the peer's bytes break them.
`TransportError`: the bytes are fine, but the link could not take them.
"""

from typing import Literal

Reason = Literal["truncated", "checksum", "version", "type", "length", "field", "trailing"]


class FronthaulError(Exception):
    """Root of everything that this package raises on purpose."""


class LocalError(FronthaulError):
    """We broke the rules: a value that cannot be encoded, a port that is taken, a closed transport."""


class RemoteError(FronthaulError):
    """The peer broke the rules: bytes that are no message of this protocol.

    Attributes:
        reason: "truncated" (ends early), "checksum" (CRC-32 differs), "version", "type", "length" (too long,
            or bits that do not add up), "field" (a value out of range) or "trailing" (bytes after the end).
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        """Keep `reason` for the ledger; `detail` is one sentence for people."""
        # Both in args, so that the error survives pickling across an actor boundary.
        super().__init__(reason, detail)
        self.reason: Reason = reason
        self.detail = detail

    def __str__(self) -> str:
        """Return the sentence followed by the reason."""
        return f"{self.detail} [{self.reason}]"


class RegistrationError(RemoteError):
    """A base station registers with a value that none can have: a message for the ledger, and one to answer."""


class TransportError(FronthaulError):
    """The link could not take the bytes: no such peer, or its queue was full.

    Attributes:
        undelivered: the message that is lost, where the error is about an earlier one than the call's own
            (`delayline`); else None.
    """

    undelivered: bytes | None = None


class QueueFull(TransportError):
    """As many messages wait for the link as it may hold; sending never waits for room."""
