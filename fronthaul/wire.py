"""Messages to bytes and back. One message is one ZMTP message part, which gives it its length.

A report (type 1), numbers big endian:

    byte   0      1      3       5          9       10     14     15
           +------+------+-------+----------+-------+------+------+------+---------+--------+
           | v, t |  bs  | epoch | snapshot | round | seq  | p, s | side | payload | CRC-32 |
           +------+------+-------+----------+-------+------+------+------+---------+--------+
    bytes     1      2       2        4         1      4      1      s    any length    4

A control message (type 2):

           +------+---------------------------------------------------+--------+
           | v, t | one msgpack map: "kind", then the fields in order | CRC-32 |
           +------+---------------------------------------------------+--------+

    v  version, high 4 bits                      t  type, low 4 bits
    p  padding bits of the payload, high 3 bits  s  side information in bytes, low 5 bits

Everything but the payload costs 15 + 4 B and the side information; with 4 B of gain and 9 B of ZMTP header
that is 32 B. Rules:

- The CRC-32 (zlib's) covers everything before it. Byte 0 and the CRC keep their place in every version, so
  the CRC is checked first, and "version" means another version and not a flipped bit.
- A message has one encoding: for every `data` that decodes, `encode(decode(data)) == data`.
- A report carries no length of its own, so a cut one shows as "checksum", or as "truncated" where nothing
  that short can be a message.
"""

import dataclasses
import struct
import zlib
from typing import Any, NamedTuple

import msgpack

from fronthaul.errors import LocalError, RemoteError
from fronthaul.messages import (
    MAX_TEXT_BYTES,
    Abort,
    Control,
    Frame,
    Goodbye,
    Message,
    Payload,
    Registration,
    Report,
    ReportKey,
    Welcome,
)

VERSION = 1
"""Version of the layouts above, 4 bits."""
HEADER_BYTES = 15
"""Everything of a report's frame before the side information [B]."""
CRC_BYTES = 4
"""CRC-32 at the end of every message [B]."""
MAX_MESSAGE_BYTES = 1 << 20
"""The longest message [B]: over a hundred times the lossless CSI of a snapshot (7680 B, ECC Eq. 37), and the
most that a peer which lies about lengths can make us allocate for a message."""

_TYPE_REPORT = 1
_TYPE_CONTROL = 2
_HEADER = struct.Struct(">BHHIBIB")
_CRC = struct.Struct(">I")
_KINDS: dict[str, type[Control]] = {
    "registration": Registration,
    "welcome": Welcome,
    "goodbye": Goodbye,
    "abort": Abort,
}
_KIND_OF: dict[type[Control], str] = {control: kind for kind, control in _KINDS.items()}


def encode(message: Message) -> bytes:
    """Return the bytes of a message.

    Raises:
        LocalError: the message is longer than `MAX_MESSAGE_BYTES`.
    """
    body = _encode_report(message) if isinstance(message, Frame) else _encode_control(message)
    if len(body) + CRC_BYTES > MAX_MESSAGE_BYTES:
        raise LocalError(f"a message is at most {MAX_MESSAGE_BYTES} B, not {len(body) + CRC_BYTES} B")
    return body + _CRC.pack(zlib.crc32(body))


