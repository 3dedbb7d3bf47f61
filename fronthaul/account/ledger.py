"""The ledger, with the fate of every frame: the senders' journals joined with the receive logs.

For the fates, see docs/fronthaul.md, "Deadlines and fates".

    SendJournal ---+
                   +--> close_ledger --> ledger table --> conservation
    ReceiveLog ----+        ^
                       used reports

Notation: a *link* is a BS and a direction; a frame is *journaled* if it is in its sender's journal, and a
*stray* if it arrived without being in one; a *part* is a report of a frame. A stray is one row, with null in the
columns that only a sender knows. Control messages are not in the ledger: `control` accounts for them.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from fronthaul.account.costs import frame_costs
from fronthaul.errors import LocalError, RemoteError
from fronthaul.log.sent import flip, sent_rows
from fronthaul.message.fates import FrameFate, ReportFate
from fronthaul.message.messages import Direction, Frame, ReportKey
from fronthaul.message.wire import CRC_BYTES, decode, is_control
from fronthaul.transport.transport_costs import recorded_costs

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]


@functools.cache
def ledger_schema() -> pa.Schema:
    """Return the ledger's columns: one row per report of a frame.

    `zmtp_bytes` and `curve_bytes` are the framing and encryption overhead of the link's transport, whichever it is.

    `part` counts the reports of a frame from 0. `reason` is why a frame was corrupt or rejected; for a dropped frame,
    it is the sender's drop reason, or null if the frame was lost with its process or link.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("bs", pa.uint16()),
            ("epoch", pa.uint16()),
            ("snapshot", pa.uint32()),
            ("round", pa.uint8()),
            ("seq", pa.uint32()),
            ("part", pa.uint8()),
            ("direction", pa.string()),
            ("t_sent_ns", pa.int64()),
            ("t_release_ns", pa.int64()),
            ("t_received_ns", pa.int64()),
            ("payload_bits", pa.uint32()),
            ("side_bits", pa.uint16()),
            ("header_bytes", pa.uint16()),
            ("padding_bits", pa.uint8()),
            ("zmtp_bytes", pa.uint8()),
            ("curve_bytes", pa.uint8()),
            ("frame_fate", pa.string()),
            ("report_fate", pa.string()),
            ("crc32", pa.uint32()),
            ("side", pa.binary()),
            ("payload", pa.binary()),
            ("reason", pa.string()),
        ]
    )


class _Sent(NamedTuple):
    """A journaled frame."""

    row: Row
    frame: Frame
    crc32: int


def close_ledger(journal: pa.Table, received: pa.Table, used: Collection[ReportKey]) -> pa.Table:
    """Join the journals with the receive logs.

    An authentic arrival is matched with the journaled frame of the same link, epoch, seq and CRC. A corrupt one is
    matched with the frame of its link that the link model turned into exactly these bytes; failing that, with the
    frame that has the same CRC; failing that (the CRC itself may be hit), with the frame of the same epoch and seq. A
    journaled frame without a matching arrival was dropped.

    An uplink report is used if it is in `used`; else late, if the frame that delivered it arrived with it marked
    late; else unused, if a frame delivered it; else lost. Downlink frames have no report fate.

    Args:
        journal: rows of all journals, `sent.journal_table_schema()`.
        received: rows of all receive logs, `received.received_table_schema()`.
        used: the reports used in fixes, of all rounds.

    Returns:
        `ledger_schema()`, the journaled frames in the journal's order and then the strays.

    Raises:
        LocalError: a journal contains bytes that are not a message, or a frame of another link.
    """
    import pyarrow as pa

    sent = _sent(journal)
    arrival_of, strays = _match(sent, _frame_arrivals(received))
    fate_of = _report_fates(sent, arrival_of, frozenset(used))
    table: list[tuple[object, ...]] = []
    for (row, frame, crc32), arrival in zip(sent, arrival_of, strict=True):
        direction, drop_reason = row["direction"], row["drop_reason"]
        times = (row["t_sent_ns"], row["t_release_ns"], arrival["t_received_ns"] if arrival else None)
        frame_fate = arrival["frame_fate"] if arrival else FrameFate.DROPPED.value
        reason = drop_reason or (arrival["reason"] if arrival else None)
        costs = frame_costs(frame, recorded_costs(row["transport"]))
        for part, (report, cost) in enumerate(zip(frame.reports, costs, strict=True)):
            key, payload = report.key, report.payload
            table.append(
                (
                    *(key.bs, key.epoch, key.snapshot, key.round, frame.seq, part, direction, *times),
                    *(cost.payload_bits, cost.side_bits, cost.header_bytes, cost.padding_bits),
                    *(cost.zmtp_bytes, cost.curve_bytes, frame_fate),
                    fate_of[key] if direction == Direction.UP else None,
                    *(crc32, report.side, payload.data, reason),
                )
            )
    schema = ledger_schema()
    columns = zip(*table, strict=True) if table else [()] * len(schema)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    journaled = pa.Table.from_arrays(arrays, schema=schema)
    return pa.concat_tables([journaled, pa.Table.from_pylist(strays, schema=schema)]).combine_chunks()


