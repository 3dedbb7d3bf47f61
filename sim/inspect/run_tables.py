"""What an audit reads of a run's folder, each part once."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud.cloud_spec import CloudOutcome
from fronthaul.account.used import UsedReports
from fronthaul.documents import read_json
from fronthaul.errors import LocalError
from fronthaul.log.stream_names import SENT, EdgeStart, start_of
from fronthaul.transport.transport_costs import TransportCosts
from fronthaul.transport.zmtp import ZMTP_CURVE, ZMTP_NULL
from sim.errors import UserError
from sim.inspect.frames import link_ledgers
from sim.plan.outcome import RunRecord
from sim.plan.plan import load_test_set
from sim.records.books import Books, read_books, read_fix_logs, used_reports
from sim.records.folder import RunConfiguration, RunFolder, read_configuration, truth_digest
from sim.records.links import LinkTotals, all_totals, read_table
from sim.records.stream_bytes import Connection, read_connections, recorded_transport
from sim.world.paths import PathSet

if TYPE_CHECKING:
    import pyarrow as pa


class RunTables:
    """Tables of a run's folder, read on first use.

    Attributes:
        folder: folder of the run.
        configuration: contents of `run.toml`.
        stations: base stations of the run.
        was_cut: whether its streams are still there, since the run was cut or failed.
        ledgers: ledgers by BS; the key None is for unknown connections.

    Raises:
        UserError: the folder is not a run's, has no ledgers, or a table is damaged; the last on first use.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.configuration: RunConfiguration = read_configuration(folder)
        self.stations = self.configuration.stations
        self.was_cut = bool(folder.streams(SENT))
        self.ledgers = link_ledgers(folder.path)

    @cached_property
    def fixes(self) -> pa.Table | None:
        """Table of fixes; None if the run was cut before it was written."""
        return read_table(self.folder.fixes) if self.folder.fixes.exists() else None

    @cached_property
    def used(self) -> UsedReports:
        """Used reports of each fix; for a run without a table of fixes, from the logs of its cloud."""
        return used_reports(read_fix_logs(self.folder) if self.fixes is None else self.fixes)

    @cached_property
    def books(self) -> Books:
        """All tables of a run that ended well."""
        return read_books(self.folder, self.stations)

    @cached_property
    def test_paths(self) -> PathSet | None:
        """Paths of the run's test users; None if its test set is not on this machine."""
        configuration = self.configuration
        try:
            _, paths = load_test_set(configuration.scenario, configuration.settings)
        except UserError:
            return None
        paths = paths.select(np.arange(min(configuration.users, len(paths))))
        return paths if truth_digest(paths.position) == configuration.truth_digest else None

    @cached_property
    def record(self) -> RunRecord:
        """What the summary keeps of the run besides its tables."""
        summary = self.summary or {}
        driver = self.configuration.settings.driver
        try:
            return RunRecord(
                cloud=CloudOutcome(missing=frozenset(summary["missing_bs"])),
                t0_ns=int(summary["t0_ns"]),
                wall_clock=driver == "ray",
                seconds=float(summary["seconds"]),
                address="",
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.folder.summary} is damaged: it lacks {error}.") from error

    @cached_property
    def links(self) -> list[LinkTotals]:
        """Totals of each link, from the ledgers."""
        return all_totals(self.ledgers, self.ledgers.stations, self.transport)

    @cached_property
    def connections(self) -> list[Connection]:
        """The rows of connections.parquet."""
        return read_connections(self.folder)

    @cached_property
    def transport(self) -> TransportCosts:
        """Recorded costs that the transport added to each message; runs before 0.2.0 always used ZeroMQ."""
        found = recorded_transport(self.folder)
        return found or (ZMTP_CURVE if self.configuration.settings.encrypted else ZMTP_NULL)

    @cached_property
    def last_epochs(self) -> dict[int, int]:
        """The last epoch of each base station for which a clock event is logged."""
        rows = read_table(self.folder.events).to_pylist() if self.folder.events.exists() else []
        starts = sorted(
            start
            for row in rows
            if row.get("kind") == "clock" and isinstance(start := start_of(str(row.get("peer"))), EdgeStart)
        )
        return {start.bs: start.epoch for start in starts}

    @cached_property
    def summary(self) -> dict[str, Any] | None:
        """Contents of summary.json; None if the run was cut before it was written."""
        if not self.folder.summary.exists():
            return None
        try:
            table = read_json(self.folder.summary)
        except (OSError, LocalError) as error:
            raise UserError(f"{self.folder.summary} cannot be read: the file is damaged.") from error
        if not isinstance(table, dict):
            raise UserError(f"{self.folder.summary} is damaged: it holds no table.")
        return table
