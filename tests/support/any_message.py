"""Strategies that draw any message that can be."""

import dataclasses
import zlib
from typing import Any

import msgpack
from hypothesis import strategies as st

from fronthaul.message.messages import (
    MAX_POSITION_M,
    Abort,
    Control,
    Frame,
    Goodbye,
    Payload,
    PayloadFormat,
    Ping,
    Pong,
    Registration,
    Report,
    ReportKey,
    Welcome,
)
from fronthaul.message.wire import encode


def written(message: Control, change: dict[str, Any]) -> bytes:
    """Return the bytes of a message with other values, as a peer that checks nothing would write them."""
    fields = {field.name: getattr(message, field.name) for field in dataclasses.fields(message)}
    plain = {name: _plain(value) for name, value in (fields | change).items()}
    body = encode(message)[:1] + msgpack.packb({"kind": type(message).__name__.lower(), **plain})
    return body + zlib.crc32(body).to_bytes(4, "big")


def _plain(value: Any) -> Any:
    if not isinstance(value, PayloadFormat):
        return value
    return value.width if value.fixed else 0, value.max_bits // value.width, value.side_bytes


side_lengths = st.integers(0, 31)
unsigned = {width: st.integers(0, (1 << width) - 1) for width in (8, 16, 32, 64)}
angle = st.floats(allow_nan=False, allow_infinity=False)
coordinate = st.floats(-MAX_POSITION_M, MAX_POSITION_M)
texts = st.text(max_size=64).filter(lambda text: all(not 0xD800 <= ord(c) <= 0xDFFF for c in text))


@st.composite
def frames(draw: st.DrawFn, least: int = 1, most: int = 5) -> Frame:
    """Any frame: payloads of one length or of several, whole bytes with the padding cleared."""
    bs, epoch, seq = draw(unsigned[16]), draw(unsigned[16]), draw(unsigned[32])
    names = st.lists(st.tuples(unsigned[32], unsigned[8]), min_size=least, max_size=most, unique=True)
    bits, mixed, side_bytes = draw(st.integers(0, 400)), draw(st.booleans()), draw(side_lengths)
    reports = []
    for name in draw(names):
        bits = draw(st.integers(0, 400)) if mixed else bits
        value = draw(st.integers(0, (1 << bits) - 1))
        payload = Payload((value << -bits % 8).to_bytes(-(-bits // 8), "big"), bits)
        side = draw(st.binary(min_size=side_bytes, max_size=side_bytes))
        reports.append(Report(ReportKey(bs, epoch, *name), payload, side))
    return Frame(seq, tuple(reports))


formats = st.builds(PayloadFormat.uniform, st.integers(1, 32), st.integers(0, (1 << 27) - 1), side_lengths) | st.builds(
    PayloadFormat, unsigned[32], side_lengths, st.booleans()
)
controls = st.one_of(
    st.builds(
        Registration,
        bs=unsigned[16],
        epoch=unsigned[16],
        scheme=texts.filter(bool),
        report=formats,
        answer=st.none() | formats,
        position=st.tuples(coordinate, coordinate, coordinate),
        orientation=st.tuples(angle, angle, angle),
    ),
    st.builds(Welcome, unsigned[16], unsigned[16]),
    st.builds(Goodbye, unsigned[16], unsigned[16], unsigned[32]),
    st.builds(Abort, texts),
    st.builds(Ping, unsigned[16], unsigned[16], unsigned[64]),
    st.builds(Pong, unsigned[16], unsigned[16], unsigned[64], unsigned[64], unsigned[64]),
)