def decode(data: bytes) -> Message:
    """Return the message that `data` is, whole.

    Raises:
        RemoteError: `data` is no message; `reason` says why.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise RemoteError("length", f"a message is at most {MAX_MESSAGE_BYTES} B, not {len(data)} B")
    if len(data) < 1 + CRC_BYTES:
        raise RemoteError("truncated", f"a message is at least {1 + CRC_BYTES} B, not {len(data)} B")
    body = data[:-CRC_BYTES]
    (crc32,) = _CRC.unpack(data[-CRC_BYTES:])
    if zlib.crc32(body) != crc32:
        raise RemoteError("checksum", f"the CRC-32 is {zlib.crc32(body):08x}, the message says {crc32:08x}")
    version, kind = body[0] >> 4, body[0] & 0x0F
    if version != VERSION:
        raise RemoteError("version", f"the peer speaks version {version}, we speak {VERSION}")
    if kind == _TYPE_REPORT:
        return _decode_report(body)
    if kind == _TYPE_CONTROL:
        return _decode_control(body)
    raise RemoteError("type", f"no message has type {kind}")


class Claim(NamedTuple):
    """What bytes that may be corrupt say of themselves."""

    bs: int
    epoch: int
    snapshot: int
    round: int
    seq: int
    crc32: int


def claim(data: bytes) -> Claim | None:
    """Read the header and the CRC of a report without believing them; None where they cannot all be there.

    Only for finding the journaled frame that a corrupt one once was.
    """
    if len(data) < HEADER_BYTES + CRC_BYTES:
        return None
    _, bs, epoch, snapshot, round_, seq, _ = _HEADER.unpack_from(data)
    return Claim(bs, epoch, snapshot, round_, seq, *_CRC.unpack(data[-CRC_BYTES:]))


def _encode_report(frame: Frame) -> bytes:
    key, payload, side = frame.report.key, frame.report.payload, frame.report.side
    header = _HEADER.pack(
        VERSION << 4 | _TYPE_REPORT,
        key.bs,
        key.epoch,
        key.snapshot,
        key.round,
        frame.seq,
        payload.padding_bits << 5 | len(side),
    )
    return header + side + payload.data


def _decode_report(body: bytes) -> Frame:
    if len(body) < HEADER_BYTES:
        raise RemoteError("truncated", f"a report's header is {HEADER_BYTES} B, {len(body)} B are there")
    _, bs, epoch, snapshot, round_, seq, lengths = _HEADER.unpack_from(body)
    padding_bits, side_bytes = lengths >> 5, lengths & 0x1F
    payload_start = HEADER_BYTES + side_bytes
    if len(body) < payload_start:
        missing = payload_start - len(body)
        raise RemoteError("truncated", f"the side information ends {missing} B early")
    bits = 8 * (len(body) - payload_start) - padding_bits
    if bits < 0:
        raise RemoteError("length", f"an empty payload cannot have {padding_bits} padding bits")
    try:
        payload = Payload(body[payload_start:], bits)
    except LocalError as error:  # the same rule, but the peer broke it
        raise RemoteError("field", str(error)) from error
    key, side = ReportKey(bs, epoch, snapshot, round_), body[HEADER_BYTES:payload_start]
    return Frame(seq, Report(key, payload, side))


def _encode_control(message: Control) -> bytes:
    fields = {field.name: getattr(message, field.name) for field in dataclasses.fields(message)}
    packed: bytes = msgpack.packb({"kind": _KIND_OF[type(message)], **fields}, use_single_float=False)
    return bytes([VERSION << 4 | _TYPE_CONTROL]) + packed


def _decode_control(body: bytes) -> Control:
    fields = _unpack_map(body[1:])
    kind = fields.pop("kind", None)
    control = _KINDS.get(kind) if isinstance(kind, str) else None
    if control is None:
        raise RemoteError("type", f"no control message is of kind {kind!r}")
    expected = {field.name for field in dataclasses.fields(control)}
    if fields.keys() != expected:
        raise RemoteError("field", f"a {kind} has the fields {sorted(expected)}, not {sorted(fields)}")
    try:
        message = control(**fields)
    except LocalError as error:  # the same rule, but the peer broke it
        raise RemoteError("field", str(error)) from error
    # Repeated keys, another order and wasteful encodings of a number all end here.
    if _encode_control(message) != body:
        raise RemoteError("field", f"this is not how a {kind} is written")
    return message


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
        raise RemoteError("truncated", "the control message ends early") from error
    except (ValueError, msgpack.UnpackException) as error:
        raise RemoteError("field", f"the control message is not the msgpack we speak: {error}") from error
    if unpacker.tell() != len(packed):
        raise RemoteError("trailing", f"{len(packed) - unpacker.tell()} B follow the control message")
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise RemoteError("field", "a control message is a map from names to values")
    return fields
