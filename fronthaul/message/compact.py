"""The compact form of frames up: header fields that the connection implies are left out.

A frame's standard form (`wire`) and its compact form stand for each other. One report takes 2 B of header:

    bit    15   14   13..11     10..4         3..0
          +----+----+--------+-----------+---------------+------+---------+--------+
          | 1  | 0  |   p    | seq % 128 | snapshot % 16 | side | payload | CRC-32 |
          +----+----+--------+-----------+---------------+------+---------+--------+

and a bundle of c reports of consecutive snapshots 4 B; where lengths differ (m = 1), those of the payloads [bit] follow
as LEB128:

    bit    31   30   29..27     26..20         19..8        7   6..0
          +----+----+--------+-----------+-----------------+---+------+----------+----------+-------------+--------+
          | 1  | 1  |   p    | seq % 128 | snapshot % 4096 | m |  c   | c length | c x side | c x payload | CRC-32 |
          +----+----+--------+-----------+-----------------+---+------+----------+----------+-------------+--------+

Base station, epoch and length of side information are those of the registration. The low bits of seq and snapshot are
their difference to the last frame that arrived, whichever that is (window-based least significant bits, as in RFC 5795,
ROHC): so a sender needs to know of no loss. The CRC-32 is that of the standard form, which the receiver restores: it
tries the likeliest numbers first, then those after a longer gap (RFC 3095, 5.3.2.2.4), until the checksum agrees.

What has no compact form goes in its standard form: later rounds, bundles of other snapshots, long frames, and each
`FULL_EVERY`-th frame, from which a receiver goes on that has lost more than `GAP_FRAMES` in a row.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from fronthaul.message.messages import MAX_BUNDLE, Frame
from fronthaul.message.wire import (
    BUNDLE_BYTE,
    BUNDLE_HEADER,
    BUNDLE_HEADER_BYTES,
    BUNDLE_KEY,
    BUNDLE_KEY_BYTES,
    CRC_BYTES,
    HEADER,
    HEADER_BYTES,
    MIXED_BYTE,
    MIXED_KEY,
    MIXED_KEY_BYTES,
    REPORT_BYTE,
)

COMPACT_HEADER_BYTES = 2
"""Compact header of one report [B]."""
COMPACT_BUNDLE_HEADER_BYTES = 4
"""Compact header of a bundle, up to the lengths of its payloads [B]."""
MAX_STANDARD_BYTES = 4096
"""A longer frame keeps its standard form [B]: the saving would not be worth the tries that a corrupt one costs."""
FULL_EVERY = 256
"""Of so many frames of a link, the last keeps its standard form."""

_SEQS, _SNAPSHOTS, _BUNDLE_SNAPSHOTS = 1 << 7, 1 << 4, 1 << 12
_BEHIND = 32  # a frame may be overtaken by so many
_WINDOWS, _NEAR = 8, 3
GAP_FRAMES = (_WINDOWS - 1) * _SEQS
"""So many frames in a row may be lost, and the next one is still read."""
_PATIENCE = 64  # so many unreadable messages in a row are tried after long gaps; then only where they are expected
_STARTS = 4  # processes of one base station whose frames may still come, each after the next has registered
_SKIPPED = 128  # windows of snapshots: a base station may begin up to 2048 snapshots after its last report
_U32 = 1 << 32
_CRC = struct.Struct(">I")


def is_compact(data: bytes) -> bool:
    """Return whether a message has the compact form, if it has any; looks only at the first bit."""
    return len(data) > 0 and data[0] >= 0x80


def pack(data: bytes) -> bytes:
    """Return the compact form of a valid message in its standard form; `data` itself if it has none."""
    if len(data) > MAX_STANDARD_BYTES:
        return data
    if data[0] == REPORT_BYTE:
        _, _, _, snapshot, round_, seq, lengths = HEADER.unpack_from(data)
        if round_ or seq % FULL_EVERY == FULL_EVERY - 1:
            return data
        number: int = 1 << 15 | lengths >> 5 << 11 | seq % _SEQS << 4 | snapshot % _SNAPSHOTS
        return number.to_bytes(COMPACT_HEADER_BYTES, "big") + data[HEADER_BYTES:]
    if data[0] not in (BUNDLE_BYTE, MIXED_BYTE):
        return data
    mixed = data[0] == MIXED_BYTE
    _, _, _, seq, count, lengths = BUNDLE_HEADER.unpack_from(data)
    end = BUNDLE_HEADER_BYTES + (MIXED_KEY_BYTES if mixed else BUNDLE_KEY_BYTES) * count
    keys = list((MIXED_KEY if mixed else BUNDLE_KEY).iter_unpack(data[BUNDLE_HEADER_BYTES:end]))
    first = keys[0][0]
    if seq % FULL_EVERY == FULL_EVERY - 1 or any(key[:2] != (first + n, 0) for n, key in enumerate(keys)):
        return data
    number = 3 << 30 | lengths >> 5 << 27 | seq % _SEQS << 20 | first % _BUNDLE_SNAPSHOTS << 8 | mixed << 7 | count
    head: bytes = number.to_bytes(COMPACT_BUNDLE_HEADER_BYTES, "big")
    return head + (b"".join(_varint(key[2]) for key in keys) if mixed else b"") + data[end:]


def _varint(number: int) -> bytes:
    """Return a number as LEB128: 7 bits a byte, the lowest first, the highest bit set in all bytes but the last."""
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*data, number])


class Reference(NamedTuple):
    """The last frame of a start of a base station that arrived: what low bits are the difference to.

    Attributes:
        seq: its number; -1 before the first.
        snapshot: the snapshot after its last report.
    """

    seq: int
    snapshot: int


class _Start(NamedTuple):
    epoch: int
    side_bytes: int
    reference: Reference


class Expander:
    """Restores the standard form of what base stations send, from what they registered and what arrived before."""

    def __init__(self) -> None:
        """Know no base station."""
        self._starts: dict[int, list[_Start]] = {}  # by BS, the latest first
        self._unread: Counter[int] = Counter()  # by BS, since the last frame that arrived intact

    def open(self, bs: int, epoch: int, side_bytes: int, reference: Reference | None = None) -> None:
        """Note a registration.

        Args:
            bs: base station.
            epoch: its epoch; a registration that repeats one that is known changes nothing.
            side_bytes: side information of each report [B].
            reference: the last frame that arrived, if some did; else the first follows upon the epoch before.
        """
        known = self._starts.get(bs, [])
        if any(start.epoch == epoch for start in known):
            return
        last = reference or Reference(-1, max((start.reference.snapshot for start in known), default=0))
        self._starts[bs] = [_Start(epoch, side_bytes, last), *known][:_STARTS]

    def note(self, frame: Frame) -> None:
        """Note a frame that arrived intact, in either form."""
        starts = self._starts.get(frame.bs, [])
        self._unread[frame.bs] = 0
        for at, start in enumerate(starts):
            if start.epoch == frame.epoch and frame.seq > start.reference.seq:
                snapshot, _ = frame.head.parts[-1]
                starts[at] = start._replace(reference=Reference(frame.seq, snapshot + 1))

    def expand(self, bs: int | None, data: bytes) -> bytes:
        """Return the standard form of a message on the link of `bs`; `data` itself if it is none in compact form."""
        if bs is None or not is_compact(data) or len(data) > MAX_STANDARD_BYTES:
            return data
        packed = _read(data)
        if packed is None:
            return data
        (crc32,) = _CRC.unpack(data[-CRC_BYTES:])
        for start in self._starts.get(bs, ()):
            for seq, snapshot in _likely(packed, start.reference, near=self._unread[bs] >= _PATIENCE):
                head = _standard_head(packed, bs, start, seq, snapshot)
                if zlib.crc32(packed.rest, zlib.crc32(head)) == crc32:
                    found = head + packed.rest + data[-CRC_BYTES:]
                    return found if pack(found) == data else data  # a message has one compact form
        self._unread[bs] += 1
        return data


class _Packed(NamedTuple):
    """A message in compact form.

    `snapshot` is a number modulo `snapshots`, `reports` how many there are; `bits` are the payloads' lengths if they
    differ; `rest` begins with the side information.
    """

    bundled: bool
    padding: int
    seq: int
    snapshot: int
    snapshots: int
    reports: int
    bits: tuple[int, ...]
    rest: bytes


def _read(data: bytes) -> _Packed | None:
    """Return the fields of a compact form; None if it cannot be one."""
    body = data[:-CRC_BYTES]
    number = int.from_bytes(body[:COMPACT_HEADER_BYTES], "big")
    padding, seq, snapshot = number >> 11 & 7, number >> 4 & _SEQS - 1, number & _SNAPSHOTS - 1
    if not number >> 14 & 1:
        rest = body[COMPACT_HEADER_BYTES:]
        return _Packed(False, padding, seq, snapshot, _SNAPSHOTS, 1, (), rest) if len(body) >= 2 else None
    if len(body) < COMPACT_BUNDLE_HEADER_BYTES:
        return None
    snapshot, count, at = snapshot << 8 | body[2], body[3] & 0x7F, COMPACT_BUNDLE_HEADER_BYTES
    bits = []
    for _ in range(count if body[3] >> 7 else 0):
        size = shift = 0
        while at < len(body) and body[at] > 0x7F and shift < 28:
            size, shift, at = size | (body[at] & 0x7F) << shift, shift + 7, at + 1
        if at == len(body):
            return None
        bits.append(size | body[at] << shift)
        at += 1
    if not 2 <= count <= MAX_BUNDLE or max(bits, default=0) >= _U32:
        return None
    return _Packed(True, padding, seq, snapshot, _BUNDLE_SNAPSHOTS, count, tuple(bits), body[at:])


def _standard_head(packed: _Packed, bs: int, start: _Start, seq: int, snapshot: int) -> bytes:
    """Return a message's standard form up to the side information."""
    lengths = packed.padding << 5 | start.side_bytes
    if not packed.bundled:
        return HEADER.pack(REPORT_BYTE, bs, start.epoch, snapshot, 0, seq, lengths)
    kind, count = MIXED_BYTE if packed.bits else BUNDLE_BYTE, packed.reports
    head = BUNDLE_HEADER.pack(kind, bs, start.epoch, seq, count, lengths)
    if packed.bits:
        return head + b"".join(MIXED_KEY.pack(snapshot + n, 0, bits) for n, bits in enumerate(packed.bits))
    return head + b"".join(BUNDLE_KEY.pack(snapshot + n, 0) for n in range(count))


