"""Small batches of a stream, read as few large ones.

`arrow_stream` writes one batch per call, often of a single row. Reading them one by one costs pyarrow 10 µs and more
each. But batches of one shape have equal metadata (`arrow_rows`), hence equal layouts: in a window of the file, their
bodies are the rows of a matrix of bytes, of which each column is a slice.

    window   | head body | head body | head body | ...     equal heads: one shape
                  v           v           v
    matrix   [ validity, offsets, bytes, numbers ]          one row per batch; one slice per buffer
"""

from __future__ import annotations

import os
import struct
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fronthaul.errors import LocalError

if TYPE_CHECKING:
    import pyarrow as pa

WINDOW_BYTES = 1 << 23
"""How much of a file is read at once [B]; a longer batch is read whole."""
MAX_SHAPES = 1024
"""Maximum number of shapes remembered; more would mean random lengths, which rarely recur."""

_LEAST_BYTES = 4096
_CONTINUATION = b"\xff\xff\xff\xff"
_Bytes = npt.NDArray[np.uint8]


class StreamFile:
    """An Arrow IPC stream on disk, which may be damaged, cut, or still growing.

    Attributes:
        schema: its columns; the metadata holds the stream's properties.
    """

    def __init__(self, path: Path) -> None:
        """Read the schema.

        Raises:
            FileNotFoundError: there is no such file.
            LocalError: it does not begin with an Arrow schema.
        """
        import pyarrow as pa

        self._path = path
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start[4:], "little")
            if start[:4] != _CONTINUATION or length > WINDOW_BYTES:
                raise LocalError(f"{path} is not an Arrow stream")
            head = start + file.read(length)
        try:
            self.schema: pa.Schema = pa.ipc.read_schema(pa.py_buffer(head))
            _ = self.schema.names  # may not be UTF-8
        except _damage() as error:
            raise LocalError(f"{path} is not an Arrow stream: {error}") from error
        self._begin = self._further = len(head)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows in order, up to the end or to the first truncated or damaged batch."""
        with self._path.open("rb") as file:  # read, not mapped: a writer truncates a batch that it could not write
            file.seek(self._begin)
            yield from _read(file, self.schema.remove_metadata())

    def further(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows that no earlier call has yielded, as `batches` does: those of a stream that has grown."""
        with self._path.open("rb") as file:
            file.seek(self._further)
            self._further = yield from _read(file, self.schema.remove_metadata())


def _read(file: BufferedReader, schema: pa.Schema) -> Generator[pa.RecordBatch, None, int]:
    """Yield the rows from where the file is; return where the last whole batch ends."""
    layouts: dict[bytes, _Layout] = {}
    begin = file.tell()
    # One buffer for all windows: touching fresh memory takes as long as reading.
    window = bytearray(max(_LEAST_BYTES, min(WINDOW_BYTES, os.fstat(file.fileno()).st_size - begin)))
    while True:
        file.seek(begin)
        size = file.readinto(window)
        scan = _scan(window, size, schema, layouts)
        if scan.runs:
            joined = _joined(window, scan, schema)
            found, whole = _one_by_one(window, scan, schema) if joined is None else ([joined], True)
            yield from found
            if not whole:
                return begin + scan.end
        begin += scan.end
        left = os.fstat(file.fileno()).st_size - begin
        if scan.over or scan.wanted > left or (not scan.runs and size >= left):
            return begin
        if scan.wanted > len(window):
            window = bytearray(scan.wanted)


@dataclass(frozen=True)
class _Buffers:
    """Where the buffers of a column lie in a batch's body: (offset, length) [B]; None for one that is left out."""

    kind: pa.DataType
    rows: int
    validity: tuple[int, int] | None
    offsets: tuple[int, int] | None
    data: tuple[int, int] | None
    items: _Buffers | None


@dataclass(frozen=True)
class _Layout:
    """Layout of the batches of one shape: rows, length with the head [B], and the columns' buffers.

    `columns` is None where a column's type has none of the layouts below, and batches are left to pyarrow.
    """

    rows: int
    total_bytes: int
    columns: Sequence[_Buffers] | None


@dataclass
class _Scan:
    """The whole batches of a window, in runs of equal layout: (layout, place of the first [B], number).

    `end` is where the next batch begins [B]; `over` says that none follows; `wanted` how long the next one is, if it is
    known [B].
    """

    runs: list[tuple[_Layout, int, int]]
    end: int = 0
    over: bool = False
    wanted: int = 0


