"""Log of the processing time of each stage of a report, written to disk as the run proceeds."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fronthaul.errors import LocalError
from fronthaul.log.arrow_stream import RowStream, read_stream
from fronthaul.log.remote import Folder
from fronthaul.log.stream_names import STAGES

if TYPE_CHECKING:
    import pyarrow as pa


class StageRow(NamedTuple):
    """Stage times of one report [ns]; `t_start_ns` on the run's clock, the others measured."""

    snapshot: int
    round: int
    t_start_ns: int
    estimate_ns: int
    encode_ns: int
    pack_ns: int


@functools.cache
def stage_schema() -> pa.Schema:
    """Return the schema of the stream; its columns are the fields of `StageRow`."""
    import pyarrow as pa

    times = ("t_start_ns", "estimate_ns", "encode_ns", "pack_ns")
    return pa.schema([("snapshot", pa.uint32()), ("round", pa.uint8()), *((name, pa.int64()) for name in times)])


class StageLog:
    """The stage times of one start of a base station."""

    def __init__(self, folder: Folder, name: str) -> None:
        """Create the stream.

        Raises:
            LocalError: the file exists already.
        """
        self._rows = RowStream(folder / f"{name}{STAGES}", stage_schema())

    def append(self, rows: Sequence[StageRow]) -> None:
        """Append stage times to the stream.

        Raises:
            LocalError: the disk is full.
        """
        self._rows.extend(rows)

    def close(self) -> None:
        """Write the end of the stream and close it; closing twice is fine."""
        self._rows.close()


def read_stages(path: Path) -> pa.Table:
    """Read the stage times of one start, `stage_schema()`, even if it was ended by kill -9.

    Raises:
        FileNotFoundError: there is no such file.
        LocalError: the file is not a stream of stage times.
    """
    table = read_stream(path)
    if table.schema != stage_schema():
        raise LocalError(f"{path} is not a stream of stage times")
    return table
