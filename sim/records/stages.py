"""Stage times of all base stations: ``links/stages.parquet``, one row per report."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from edge.stages import read_stages, stage_schema
from fronthaul.errors import LocalError
from fronthaul.files import whole_file
from fronthaul.log.stream_names import STAGES, EdgeStart, start_of
from sim.errors import UserError
from sim.records.columns import described
from sim.records.folder import RunFolder

if TYPE_CHECKING:
    import pyarrow as pa


def write_stages(folder: RunFolder) -> None:
    """Write the table of stage times from the streams of a run, one row group or more for each start."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    start_columns = [("bs", pa.uint16()), ("epoch", pa.uint16())]
    schema = described(pa.schema([*start_columns, *stage_schema()]), "links/stages.parquet")
    with whole_file(folder.stages) as path, pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for stream in folder.streams(STAGES):
            start = start_of(stream.name)
            with contextlib.suppress(FileNotFoundError, LocalError):  # never started
                rows = read_stages(stream)
                if isinstance(start, EdgeStart) and len(rows):
                    names = [pa.repeat(pa.scalar(number, pa.uint16()), len(rows)) for number in start]
                    writer.write_table(pa.Table.from_arrays([*names, *rows.columns], schema=schema))


def stages_of(folder: RunFolder, start: EdgeStart) -> pa.Table:
    """Return the stage times of a start of a base station, `stage_schema()`; empty if there are none.

    Raises:
        UserError: the table is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    mine = [("bs", "==", start.bs), ("epoch", "==", start.epoch)]
    try:
        return pq.read_table(folder.stages, columns=stage_schema().names, filters=mine).cast(stage_schema())
    except FileNotFoundError:
        return stage_schema().empty_table()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{folder.stages} cannot be read: the run was cut or the file is damaged.") from error
