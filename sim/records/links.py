"""Traffic of each link: ledgers closed from journals and receive logs, and their totals.

Files: ``links/bs-000.parquet``: one row per report of a frame, both directions; ``links/unknown.parquet``: frames that
arrived over connections of no base station, if any.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from fronthaul.account.conservation import codes
from fronthaul.account.costs import (
    COSTS,
    modelled_ecpri_ethernet_bytes,
    modelled_ethernet_bytes,
    modelled_tcpip_bytes,
)
from fronthaul.account.ledger import Closing, ledger_schema
from fronthaul.account.streams import ReceivedControl, SentControl
from fronthaul.account.used import UsedReports
from fronthaul.errors import LocalError
from fronthaul.files import whole_file
from fronthaul.log.received import Received
from fronthaul.log.sent import Journal
from fronthaul.log.stream_names import RECEIVED, SENT
from fronthaul.message.fates import FrameFate, ReportFate
from fronthaul.message.messages import Direction
from fronthaul.transport.endpoint import IPV4_HEADER_BYTES
from fronthaul.transport.transport_costs import TransportCosts
from sim.errors import UserError
from sim.files import allow_open_files
from sim.records.columns import described
from sim.records.folder import RunFolder
from sim.records.table_schemas import checked, require_ledger

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_T = TypeVar("_T")
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
        unsure_bytes: stream bytes, among the above, of frames lost without a reason: they may not have been sent [B].
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
    unsure_bytes: int
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
    """The journals and receive logs of a run, and the overhead of the transport."""

    journals: list[Journal]
    logs: list[Received]
    transport: TransportCosts


def read_streams(folder: RunFolder) -> Streams:
    """Open the streams of a run; one that was never started, or was cut within its first bytes, is left out."""
    journals = [*_opened(folder.streams(SENT), Journal)]
    return Streams(
        journals,
        [*_opened(folder.streams(RECEIVED), Received)],
        # What goes up may have a form of its own, so that base stations know more of a link than the cloud.
        next((j.transport for j in sorted(journals, key=lambda j: j.direction is Direction.DOWN)), NO_TRANSPORT),
    )


@dataclass(frozen=True)
class Besides:
    """What crossed the links besides the frames in their ledgers.

    Attributes:
        sent: control messages that were journaled.
        received: control messages that arrived.
        arrived_bytes: stream bytes of all messages that arrived, frames included, by link and direction [B].
        stray_bytes: those of messages that nobody journaled [B].
    """

    sent: Sequence[SentControl]
    received: Sequence[ReceivedControl]
    arrived_bytes: Mapping[tuple[int | None, Direction], int]
    stray_bytes: Mapping[tuple[int | None, Direction], int]


def close_ledgers(folder: RunFolder, streams: Streams, stations: Iterable[int], used: UsedReports) -> Besides:
    """Close and write the ledger of each link; strays of unknown connections are under None.

    A BS that never started has an empty ledger.

    Raises:
        LocalError: a journal contains bytes that are not a message, or a frame of another link.
    """
    closing = Closing(streams.journals, streams.logs, used)
    with LedgerWriter(folder, stations) as ledgers:
        for bs, rows in closing.rows():
            ledgers.write(bs, rows)
    cost, came = streams.transport.stream_bytes, closing.arrived
    strays: Counter[tuple[int | None, Direction]] = Counter()
    for bs, direction, size in closing.stray_sizes():
        strays[bs, direction] += cost(size)
    journaled = Counter((row.bs, row.direction, row.message) for row in closing.sent.control if not row.drop_reason)
    for row in came.control:
        if row.bs is not None and journaled[row.bs, row.direction, row.message] > 0:
            journaled[row.bs, row.direction, row.message] -= 1
        else:
            strays[row.bs, row.direction] += cost(len(row.message))
    arrived = {link: sum(count * cost(size) for size, count in sizes.items()) for link, sizes in came.sizes.items()}
    return Besides(closing.sent.control, came.control, arrived, strays)


class LedgerWriter:
    """Writes the ledgers of a run side by side, each whole or not at all.

    Rows are collected into row groups of some size, which compress and read better than small ones.
    """

    def __init__(self, folder: RunFolder, stations: Iterable[int]) -> None:
        """Write to `folder`, and an empty ledger for each of the `stations` without rows."""
        stations = list(stations)
        allow_open_files(len(stations) + 200)
        self._folder = folder
        self._stations = stations
        self._files = ExitStack()
        self._writers: dict[int | None, pq.ParquetWriter] = {}
        self._rows: dict[int | None, list[pa.RecordBatch]] = {}
        self._bytes = 0

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def write(self, bs: int | None, rows: pa.RecordBatch) -> None:
        """Append rows to the ledger of a base station; None stands for unknown connections."""
        mine = self._rows.setdefault(bs, [])
        mine.append(rows)
        self._bytes += rows.nbytes
        if sum(map(len, mine)) >= _GROUP_ROWS:
            self._flush(bs)
        elif self._bytes >= _PENDING_BYTES:
            for each in list(self._rows):
                self._flush(each)

    def __exit__(self, *exception: Any) -> None:
        """Write what is left, and rename the files; after an exception, remove them."""
        if exception[0] is None:
            with self._files:
                for bs in [*self._rows, *self._stations]:
                    self._flush(bs)
        else:
            self._files.__exit__(*exception)

    def _flush(self, bs: int | None) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if bs not in self._writers:
            path = self._files.enter_context(whole_file(self._folder.ledger(bs)))
            schema = described(ledger_schema(), "links/bs-000.parquet")
            self._writers[bs] = self._files.enter_context(
                pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=list(_REPEATED))
            )
        rows = self._rows.pop(bs, [])
        if rows:
            self._bytes -= sum(batch.nbytes for batch in rows)
            self._writers[bs].write_table(pa.Table.from_batches(rows), row_group_size=_GROUP_ROWS)


_GROUP_ROWS = 1 << 17
_PENDING_BYTES = 1 << 28
_REPEATED = (
    *("bs", "epoch", "round", "part", "direction", "payload_bits", "side_bits", "header_bytes", "padding_bits"),
    *("zmtp_bytes", "curve_bytes", "frame_fate", "report_fate", "reason"),
)
"""Columns with few different values, which are worth a dictionary."""


class Ledgers:
    """The ledgers of a run, read one at a time, and only the columns asked for.

    Small ones are kept: a run of many base stations would open each file eight times.
    """

    def __init__(self, folder: RunFolder) -> None:
        """Look which there are."""
        self._paths = folder.ledgers()
        self._kept: dict[int | None, list[pa.RecordBatch]] = {}
        self._room = _KEPT_BYTES

    def __iter__(self) -> Iterator[int | None]:
        """Iterate over their base stations; None stands for unknown connections."""
        return iter(self._paths)

    def __contains__(self, bs: object) -> bool:
        """Return whether there is a ledger of a base station."""
        return bs in self._paths

    def __len__(self) -> int:
        """Return their number."""
        return len(self._paths)

    @property
    def stations(self) -> list[int]:
        """Base stations with a ledger, in order."""
        return sorted(bs for bs in self._paths if bs is not None)

    def batches(self, bs: int | None, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield rows of a ledger, with some columns of `ledger_schema()`; None takes all.

        Raises:
            UserError: it is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._paths[bs]
        names = ledger_schema().names if columns is None else list(columns)
        if bs in self._kept:
            yield from (rows.select(names) for rows in self._kept[bs])
            return
        try:
            with pq.ParquetFile(path) as file:
                if file.metadata.num_rows > _KEPT_ROWS or self._room < 0:
                    yield from self._read(file, bs, names)
                    return
                self._kept[bs] = list(self._read(file, bs, ledger_schema().names))
        except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: names that are not UTF-8
            raise UserError(f"{path} cannot be read: the run was cut or the file is damaged.") from error
        self._room -= sum(rows.nbytes for rows in self._kept[bs])
        yield from (rows.select(names) for rows in self._kept[bs])

    def _read(self, file: pq.ParquetFile, bs: int | None, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        path = self._paths[bs]
        if missing := set(names) - set(file.schema_arrow.names):
            raise UserError(f"{path.name} is damaged: it has no column {sorted(missing)[0]}.")
        schema = pa.schema([ledger_schema().field(name) for name in names])
        for batch in file.iter_batches(_BATCH_ROWS, columns=names, use_threads=False):
            rows = batch.select(names).cast(schema)
            rows.validate(full=True)
            require_ledger(rows, bs, path)
            yield rows

    def table(self, bs: int | None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a ledger, with some columns; None takes all.

        Raises:
            UserError: it is damaged.
        """
        import pyarrow as pa

        schema = ledger_schema()
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns])
        return pa.Table.from_batches(self.batches(bs, columns), schema)


