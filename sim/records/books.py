"""Close the books of a run: derive its ledgers, fixes, stage times and byte counts from the streams on disk.

Complete and interrupted runs are treated alike: the streams are the only source.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloud.fixlog import fix_schema, read_fix_table
from fronthaul.account.clock_offset import ClockOffset, clock_offset
from fronthaul.account.conservation import CHECKED, Conservation, conservation
from fronthaul.account.control import ClockSample, ping_samples
from fronthaul.account.used import UsedReports
from fronthaul.errors import LocalError
from fronthaul.log.pcapng import merge_captures
from fronthaul.log.stream_names import CAPTURE, FIXES, CloudStart, EdgeStart, start_of
from fronthaul.transport.transport_costs import TransportCosts
from sim.errors import UserError
from sim.records.columns import write_table
from sim.records.folder import RunFolder
from sim.records.links import NO_TRANSPORT, Ledgers, LinkTotals, all_totals, close_ledgers, read_streams, read_table
from sim.records.stages import write_stages
from sim.records.stream_bytes import (
    Connection,
    Sockets,
    connections,
    read_connections,
    read_socket_tables,
    read_sockets,
    recorded_transport,
    write_connections,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from sim.plan.plan import Plan


@dataclass(frozen=True)
class Books:
    """The tables of a run: what was recorded, and what follows from it.

    Attributes:
        folder: the run's folder, which holds the stage times.
        ledgers: ledgers by BS; None for connections that belong to no base station.
        fixes: fixes in the order of snapshots, with the columns of `fix_schema()` but for position and covariance.
        links: totals of both directions.
        connections: bytes of each link, predicted and counted.
        sockets: TCP connections with the kernels' byte counts, and events.
        clocks: offset of the cloud's clock from a base station's, by start; None if both read the same clock.
        transport: what the transport adds to messages.
    """

    folder: RunFolder
    ledgers: Ledgers
    fixes: pa.Table
    links: list[LinkTotals]
    connections: list[Connection]
    sockets: Sockets
    clocks: dict[EdgeStart, ClockOffset | None]
    transport: TransportCosts

    def conservation(self) -> Conservation:
        """Check the ledgers against the fixes."""
        return conservation((self.ledgers.table(bs, CHECKED) for bs in self.ledgers), used_reports(self.fixes))


def derive_books(plan: Plan, folder: RunFolder) -> Books:
    """Close the books of a run and write the tables of its links."""
    return close(folder, [site.station.bs for site in plan.sites])


def close(folder: RunFolder, stations: Iterable[int]) -> Books:
    """Close the books of a run from its streams alone, and write the tables of its links."""
    stations = list(stations)
    streams, sockets = read_streams(folder), read_sockets(folder)
    fixes = read_fix_logs(folder)
    besides = close_ledgers(folder, streams, stations, UsedReports.of_table(fixes))
    ledgers = Ledgers(folder)
    links = all_totals(ledgers, stations, streams.transport)
    write_connections(folder, connections(besides, streams.transport, sockets, links), sockets, streams.transport)
    write_stages(folder)
    pings = ping_samples(besides.received)
    write_table(_ping_table(pings), folder.pings)
    return Books(
        folder=folder,
        ledgers=ledgers,
        fixes=fixes,
        links=links,
        transport=streams.transport,
        connections=read_connections(folder),
        sockets=sockets,
        clocks=_clocks(pings, sockets.events),
    )


def read_books(folder: RunFolder, stations: Iterable[int]) -> Books:
    """Read the tables of a run whose books are closed; its fixes are those of its table of fixes.

    Raises:
        UserError: a table is missing or damaged.
    """
    ledgers, sockets = Ledgers(folder), read_socket_tables(folder)
    transport = recorded_transport(folder) or NO_TRANSPORT
    pings = [ClockSample(**row) for row in read_table(folder.pings).to_pylist()]
    return Books(
        folder=folder,
        ledgers=ledgers,
        fixes=read_table(folder.fixes),
        links=all_totals(ledgers, [bs for bs in stations if bs in ledgers], transport),
        transport=transport,
        connections=read_connections(folder),
        sockets=sockets,
        clocks=_clocks(pings, sockets.events),
    )


def used_reports(fixes: pa.Table) -> UsedReports:
    """Return the used reports in a table of fixes.

    Raises:
        UserError: the table is damaged.
    """
    try:
        return UsedReports.of_table(fixes)
    except (KeyError, ValueError, AttributeError) as error:
        raise UserError(f"fixes.parquet is damaged: {error}.") from error


def read_fix_logs(folder: RunFolder) -> pa.Table:
    """Return the fixes of all incarnations of the cloud, from their streams, in order of snapshots."""
    import pyarrow as pa

    tables = [fix_schema().empty_table()]
    for path in folder.streams(FIXES):
        with contextlib.suppress(FileNotFoundError, LocalError):  # never started
            tables.append(read_fix_table(path))
    return pa.concat_tables(tables).sort_by("snapshot").combine_chunks()


def _ping_table(pings: Iterable[ClockSample]) -> pa.Table:
    import pyarrow as pa

    schema = pa.schema([("bs", pa.uint16()), ("epoch", pa.uint16()), *((f"t{n}", pa.int64()) for n in range(1, 5))])
    return pa.Table.from_pylist([ping._asdict() for ping in pings], schema)


def merge_link_captures(folder: RunFolder, stations: Iterable[int]) -> None:
    """Merge the captures of all starts of each base station into one file per link."""
    parts: dict[int, list[Path]] = {}
    for path in folder.streams(CAPTURE):  # once: for each base station it would take the square of their number
        if isinstance(start := start_of(path.name), EdgeStart):
            parts.setdefault(start.bs, []).append(path)
    for bs in parts.keys() & set(stations):
        merge_captures(parts[bs], folder.capture(bs))


def _clocks(pings: Iterable[ClockSample], events: pa.Table) -> dict[EdgeStart, ClockOffset | None]:
    """Estimate the offset of each start's clock from its pings, unless both ends read the same clock."""
    names = {start_of(row["peer"]): row["detail"] for row in events.to_pylist() if row["kind"] == "clock"}
    cloud = {name for start, name in names.items() if isinstance(start, CloudStart)}
    samples: dict[EdgeStart, list[ClockSample]] = {}
    for sample in pings:
        samples.setdefault(EdgeStart(sample.bs, sample.epoch), []).append(sample)
    clocks: dict[EdgeStart, ClockOffset | None] = {}
    for start, name in names.items():
        if not isinstance(start, EdgeStart):
            continue
        if cloud == {name}:
            clocks[start] = None
        else:
            with contextlib.suppress(LocalError):  # no ping came back: the offset is unknown
                clocks[start] = clock_offset(samples.get(start, []))
    return clocks
