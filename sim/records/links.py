"""Traffic of each link: ledgers closed from journals and receive logs, and their totals.

Files: ``links/bs-000.parquet``: one row per report of a frame, both directions; ``links/unknown.parquet``: frames that
arrived over connections of no base station, if any.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fronthaul.account.costs import modelled_ecpri_ethernet_bytes, modelled_ethernet_bytes, modelled_tcpip_bytes
from fronthaul.account.ledger import close_ledger
from fronthaul.errors import LocalError
from fronthaul.files import write_parquet
from fronthaul.log.received import read_received, received_table_schema
from fronthaul.log.sent import journal_table_schema, journal_transport, read_journal
from fronthaul.log.stream_names import RECEIVED, SENT
from fronthaul.message.fates import FrameFate, ReportFate
from fronthaul.message.messages import Direction, ReportKey
from fronthaul.transport.transport_costs import TransportCosts
from sim.errors import UserError
from sim.records.folder import RunFolder

if TYPE_CHECKING:
    import pyarrow as pa

COUNTED = ("payload_bits", "side_bits", "header_bytes", "padding_bits", "zmtp_bytes", "curve_bytes")
"""Columns of a ledger that sum to the size of a frame on the TCP stream."""
JUMBO_MTU = 9000
NO_TRANSPORT = TransportCosts("none")
"""Transport costs of a run in which no end started: nothing crossed a link."""


@dataclass(frozen=True)
class LinkTotals:
    """Totals over the frames of one link in one direction; frames that were never sent cost no bytes.

    Attributes:
        bs: base station.
        direction: up or down.
        frames: journaled frames by fate.
        strays: frames that arrived without being journaled.
        reports: reports by fate; empty for the downlink.
        payload_bits: payload, exact to the bit [bit].
        side_bits: side information [bit].
        header_bytes: message header and CRC [B].
        padding_bits: zeros up to the next byte [bit].
        zmtp_bytes: framing of the transport, for ZeroMQ the ZMTP frame headers [B].
        curve_bytes: overhead of its encryption [B].
        tcpip_bytes: modelled: stream and TCP/IP headers, each frame in its own segment [B].
        ethernet_bytes: modelled: the same with Ethernet headers [B].
        ecpri_ethernet_bytes: modelled: frames as eCPRI type 3 directly over Ethernet, MTU 1500 [B].
        ecpri_jumbo_bytes: modelled: the same with an MTU of 9000 [B].
    """

    bs: int
    direction: Direction
    frames: dict[FrameFate, int]
    strays: int
    reports: dict[ReportFate, int]
    payload_bits: int
    side_bits: int
    header_bytes: int
    padding_bits: int
    zmtp_bytes: int
    curve_bytes: int
    tcpip_bytes: int
    ethernet_bytes: int
    ecpri_ethernet_bytes: int
    ecpri_jumbo_bytes: int

    @property
    def stream_bytes(self) -> int:
        """Size of all frames on the TCP stream [B]."""
        bits = self.payload_bits + self.side_bits + self.padding_bits
        return bits // 8 + self.header_bytes + self.zmtp_bytes + self.curve_bytes


@dataclass(frozen=True)
class Streams:
    """Streams of a run: rows of all journals and receive logs, and the overhead of the transport."""

    journal: pa.Table
    received: pa.Table
    transport: TransportCosts

    def of(self, bs: int | None) -> Streams:
        """Return the rows of one link; None for connections that belong to no base station."""
        return Streams(_of(self.journal, bs), _of(self.received, bs), self.transport)


def read_streams(folder: RunFolder) -> Streams:
    """Read the streams of a run; a stream that was never started, or was cut within its first bytes, has no rows."""
    import pyarrow as pa

    journals = _tables(folder.streams(SENT), read_journal)
    return Streams(
        pa.concat_tables([journal_table_schema().empty_table(), *journals]),
        pa.concat_tables([received_table_schema().empty_table(), *_tables(folder.streams(RECEIVED), read_received)]),
        journal_transport(journals[0]) if journals else NO_TRANSPORT,
    )


def close_ledgers(
    folder: RunFolder, streams: Streams, stations: Iterable[int], used: Collection[ReportKey]
) -> dict[int | None, pa.Table]:
    """Close and write the ledger of each link; strays of unknown connections are under None.

    A BS that never started has an empty ledger.
    """
    used = frozenset(used)
    ledgers: dict[int | None, pa.Table] = {}
    known = list(stations)
    odd = {bs for bs in streams.received["bs"].unique().to_pylist() if bs not in known}
    for bs in (*known, *sorted(odd, key=lambda bs: (bs is None, bs))):
        link = streams.of(bs)
        if bs is None and not _has_frames(link.received):
            continue
        ledgers[bs] = close_ledger(link.journal, link.received, used)
        write_parquet(ledgers[bs], folder.ledger(bs))
    return ledgers


def read_ledgers(folder: RunFolder) -> dict[int | None, pa.Table]:
    """Read the ledgers of a run whose books are closed.

    Raises:
        UserError: one is damaged.
    """
    return {bs: read_table(path) for bs, path in folder.ledgers().items()}


def read_table(path: Path) -> pa.Table:
    """Read a table of a run.

    Raises:
        UserError: it is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: the run was cut or the file is damaged.") from error


