"""What a transport adds to the messages that it carries: a description that each transport declares itself.

    once a connection    handshake, each way
    each message         framing header | message, encrypted or not

The description is written into every send journal, and beside the tables of a run. Accounts ask what was recorded and
need to know no transport by name.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass

from fronthaul.errors import LocalError
from fronthaul.transport.identity import identity


@dataclass(frozen=True, slots=True)
class TransportCosts:
    """Bytes on the stream of a link beside the messages themselves.

    Attributes:
        name: of the transport, for people.
        header_bytes: framing of a message [B].
        long_header_bytes: framing of one of more than `short_bytes`, encryption included [B]; None if it is the same.
        short_bytes: the longest message with the short header [B].
        encryption_bytes: what encryption adds to each message [B]; 0 for links in the clear.
        handshake_up_bytes: what opening a connection costs from base station to cloud [B].
        handshake_down_bytes: what it costs the other way [B].
        names_station: whether the handshake carries the base station's name (`identity`) beside these bytes.
        kernel_counts: whether the kernel counts the bytes of a connection (`take_connections`).

    Raises:
        LocalError: a size is negative, or a header does not fit the ledger's column of one byte.
    """

    name: str
    header_bytes: int = 0
    long_header_bytes: int | None = None
    short_bytes: int = 0
    encryption_bytes: int = 0
    handshake_up_bytes: int = 0
    handshake_down_bytes: int = 0
    names_station: bool = False
    kernel_counts: bool = False

    def __post_init__(self) -> None:
        columns = (self.header_bytes, self.long_header_bytes or 0, self.encryption_bytes)
        if not all(0 <= size <= 0xFF for size in columns):
            raise LocalError(f"{self.name}: header and encryption take 0 to 255 B a message")
        if min(self.short_bytes, self.handshake_up_bytes, self.handshake_down_bytes) < 0:
            raise LocalError(f"{self.name}: a size is negative")

    def framing_bytes(self, message_bytes: int) -> int:
        """Return the header of a message [B], given its length before encryption [B]."""
        if self.long_header_bytes is not None and message_bytes + self.encryption_bytes > self.short_bytes:
            return self.long_header_bytes
        return self.header_bytes

    def stream_bytes(self, message_bytes: int) -> int:
        """Return what a message of `message_bytes` [B] costs on the stream, header and encryption included [B]."""
        return self.framing_bytes(message_bytes) + self.encryption_bytes + message_bytes

    def handshake_bytes(self, bs: int) -> tuple[int, int]:
        """Return what opening a connection of `bs` costs before the first message (up, down) [B]."""
        name_bytes = len(identity(bs)) if self.names_station else 0
        return self.handshake_up_bytes + name_bytes, self.handshake_down_bytes

    def to_text(self) -> str:
        """Return the description as it is recorded."""
        return json.dumps(dataclasses.asdict(self))


@functools.cache
def recorded_costs(text: str) -> TransportCosts:
    """Undo `TransportCosts.to_text`.

    Raises:
        LocalError: it is no description.
    """
    try:
        return TransportCosts(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise LocalError("what was recorded of the transport is damaged") from error