def _likely(packed: _Packed, last: Reference, *, near: bool) -> Iterator[tuple[int, int]]:
    """Yield numbers of frame and snapshot that have the low bits of a message, the likeliest first, `near` or all."""
    seq = last.seq - _BEHIND + (packed.seq - last.seq + _BEHIND) % _SEQS
    for window, skipped in _windows()[: _NEAR if near else None]:
        at = seq + window * _SEQS
        expected = last.snapshot + (at - last.seq - 1) * packed.reports - (packed.snapshots // 2 - 1)
        snapshot = expected + (packed.snapshot - expected) % packed.snapshots + skipped * packed.snapshots
        if 0 <= at < _U32 and 0 <= snapshot <= _U32 - packed.reports:
            yield at, snapshot


@cache
def _windows() -> tuple[tuple[int, int], ...]:
    """Return windows of frames, and of snapshots beside where they are expected, in the order in which they are tried.

    A base station may begin long after its last report; after a gap, or behind one, copies may have taken numbers, or
    snapshots may have been left out.
    """
    found = [(0, skipped) for skipped in sorted(range(-15, _SKIPPED), key=abs)]
    for gap in range(1, _WINDOWS):
        beside = sorted(range(-1 - 4 * gap, 2 + 8 * gap), key=abs)
        found += [(gap, skipped) for skipped in beside] + [(-gap, -skipped) for skipped in beside]
    return tuple(found)