_BATCH_ROWS = 1 << 16
_KEPT_ROWS = 1 << 12
_KEPT_BYTES = 1 << 26


def read_ledgers(folder: RunFolder) -> dict[int | None, pa.Table]:
    """Read the ledgers of a run whose books are closed.

    Raises:
        UserError: one is damaged.
    """
    ledgers = Ledgers(folder)
    return {bs: ledgers.table(bs) for bs in ledgers}


def read_table(path: Path) -> pa.Table:
    """Read a table of a run.

    Raises:
        UserError: it is missing or damaged, or lacks columns or values.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
        table.validate(full=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: the run was cut or the file is damaged.") from error
    return checked(table, path)


TOTALLED = (
    *("epoch", "snapshot", "round", "part", "direction", "t_sent_ns"),
    *(*COSTS, "frame_fate", "report_fate", "reason"),
)
"""The columns of a ledger that `totals` needs."""


def totals(
    bs: int, ledger: pa.Table, direction: Direction = Direction.UP, *, ip_header_bytes: int = IPV4_HEADER_BYTES
) -> LinkTotals:
    """Return the totals of one direction of a link's ledger, of which it takes the columns `TOTALLED`.

    `ip_header_bytes`: header of each IP packet of the link [B].
    """
    import pyarrow.compute as pc

    mine = ledger.filter(pc.equal(ledger["direction"], direction.value))
    sent = mine.filter(mine["t_sent_ns"].is_valid())
    fate, part = codes(sent["frame_fate"], list(FrameFate)), numbers(sent, "part")
    frames = np.bincount(fate[(part == 0) & (fate >= 0)], minlength=len(FrameFate)).tolist()
    _, first = np.unique(report_keys(sent), return_index=True)
    told = codes(sent["report_fate"], list(ReportFate))[first]
    reports = np.bincount(told[told >= 0], minlength=len(ReportFate)).tolist()
    # Link model or queue dropped what has a reason; a frame lost with its process may have been sent.
    dropped = fate == list(FrameFate).index(FrameFate.DROPPED)
    has_reason = sent["reason"].is_valid().to_numpy()
    crossed = sent.filter(mask(~(dropped & has_reason)))
    streams, overheads = _sizes(crossed)
    sizes, counts = np.unique(np.stack([streams, overheads]), axis=1, return_counts=True)
    tcpip = ethernet = ecpri = jumbo = 0
    for stream, overhead, count in zip(*sizes.tolist(), counts.tolist(), strict=True):
        tcpip += count * modelled_tcpip_bytes(stream, ip_header_bytes)
        ethernet += count * modelled_ethernet_bytes(stream, ip_header_bytes)
        ecpri += count * modelled_ecpri_ethernet_bytes(stream - overhead)
        jumbo += count * modelled_ecpri_ethernet_bytes(stream - overhead, JUMBO_MTU)
    return LinkTotals(
        bs=bs,
        direction=direction,
        frames=dict(zip(FrameFate, frames, strict=True)),
        strays=len(mine) - len(sent),
        reports=dict(zip(ReportFate, reports, strict=True)) if direction is Direction.UP else {},
        **{name: int(numbers(crossed, name).sum()) for name in COSTS},
        unsure_bytes=int(_row_bytes(sent)[dropped & ~has_reason].sum()),
        tcpip_bytes=tcpip,
        ethernet_bytes=ethernet,
        ecpri_ethernet_bytes=ecpri,
        ecpri_jumbo_bytes=jumbo,
    )


def all_totals(ledgers: Ledgers, stations: Iterable[int], transport: TransportCosts) -> list[LinkTotals]:
    """Return the totals of both directions of all links; a downlink without frames is left out."""
    header = transport.ip_header_bytes
    found = []
    for bs in stations:
        table = ledgers.table(bs, TOTALLED)
        found += [totals(bs, table, direction, ip_header_bytes=header) for direction in Direction]
    return [link for link in found if link.direction is Direction.UP or any(link.frames.values())]


def mask(chosen: npt.NDArray[np.bool_]) -> pa.Array:
    """Return a mask for `filter`."""
    import pyarrow as pa

    return pa.array(chosen, pa.bool_())


def valid(table: pa.Table | pa.RecordBatch, name: str) -> npt.NDArray[np.bool_]:
    """Return where a column is not null."""
    found: npt.NDArray[np.bool_] = np.asarray(table[name].is_valid())
    return found


def _opened(paths: Iterable[Path], kind: Callable[[Path], _T]) -> Iterator[_T]:
    for path in paths:
        with contextlib.suppress(FileNotFoundError, LocalError):
            yield kind(path)


def numbers(table: pa.Table | pa.RecordBatch, name: str) -> npt.NDArray[np.int64]:
    """Return a column of integers as an array; 0 stands for null."""
    return np.asarray(table[name].fill_null(0)).astype(np.int64)


def report_keys(table: pa.Table | pa.RecordBatch) -> npt.NDArray[np.int64]:
    """Return epoch, snapshot and round of each row of a ledger as one number."""
    return numbers(table, "epoch") << 40 | numbers(table, "snapshot") << 8 | numbers(table, "round")


def _row_bytes(table: pa.Table) -> npt.NDArray[np.int64]:
    """Return the bytes on the stream of each row [B]."""
    bits = numbers(table, "payload_bits") + numbers(table, "side_bits") + numbers(table, "padding_bits")
    return bits // 8 + numbers(table, "header_bytes") + numbers(table, "zmtp_bytes") + numbers(table, "curve_bytes")


def _sizes(sent: pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the bytes on the stream and the transport's overhead of each frame, bundled reports together [B]."""
    begins = np.flatnonzero(numbers(sent, "part") == 0)
    if not len(begins):
        return begins, begins
    overhead = numbers(sent, "zmtp_bytes") + numbers(sent, "curve_bytes")
    return np.add.reduceat(_row_bytes(sent), begins), np.add.reduceat(overhead, begins)
