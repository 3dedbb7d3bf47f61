"""Encoding of messages to bytes and back. One message is one ZMTP message part, which carries its length.

A frame of one report (type 1); numbers are big endian:

    byte   0      1      3       5          9       10     14     15
           +------+------+-------+----------+-------+------+------+------+---------+--------+
           | v, t |  bs  | epoch | snapshot | round | seq  | p, s | side | payload | CRC-32 |
           +------+------+-------+----------+-------+------+------+------+---------+--------+
    bytes     1      2       2        4         1      4      1      s    any length    4

A frame of n = 2..64 reports (type 3), the *bundle*, whose payloads are equally long:

    byte   0      1      3       5     9   10     11
           +------+------+-------+-----+---+------+--------------------------+----------+-------------+--------+
           | v, t |  bs  | epoch | seq | n | p, s | n x (snapshot u32, rd u8)| n x side | n x payload | CRC-32 |
           +------+------+-------+-----+---+------+--------------------------+----------+-------------+--------+
    bytes     1      2       2      4    1    1              5 n                 n s      any multiple      4

A bundle of payloads that differ in length (type 4), which states the number of bits of each (9 B per report):

    byte   0      1      3       5     9   10     11
           +------+------+-------+-----+---+------+-----------------------------------+--------+-----------+--------+
           | v, t |  bs  | epoch | seq | n | 0, s | n x (snapshot u32, rd u8, bits u32)| n side | n payload | CRC-32 |
           +------+------+-------+-----+---+------+-----------------------------------+--------+-----------+--------+
    bytes     1      2       2      4    1    1                  9 n                     n s      as said       4

A control message (type 2):

           +------+---------------------------------------------------+--------+
           | v, t | one msgpack map: "kind", then the fields in order | CRC-32 |
           +------+---------------------------------------------------+--------+

    v  version, high 4 bits                        t  type, low 4 bits
    p  padding bits of each payload, high 3 bits   s  side information of each report in bytes, low 5 bits

A payload's format in a control message is an array of three numbers. For a fixed length: bits per coefficient, number
of coefficients, and bytes of side information. For a varying length: 0, the maximum number of bits, and bytes of side
information. The overhead of a frame of one report is 15 + 4 B plus the side information; with 4 B of gain and 9 B of
ZMTP header that is 32 B. Rules:

- The CRC-32 (zlib's) covers everything before it. Byte 0 and the CRC keep their position in every version, so
  the CRC is checked first, and the error "version" means another version, not a flipped bit.
- A message has one encoding: for every `data` that decodes, `encode(decode(data)) == data`.
- A frame carries no length of its own. A truncated one is reported as "checksum", or as "truncated" if it is shorter
  than any message.
"""

import dataclasses
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from itertools import chain
from typing import Any, NamedTuple

import msgpack

from fronthaul.errors import LocalError, Reason, RegistrationError, RemoteError
from fronthaul.message.frames import check_distinct, decoded_frame, report_of
from fronthaul.message.messages import (
    MAX_BUNDLE,
    MAX_TEXT_BYTES,
    Abort,
    Control,
    Frame,
    Goodbye,
    Message,
    PayloadFormat,
    Ping,
    Pong,
    Registration,
    Report,
    ReportKey,
    Welcome,
)

VERSION = 2
"""Version of the layouts above, 4 bits."""
HEADER_BYTES = 15
"""Length of a one-report frame up to the side information [B]."""
BUNDLE_HEADER_BYTES = 11
"""Length of a bundle up to the list of its reports [B]."""
BUNDLE_KEY_BYTES = 5
"""Snapshot and round of each report of a bundle [B]."""
MIXED_KEY_BYTES = 9
"""Snapshot, round and payload bits of each report of a bundle whose payloads differ in length [B]."""
CRC_BYTES = 4
"""CRC-32 at the end of every message [B]."""
MAX_MESSAGE_BYTES = 1 << 20
"""Maximum length of a message [B]: over a hundred times the lossless CSI of a snapshot (7680 B, ECC Eq. 37). It also
limits the memory that a peer can make us allocate by stating a false length."""

