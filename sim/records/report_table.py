"""Tables made of the ledgers of a run: what happened to each report, and what each link carried."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from fronthaul.account.conservation import codes
from fronthaul.account.ledger import ledger_schema
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Direction
from sim.records.columns import COLUMNS, described
from sim.records.links import Ledgers, LinkTotals, mask, numbers, report_keys, valid

if TYPE_CHECKING:
    import pyarrow as pa

REPORT_COLUMNS = tuple(COLUMNS["reports"])
"""Columns of a ledger that the table of reports has."""
_READ = (*REPORT_COLUMNS, "direction")


def report_table(ledgers: Ledgers) -> pa.Table:
    """Return one row per report of a base station, ordered by snapshot, base station, epoch and round.

    A report that several frames carried has the times and sizes of the one that delivered it, or else of the first.
    """
    import pyarrow as pa

    by = ("snapshot", "bs", "epoch", "round")
    parts = [_schema().empty_table(), *(station_reports(ledgers, bs) for bs in ledgers.stations)]
    return pa.concat_tables(parts).sort_by([(name, "ascending") for name in by]).combine_chunks()


def station_reports(ledgers: Ledgers, bs: int) -> pa.Table:
    """Return the rows of `report_table` of one base station, ordered by epoch, snapshot and round."""
    import pyarrow as pa

    rows = ledgers.table(bs, _READ)
    rows = rows.filter(mask(valid(rows, "t_sent_ns") & (codes(rows["direction"], [Direction.UP]) == 0)))
    came = codes(rows["frame_fate"], [FrameFate.DELIVERED]) == 0
    keys = report_keys(rows)
    order = np.lexsort((numbers(rows, "t_sent_ns"), ~came, keys))
    first = order[np.append(True, np.diff(keys[order]) != 0)[: len(order)]]
    return rows.take(pa.array(first)).select(REPORT_COLUMNS).cast(_schema())


def _schema() -> pa.Schema:
    import pyarrow as pa

    return described(pa.schema([ledger_schema().field(name) for name in REPORT_COLUMNS]), "reports")


def link_table(links: list[LinkTotals]) -> pa.Table:
    """Return one row per link and direction: its totals, with a column for each fate."""
    import pyarrow as pa

    table = pa.Table.from_pylist([_link_row(link) for link in links])
    return table.cast(described(table.schema, "links"))


def _link_row(link: LinkTotals) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for field in dataclasses.fields(link):
        value = getattr(link, field.name)
        if isinstance(value, dict):
            row |= {f"{field.name}_{fate.value}": count for fate, count in value.items()}
        else:
            row[field.name] = value.value if isinstance(value, Direction) else value
    return row | {"stream_bytes": link.stream_bytes}