def _scan(window: bytearray, size: int, schema: pa.Schema, layouts: dict[bytes, _Layout]) -> _Scan:
    found = _Scan([])
    damage: tuple[type[Exception], ...] = (*_damage(), struct.error)
    at = 0
    while at + 8 <= size:
        head_bytes = 8 + int.from_bytes(window[at + 4 : at + 8], "little")
        head = bytes(window[at : min(at + head_bytes, size)])
        layout = layouts.get(head)
        if layout is None:
            if head[:4] != _CONTINUATION or head_bytes == 8 or head_bytes > WINDOW_BYTES:  # the end, or no batch
                found.over = True
                break
            if len(head) < head_bytes:
                found.wanted = head_bytes
                break
            try:
                total_bytes = head_bytes + _body_bytes(head)
                if at + total_bytes <= size:
                    layout = _learned(bytes(window[at : at + total_bytes]), schema)
            except damage:
                found.over = True
                break
            if layout is None:
                found.wanted = total_bytes
                break
            if len(layouts) == MAX_SHAPES:
                layouts.clear()
            layouts[head] = layout
        if at + layout.total_bytes > size:
            found.wanted = layout.total_bytes
            break
        count = _run(window, at, size, head, layout.total_bytes)
        found.runs.append((layout, at, count))
        at += count * layout.total_bytes
    found.end = at
    return found


def _run(window: bytearray, at: int, size: int, head: bytes, total_bytes: int) -> int:
    """Return how many whole batches with the same head follow each other from `at` on."""
    count, most = 1, (size - at) // total_bytes
    while count < most and window.startswith(head, at + count * total_bytes):
        count += 1
    return count


def _body_bytes(head: bytes) -> int:
    """Return the length of the body that a message's metadata states [B] (flatbuffer `Message`, field 3)."""
    table = 8 + struct.unpack_from("<I", head, 8)[0]
    fields = table - struct.unpack_from("<i", head, table)[0]
    size, at = struct.unpack_from("<H8xH", head, fields)  # of the table of fields; where the field is, or 0
    (length,) = struct.unpack_from("<q", head, table + at) if size >= 12 and at else (0,)
    if length < 0:
        raise ValueError("a body cannot be shorter than nothing")
    return int(length)


def _learned(message: bytes, schema: pa.Schema) -> _Layout:
    """Return the layout of a batch, by having pyarrow read it."""
    import pyarrow as pa

    buffer = pa.py_buffer(message)
    batch = pa.ipc.read_record_batch(buffer, schema)
    batch.validate(full=True)  # or damaged offsets would be dereferenced later
    columns = [_buffers(column, buffer.address) for column in batch.columns]
    known = [column for column in columns if column is not None]
    return _Layout(len(batch), len(message), known if len(known) == len(columns) else None)


def _buffers(array: pa.Array, base: int) -> _Buffers | None:
    """Return where an array's buffers lie in a message at address `base`; None for a type of another layout."""
    import pyarrow as pa

    def place(buffer: pa.Buffer | None) -> tuple[int, int] | None:
        return None if buffer is None else (buffer.address - base, buffer.size)

    kind, buffers = array.type, array.buffers()
    validity = place(buffers[0]) if array.null_count else None
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _Buffers(kind, len(array), validity, None, place(buffers[1]), None)
    if kind in (pa.string(), pa.binary()):
        return _Buffers(kind, len(array), validity, place(buffers[1]), place(buffers[2]), None)
    if pa.types.is_list(kind):
        items = _buffers(array.values, base)
        return items and _Buffers(kind, len(array), validity, place(buffers[1]), None, items)
    return None


