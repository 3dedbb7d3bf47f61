"""What tests compare of a run: its tables, without what is measured anew in every run."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sim.records.fix_table import STAGES, UNCERTAINTY


def fixes(folder: Path) -> pa.Table:
    """All fixes, without latencies."""
    table = pq.read_table(folder / "fixes.parquet")
    return table.drop_columns([f"{stage}_ns" for stage in (*STAGES, UNCERTAINTY)])


def ledgers(folder: Path) -> list[pa.Table]:
    """The ledger of each base station."""
    return [pq.read_table(path) for path in sorted(folder.glob("links/bs-*.parquet"))]


def rows(folder: Path, columns: Collection[str]) -> list[tuple[Any, ...]]:
    """Some columns of all ledgers, in an order that does not depend on times."""
    table = pa.concat_tables(ledgers(folder))
    order = ["bs", "direction", "epoch", "seq", "part"]
    table = table.sort_by([(name, "ascending") for name in order])
    return list(zip(*(table[name].to_pylist() for name in columns), strict=True))
