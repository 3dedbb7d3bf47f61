"""Append-only tables that survive the death of their writer.

An Arrow IPC stream is a schema message followed by batch messages. The rows of each call form one batch, passed to
the kernel in a single write(2) before the call returns: kill -9 loses no row whose call returned, and leaves at most
one truncated batch at the end, which `read_stream` leaves out. A power failure may lose more: nothing is synced to the
disk.

`arrow_rows` describes how rows become a batch message, `arrow_batches` how they are read again.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fronthaul.errors import LocalError
from fronthaul.files import whole_file
from fronthaul.log.arrow_batches import StreamFile
from fronthaul.log.arrow_rows import Columns, RowPacker
from fronthaul.log.remote import StreamPath

if TYPE_CHECKING:
    import pyarrow as pa

_END_OF_STREAM = bytes.fromhex("ffffffff00000000")  # Arrow columnar format, "IPC streaming format"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RowStream:
    """An append-only Arrow IPC stream; each call appends its rows as one batch."""

    def __init__(self, path: StreamPath, schema: pa.Schema, metadata: Mapping[str, str] | None = None) -> None:
        """Create the file at `path` with `schema`.

        Args:
            path: file to create.
            schema: the columns; see `arrow_rows` for the types with a fast path.
            metadata: properties of all rows, kept in the file's schema.

        Raises:
            LocalError: the file already exists, or the disk is full. A new incarnation of a writer uses a new file:
                rows after a truncated batch could not be read.
        """
        if path.exists():
            raise LocalError(f"{path} exists already: a stream is never overwritten")
        self._path = path
        self._packer = _packer(schema)
        self._good_bytes = self._before_bytes = 0
        # No reader ever sees a file with half a schema.
        with whole_file(path) if isinstance(path, Path) else contextlib.nullcontext(path) as temporary:
            self._file = temporary.open("wb", buffering=0)
            try:
                self._write(schema.with_metadata(dict(metadata or {})).serialize().to_pybytes())
            except LocalError:
                self._file.close()
                raise

    def append(self, *values: object) -> None:
        """Write one row, given in the schema's order; it has been passed to the kernel on return.

        Raises:
            LocalError: as `extend`.
        """
        self.extend([values])

    def extend(self, rows: Sequence[Sequence[object]]) -> None:
        """Write rows, each in the schema's order, as one batch; they have been passed to the kernel on return.

        Raises:
            LocalError: the stream is closed, a value does not fit its column, or the disk is full. None of `rows` is
                written then; earlier rows stay readable, and more may be added once there is space.
        """
        if self._file.closed:
            raise LocalError("the stream is closed")
        if rows:
            self._write(self._packer.pack(rows))

    def extend_columns(self, count: int, columns: Columns) -> None:
        """Write `count` rows as `extend` does, given by columns in the schema's order.

        Raises:
            LocalError: as `extend`.
        """
        if self._file.closed:
            raise LocalError("the stream is closed")
        if count:
            self._write(self._packer.pack_columns(count, columns))

    def take_back(self) -> None:
        """Remove the rows of the last call again, which takes no space; calling it once more removes no others."""
        self._good_bytes = self._before_bytes
        self._cut_back()

    def close(self) -> None:
        """Mark the end and close; closing twice is fine.

        Raises:
            LocalError: the disk is full; the rows stay readable, and the file is closed.
        """
        if not self._file.closed:
            try:
                self._write(_END_OF_STREAM)
            finally:
                self._file.close()

    def _write(self, data: bytes) -> None:
        try:
            written = self._file.write(data)
            while written < len(data):  # the disk had space for a part: the next write raises the error
                written += self._file.write(data[written:])
        except OSError as error:
            self._cut_back()
            what = "the disk is full" if error.errno in _FULL else "a file cannot be written"
            why = os.strerror(error.errno) if error.errno else error
            raise LocalError(f"{what}: {self._path} ends before what was to be added ({why})") from error
        self._before_bytes = self._good_bytes
        self._good_bytes += len(data)

    def _cut_back(self) -> None:
        """Truncate the file to the last whole batch."""
        try:
            self._file.truncate(self._good_bytes)
            self._file.seek(self._good_bytes)
        except OSError:
            self._file.close()  # batches after a truncated one could not be read


@functools.cache
def _packer(schema: pa.Schema) -> RowPacker:
    """Return the packer that all streams of a schema share, with its cached shapes."""
    return RowPacker(schema)


def read_stream(path: Path) -> pa.Table:
    """Return the rows of a stream up to its end or to the first truncated or damaged batch.

    The metadata is in the table's schema.

    Raises:
        FileNotFoundError: there is no such file.
        LocalError: the file does not begin with an Arrow schema.
    """
    import pyarrow as pa

    stream = StreamFile(path)
    table = pa.Table.from_batches(stream.batches(), stream.schema.remove_metadata())
    return table.combine_chunks().replace_schema_metadata(stream.schema.metadata)
