"""Bytes that ZeroMQ adds to messages: ZMTP 3.1 with NULL (unencrypted) and with CURVE (encrypted).

    handshake   NULL    greeting, READY                         each way
                CURVE   greeting, HELLO, INITIATE               up
                        greeting, WELCOME, READY                down
    message     flags, and the length in 1 B up to 255 B, in 8 B above

Sizes follow from the protocol: ZMTP RFC 37, CurveZMQ RFC 26. They hold for DEALER at the base station and ROUTER at the
cloud. A router sends an empty identity; with CURVE so does the dealer, which is identified by its key. With NULL it
sends its `connection_name`.
"""

from dataclasses import replace

from fronthaul.transport.identity import MARK_BYTES
from fronthaul.transport.transport_costs import TransportCosts

GREETING_BYTES = 64
"""Signature, version, mechanism and filler, each way [B]."""
HELLO_BYTES = 200
"""Name 6 B, version 2 B, padding 72 B, key 32 B, nonce 8 B, signature 80 B [B]."""
WELCOME_BYTES = 168
"""Name 8 B, nonce 16 B, box of a key and a cookie 144 B [B]."""
INITIATE_BYTES = 257
"""Name 9 B, cookie 96 B, nonce 8 B, box 16 B of a key 32 B, a nonce 16 B and a vouch 80 B; metadata adds to it [B]."""
READY_BYTES = 30
"""Name 6 B, nonce 8 B, box 16 B; metadata adds to it [B]."""
CURVE_BYTES = 33
"""Added to each message by CURVE: 8 B command name, 8 B nonce, 16 B authenticator, 1 B flags [B]."""


def _metadata_bytes(socket_type: bytes) -> int:
    """Return the size of two properties [B], each 1 B + name + 4 B + value; the identity's value is not counted."""
    return sum(1 + len(name) + 4 + len(value) for name, value in ((b"Socket-Type", socket_type), (b"Identity", b"")))


_MESSAGES = TransportCosts("ZeroMQ", header_bytes=2, long_header_bytes=9, short_bytes=255, kernel_counts=True)
_DEALER, _ROUTER = _metadata_bytes(b"DEALER"), _metadata_bytes(b"ROUTER")
_NULL_READY_NAME_BYTES = 1 + len(b"READY")


def _stream(*bodies: int) -> int:
    return GREETING_BYTES + sum(map(_MESSAGES.stream_bytes, bodies))


ZMTP_NULL = replace(
    _MESSAGES,
    handshake_up_bytes=_stream(_NULL_READY_NAME_BYTES + _DEALER + MARK_BYTES),
    handshake_down_bytes=_stream(_NULL_READY_NAME_BYTES + _ROUTER),
    names_station=True,
)
"""Unencrypted links. READY keeps its short header: the base station's name takes at most 8 B, what follows it 11 B."""
ZMTP_CURVE = replace(
    _MESSAGES,
    encryption_bytes=CURVE_BYTES,
    handshake_up_bytes=_stream(HELLO_BYTES, INITIATE_BYTES + _DEALER),
    handshake_down_bytes=_stream(WELCOME_BYTES, READY_BYTES + _ROUTER),
)
"""Encrypted links."""