MAX_CONTROL_BYTES = 1024
"""A control message is shorter than this [B]: the longest is a registration with a scheme's name of 256 B."""

_TYPE_REPORT = 1
_TYPE_CONTROL = 2
_TYPE_BUNDLE = 3
_TYPE_MIXED = 4
REPORT_BYTE = VERSION << 4 | _TYPE_REPORT
_CONTROL_BYTE = bytes([VERSION << 4 | _TYPE_CONTROL])
BUNDLE_BYTE = VERSION << 4 | _TYPE_BUNDLE
MIXED_BYTE = VERSION << 4 | _TYPE_MIXED
HEADER = struct.Struct(">BHHIBIB")
BUNDLE_HEADER = struct.Struct(">BHHIBB")
BUNDLE_KEY = struct.Struct(">IB")
MIXED_KEY = struct.Struct(">IBI")
_REPORT_CLAIM = struct.Struct(">xHH5xI")
_BUNDLE_CLAIM = struct.Struct(">xHHI")
_REPORT_NAMED = struct.Struct(">3xH5xI")
_BUNDLE_NAMED = struct.Struct(">3xHI")
_CRC = struct.Struct(">I")
_KINDS: dict[str, type[Control]] = {
    "registration": Registration,
    "welcome": Welcome,
    "goodbye": Goodbye,
    "abort": Abort,
    "ping": Ping,
    "pong": Pong,
}
_KIND_OF: dict[type[Control], str] = {control: kind for kind, control in _KINDS.items()}
_FIELDS_OF: dict[type[Control], tuple[str, ...]] = {
    control: tuple(field.name for field in dataclasses.fields(control)) for control in _KIND_OF
}


def encode(message: Message) -> bytes:
    """Return the bytes of a message.

    Raises:
        LocalError: the message is longer than `MAX_MESSAGE_BYTES`.
    """
    body = _encode_frame(message) if isinstance(message, Frame) else _encode_control(message)
    if len(body) + CRC_BYTES > MAX_MESSAGE_BYTES:
        raise LocalError(f"a message is at most {MAX_MESSAGE_BYTES} B, not {len(body) + CRC_BYTES} B")
    return body + _CRC.pack(zlib.crc32(body))


