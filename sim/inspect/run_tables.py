"""Tables of a run's folder, each read once and checked for the expected columns."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cloud.fixlog import read_fixes
from fronthaul.account.ledger import ledger_schema
from fronthaul.errors import LocalError
from fronthaul.log.stream_names import FIXES, SENT, EdgeStart, start_of
from fronthaul.message.messages import Direction, ReportKey
from fronthaul.transport.transport_costs import TransportCosts, recorded_costs
from fronthaul.transport.zmtp import ZMTP_CURVE, ZMTP_NULL
from sim.errors import UserError
from sim.inspect.frames import read_link_ledgers
from sim.records.books import used_reports
from sim.records.folder import RunConfiguration, RunFolder, read_configuration
from sim.records.links import LinkTotals, all_totals, read_table
from sim.records.stream_bytes import Connection, Way

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
_T = TypeVar("_T")


class RunTables:
    """Tables of a run's folder. Ledgers are read at once, other tables on first use.

    Attributes:
        folder: folder of the run.
        configuration: contents of `run.toml`.
        stations: base stations of the run.
        was_cut: whether its streams are still there, since the run was cut or failed.
        ledgers: ledgers by BS; the key None is for unknown connections.

    Raises:
        UserError: the folder is not a run's, has no ledgers, or a table is damaged; the last also on first use.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.configuration: RunConfiguration = read_configuration(folder)
        self.stations = self.configuration.stations
        self.was_cut = bool(folder.streams(SENT))
        self.ledgers = {
            bs: _cast(table, folder.ledger(bs).name) for bs, table in read_link_ledgers(folder.path).items()
        }

    @cached_property
    def ledger(self) -> pa.Table:
        """All ledgers in one table."""
        import pyarrow as pa

        return pa.concat_tables([ledger_schema().empty_table(), *self.ledgers.values()])

    @cached_property
    def frames(self) -> list[list[Row]]:
        """Rows of each frame that its sender journaled."""
        found: dict[tuple[Any, ...], list[Row]] = {}
        for row in self.ledger.to_pylist():
            if row["t_sent_ns"] is not None:
                found.setdefault((row["bs"], row["epoch"], row["direction"], row["seq"]), []).append(row)
        return list(found.values())

    @cached_property
    def frames_of(self) -> dict[int, list[list[Row]]]:
        """The rows of `frames`, by base station."""
        found: dict[int, list[list[Row]]] = {}
        for rows in self.frames:
            found.setdefault(rows[0]["bs"], []).append(rows)
        return found

    @cached_property
    def fixes(self) -> pa.Table | None:
        """Table of fixes; None if the run was cut before it was written."""
        return read_table(self.folder.fixes) if self.folder.fixes.exists() else None

    @cached_property
    def fixed(self) -> list[tuple[int, list[ReportKey]]]:
        """Snapshot and used reports of each fix; for a run without a table of fixes, from the logs of its cloud."""
        if self.fixes is not None:
            return of_table("fixes.parquet", lambda: used_reports(self.fixes))
        logs = [_log(path) for path in self.folder.streams(FIXES)]
        return [(fix.snapshot, list(fix.used)) for log in logs for fix in log]

    @cached_property
    def links(self) -> list[LinkTotals]:
        """Totals of each link, from the ledgers."""
        return all_totals(self.ledgers, sorted(bs for bs in self.ledgers if bs is not None))

    @cached_property
    def connections(self) -> list[Connection]:
        """The rows of connections.parquet."""
        return of_table("connections.parquet", lambda: [_connection(row) for row in self._connections.to_pylist()])

    @cached_property
    def transport(self) -> TransportCosts:
        """Recorded costs that the transport added to each message; runs before 0.2.0 always used ZeroMQ."""
        text = (self._connections.schema.metadata or {}).get(b"transport")
        if text is not None:
            return of_table("connections.parquet", lambda: recorded_costs(text.decode()))
        return ZMTP_CURVE if self.configuration.settings.encrypted else ZMTP_NULL

    @cached_property
    def _connections(self) -> pa.Table:
        return read_table(self.folder.connections)

    def last_epoch(self, bs: int) -> int:
        """Return the last epoch of a base station for which a clock event is logged; 0 if there is none."""
        path = self.folder.links / "events.parquet"
        if not path.exists():
            return 0
        rows = of_table(path.name, lambda: [(row["kind"], row["peer"]) for row in read_table(path).to_pylist()])
        starts = [start_of(peer) for kind, peer in rows if kind == "clock"]
        epochs = [start.epoch for start in starts if isinstance(start, EdgeStart) and start.bs == bs]
        return max(epochs, default=0)

    @cached_property
    def summary(self) -> dict[str, Any] | None:
        """Contents of summary.json; None if the run was cut before it was written."""
        if not self.folder.summary.exists():
            return None
        try:
            table: dict[str, Any] = json.loads(self.folder.summary.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.folder.summary} cannot be read: the file is damaged.") from error
        return table


def of_table(name: str, read: Callable[[], _T]) -> _T:
    """Return `read()`, which reads from the table `name`.

    Raises:
        UserError: the table lacks columns, or they hold unexpected values.
    """
    import pyarrow as pa

    try:
        return read()
    except (KeyError, TypeError, ValueError, LocalError, pa.ArrowException) as error:
        raise UserError(f"{name} is damaged: {error}.") from error


def _cast(table: pa.Table, name: str) -> pa.Table:
    names = ledger_schema().names
    cast: pa.Table = of_table(name, lambda: table.select(names).cast(ledger_schema()))
    return cast


def _connection(row: Row) -> Connection:
    names = [field.name for field in dataclasses.fields(Way)]
    up, down = (Way(**{name: row[f"{name}_{direction}_bytes"] for name in names}) for direction in Direction)
    return Connection(row["bs"], row["connections"], row["cut"], up, down)


def _log(path: Path) -> Iterable[Any]:
    try:
        return read_fixes(path)
    except (LocalError, FileNotFoundError):  # never begun
        return ()
