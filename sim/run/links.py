"""What crossed each link: ledgers closed from journals and receive log, and the bytes of each connection.

Files: ``links/bs-000.parquet`` one row a frame; ``links/connections.parquet`` one row a connection;
``links/unknown.parquet`` what came over connections that are no base station's, where anything did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud.node import ControlBytes
from fronthaul.accounting import (
    handshake_bytes,
    modelled_ecpri_ethernet_bytes,
    modelled_ethernet_bytes,
    modelled_tcpip_bytes,
)
from fronthaul.errors import LocalError
from fronthaul.fates import FrameFate, ReportFate
from fronthaul.journal import journal_schema, read_stream
from fronthaul.ledger import close_ledger, receive_schema, write_parquet
from fronthaul.messages import ReportKey
from fronthaul.transport import bs_of, identity
from sim.errors import UserError
from sim.run.record import RunRecord
from sim.run.runfolder import RunFolder

if TYPE_CHECKING:
    import pyarrow as pa

COUNTED = ("payload_bits", "side_bits", "header_bytes", "padding_bits", "zmtp_bytes", "curve_bytes")
"""Columns of a ledger that add up to the bytes of a frame on the TCP stream."""


@dataclass(frozen=True)
class LinkTotals:
    """Sums over the frames of one link; frames that the link model dropped cost nothing.

    Attributes:
        bs: base station.
        frames: journaled frames by fate.
        strays: frames that arrived without being journaled.
        reports: reports by fate.
        payload_bits: exact [bit].
        side_bits: side information [bit].
        header_bytes: our own header and CRC [B].
        padding_bits: zeros up to the next byte [bit].
        zmtp_bytes: ZMTP frame headers [B].
        curve_bytes: what encryption adds [B].
        tcpip_bytes: modelled: stream and TCP/IP headers, each frame a segment of its own [B].
        ethernet_bytes: modelled: the same with Ethernet headers [B].
        ecpri_ethernet_bytes: modelled: our frames as eCPRI type 3 straight on Ethernet [B].
    """

    bs: int
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

    @property
    def stream_bytes(self) -> int:
        """Bytes of all frames on the TCP stream [B]."""
        bits = self.payload_bits + self.side_bits + self.padding_bits
        return bits // 8 + self.header_bytes + self.zmtp_bytes + self.curve_bytes


@dataclass(frozen=True)
class Connection:
    """Counted bytes of one connection [B], ZMTP headers included.

    Attributes:
        bs: base station.
        identity: its name on the connection.
        handshake_up: greeting and READY of the BS.
        handshake_down: of the cloud.
        control_up: registration and goodbye.
        control_down: welcome or abort.
        heartbeat_up: liveness messages.
        heartbeat_down: of the cloud.
        data_up: all frames.
    """

    bs: int
    identity: str
    handshake_up: int
    handshake_down: int
    control_up: int
    control_down: int
    heartbeat_up: int
    heartbeat_down: int
    data_up: int

    @property
    def total_up(self) -> int:
        """What the TCP stream carried from BS to cloud [B]."""
        return self.handshake_up + self.control_up + self.heartbeat_up + self.data_up

    @property
    def total_down(self) -> int:
        """What the TCP stream carried from cloud to BS [B]."""
        return self.handshake_down + self.control_down + self.heartbeat_down


def close_ledgers(
    folder: RunFolder, stations: Iterable[int], fates: Mapping[ReportKey, ReportFate]
) -> dict[int | None, pa.Table]:
    """Close and write the ledger of each link; strays of unknown connections come under None.

    A BS that never started has an empty ledger.
    """
    import pyarrow as pa

    received = _rows(folder.receive_log, receive_schema())
    bs_of_row = [bs_of(peer) for peer in received["peer"].to_pylist()]
    stations = list(stations)
    rows: dict[int | None, list[int]] = {bs: [] for bs in (*stations, None)}
    for row, bs in enumerate(bs_of_row):
        rows[bs if bs in rows else None].append(row)
    ledgers: dict[int | None, pa.Table] = {}
    for bs, chosen in rows.items():
        journal = _journal(folder, bs)
        if bs is None and not chosen:
            continue
        arrived = received.take(pa.array(chosen, pa.int64()))
        ledgers[bs] = close_ledger(journal, arrived, fates)
        write_parquet(ledgers[bs], folder.links / "unknown.parquet" if bs is None else folder.ledger(bs))
    return ledgers


def read_ledgers(folder: RunFolder) -> dict[int | None, pa.Table]:
    """Read the ledgers of a run that was closed.

    Raises:
        UserError: one is damaged.
    """
    ledgers: dict[int | None, pa.Table] = {bs: read_table(path) for bs, path in folder.ledgers().items()}
    unknown = folder.links / "unknown.parquet"
    if unknown.is_file():
        ledgers[None] = read_table(unknown)
    return ledgers


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


def totals(bs: int, ledger: pa.Table) -> LinkTotals:
    """Add up one link's ledger."""
    sent = _chosen(ledger, [t is not None for t in ledger["t_sent_ns"].to_pylist()])
    frames: Counter[str] = Counter(sent["frame_fate"].to_pylist())
    keys = zip(*(sent[name].to_pylist() for name in ("epoch", "snapshot", "round", "report_fate")), strict=True)
    reports: Counter[str] = Counter(fate for *_, fate in set(keys))
    crossed = _chosen(sent, [not dropped for dropped in _dropped_by_model(sent)])
    sums = {name: sum(crossed[name].to_pylist()) for name in COUNTED}
    tcpip = ethernet = ecpri = 0
    for (stream, overhead), count in Counter(_sizes(crossed)).items():
        tcpip += count * modelled_tcpip_bytes(stream)
        ethernet += count * modelled_ethernet_bytes(stream)
        ecpri += count * modelled_ecpri_ethernet_bytes(stream - overhead)
    return LinkTotals(
        bs=bs,
        frames={fate: frames[fate] for fate in FrameFate},
        strays=len(ledger) - len(sent),
        reports={fate: reports[fate] for fate in ReportFate},
        **sums,
        tcpip_bytes=tcpip,
        ethernet_bytes=ethernet,
        ecpri_ethernet_bytes=ecpri,
    )