def _joined(window: bytearray, scan: _Scan, schema: pa.Schema) -> pa.RecordBatch | None:
    """Return the batches of a scan as one; None if one is damaged, or of a layout that is left to pyarrow."""
    import pyarrow as pa

    groups: dict[int, list[int]] = {}  # runs by layout
    for index, (layout, _, _) in enumerate(scan.runs):
        groups.setdefault(id(layout), []).append(index)
    parts, order = [], []
    counts = np.array([count for _, _, count in scan.runs])
    rows = counts * np.array([layout.rows for layout, _, _ in scan.runs])
    first_row = np.cumsum(rows) - rows
    for indices in groups.values():
        layout = scan.runs[indices[0]][0]
        if layout.columns is None:
            return None
        places = np.concatenate([scan.runs[n][1] + layout.total_bytes * np.arange(counts[n]) for n in indices])
        batches = _Rows(window, places, layout.total_bytes)
        try:
            part = pa.RecordBatch.from_arrays([_array(column, batches) for column in layout.columns], schema=schema)
            part.validate(full=True)
        except _damage():
            return None
        parts.append(part)
        order += [first_row[n] + np.arange(rows[n]) for n in indices]
    if len(parts) == 1:
        return parts[0]
    back = np.empty(rows.sum(), np.int64)
    back[np.concatenate(order)] = np.arange(len(back))
    whole = pa.Table.from_batches(parts).combine_chunks().take(pa.array(back)).combine_chunks()
    return whole.to_batches()[0]


class _Rows:
    """The batches of one shape in a window, as the rows of a matrix of bytes."""

    def __init__(self, window: bytearray, places: npt.NDArray[np.int64], total_bytes: int) -> None:
        data = np.frombuffer(window, np.uint8)
        self.count = len(places)
        self._flat: _Bytes | None = None
        if (np.diff(places) == total_bytes).all():  # one after the other
            begin = int(places[0])
            self._flat = data[begin : begin + self.count * total_bytes].reshape(self.count, total_bytes)
        self._data, self._places = data, places

    def cut(self, place: tuple[int, int]) -> _Bytes:
        """Return the bytes of a buffer, (batches, length)."""
        begin, length = place
        if self._flat is not None:
            return self._flat[:, begin : begin + length].copy()  # the window will hold other bytes
        view = np.lib.stride_tricks.sliding_window_view(self._data, length) if length else None
        return np.empty((self.count, 0), np.uint8) if view is None else view[self._places + begin]


def _array(column: _Buffers, rows: _Rows) -> pa.Array:
    """Return a column of all batches.

    Raises:
        ValueError: offsets do not fit the length of their data.
    """
    import pyarrow as pa

    length = column.rows * rows.count
    validity = None
    if column.validity is not None:
        bits = np.unpackbits(rows.cut(column.validity), axis=1, count=column.rows, bitorder="little")
        validity = pa.py_buffer(np.packbits(bits, bitorder="little"))
    if column.offsets is None:
        assert column.data is not None
        width = column.kind.bit_width // 8
        data = rows.cut((column.data[0], width * column.rows))
        return pa.Array.from_buffers(column.kind, length, [validity, pa.py_buffer(data)])
    offsets = rows.cut((column.offsets[0], 4 * (column.rows + 1))).view("<i4").astype(np.int64)
    each = column.items.rows if column.items is not None else int(offsets[0, -1])
    if (offsets[:, 0] != 0).any() or (offsets[:, -1] != each).any():
        raise ValueError("offsets do not fit the length of their data")
    starts = each * np.arange(rows.count)[:, None] + offsets[:, :-1]
    joined = pa.py_buffer(np.append(starts, each * rows.count).astype(np.int32))
    if column.items is not None:
        items = _array(column.items, rows)
        return pa.Array.from_buffers(column.kind, length, [validity, joined], children=[items])
    if column.data is None or each > column.data[1]:
        data = rows.cut((0, 0))
        if each:
            raise ValueError("offsets do not fit the length of their data")
    else:
        data = rows.cut((column.data[0], each))
    return pa.Array.from_buffers(column.kind, length, [validity, joined, pa.py_buffer(data)])


def _one_by_one(window: bytearray, scan: _Scan, schema: pa.Schema) -> tuple[list[pa.RecordBatch], bool]:
    """Return the batches of a scan up to the first damaged one, and whether there is none."""
    import pyarrow as pa

    found: list[pa.RecordBatch] = []
    for layout, begin, count in scan.runs:
        for at in range(begin, begin + count * layout.total_bytes, layout.total_bytes):
            try:
                batch = pa.ipc.read_record_batch(pa.py_buffer(bytes(window[at : at + layout.total_bytes])), schema)
                batch.validate(full=True)
            except _damage():
                return found, False
            found.append(batch)
    return found, True


def _damage() -> tuple[type[Exception], ...]:
    """Return what pyarrow raises for damage; as the bytes are in memory, OSError is one of them."""
    import pyarrow as pa

    return (pa.ArrowException, OSError, UnicodeDecodeError, ValueError)
