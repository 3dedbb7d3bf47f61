"""Append-only tables that survive the death of their writer.

An Arrow IPC stream is a schema message followed by batch messages. Each row is a batch of its own, handed to
the kernel in a single write(2) before `append` returns: kill -9 loses no row whose `append` returned, and
leaves at most one cut row at the end, which `read_stream` leaves out. A power failure may lose more: nothing
is synced to the disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fronthaul.errors import LocalError

if TYPE_CHECKING:
    import pyarrow as pa

_END_OF_STREAM = bytes.fromhex("ffffffff00000000")  # Arrow columnar format, "IPC streaming format"


class RowStream:
    """An Arrow IPC stream that grows by one row at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        """Create the file at `path` with `schema`.

        Raises:
            LocalError: there is a file already. A second life of a writer takes a second file: rows that
                follow a cut one could not be read.
        """
        import pyarrow as pa

        if path.exists():
            raise LocalError(f"{path} exists already: a stream is never written over")
        self._row_type = pa.struct(list(schema))
        # Written beside and renamed, so that no reader ever meets a file with half a schema.
        temporary = path.with_name(path.name + ".tmp")
        self._file = temporary.open("wb", buffering=0)
        self._file.write(schema.serialize())
        temporary.rename(path)

    def append(self, *values: object) -> None:
        """Write one row, given in the schema's order; it is the kernel's when this returns.

        Raises:
            LocalError: the stream is closed.
        """
        import pyarrow as pa

        if self._file.closed:
            raise LocalError("the stream is closed")
        # One conversion of a struct takes less than half the time of one conversion a column.
        row = pa.array([values], self._row_type)
        self._file.write(pa.RecordBatch.from_struct_array(row).serialize())

    def close(self) -> None:
        """Mark the end and close; closing twice is fine."""
        if not self._file.closed:
            self._file.write(_END_OF_STREAM)
            self._file.close()


def read_stream(path: Path) -> pa.Table:
    """Return the rows of a stream, those before the cut where its writer died.

    Raises:
        LocalError: the file does not begin as an Arrow stream.
    """
    import pyarrow as pa

    batches = []
    with pa.OSFile(str(path), "rb") as file:
        try:
            reader = pa.ipc.open_stream(file)
        except pa.ArrowInvalid as error:
            raise LocalError(f"{path} is not an Arrow stream: {error}") from error
        while True:
            try:
                batches.append(reader.read_next_batch())
            except (StopIteration, pa.ArrowInvalid, OSError):  # the end, or a row cut within
                break
    return pa.Table.from_batches(batches, reader.schema).combine_chunks()
