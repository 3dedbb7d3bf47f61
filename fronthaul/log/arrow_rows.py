"""Rows to Arrow IPC batch messages, with a fast path for shapes seen before.

    +----------+--------------------+----------+------------------------------------------------+
    | ffffffff | metadata's length  | metadata | body: the columns' buffers, each padded to 8 B |
    +----------+--------------------+----------+------------------------------------------------+

(Arrow columnar format, "Encapsulated message format".) The metadata depends on the *shape* of the batch alone: the
numbers of rows, of nulls in each column, and of bytes or items in each column of variable length. pyarrow writes the
first batch of every shape; later batches reuse its metadata, and one `struct` packs the body. A shape is cached only if
packing its first batch gave the same bytes as pyarrow.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from fronthaul.errors import LocalError

if TYPE_CHECKING:
    import pyarrow as pa

MAX_SHAPES = 1024
"""Maximum number of cached shapes, about 1 kB each. More would mean random lengths, which rarely recur."""

_ALIGNMENT = 8
_NUMBERS = {
    **{"uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q"},
    **{"int8": "b", "int16": "h", "int32": "i", "int64": "q", "float": "f", "double": "d"},
}
_UNFIT = (struct.error, TypeError, AttributeError, ValueError, OverflowError)


class RowPacker:
    """Packs rows of one schema into batch messages.

    Columns of integers, floats, texts, bytes and lists of numbers take the fast path; a schema with any other column
    always goes through pyarrow.
    """

    def __init__(self, schema: pa.Schema) -> None:
        """Prepare for rows of `schema`."""
        import pyarrow as pa

        self._row_type = pa.struct(list(schema))
        columns = [_column(field.type) for field in schema]
        self._columns = [column for column in columns if column is not None]
        self._fast = len(self._columns) == len(columns)
        self._layouts: dict[_Shape, _Layout] = {}

    def pack(self, rows: Sequence[Sequence[object]]) -> bytes:
        """Return the batch message of one or more rows, values in the schema's order.

        Raises:
            LocalError: a value does not fit its column.
        """
        try:
            columns = tuple(zip(*rows, strict=True))
        except _UNFIT:
            return self._serialised(rows)
        return self.pack_columns(len(rows), columns)

    def pack_columns(self, count: int, columns: Columns) -> bytes:
        """Return the batch message of `count` rows, at least 1, given by columns.

        Raises:
            LocalError: a value does not fit its column.
        """
        if any(values is not None and len(values) != count for values in columns):
            raise LocalError(f"a row does not fit its columns: they are not of {count} values each")
        if not self._fast:
            return self._serialised(_rows(count, columns))
        arguments: list[object] = []
        keys: list[Any] = [count]
        try:
            for column, values in zip(self._columns, columns, strict=True):
                keys.append(None if values is None else column.feed(values, arguments))
            shape = tuple(keys)
            layout = self._layouts.get(shape)
            if layout is not None:
                return layout.head + layout.body.pack(*arguments)
        except _UNFIT:
            return self._serialised(_rows(count, columns))  # which raises a clear error, or converts the values
        message = self._serialised(_rows(count, columns))
        self._learn(shape, arguments, message)
        return message

    def _serialised(self, rows: Sequence[Sequence[object]]) -> bytes:
        import pyarrow as pa

        try:
            # Converting one struct takes less than half the time of converting each column.
            array = pa.array([tuple(row) for row in rows], self._row_type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise LocalError(f"a row does not fit its columns: {error}") from error
        message: bytes = pa.RecordBatch.from_struct_array(array).serialize().to_pybytes()
        return message

    def _learn(self, shape: _Shape, arguments: list[object], message: bytes) -> None:
        count, *keys = shape
        formats = [
            _zeros(column, count) if key is None else column.format(count, key)
            for column, key in zip(self._columns, keys, strict=True)
        ]
        metadata_bytes = int.from_bytes(message[4:8], "little")
        layout = _Layout(message[: 8 + metadata_bytes], struct.Struct("<" + "".join(formats)))
        try:
            if layout.head + layout.body.pack(*arguments) != message:
                return
        except struct.error:
            return
        if len(self._layouts) == MAX_SHAPES:
            self._layouts.clear()
        self._layouts[shape] = layout


Columns = Sequence[Sequence[Any] | None]
"""Values by column in the schema's order; None for a column of nulls only."""
_Shape = tuple[Any, ...]


class _Layout(NamedTuple):
    """Layout of the batches of one shape: the constant head, then the body."""

    head: bytes
    body: struct.Struct


class _Column(Protocol):
    def feed(self, values: Sequence[Any], arguments: list[object]) -> object:
        """Append the struct's arguments for a column's values; return the column's part of the shape."""

    def format(self, count: int, key: Any) -> str:
        """Return the column's part of the struct's format."""


