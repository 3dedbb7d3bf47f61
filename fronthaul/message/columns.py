"""Frames in bulk: the fields of many messages at once, as arrays (`wire` describes the bytes).

For messages that a sender wrote down itself: lengths are checked, checksums are not.

Notation: M messages, F of them frames, which carry P reports (*parts*) in all; a bundle has several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fronthaul.errors import LocalError
from fronthaul.message.wire import (
    BUNDLE_HEADER_BYTES,
    BUNDLE_KEY_BYTES,
    CRC_BYTES,
    HEADER_BYTES,
    MIXED_KEY_BYTES,
    VERSION,
)

if TYPE_CHECKING:
    import pyarrow as pa

_CONTROL, _REPORT, _BUNDLE, _MIXED = ((VERSION << 4) + kind for kind in (2, 1, 3, 4))

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FrameColumns:
    """The frames among messages, in their order.

    Attributes:
        message: (F,) index of the message.
        bs: (F,) base station that it names.
        epoch: (F,) epoch of that base station.
        seq: (F,) sequence number.
        crc32: (F,) as sent.
        size: (F,) length of the message [B].
        side_bytes: (F,) side information of each report [B].
        count: (F,) number of reports.
        frame: (P,) index of a report's frame, into the arrays above.
        part: (P,) number of the report within its frame.
        snapshot: (P,) its snapshot.
        round: (P,) its round.
        payload_bits: (P,) its payload, exact [bit].
        side_at: (P,) where its side information begins in `data` [B].
        payload_at: (P,) where its payload begins in `data` [B].
        data: bytes of all messages.
    """

    message: Ints
    bs: Ints
    epoch: Ints
    seq: Ints
    crc32: Ints
    size: Ints
    side_bytes: Ints
    count: Ints
    frame: Ints
    part: Ints
    snapshot: Ints
    round: Ints
    payload_bits: Ints
    side_at: Ints
    payload_at: Ints
    data: npt.NDArray[np.uint8]

    @property
    def sides(self) -> pa.BinaryArray:
        """Side information of each report."""
        return slices(self.data, self.side_at, self.side_bytes[self.frame])

    @property
    def payloads(self) -> pa.BinaryArray:
        """Payload of each report, padded to whole bytes."""
        return slices(self.data, self.payload_at, (self.payload_bits + 7) >> 3)


def is_control(messages: pa.BinaryArray) -> npt.NDArray[np.bool_]:
    """Return which of M messages are control messages, by their first byte."""
    begin, size, data = _places(messages)
    found: npt.NDArray[np.bool_] = _first(begin, size, data) & 0x0F == _CONTROL & 0x0F
    return found


def frame_columns(messages: pa.BinaryArray) -> FrameColumns:
    """Return the fields of all frames among M messages; control messages are left out.

    Raises:
        LocalError: a message is neither a frame nor a control message, or has another length than it states.
    """
    begin, size, data = _places(messages)
    kind = _first(begin, size, data)
    single, bundle, mixed = kind == _REPORT, kind == _BUNDLE, kind == _MIXED
    bundled = bundle | mixed
    header = np.where(bundled, BUNDLE_HEADER_BYTES, HEADER_BYTES)
    chosen = single | bundled
    if not (chosen | (kind == _CONTROL)).all() or (size[chosen] < header[chosen] + CRC_BYTES).any():
        raise LocalError("one of the messages is none that this version writes")
    message = np.flatnonzero(chosen)
    begin, size, single, bundle, mixed, bundled, header = (
        values[message] for values in (begin, size, single, bundle, mixed, bundled, header)
    )
    lengths = number(data, begin + np.where(bundled, 10, 14), 1)
    count = np.where(bundled, number(data, begin + 9, 1), 1)
    key_bytes = np.where(mixed, MIXED_KEY_BYTES, np.where(bundle, BUNDLE_KEY_BYTES, 0))
    side_bytes, padding = lengths & 0x1F, lengths >> 5
    sides_at = begin + header + count * key_bytes
    payloads_at = sides_at + count * side_bytes
    payload_bytes = begin + size - CRC_BYTES - payloads_at  # of all reports
    if (count < 1).any() or (payload_bytes < 0).any() or (payload_bytes % count)[~mixed].any():
        raise LocalError("one of the frames has another length than it states")

    frame = np.repeat(np.arange(len(message)), count)
    part = np.arange(len(frame)) - np.repeat(np.cumsum(count) - count, count)
    key_at = (begin + header)[frame] + key_bytes[frame] * part
    alone = single[frame]
    each_bits = (8 * (payload_bytes // count) - padding)[frame]
    if mixed.any():
        own = mixed[frame]
        each_bits[own] = number(data, key_at[own] + 5, 4)
    each_bytes = (each_bits + 7) >> 3
    ends = np.cumsum(each_bytes)
    starts = ends - each_bytes
    first = starts[part == 0]  # of each frame
    if (np.diff(np.append(first, ends[-1:])) != payload_bytes).any():
        raise LocalError("one of the frames has another length than it states")
    return FrameColumns(
        message=message,
        bs=number(data, begin + 1, 2),
        epoch=number(data, begin + 3, 2),
        seq=number(data, begin + np.where(bundled, 5, 10), 4),
        crc32=number(data, begin + size - CRC_BYTES, 4),
        size=size,
        side_bytes=side_bytes,
        count=count,
        frame=frame,
        part=part,
        snapshot=number(data, np.where(alone, begin[frame] + 5, key_at), 4),
        round=number(data, np.where(alone, begin[frame] + 9, key_at + 4), 1),
        payload_bits=each_bits,
        side_at=sides_at[frame] + side_bytes[frame] * part,
        payload_at=payloads_at[frame] + starts - first[frame],
        data=data,
    )


def number(data: npt.NDArray[np.uint8], at: Ints, width: int) -> Ints:
    """Return the big-endian numbers of `width` bytes that begin at `at`."""
    value = np.zeros(len(at), np.int64)
    for place in range(width):
        value = value << 8 | data[at + place]
    return value


def slices(data: npt.NDArray[np.uint8], begin: Ints, size: Ints) -> pa.BinaryArray:
    """Return `size` bytes from each `begin`, as an array of bytes."""
    import pyarrow as pa

    offsets = np.zeros(len(begin) + 1, np.int64)
    np.cumsum(size, out=offsets[1:])
    if len(begin) and size[0] and (size == size[0]).all():
        taken = np.lib.stride_tricks.sliding_window_view(data, int(size[0]))[begin]
    else:
        taken = data[np.arange(offsets[-1]) + np.repeat(begin - offsets[:-1], size)]
    return pa.Array.from_buffers(
        pa.binary(), len(begin), [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(taken)]
    )


def _first(begin: Ints, size: Ints, data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the first byte of each message; 0 for an empty one."""
    kind = np.zeros(len(begin), np.uint8)
    kind[size > 0] = data[begin[size > 0]]
    return kind


def _places(messages: pa.BinaryArray) -> tuple[Ints, Ints, npt.NDArray[np.uint8]]:
    """Return where each message begins, its length [B], and the bytes of all."""
    _, offsets, data = messages.buffers()
    bounds: Any = np.frombuffer(offsets, np.int32)[messages.offset : messages.offset + len(messages) + 1]
    bounds = bounds.astype(np.int64)
    content = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)
    return bounds[:-1], np.diff(bounds), content
