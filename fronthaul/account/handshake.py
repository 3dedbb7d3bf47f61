"""What opening a connection costs, before the first message: ZMTP 3.1 under NULL and CURVE.

    NULL    greeting, READY                         each way
    CURVE   greeting, HELLO, INITIATE               up
            greeting, WELCOME, READY                down

Sizes follow from the protocol: ZMTP RFC 37, CurveZMQ RFC 26. Connections that use DEALER at the base station and
ROUTER at the cloud; a router sends an empty identity.
"""

from fronthaul.account.costs import zmtp_frame_bytes

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


def handshake_bytes(identity: bytes, *, curve: bool = False) -> tuple[int, int]:
    """Return what opening a connection costs (up, down) [B].

    Args:
        identity: what the base station calls itself; b"" under CURVE, where its key says who it is.
        curve: whether the connection is encrypted.
    """
    dealer, router = _metadata_bytes(b"DEALER", identity), _metadata_bytes(b"ROUTER", b"")
    if not curve:
        name = 1 + len(b"READY")
        return GREETING_BYTES + zmtp_frame_bytes(name + dealer), GREETING_BYTES + zmtp_frame_bytes(name + router)
    up = zmtp_frame_bytes(HELLO_BYTES) + zmtp_frame_bytes(INITIATE_BYTES + dealer)
    down = zmtp_frame_bytes(WELCOME_BYTES) + zmtp_frame_bytes(READY_BYTES + router)
    return GREETING_BYTES + up, GREETING_BYTES + down


def _metadata_bytes(socket_type: bytes, identity: bytes) -> int:
    """Return two properties [B], each of 1 B + name + 4 B + value."""
    properties = ((b"Socket-Type", socket_type), (b"Identity", identity))
    return sum(1 + len(name) + 4 + len(value) for name, value in properties)
