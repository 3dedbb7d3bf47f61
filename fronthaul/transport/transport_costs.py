"""Bytes that a transport adds to messages: a description declared by each transport.

    once per connection  handshake, each way
    each message         framing header | message, encrypted or not

The description is written into every send journal, and next to the tables of a run. The accounts use the recorded
description and do not need to know any transport by name.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass

from fronthaul.documents import parse_json
from fronthaul.errors import LocalError
from fronthaul.transport.endpoint import IPV4_HEADER_BYTES
from fronthaul.transport.identity import identity


@dataclass(frozen=True, slots=True)
class TransportCosts:
    """Bytes on the stream of a link besides the messages themselves.

    Attributes:
        name: display name of the transport.
        header_bytes: framing of a message [B].
        long_header_bytes: framing of a message longer than `short_bytes` [B]; None if it is the same.
        short_bytes: maximum length of a message with the short header, encryption included [B].
        encryption_bytes: bytes that encryption adds to each message [B]; 0 for unencrypted links.
        handshake_up_bytes: handshake of a connection, from base station to cloud [B].
        handshake_down_bytes: handshake of a connection, from cloud to base station [B].
        names_station: whether the handshake up also carries the base station's name (`identity`), not counted above.
        kernel_counts: whether the kernel counts the bytes of a connection (`take_connections`).
        ip_header_bytes: header of each IP packet, for what is modelled below the stream [B].
        compact: whether frames up go in their compact form (`fronthaul.message.compact`).

    Raises:
        LocalError: a size is negative, or a header or the encryption exceeds 255 B, the range of a ledger column.
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
    ip_header_bytes: int = IPV4_HEADER_BYTES
    compact: bool = False

    def __post_init__(self) -> None:
        columns = (self.header_bytes, self.long_header_bytes or 0, self.encryption_bytes)
        if not all(0 <= size <= 0xFF for size in columns):
            raise LocalError(f"{self.name}: header and encryption take 0 to 255 B a message")
        if min(self.short_bytes, self.handshake_up_bytes, self.handshake_down_bytes) < 0:
            raise LocalError(f"{self.name}: a size is negative")

    def framing_bytes(self, message_bytes: int) -> int:
        """Return the header length of a message [B], given the message's length before encryption [B]."""
        if self.long_header_bytes is not None and message_bytes + self.encryption_bytes > self.short_bytes:
            return self.long_header_bytes
        return self.header_bytes

    def stream_bytes(self, message_bytes: int) -> int:
        """Return the length on the stream of a message of `message_bytes` [B], with header and encryption [B]."""
        return self.framing_bytes(message_bytes) + self.encryption_bytes + message_bytes

    def handshake_bytes(self, bs: int) -> tuple[int, int]:
        """Return the handshake bytes of a connection of `bs` (up, down) [B]."""
        name_bytes = len(identity(bs)) if self.names_station else 0
        return self.handshake_up_bytes + name_bytes, self.handshake_down_bytes

    def to_text(self) -> str:
        """Return the description as text, to be recorded."""
        return json.dumps(dataclasses.asdict(self))


@functools.cache
def recorded_costs(text: str) -> TransportCosts:
    """Return the description recorded by `TransportCosts.to_text`.

    Raises:
        LocalError: `text` is not such a description.
    """
    try:
        return TransportCosts(**parse_json(text))
    except (LocalError, TypeError) as error:
        raise LocalError("the record of the transport is damaged") from error
