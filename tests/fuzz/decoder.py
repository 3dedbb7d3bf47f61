"""Target: `wire.decode` and `compact.Expander` on any bytes, and what reads frames without decoding them.

Every input is tried as it is and with the CRC-32 that belongs to it: a fuzzer finds no checksum by chance, and would
never get past it.
"""

import zlib
from collections import Counter
from typing import get_args

from fronthaul.errors import Reason, RemoteError
from fronthaul.message.compact import Expander, Reference, is_compact, pack
from fronthaul.message.messages import Frame
from fronthaul.message.wire import claim, decode, encode, head, is_control, report_keys

INSTRUMENTED = ["fronthaul.message.wire", "fronthaul.message.messages", "fronthaul.message.compact"]
MAX_BYTES = 600
"""Longest input [B]: a bundle of 64 reports with a byte each fits."""
WORDS = [
    *(b"\xa4kind", b"\xacregistration", b"\xa7welcome", b"\xa7goodbye", b"\xa5abort", b"\xa4ping", b"\xa4pong"),
    *(b"\xa2bs", b"\xa5epoch", b"\xa6scheme", b"\xa6report", b"\xa6answer", b"\xa8position", b"\xaborientation"),
    *(b"\xa6frames", b"\xa6reason", b"\xa9t_sent_ns", b"\xadt_received_ns", b"\xadt_answered_ns"),
    *(b"\x21", b"\x22", b"\x23", b"\x24", b"\xcb", b"\x93\x01\x01\x00", b"\x93\x00\x09\x00", b"\xc0"),
]
"""What messages are made of."""
REASONS = frozenset(get_args(Reason))


def check(data: bytes, tally: Counter[str]) -> int:
    """Decode `data` as it is and sealed; count what comes of it in `tally`; return 1, the inputs tried.

    Raises:
        AssertionError: a rule is broken; any other exception is a finding as well.
    """
    _check_compact(data)
    _check_one(data, tally)
    _check_one(data + zlib.crc32(data).to_bytes(4, "big"), tally)
    return 1


def _check_compact(data: bytes) -> None:
    """Check that what is restored from a compact form is a frame, and has this compact form alone."""
    expander = Expander()
    expander.open(0, 0, 0)
    expander.open(0, 1, 4)
    restored = expander.expand(0, data)
    if restored != data:
        assert is_compact(data) and isinstance(decode(restored), Frame) and pack(restored) == data


def _check_one(data: bytes, tally: Counter[str]) -> None:
    claimed = claim(data)
    is_control(data)
    try:
        message = decode(data)
    except RemoteError as error:
        assert error.reason in REASONS and error.detail, f"rejected for {error.reason!r}"
        tally[f"rejected: {error.reason}"] += 1
        return
    assert encode(message) == data, "a message has a second encoding"
    if isinstance(message, Frame):
        keys = [report.key for report in message.reports]
        assert not is_control(data)
        assert report_keys(data) == keys and report_keys(head(data)) == keys
        assert claimed == (message.bs, message.epoch, message.seq, int.from_bytes(data[-4:], "big"))
        snapshot, _ = message.head.parts[0]
        expander = Expander()
        expander.open(message.bs, message.epoch, message.head.side_bytes, Reference(message.seq - 1, snapshot))
        assert expander.expand(message.bs, pack(data)) == data, "a frame is lost in its compact form"
        tally["accepted: frame" if len(keys) == 1 else "accepted: bundle"] += 1
    else:
        assert is_control(data) and report_keys(data) == []
        head(data)
        tally[f"accepted: {type(message).__name__.lower()}"] += 1