def totals(bs: int, ledger: pa.Table, direction: Direction = Direction.UP) -> LinkTotals:
    """Return the totals of one direction of a link's ledger."""
    mine = _chosen(ledger, [way == direction for way in ledger["direction"].to_pylist()])
    sent = _chosen(mine, [t is not None for t in mine["t_sent_ns"].to_pylist()])
    fates = zip(sent["frame_fate"].to_pylist(), sent["part"].to_pylist(), strict=True)
    frames: Counter[str] = Counter(fate for fate, part in fates if part == 0)
    keys = zip(*(sent[name].to_pylist() for name in ("epoch", "snapshot", "round", "report_fate")), strict=True)
    reports: Counter[str] = Counter(fate for *_, fate in set(keys))
    crossed = _chosen(sent, [not dropped for dropped in _never_sent(sent)])
    sums = {name: sum(crossed[name].to_pylist()) for name in COUNTED}
    tcpip = ethernet = ecpri = jumbo = 0
    for (stream, overhead), count in Counter(_sizes(crossed)).items():
        tcpip += count * modelled_tcpip_bytes(stream)
        ethernet += count * modelled_ethernet_bytes(stream)
        ecpri += count * modelled_ecpri_ethernet_bytes(stream - overhead)
        jumbo += count * modelled_ecpri_ethernet_bytes(stream - overhead, JUMBO_MTU)
    return LinkTotals(
        bs=bs,
        direction=direction,
        frames={fate: frames[fate] for fate in FrameFate},
        strays=len(mine) - len(sent),
        reports={fate: reports[fate] for fate in ReportFate} if direction is Direction.UP else {},
        **sums,
        tcpip_bytes=tcpip,
        ethernet_bytes=ethernet,
        ecpri_ethernet_bytes=ecpri,
        ecpri_jumbo_bytes=jumbo,
    )


def all_totals(ledgers: dict[int | None, pa.Table], stations: Iterable[int]) -> list[LinkTotals]:
    """Return the totals of both directions of all links; a downlink without frames is left out."""
    found = [totals(bs, ledgers[bs], direction) for bs in stations for direction in Direction]
    return [link for link in found if link.direction is Direction.UP or any(link.frames.values())]


def _of(table: pa.Table, bs: int | None) -> pa.Table:
    import pyarrow.compute as pc

    column = table["bs"]
    return table.filter(pc.is_null(column) if bs is None else pc.fill_null(pc.equal(column, bs), False))


def _has_frames(received: pa.Table) -> bool:
    return any(fate is not None for fate in received["frame_fate"].to_pylist())


def _tables(paths: Iterable[Path], read: Callable[[Path], pa.Table]) -> list[pa.Table]:
    tables = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError, LocalError):
            tables.append(read(path))
    return tables


def _chosen(table: pa.Table, mask: list[bool]) -> pa.Table:
    import pyarrow as pa

    return table.filter(pa.array(mask, pa.bool_()))  # typed, since a mask may be empty


def _never_sent(sent: pa.Table) -> list[bool]:
    """Return which frames link model or queue dropped; a frame lost with its process may have been sent."""
    pairs = zip(sent["frame_fate"].to_pylist(), sent["reason"].to_pylist(), strict=True)
    return [fate == FrameFate.DROPPED and reason is not None for fate, reason in pairs]


def _sizes(sent: pa.Table) -> list[tuple[int, int]]:
    """Return (bytes on the stream, bytes of the transport's overhead) of each frame, bundled reports together."""
    rows = zip(*(sent[name].to_pylist() for name in (*COUNTED, "part")), strict=True)
    sizes: list[tuple[int, int]] = []
    for payload, side, header, padding, zmtp, curve, part in rows:
        stream = (payload + side + padding) // 8 + header + zmtp + curve
        if part == 0:
            sizes.append((stream, zmtp + curve))
        else:
            sizes[-1] = sizes[-1][0] + stream, sizes[-1][1]
    return sizes