def _sent(journal: pa.Table) -> list[_Sent]:
    sent = []
    for row in sent_rows(journal):
        message = row["message"]
        try:
            frame = decode(message)
        except RemoteError as error:
            raise LocalError(f"the journal of BS {row['bs']} {row['direction']} holds no message: {error}") from error
        if not isinstance(frame, Frame):
            continue
        if frame.bs != row["bs"]:
            raise LocalError(f"a frame of BS {frame.bs} does not belong in the journal of BS {row['bs']}")
        sent.append(_Sent(row, frame, int.from_bytes(message[-CRC_BYTES:], "big")))
    return sent


def _frame_arrivals(received: pa.Table) -> list[Row]:
    """Return the arrivals that are not control messages; rejected control messages are recognised by their bytes."""
    return [
        row
        for row in received.to_pylist()
        if row["frame_fate"] is not None
        and not (row["frame_fate"] == FrameFate.REJECTED and is_control(row["data"] or b""))
    ]


class _Links:
    """The journaled frames, looked up by the fields of arrivals; each is matched at most once."""

    def __init__(self, sent: list[_Sent]) -> None:
        self.arrival_of: list[Row | None] = [None] * len(sent)
        self._sent = sent
        self._by_seq: dict[tuple[object, ...], int] = {}
        self._by_crc: dict[tuple[object, ...], int] = {}
        self._by_flipped: dict[tuple[object, ...], int] = {}
        for index, (row, frame, crc32) in enumerate(sent):
            link = (row["bs"], row["direction"])
            self._by_seq.setdefault((*link, frame.epoch, frame.seq), index)
            if row["drop_reason"] is None:  # else it cannot have arrived corrupt
                self._by_crc.setdefault((*link, crc32), index)
                if row["flipped"]:
                    self._by_flipped.setdefault((*link, flip(row["message"], row["flipped"])), index)

    def authentic(self, arrival: Row) -> bool:
        index = self._by_seq.get((arrival["bs"], arrival["direction"], arrival["epoch"], arrival["seq"]))
        if index is not None and self._sent[index].crc32 != arrival["crc32"]:
            return False
        return self._take(index, arrival)

    def exactly(self, arrival: Row) -> bool:
        return self._take(self._by_flipped.get((arrival["bs"], arrival["direction"], arrival["data"])), arrival)

    def by_claim(self, arrival: Row) -> bool:
        link = (arrival["bs"], arrival["direction"])
        if self._take(self._by_crc.get((*link, arrival["crc32"])), arrival):
            return True
        index = self._by_seq.get((*link, arrival["epoch"], arrival["seq"]))
        if index is not None and self._sent[index].row["drop_reason"] is not None:
            return False
        return self._take(index, arrival)

    def _take(self, index: int | None, arrival: Row) -> bool:
        if index is None or self.arrival_of[index] is not None:
            return False
        self.arrival_of[index] = arrival
        return True


def _match(sent: list[_Sent], arrivals: list[Row]) -> tuple[list[Row | None], list[Row]]:
    """Return (the arrival of each journaled frame, the stray rows)."""
    links = _Links(sent)
    corrupt = [arrival for arrival in arrivals if arrival["frame_fate"] == FrameFate.CORRUPT]
    authentic = [arrival for arrival in arrivals if arrival["frame_fate"] != FrameFate.CORRUPT]
    # Certain matches come first, so that guesses about corrupt frames cannot take their frames.
    strays = [arrival for arrival in authentic if not links.authentic(arrival)]
    unknown = [arrival for arrival in corrupt if not links.exactly(arrival)]
    strays += [arrival for arrival in unknown if not links.by_claim(arrival)]
    return links.arrival_of, [_stray(arrival) for arrival in strays]


def _stray(arrival: Row) -> Row:
    # The link it arrived on, not the BS that it names.
    names = ("bs", "direction", "t_received_ns", "frame_fate", "reason", "crc32")
    row: Row = {name: arrival[name] for name in names} | {"part": 0}
    if arrival["frame_fate"] != FrameFate.CORRUPT:  # no field of a corrupt message is a reliable key
        row |= {name: arrival[name] for name in ("epoch", "seq")}
    return row


def _report_fates(sent: list[_Sent], arrival_of: list[Row | None], used: frozenset[ReportKey]) -> dict[ReportKey, str]:
    """Return the fate of each uplink report."""
    fate_of: dict[ReportKey, str] = {}
    for (row, frame, _), arrival in zip(sent, arrival_of, strict=True):
        if row["direction"] != Direction.UP:
            continue
        delivered = arrival is not None and arrival["frame_fate"] == FrameFate.DELIVERED
        late = arrival["late"] if arrival is not None and delivered else 0
        for part, report in enumerate(frame.reports):
            if report.key in used:
                fate_of[report.key] = ReportFate.USED.value
            elif delivered:
                fate_of[report.key] = (ReportFate.LATE if late >> part & 1 else ReportFate.UNUSED).value
            else:
                fate_of.setdefault(report.key, ReportFate.LOST.value)
    return fate_of
