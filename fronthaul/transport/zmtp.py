"""What ZeroMQ adds to messages: ZMTP 3.1 under NULL, in the clear, and under CURVE, encrypted.

    handshake   NULL    greeting, READY                         each way
                CURVE   greeting, HELLO, INITIATE               up
                        greeting, WELCOME, READY                down
    message     flags and a length of 1 B up to 255 B, of 8 B above

Sizes follow from the protocol: ZMTP RFC 37, CurveZMQ RFC 26. Connections that use DEALER at the base station and
ROUTER at the cloud; a router sends an empty identity, and under CURVE so does the dealer, whose key says who it is.
"""

from dataclasses import replace

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
"""CURVE adds to each message: 8 B command name, 8 B nonce, 16 B authenticator, 1 B flags [B]."""


def _metadata_bytes(socket_type: bytes) -> int:
    """Return two properties [B], each of 1 B + name + 4 B + value; the value of the identity is not counted."""
    return sum(1 + len(name) + 4 + len(value) for name, value in ((b"Socket-Type", socket_type), (b"Identity", b"")))


_MESSAGES = TransportCosts("ZeroMQ", header_bytes=2, long_header_bytes=9, short_bytes=255, kernel_counts=True)
_DEALER, _ROUTER = _metadata_bytes(b"DEALER"), _metadata_bytes(b"ROUTER")
_NULL_READY_NAME_BYTES = 1 + len(b"READY")


def _stream(*bodies: int) -> int:
    return GREETING_BYTES + sum(map(_MESSAGES.stream_bytes, bodies))


ZMTP_NULL = replace(
    _MESSAGES,
    handshake_up_bytes=_stream(_NULL_READY_NAME_BYTES + _DEALER),
    handshake_down_bytes=_stream(_NULL_READY_NAME_BYTES + _ROUTER),
    names_station=True,
)
"""Links in the clear. A name has 8 B at most, so READY stays short and each character of it costs a byte."""
ZMTP_CURVE = replace(
    _MESSAGES,
    encryption_bytes=CURVE_BYTES,
    handshake_up_bytes=_stream(HELLO_BYTES, INITIATE_BYTES + _DEALER),
    handshake_down_bytes=_stream(WELCOME_BYTES, READY_BYTES + _ROUTER),
)
"""Encrypted links."""