def connections(record: RunRecord, links: Iterable[LinkTotals]) -> list[Connection]:
    """Add up each connection.

    Control messages are counted where they were sent; for a BS that died, where they arrived.
    """
    table = []
    for link in links:
        cloud = record.cloud.control.get(link.bs, ControlBytes())
        edge = record.edges.get(link.bs)
        came = edge is not None or link.bs in record.cloud.registered
        up, down = handshake_bytes(identity(link.bs)) if came else (0, 0)
        table.append(
            Connection(
                bs=link.bs,
                identity=identity(link.bs).decode(),
                handshake_up=up,
                handshake_down=down,
                control_up=edge.control_sent if edge else cloud.received,
                control_down=cloud.sent,
                heartbeat_up=0,
                heartbeat_down=0,
                data_up=link.stream_bytes,
            )
        )
    return table


def write_connections(path: Path, table: list[Connection]) -> None:
    """Write the table of connections, with its totals."""
    import pyarrow as pa

    names = ("handshake", "control", "heartbeat")
    both = [f"{name}_{way}" for name in names for way in ("up", "down")]
    columns: dict[str, Any] = {
        "bs": pa.array([row.bs for row in table], pa.uint16()),
        "identity": pa.array([row.identity for row in table], pa.string()),
    }
    for name in (*both, "data_up", "total_up", "total_down"):
        columns[f"{name}_bytes"] = pa.array([getattr(row, name) for row in table], pa.int64())
    write_parquet(pa.table(columns), path)


def control_problems(record: RunRecord) -> list[str]:
    """Hold control messages as sent against those received, one sentence a difference [B]."""
    problems = []
    for bs, edge in record.edges.items():
        cloud = record.cloud.control.get(bs, ControlBytes())
        if (edge.control_sent, edge.control_received) != (cloud.received, cloud.sent):
            problems.append(
                f"BS {bs} sent {edge.control_sent} B of control messages and received "
                f"{edge.control_received} B, the cloud received {cloud.received} B and sent {cloud.sent} B"
            )
    return problems


def _journal(folder: RunFolder, bs: int | None) -> pa.Table:
    import pyarrow as pa

    paths = [] if bs is None else folder.journals(bs)
    return pa.concat_tables([journal_schema().empty_table(), *(_rows(p, journal_schema()) for p in paths)])


def _rows(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a stream; one that was never begun, or was cut within its first bytes, has no rows."""
    try:
        return read_stream(path)
    except (FileNotFoundError, LocalError):
        return schema.empty_table()


def _chosen(table: pa.Table, mask: list[bool]) -> pa.Table:
    import pyarrow as pa

    return table.filter(pa.array(mask, pa.bool_()))  # typed, for a mask may be empty


def _dropped_by_model(sent: pa.Table) -> list[bool]:
    pairs = zip(sent["frame_fate"].to_pylist(), sent["reason"].to_pylist(), strict=True)
    return [fate == FrameFate.DROPPED and reason is not None for fate, reason in pairs]


def _sizes(sent: pa.Table) -> list[tuple[int, int]]:
    """Return (bytes on the stream, those of ZMTP and CURVE) of each frame."""
    rows = zip(*(sent[name].to_pylist() for name in COUNTED), strict=True)
    return [
        ((payload + side + padding) // 8 + header + zmtp + curve, zmtp + curve)
        for payload, side, header, padding, zmtp, curve in rows
    ]