def decode(data: bytes) -> Message:
    """Return the message that `data` encodes.

    A frame is checked completely here; its reports are extracted on first access.

    Raises:
        RemoteError: `data` is not a valid message; `reason` tells why.
        RegistrationError: it is a registration with an invalid value.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise RemoteError("length", f"a message is at most {MAX_MESSAGE_BYTES} B, not {len(data)} B")
    if len(data) < 1 + CRC_BYTES:
        raise RemoteError("truncated", f"a message is at least {1 + CRC_BYTES} B, not {len(data)} B")
    body = data[:-CRC_BYTES]
    (crc32,) = _CRC.unpack_from(data, len(body))
    if zlib.crc32(body) != crc32:
        raise RemoteError("checksum", f"the CRC-32 is {zlib.crc32(body):08x}, the message says {crc32:08x}")
    first = body[0]
    if first == REPORT_BYTE:
        return _decode_report(body)
    if first == BUNDLE_BYTE:
        return _decode_bundle(body)
    if first == MIXED_BYTE:
        return _decode_mixed(body)
    version, kind = first >> 4, first & 0x0F
    if version != VERSION:
        raise RemoteError("version", f"the message has version {version}, this end has {VERSION}")
    if kind == _TYPE_CONTROL:
        return _decode_control(body)
    raise RemoteError("type", f"there is no message of type {kind}")


class ReportHeads(NamedTuple):
    """Headers of frames of one report each, by column.

    Attributes:
        stations: base station of each.
        epochs: see `Frame`; also `seqs`.
        snapshots: of each report.
        seqs: of each frame.
        crc32s: of each frame.
        kinds: what occurs among them: BS, epoch, round, bits of payload [bit] and bytes of side information [B].
    """

    stations: tuple[int, ...]
    epochs: tuple[int, ...]
    snapshots: tuple[int, ...]
    seqs: tuple[int, ...]
    crc32s: tuple[int, ...]
    kinds: set[tuple[int, int, int, int, int]]


def report_heads(messages: Sequence[bytes]) -> ReportHeads | None:
    """Return the headers of messages of which each is a valid frame of one report, else None: see `decode` for why.

    A third of the time of decoding one by one.
    """
    try:
        rows = [_report_ends(len(data))(data) for data in messages]
        kinds, stations, epochs, snapshots, rounds, seqs, lengths, crc32s = zip(*rows, strict=True)
    except (struct.error, ValueError):  # too short, too long, or none
        return None
    if kinds.count(REPORT_BYTE) < len(kinds) or crc32s != tuple([zlib.crc32(data[:-CRC_BYTES]) for data in messages]):
        return None
    if max(lengths) > 0x1F:
        last_bytes = [data[-CRC_BYTES - 1] for data in messages]
        if any(last & (1 << (length >> 5)) - 1 for last, length in zip(last_bytes, lengths, strict=True)):
            return None  # padding that is not zero
    sizes = map(len, messages)
    found = {
        (bs, epoch, round_, *_lengths(size, length))
        for bs, epoch, round_, length, size in set(zip(stations, epochs, rounds, lengths, sizes, strict=True))
    }
    if any(bits < 0 for _, _, _, bits, _ in found):
        return None
    return ReportHeads(stations, epochs, snapshots, seqs, crc32s, found)


@lru_cache(maxsize=1024)
def _report_ends(size: int) -> Callable[[bytes], tuple[int, ...]]:
    """Return the function that reads header and CRC-32 of a frame of one report of `size` bytes."""
    if size > MAX_MESSAGE_BYTES:
        raise ValueError
    return struct.Struct(f"{HEADER.format}{size - HEADER_BYTES - CRC_BYTES}xI").unpack


def _lengths(size: int, lengths: int) -> tuple[int, int]:
    """Return bits of payload [bit] and bytes of side information [B] of a frame of one report of `size` bytes."""
    side_bytes = lengths & 0x1F
    return 8 * (size - HEADER_BYTES - side_bytes - CRC_BYTES) - (lengths >> 5), side_bytes


def only_report(data: bytes) -> Report:
    """Return the report of a valid frame of one report."""
    _, bs, epoch, snapshot, round_, _, lengths = HEADER.unpack_from(data)
    bits, side_bytes = _lengths(len(data), lengths)
    payload_at = HEADER_BYTES + side_bytes
    return report_of(bs, epoch, snapshot, round_, data[HEADER_BYTES:payload_at], data[payload_at:-CRC_BYTES], bits)


def longest_message_bytes(formats: Iterable[PayloadFormat], bundle: int) -> int:
    """Return the length of the longest message of an end that sends these formats, `bundle` reports in a frame [B]."""
    reports = [MIXED_KEY_BYTES + payload.side_bytes + (payload.max_bits + 7) // 8 for payload in formats]
    frame_bytes = max(HEADER_BYTES, BUNDLE_HEADER_BYTES) + bundle * max(reports, default=0) + CRC_BYTES
    return min(max(frame_bytes, MAX_CONTROL_BYTES), MAX_MESSAGE_BYTES)


class Claim(NamedTuple):
    """Unverified header fields and CRC of a frame, which may be corrupt."""

    bs: int
    epoch: int
    seq: int
    crc32: int


def claim(data: bytes) -> Claim | None:
    """Read header and CRC of a frame without verifying them; None if the data is too short for both.

    Useful only for finding the journal entry of a corrupt frame: anything that does not look like a bundle is read as a
    frame of one report, a compact form too: of that the CRC alone is right.
    """
    if data and data[0] & 0x0F in (_TYPE_BUNDLE, _TYPE_MIXED):
        header_bytes, numbers = BUNDLE_HEADER_BYTES, _BUNDLE_CLAIM
    else:
        header_bytes, numbers = HEADER_BYTES, _REPORT_CLAIM
    if len(data) < header_bytes + CRC_BYTES:
        return None
    bs, epoch, seq = numbers.unpack_from(data)
    return Claim(bs, epoch, seq, *_CRC.unpack(data[-CRC_BYTES:]))


def is_control(data: bytes) -> bool:
    """Return whether `data`, a valid message, is a control message; looks only at the type."""
    return len(data) > 0 and data[0] & 0x0F == _TYPE_CONTROL


def head(data: bytes) -> bytes:
    """Return the first bytes of a valid frame, up to the end of the list of its reports."""
    return data[: _head_bytes(data)]


def named(data: bytes) -> tuple[int, int, int, bytes]:
    """Return epoch, seq, CRC-32 and `head` of a valid frame: the columns of a receive log, read at once."""
    epoch, seq = (_BUNDLE_NAMED if data[0] in (BUNDLE_BYTE, MIXED_BYTE) else _REPORT_NAMED).unpack_from(data)
    (crc32,) = _CRC.unpack_from(data, len(data) - CRC_BYTES)
    return epoch, seq, crc32, data[: _head_bytes(data)]


def _head_bytes(data: bytes) -> int:
    if data[0] == BUNDLE_BYTE:
        return BUNDLE_HEADER_BYTES + BUNDLE_KEY_BYTES * data[9]
    return BUNDLE_HEADER_BYTES + MIXED_KEY_BYTES * data[9] if data[0] == MIXED_BYTE else HEADER_BYTES


def report_keys(frame_head: bytes) -> list[ReportKey]:
    """Return the keys of the reports in a frame, given its `head` or all its bytes; empty for a control message."""
    if frame_head[0] == BUNDLE_BYTE:
        _, bs, epoch, _, count, _ = BUNDLE_HEADER.unpack_from(frame_head)
        named = frame_head[BUNDLE_HEADER_BYTES : BUNDLE_HEADER_BYTES + BUNDLE_KEY_BYTES * count]
        return [ReportKey(bs, epoch, snapshot, round_) for snapshot, round_ in BUNDLE_KEY.iter_unpack(named)]
    if frame_head[0] == MIXED_BYTE:
        _, bs, epoch, _, count, _ = BUNDLE_HEADER.unpack_from(frame_head)
        named = frame_head[BUNDLE_HEADER_BYTES : BUNDLE_HEADER_BYTES + MIXED_KEY_BYTES * count]
        return [ReportKey(bs, epoch, snapshot, round_) for snapshot, round_, _ in MIXED_KEY.iter_unpack(named)]
    if frame_head[0] != REPORT_BYTE:
        return []
    _, bs, epoch, snapshot, round_, _, _ = HEADER.unpack_from(frame_head)
    return [ReportKey(bs, epoch, snapshot, round_)]


def _encode_frame(frame: Frame) -> bytes:
    bs, epoch, seq, parts, payload_bits, side_bytes = frame.head
    reports = frame.reports
    lengths = (-payload_bits[0] & 7) << 5 | side_bytes
    if len(reports) == 1:
        ((snapshot, round_),) = parts
        header = HEADER.pack(REPORT_BYTE, bs, epoch, snapshot, round_, seq, lengths)
        return header + reports[0].side + reports[0].payload.data
    if frame.head.is_mixed:
        header = BUNDLE_HEADER.pack(MIXED_BYTE, bs, epoch, seq, len(reports), side_bytes)
        keys = b"".join(MIXED_KEY.pack(*part, bits) for part, bits in zip(parts, payload_bits, strict=True))
    else:
        header = BUNDLE_HEADER.pack(BUNDLE_BYTE, bs, epoch, seq, len(reports), lengths)
        keys = _bundle_keys(len(reports)).pack(*chain.from_iterable(parts))
    sides = [report.side for report in reports]
    return b"".join([header, keys, *sides, *[report.payload.data for report in reports]])


@cache  # of at most MAX_BUNDLE
def _bundle_keys(count: int) -> struct.Struct:
    return struct.Struct(">" + count * "IB")


def _decode_report(body: bytes) -> Frame:
    if len(body) < HEADER_BYTES:
        raise RemoteError("truncated", f"a report's header is {HEADER_BYTES} B, there are {len(body)} B")
    _, bs, epoch, snapshot, round_, seq, lengths = HEADER.unpack_from(body)
    side_bytes = lengths & 0x1F
    payload_bytes = len(body) - HEADER_BYTES - side_bytes
    if payload_bytes < 0:
        raise RemoteError("truncated", f"the side information lacks {-payload_bytes} B")
    padding_bits = lengths >> 5
    if padding_bits:
        _check_padding(padding_bits, body[-1:] if payload_bytes else b"")
    bits = 8 * payload_bytes - padding_bits
    return decoded_frame(bs, epoch, seq, ((snapshot, round_),), (bits,), side_bytes, body)


def _bundle_head(body: bytes, key_bytes: int) -> tuple[int, int, int, int, int, int, int]:
    """Return BS, epoch, seq, count, lengths byte, and the offsets of side information and payloads."""
    if len(body) < BUNDLE_HEADER_BYTES:
        raise RemoteError("truncated", f"a bundle's header is {BUNDLE_HEADER_BYTES} B, there are {len(body)} B")
    _, bs, epoch, seq, count, lengths = BUNDLE_HEADER.unpack_from(body)
    if not 2 <= count <= MAX_BUNDLE:
        raise RemoteError("field", f"a bundle has 2..{MAX_BUNDLE} reports, not {count}")
    sides_start = BUNDLE_HEADER_BYTES + count * key_bytes
    payloads_start = sides_start + count * (lengths & 0x1F)
    if len(body) < payloads_start:
        missing = payloads_start - len(body)
        raise RemoteError("truncated", f"the side information of {count} reports lacks {missing} B")
    return bs, epoch, seq, count, lengths, sides_start, payloads_start


def _decode_bundle(body: bytes) -> Frame:
    bs, epoch, seq, count, lengths, sides_start, payloads_start = _bundle_head(body, BUNDLE_KEY_BYTES)
    padding_bits, side_bytes = lengths >> 5, lengths & 0x1F
    payload_bytes, rest = divmod(len(body) - payloads_start, count)
    if rest:
        raise RemoteError("length", f"{len(body) - payloads_start} B are not {count} payloads of equal length")
    if padding_bits:
        last_byte = payloads_start + payload_bytes - 1
        _check_padding(padding_bits, body[last_byte::payload_bytes] if payload_bytes else b"")
    parts = tuple(BUNDLE_KEY.iter_unpack(body[BUNDLE_HEADER_BYTES:sides_start]))
    _check_distinct(parts)
    return decoded_frame(bs, epoch, seq, parts, (8 * payload_bytes - padding_bits,) * count, side_bytes, body)


def _decode_mixed(body: bytes) -> Frame:
    bs, epoch, seq, count, lengths, sides_start, payload_at = _bundle_head(body, MIXED_KEY_BYTES)
    if lengths >> 5:
        raise RemoteError("field", "a bundle with a length for each payload must have padding bits 0 in its header")
    named = list(MIXED_KEY.iter_unpack(body[BUNDLE_HEADER_BYTES:sides_start]))
    payload_bits = tuple(bits for _, _, bits in named)
    if payload_bits.count(payload_bits[0]) == count:
        raise RemoteError("field", "payloads of equal length must be bundled without a length for each")
    missing = payload_at + sum((bits + 7) >> 3 for bits in payload_bits) - len(body)
    if missing:
        reason: Reason = "truncated" if missing > 0 else "trailing"
        raise RemoteError(reason, f"{abs(missing)} B {'are missing' if missing > 0 else 'follow'} after the payloads")
    for bits in payload_bits:
        payload_at += (bits + 7) >> 3
        if bits % 8:
            _check_padding(-bits % 8, body[payload_at - 1 : payload_at])
    parts = tuple((snapshot, round_) for snapshot, round_, _ in named)
    _check_distinct(parts)
    return decoded_frame(bs, epoch, seq, parts, payload_bits, lengths, body)


def _check_distinct(parts: tuple[tuple[int, int], ...]) -> None:
    try:
        check_distinct(parts)
    except LocalError as error:  # the same rule, but the peer broke it
        raise RemoteError("field", str(error)) from error


def _check_padding(padding_bits: int, last_bytes: bytes) -> None:
    """Check a nonzero number of padding bits in the last byte of each payload (no bytes: payloads are empty)."""
    if not last_bytes:
        raise RemoteError("length", f"an empty payload cannot have {padding_bits} padding bits")
    if any(last & ((1 << padding_bits) - 1) for last in last_bytes):
        raise RemoteError("field", f"the {padding_bits} padding bits after the payload must be zero")


def _encode_control(message: Control) -> bytes:
    control = type(message)
    fields: dict[str, object] = {"kind": _KIND_OF[control]}
    for name in _FIELDS_OF[control]:
        value = getattr(message, name)
        fields[name] = _format_numbers(value) if isinstance(value, PayloadFormat) else value
    packed: bytes = msgpack.packb(fields, use_single_float=False)
    return _CONTROL_BYTE + packed


def _decode_control(body: bytes) -> Control:
    fields = _unpack_map(body[1:])
    kind = fields.pop("kind", None)
    control = _KINDS.get(kind) if isinstance(kind, str) else None
    if control is None:
        raise RemoteError("type", f"there is no control message of kind {kind!r}")
    if fields.keys() != set(_FIELDS_OF[control]):
        raise RemoteError("field", f"a {kind} has the fields {sorted(_FIELDS_OF[control])}, not {sorted(fields)}")
    try:
        if control is Registration:
            fields["report"], fields["answer"] = _format(fields["report"]), _format(fields["answer"])
        message = control(**fields)
    except LocalError as error:  # the same rule, but the peer broke it
        broken = RegistrationError if control is Registration else RemoteError
        raise broken("field", str(error)) from error
    # Repeated keys, another order and non-minimal encodings of a number are all refused here.
    if _encode_control(message) != body:
        raise RemoteError("field", f"the {kind} is not in its canonical encoding")
    return message


def _format_numbers(value: PayloadFormat) -> tuple[int, int, int]:
    width = value.width if value.fixed else 0
    return width, value.max_bits // value.width, value.side_bytes


def _format(value: object) -> object:
    """Return the format given by three numbers; anything else unchanged, for the constructor to check."""
    if not isinstance(value, tuple) or len(value) != 3:
        return value
    width, count, side_bytes = value
    if width == 0:
        return PayloadFormat(count, side_bytes, fixed=False)
    return PayloadFormat.uniform(width, count, side_bytes)


def _unpack_map(packed: bytes) -> dict[str, Any]:
    unpacker = msgpack.Unpacker(
        raw=False,
        use_list=False,
        strict_map_key=True,
        max_buffer_size=MAX_MESSAGE_BYTES,
        max_str_len=MAX_TEXT_BYTES,
        max_array_len=3,
        max_map_len=16,
        max_bin_len=0,
        max_ext_len=0,
    )
    unpacker.feed(packed)
    try:
        fields = unpacker.unpack()
    except msgpack.OutOfData as error:
        raise RemoteError("truncated", "the control message is truncated") from error
    except (ValueError, msgpack.UnpackException) as error:
        raise RemoteError("field", f"the control message is not valid msgpack: {error}") from error
    if unpacker.tell() != len(packed):
        raise RemoteError("trailing", f"{len(packed) - unpacker.tell()} B follow the control message")
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise RemoteError("field", "a control message must be a map from names to values")
    return fields
