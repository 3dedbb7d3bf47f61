"""Close the books of a run: derive its ledgers, fixes, stage times and byte counts from the streams on disk.

Complete and interrupted runs are treated alike: the streams are the only source.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloud.fixlog import FixRecord, read_fixes
from edge.stages import StageRow, read_stages
from fronthaul.account.clock_offset import ClockOffset, clock_offset
from fronthaul.account.conservation import Conservation, conservation
from fronthaul.account.control import ClockSample, ping_samples
from fronthaul.account.ledger import ledger_schema
from fronthaul.errors import LocalError
from fronthaul.log.pcapng import merge_captures
from fronthaul.log.stream_names import CAPTURE, FIXES, STAGES, CloudStart, EdgeStart, start_of
from fronthaul.message.messages import ReportKey
from sim.records.folder import RunFolder
from sim.records.links import LinkTotals, Streams, all_totals, close_ledgers, read_streams
from sim.records.stream_bytes import Connection, Sockets, connections, read_sockets, write_connections

if TYPE_CHECKING:
    import pyarrow as pa

    from sim.plan.plan import Plan


@dataclass(frozen=True)
class Books:
    """Everything derived from the streams of a run.

    Attributes:
        ledgers: ledgers by BS; None for connections that belong to no base station.
        fixes: fixes in the order of snapshots.
        stages: stage times by BS, snapshot and round.
        links: totals of both directions.
        connections: bytes of each link, predicted and counted.
        sockets: TCP connections with the kernels' byte counts, and events.
        clocks: offset of the cloud's clock from a base station's, by start; None if both read the same clock.
    """

    ledgers: dict[int | None, pa.Table]
    fixes: list[FixRecord]
    stages: dict[tuple[int, int, int], StageRow]
    links: list[LinkTotals]
    connections: list[Connection]
    sockets: Sockets
    clocks: dict[EdgeStart, ClockOffset | None]

    @property
    def ledger(self) -> pa.Table:
        """All ledgers in one table."""
        import pyarrow as pa

        return pa.concat_tables([ledger_schema().empty_table(), *self.ledgers.values()])

    def conservation(self, fixes: pa.Table) -> Conservation:
        """Check the ledgers against the table of fixes."""
        return conservation(self.ledger, used_reports(fixes))


def derive_books(plan: Plan, folder: RunFolder) -> Books:
    """Close the books of a run and write the tables of its links."""
    return close(folder, [site.station.bs for site in plan.sites])


def close(folder: RunFolder, stations: Iterable[int]) -> Books:
    """Close the books of a run from its folder alone, and write the tables of its links."""
    stations = list(stations)
    streams, sockets = read_streams(folder), read_sockets(folder)
    fixes = _fixes(folder)
    used = {key for fix in fixes for key in fix.used}
    ledgers = close_ledgers(folder, streams, stations, used)
    links = all_totals(ledgers, stations)
    table = connections(streams, sockets, links)
    write_connections(folder, table, sockets, streams.transport)
    return Books(
        ledgers=ledgers,
        fixes=fixes,
        stages=_stages(folder),
        links=links,
        connections=table,
        sockets=sockets,
        clocks=_clocks(streams, sockets),
    )


def used_reports(fixes: pa.Table) -> list[tuple[int, list[ReportKey]]]:
    """Return snapshot and used reports of each fix, in the form that `conservation` takes."""
    names = ("snapshot", "used_bs", "used_epoch", "used_round")
    rows = zip(*(fixes[name].to_pylist() for name in names), strict=True)
    return [
        (
            snapshot,
            [ReportKey(bs, epoch, snapshot, round_) for bs, epoch, round_ in zip(*used, strict=True)],
        )
        for snapshot, *used in rows
    ]


def merge_link_captures(folder: RunFolder, stations: Iterable[int]) -> None:
    """Merge the captures of all starts of each base station into one file per link."""
    for bs in stations:
        if parts := folder.streams(CAPTURE, bs):
            merge_captures(parts, folder.capture(bs))


def _fixes(folder: RunFolder) -> list[FixRecord]:
    fixes: list[FixRecord] = []
    for path in folder.streams(FIXES):
        with contextlib.suppress(FileNotFoundError, LocalError):  # never started
            fixes += read_fixes(path)
    return sorted(fixes, key=lambda fix: fix.snapshot)


def _stages(folder: RunFolder) -> dict[tuple[int, int, int], StageRow]:
    stages = {}
    for path in folder.streams(STAGES):
        start = start_of(path.name)
        if isinstance(start, EdgeStart):
            with contextlib.suppress(FileNotFoundError, LocalError):
                stages.update({(start.bs, row.snapshot, row.round): row for row in read_stages(path)})
    return stages


def _clocks(streams: Streams, sockets: Sockets) -> dict[EdgeStart, ClockOffset | None]:
    """Estimate the offset of each start's clock from its pings, unless both ends read the same clock."""
    names = {start_of(row["peer"]): row["detail"] for row in sockets.events.to_pylist() if row["kind"] == "clock"}
    cloud = {name for start, name in names.items() if isinstance(start, CloudStart)}
    samples: dict[EdgeStart, list[ClockSample]] = {}
    for sample in ping_samples(streams.received):
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