class _Numbers:
    """Validity bitmap if there is a null, then numbers. Key: count of nulls."""

    def __init__(self, char: str) -> None:
        self._char = char

    def feed(self, values: Sequence[Any], arguments: list[object]) -> object:
        if None not in values:
            arguments.extend(values)
            return 0
        arguments.append(_bitmap(values))
        arguments.extend([0 if value is None else value for value in values])
        return values.count(None)

    def format(self, count: int, key: Any) -> str:
        return _bitmap_format(count, key) + _padded(f"{count}{self._char}")


class _Bytes:
    """Validity bitmap if there is a null, then offsets, then the bytes. Key: count of nulls, total bytes."""

    def feed(self, values: Sequence[Any], arguments: list[object]) -> object:
        if None not in values:
            return self._feed(values, arguments, 0)
        arguments.append(_bitmap(values))
        return self._feed([value or b"" for value in values], arguments, values.count(None))

    def _feed(self, values: Sequence[bytes], arguments: list[object], nulls: int) -> object:
        data = values[0] if len(values) == 1 else b"".join(values)
        lengths = list(map(len, values))
        if lengths.count(lengths[0]) == len(lengths):  # the common case; the offsets are cached
            arguments.append(_offsets(len(lengths), lengths[0]))
        else:
            arguments.append(struct.pack(f"<{len(lengths) + 1}i", *accumulate(lengths, initial=0)))
        arguments.append(data)
        return (nulls, len(data))

    def format(self, count: int, key: Any) -> str:
        nulls, total = key
        return _bitmap_format(count, nulls) + _padded(f"{4 * (count + 1)}s") + _padded(f"{total}s")


class _Text(_Bytes):
    """Like `_Bytes`, encoded in UTF-8."""

    def feed(self, values: Sequence[Any], arguments: list[object]) -> object:
        first = values[0]
        if first is not None and values.count(first) == len(values):  # the common case for fates
            return self._feed([first.encode()] * len(values), arguments, 0)
        return super().feed([None if value is None else value.encode() for value in values], arguments)


class _Lists:
    """Validity bitmap if there is a null, then offsets, then the items. Key: count of nulls, total items."""

    def __init__(self, char: str) -> None:
        self._char = char

    def feed(self, values: Sequence[Any], arguments: list[object]) -> object:
        nulls = values.count(None)
        if nulls:
            arguments.append(_bitmap(values))
            values = tuple([value or () for value in values])
        arguments.extend(accumulate(map(len, values), initial=0))
        before = len(arguments)
        arguments.extend(chain.from_iterable(values))
        return (nulls, len(arguments) - before)

    def format(self, count: int, key: Any) -> str:
        nulls, total = key
        # No bitmap of the items: a null among them is not a number, and is left to pyarrow.
        return _bitmap_format(count, nulls) + _padded(f"{count + 1}i") + _padded(f"{total}{self._char}")


def _column(kind: pa.DataType) -> _Column | None:
    import pyarrow as pa

    if str(kind) in _NUMBERS:
        return _Numbers(_NUMBERS[str(kind)])
    if pa.types.is_list(kind) and str(kind.value_type) in _NUMBERS:
        return _Lists(_NUMBERS[str(kind.value_type)])
    if kind == pa.string():
        return _Text()
    return _Bytes() if kind == pa.binary() else None


def _rows(count: int, columns: Columns) -> list[tuple[object, ...]]:
    """Return columns of length `count` as rows."""
    return list(zip(*[[None] * count if values is None else values for values in columns], strict=True))


@lru_cache(maxsize=MAX_SHAPES)
def _offsets(count: int, length: int) -> bytes:
    """Return the offsets of values of equal length."""
    return struct.pack(f"<{count + 1}i", *(place * length for place in range(count + 1)))


def _zeros(column: _Column, count: int) -> str:
    """Return the struct's format for a column of nulls: all buffers are zeros, which take no argument."""
    arguments: list[object] = []
    key = column.feed([None] * count, arguments)
    return f"{struct.calcsize('<' + column.format(count, key))}x"


def _bitmap(values: Sequence[object]) -> bytes:
    """Return one bit per value, least significant first, set if the value is not null."""
    bits = sum((value is not None) << place for place, value in enumerate(values))
    return bits.to_bytes(-(-len(values) // 8), "little")


def _bitmap_format(count: int, nulls: int) -> str:
    return _padded(f"{-(-count // 8)}s") if nulls else ""


def _padded(buffer: str) -> str:
    return f"{buffer}{-struct.calcsize('<' + buffer) % _ALIGNMENT}x"
