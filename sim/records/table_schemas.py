"""The columns of a run's tables, and the check that a file has them: whoever reads a table can rely on its columns.

A table may have further columns, which later versions add. Whether values agree with each other is for `audit` to say.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fronthaul.log.recorder import connection_schema, event_schema
from fronthaul.message.messages import Direction
from sim.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

_WAY_COUNTS = ("handshake", "control", "heartbeat", "data", "stray", "least", "most")
_KERNEL_COUNTS = ("kernel_sent", "kernel_received")  # null where a process died before recording its count
_SENDERS = (
    *("bs", "epoch", "snapshot", "round", "seq", "t_release_ns", "payload_bits", "side_bits", "header_bytes"),
    *("padding_bits", "zmtp_bytes", "curve_bytes", "crc32", "side", "payload"),
)
"""Columns of a ledger that only a sender knows: null in rows of frames that nobody journaled."""
_ALWAYS = ("part", "direction", "frame_fate")
_USED = ("used_bs", "used_epoch", "used_round")


@functools.cache
def fix_table_schema() -> pa.Schema:
    """Return the columns of ``fixes.parquet`` that are read back; `sim.records.summary.fix_table` describes all."""
    import pyarrow as pa

    axes = [f"{what}{axis}_m" for axis in "xyz" for what in ("", "true_")]
    errors = [f"error_{what}_m" for what in ("3d", "2d", "vertical")]
    kinds = zip(_USED, (pa.uint16(), pa.uint16(), pa.uint8()), strict=True)
    return pa.schema(
        [
            _whole("snapshot", pa.uint32()),
            *(_whole(name, pa.float64()) for name in (*axes, *errors)),
            *(_whole(name, pa.list_(_whole("item", kind))) for name, kind in kinds),
            *(_whole(name, pa.int64()) for name in ("t_zero_ns", "t_fix_ns")),
        ]
    )


@functools.cache
def link_table_schema() -> pa.Schema:
    """Return the columns of ``connections.parquet``, one row per link."""
    import pyarrow as pa

    return pa.schema(
        [
            *(_whole(name, pa.uint16()) for name in ("bs", "connections", "cut")),
            *(_whole(f"{name}_{way}_bytes", pa.int64()) for way in Direction for name in _WAY_COUNTS),
            *(pa.field(f"{name}_{way}_bytes", pa.int64()) for way in Direction for name in _KERNEL_COUNTS),
        ]
    )


@functools.cache
def socket_table_schema() -> pa.Schema:
    """Return the columns of ``sockets.parquet``, one row per TCP connection and end."""
    import pyarrow as pa

    optional = ("bs",)  # null for a peer that showed no name
    fields = [pa.field(f.name, f.type, f.name in optional) for f in connection_schema()]
    return pa.schema([*fields, _whole("end", pa.string())])


@functools.cache
def event_table_schema() -> pa.Schema:
    """Return the columns of ``events.parquet``, one row per event."""
    import pyarrow as pa

    return pa.schema([pa.field(f.name, f.type, f.name in ("bs", "detail")) for f in event_schema()])


def checked(table: pa.Table, path: Path) -> pa.Table:
    """Return a table of a run with the types of its columns as they were written, by the name of its file.

    Raises:
        UserError: a column is missing, has values of another type, or lacks a value that is always there.
    """
    if path.name in _SCHEMAS:
        table = _typed(table, _SCHEMAS[path.name](), path)
    if path.name == "fixes.parquet":
        _require_keys(table, path)
    return table


def require_ledger(rows: pa.RecordBatch, bs: int | None, path: Path) -> None:
    """Check rows of a ledger, with any of its columns: what was journaled has all that its sender knew.

    Args:
        rows: rows of the ledger.
        bs: its base station; None for unknown connections.
        path: its file.

    Raises:
        UserError: a value is missing, a direction does not exist, or a row is of another base station.
    """
    import pyarrow.compute as pc

    names = rows.schema.names
    lacking = [name for name in _ALWAYS if name in names and rows.column(name).null_count]
    if "direction" in names and not lacking:
        strange = sorted(set(rows.column("direction").unique().to_pylist()) - set(Direction))
        if strange:
            raise UserError(f"{path} is damaged: {strange[0]!r} is no direction.")
    if "bs" in names and (others := set(rows.column("bs").unique().to_pylist()) - {bs}):
        named = "no base station" if (other := others.pop()) is None else f"BS {other}"
        raise UserError(f"{path} is damaged: it has rows of {named}.")
    if "t_sent_ns" in names:
        journaled = pc.is_valid(rows.column("t_sent_ns"))
        sent = rows.filter(journaled)
        lacking += [name for name in _SENDERS if name in names and sent.column(name).null_count]
        if "t_received_ns" in names and rows.filter(pc.invert(journaled)).column("t_received_ns").null_count:
            lacking.append("t_received_ns")
    if lacking:
        raise UserError(f"{path} is damaged: column {lacking[0]!r} lacks values.")


def _whole(name: str, kind: pa.DataType) -> pa.Field:
    """Return a column without nulls."""
    import pyarrow as pa

    return pa.field(name, kind, nullable=False)


def _typed(table: pa.Table, schema: pa.Schema, path: Path) -> pa.Table:
    import pyarrow as pa

    for field in schema:
        places = table.schema.get_all_field_indices(field.name)
        if len(places) != 1:
            raise UserError(f"{path} is damaged: it has {len(places) or 'no'} columns {field.name!r}.")
        column = table.column(places[0])
        try:
            column = column.cast(field.type)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            kind = column.type
            raise UserError(f"{path} is damaged: column {field.name!r} is {kind}, not {field.type}.") from error
        items = column.combine_chunks().flatten() if pa.types.is_list(field.type) else column
        if not field.nullable and (column.null_count or items.null_count):
            raise UserError(f"{path} is damaged: column {field.name!r} lacks values.")
        table = table.set_column(places[0], pa.field(field.name, field.type), column)
    return table


def _require_keys(table: pa.Table, path: Path) -> None:
    """Check that base station, epoch and round of the used reports are equally many in each fix."""
    import pyarrow.compute as pc

    first, *others = (pc.list_value_length(table[name]) for name in _USED)
    if not all(first.equals(other) for other in others):
        raise UserError(f"{path} is damaged: used reports lack a part of their key.")


_SCHEMAS: dict[str, Callable[[], pa.Schema]] = {
    "fixes.parquet": fix_table_schema,
    "connections.parquet": link_table_schema,
    "sockets.parquet": socket_table_schema,
    "events.parquet": event_table_schema,
}
