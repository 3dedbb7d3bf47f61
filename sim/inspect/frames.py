"""Inspection of a run: totals of links, selected frames, one frame down to its bits, recovery of a run that was cut."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fronthaul.account.conservation import CHECKED, Conservation, codes, conservation
from fronthaul.account.costs import COSTS, FrameCost
from fronthaul.account.ledger import ledger_schema
from fronthaul.codec.bitstream import unpack
from fronthaul.log.stream_names import SENT
from fronthaul.message.compact import pack
from fronthaul.message.fates import FrameFate, ReportFate
from fronthaul.message.messages import Direction, Frame, Payload, PayloadFormat, Report, ReportKey
from fronthaul.message.wire import VERSION, encode
from fronthaul.payload.fields import PayloadField
from sim.errors import UserError, nearest_hint, reason
from sim.inspect.run_weights import run_weights
from sim.plan.plan import edge_setup
from sim.plan.scheme_options import known_spec
from sim.records.books import Books, close, used_reports
from sim.records.folder import RunConfiguration, RunFolder, read_configuration
from sim.records.links import (
    NO_TRANSPORT,
    Ledgers,
    LinkTotals,
    all_totals,
    mask,
    numbers,
    read_table,
    valid,
)
from sim.records.stream_bytes import recorded_transport

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Choice", "FrameView", "LinkTotals", "check_books", "chosen_frames", "frame_view", "link_totals", "recover"]


@dataclass(frozen=True)
class Choice:
    """A selection of frames.

    Attributes:
        link: base station; None for all.
        begin_s: earliest time sent, after time zero [s]; None for no limit.
        end_s: time after time zero before which frames were sent [s]; None for no limit.
        fates: names of fates of frames or reports; empty for all.
        direction: "up" or "down"; None for both.

    Raises:
        UserError: a fate or direction that does not exist.
    """

    link: int | None = None
    begin_s: float | None = None
    end_s: float | None = None
    fates: Collection[str] = ()
    direction: str | None = None

    def __post_init__(self) -> None:
        """Check the names."""
        known = [fate.value for fate in (*FrameFate, *ReportFate)]
        for fate in self.fates:
            if fate not in known:
                raise UserError(f"There is no fate {fate!r}{nearest_hint(fate, known)}.")
        if self.direction is not None and self.direction not in list(Direction):
            raise UserError(f"--direction is up or down, not {self.direction!r}.")

    @property
    def is_everything(self) -> bool:
        """Whether frames are selected by link only, or not at all."""
        return self == Choice(self.link)

    def of(self, rows: pa.RecordBatch, t0_ns: int) -> pa.RecordBatch:
        """Return the selected rows of a ledger, of which it takes the columns `LISTED`."""
        chosen = np.ones(len(rows), np.bool_)
        if self.direction is not None:
            chosen &= codes(rows["direction"], [self.direction]) == 0
        if self.fates:
            names = list(self.fates)
            chosen &= (codes(rows["frame_fate"], names) >= 0) | (codes(rows["report_fate"], names) >= 0)
        after_ns = moments_ns(rows) - t0_ns
        if self.begin_s is not None:
            chosen &= after_ns / 1e9 >= self.begin_s
        if self.end_s is not None:
            chosen &= after_ns / 1e9 < self.end_s
        return rows if chosen.all() else rows.filter(mask(chosen))


LISTED = tuple(name for name in ledger_schema().names if name not in ("payload", "side"))
"""The columns of a ledger that lists of frames show."""


def moments_ns(rows: pa.RecordBatch | pa.Table) -> npt.NDArray[np.int64]:
    """Return when the frame of each row was sent [ns], or when it was received if no sender journaled it."""
    return np.where(rows["t_sent_ns"].is_null(), numbers(rows, "t_received_ns"), numbers(rows, "t_sent_ns"))


@dataclass(frozen=True)
class FrameView:
    """One frame, down to its bits.

    Attributes:
        bs: base station.
        epoch: epoch of the BS.
        seq: sequence number of the frame on its link.
        direction: "up" or "down".
        version: version of the wire format.
        crc32: CRC-32 as sent.
        t_sent_ns: when it was sent, on the run's clock [ns].
        t_release_ns: when the link model released it onto the wire [ns].
        t_received_ns: when it was received [ns]; None if it did not arrive.
        frame_fate: fate of the frame.
        reason: why it was dropped, corrupt or rejected; None if it was not.
        costs: bytes by name, for each report.
        data: the frame in its standard form: header, side information, payload, CRC-32.
        compact: its compact form, if it went onto the wire in that; else None.
        reports: the reports in it.
    """

    bs: int
    epoch: int
    seq: int
    direction: str
    version: int
    crc32: int
    t_sent_ns: int
    t_release_ns: int
    t_received_ns: int | None
    frame_fate: str
    reason: str | None
    costs: tuple[FrameCost, ...]
    data: bytes
    compact: bytes | None
    reports: tuple[ReportView, ...]

    @property
    def hex(self) -> str:
        """The frame in hexadecimal, two digits per byte."""
        return self.data.hex()

    @property
    def stream_bytes(self) -> int:
        """Bytes on the TCP stream [B]."""
        return sum(cost.stream_bytes for cost in self.costs)


@dataclass(frozen=True)
class ReportView:
    """One report of a frame.

    Attributes:
        snapshot: snapshot number.
        round: round of the exchange.
        report_fate: fate of the report; None on the downlink.
        side: side information.
        side_values: side information as big-endian float32 numbers, such as a gain; empty if not a multiple of 4 B.
        bits: bits per index; 0 where no fixed format is declared: on the downlink, or for payloads of varying length.
        index: indices in the payload, (coefficients,); empty if `bits` is 0.
        payload: the payload.
        fields: the numbers in the payload, if the scheme says what they are and the run's weights are at hand.
    """

    snapshot: int
    round: int
    report_fate: str | None
    side: bytes
    side_values: tuple[float, ...]
    bits: int
    index: npt.NDArray[np.uint32]
    payload: Payload
    fields: tuple[PayloadField, ...] = ()


def link_totals(folder: Path) -> list[LinkTotals]:
    """Add up each link of a run.

    Raises:
        UserError: the folder is not a run's, or has no ledgers.
    """
    ledgers = link_ledgers(folder)
    transport = recorded_transport(RunFolder(folder)) or NO_TRANSPORT
    return all_totals(ledgers, ledgers.stations, transport)


def check_books(folder: Path) -> Conservation:
    """Check the ledgers of a run against its fixes; a run that was cut is reported as a problem, too.

    Raises:
        UserError: the folder is not a run's, has no ledgers, or a table is damaged.
    """
    run, ledgers = RunFolder(folder), link_ledgers(folder)
    tables = (ledgers.table(bs, CHECKED) for bs in ledgers)
    if run.fixes.exists():
        return conservation(tables, used_reports(read_table(run.fixes)))
    books = conservation(tables)
    return replace(books, problems=(f"the run was cut, it has no {run.fixes.name}", *books.problems))


def chosen_rows(folder: Path, choice: Choice, t0_ns: int = 0) -> Iterator[pa.RecordBatch]:
    """Yield the selected rows of the ledgers, with the columns `LISTED`, link by link.

    Raises:
        UserError: the folder is not a run's, has no ledgers, or there is no such link.
    """
    ledgers = link_ledgers(folder)
    if choice.link is not None:
        _require_link(ledgers, choice.link, folder)
    for bs in ledgers if choice.link is None else [choice.link]:
        for rows in ledgers.batches(bs, LISTED):
            yield choice.of(rows, t0_ns)


def chosen_frames(
    folder: Path, choice: Choice, t0_ns: int = 0, most: int | None = None
) -> tuple[list[dict[str, Any]], int]:
    """Return the first `most` of the selected rows, ordered by time, and the number of all.

    Raises:
        UserError: the folder is not a run's, has no ledgers, or there is no such link.
    """
    import pyarrow as pa

    schema = pa.schema([ledger_schema().field(name) for name in LISTED])
    kept, count = schema.empty_table(), 0
    for rows in chosen_rows(folder, choice, t0_ns):
        count += len(rows)
        kept = pa.concat_tables([kept, pa.Table.from_batches([rows])])
        if most is not None and len(kept) > most:
            kept = kept.take(pa.array(np.sort(np.argsort(moments_ns(kept), kind="stable")[:most])))
    return kept.take(pa.array(np.argsort(moments_ns(kept), kind="stable"))).to_pylist(), count


def frame_view(
    folder: Path, link: int, frame: int, epoch: int | None = None, direction: Direction = Direction.UP
) -> FrameView:
    """Return one frame, decoded down to its bits.

    Args:
        folder: folder of the run.
        link: base station.
        frame: sequence number on the link.
        epoch: epoch of the BS; None for the last.
        direction: direction of the frame.

    Raises:
        UserError: there is no such link or frame.
    """
    ledgers = link_ledgers(folder)
    _require_link(ledgers, link, folder)
    sent = ledgers.table(link, ("epoch", "seq", "direction", "t_sent_ns"))
    sent = sent.filter(mask((codes(sent["direction"], [direction]) == 0) & valid(sent, "t_sent_ns")))
    if epoch is None:
        epoch = int(numbers(sent, "epoch").max(initial=0))
    known = np.unique(numbers(sent, "seq")[numbers(sent, "epoch") == epoch]).tolist()
    if frame not in known:
        known_frames = f"frames are {_span(known)}" if known else "nothing was sent"
        raise UserError(f"There is no frame {frame} {direction} on link {link} in epoch {epoch}: {known_frames}.")
    rows: list[dict[str, Any]] = []
    for batch in ledgers.batches(link):
        mine = (codes(batch["direction"], [direction]) == 0) & valid(batch, "t_sent_ns")
        mine &= (numbers(batch, "epoch") == epoch) & (numbers(batch, "seq") == frame)
        rows += batch.filter(mask(mine)).to_pylist()
    return _view(rows, read_configuration(RunFolder(folder)))


def _require_link(ledgers: Ledgers, link: int, folder: Path) -> None:
    if link not in ledgers:
        raise UserError(f"There is no link {link} in {folder}: links are {_span(ledgers.stations)}.")


def frame_of(rows: list[dict[str, Any]]) -> Frame:
    """Return the frame of these rows of a ledger."""
    rows = sorted(rows, key=lambda row: row["part"])
    reports = tuple(
        Report(
            ReportKey(row["bs"], row["epoch"], row["snapshot"], row["round"]),
            Payload(row["payload"], row["payload_bits"]),
            row["side"],
        )
        for row in rows
    )
    return Frame(rows[0]["seq"], reports)


@dataclass(frozen=True)
class Recovered:
    """Books of a run that was cut.

    Attributes:
        books: books closed from its streams.
        conservation: sums over all links, and contradictions.
        links: totals of each link.
    """

    books: Books
    conservation: Conservation
    links: list[LinkTotals] = field(init=False)

    def __post_init__(self) -> None:
        """Set `links` from the books."""
        object.__setattr__(self, "links", self.books.links)


def recover(folder: Path) -> Recovered:
    """Close the ledgers of a run that was cut, from its streams, which are kept.

    Raises:
        UserError: the folder is not a run's, holds no journals to recover, or cannot be written.
    """
    run = RunFolder(folder)
    configuration = read_configuration(run)
    if not run.streams(SENT):
        raise UserError(f"{folder} holds no journals: the run was not cut, or no frame was sent.")
    try:
        books = close(run, configuration.stations)
    except OSError as error:
        raise UserError(
            f"The books of {folder} cannot be closed: {reason(error)}. Its journals are untouched: with room "
            "on the disk, `inspect --recover` closes them."
        ) from error
    return Recovered(books, books.conservation())


def link_ledgers(folder: Path) -> Ledgers:
    """Return the ledgers of a run's links.

    Raises:
        UserError: the folder is not a run's, or has no ledgers.
    """
    run = RunFolder(folder)
    read_configuration(run)  # raises if this is not a run's folder
    ledgers = Ledgers(run)
    if not ledgers.stations:
        raise UserError(f"{folder} holds no ledgers: the run was cut, recover it with `inspect --recover`.")
    return ledgers


def _view(rows: list[dict[str, Any]], configuration: RunConfiguration) -> FrameView:
    frame = frame_of(rows)
    row, data = rows[0], encode(frame)
    is_packed = configuration.settings.compact and row["direction"] == Direction.UP and pack(data) != data
    return FrameView(
        bs=row["bs"],
        epoch=row["epoch"],
        seq=frame.seq,
        direction=row["direction"],
        version=VERSION,
        crc32=row["crc32"],
        t_sent_ns=row["t_sent_ns"],
        t_release_ns=row["t_release_ns"],
        t_received_ns=row["t_received_ns"],
        frame_fate=row["frame_fate"],
        reason=row["reason"],
        costs=tuple(FrameCost(**{name: part[name] for name in COSTS}) for part in rows),
        data=data,
        compact=pack(data) if is_packed else None,
        reports=tuple(
            _report_view(report, part["report_fate"], row["direction"], configuration)
            for report, part in zip(frame.reports, rows, strict=True)
        ),
    )


def _report_view(report: Report, fate: str | None, direction: str, configuration: RunConfiguration) -> ReportView:
    declared: PayloadFormat | None = None
    if direction == Direction.UP:
        declared = configuration.answer_format if report.key.round else configuration.format
    bits = declared.width if declared is not None and declared.fixed else 0
    return ReportView(
        snapshot=report.key.snapshot,
        round=report.key.round,
        report_fate=fate,
        side=report.side,
        side_values=_floats(report.side),
        bits=bits,
        index=unpack(report.payload, bits, report.payload.bits // bits) if bits else np.empty(0, np.uint32),
        payload=report.payload,
        fields=_fields(report, configuration) if declared is not None and not report.key.round else (),
    )


def _fields(report: Report, configuration: RunConfiguration) -> tuple[PayloadField, ...]:
    try:
        described = known_spec(configuration.settings.scheme).fields
        weights = None if described is None else run_weights(configuration)
    except UserError:  # a frame can be looked at without the scheme and its weights
        return ()
    if described is None or weights is None:
        return ()
    site = configuration.scenario.sites[report.key.bs].position
    return tuple(described(edge_setup(configuration.settings, weights, report.key.bs, site), report.payload))


def _floats(side: bytes) -> tuple[float, ...]:
    return tuple(float(value) for value in np.frombuffer(side, ">f4")) if len(side) % 4 == 0 else ()


def _span(numbers: list[int]) -> str:
    return f"{numbers[0]}..{numbers[-1]}"
