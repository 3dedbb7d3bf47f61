"""What became of every frame: the senders' journals joined with what arrived (accounting, "Fates").

    SendJournal ---+
                   +--> close_ledger --> ledger table --> conservation
    ReceiveLog ----+        ^
                       used reports

Notation: a *link* is a BS and a direction; a frame is *journaled* if its sender wrote it down, a *stray* if
it arrived without that; a *part* is a report of a frame. Strays are one row each, and keep null in the columns that
only a sender knows. Control messages are not in the ledger: `control` accounts for them.
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
    """Return the ledger's columns: one row a report of a frame.

    `zmtp_bytes` and `curve_bytes` are framing and encryption of whichever transport carried the link.

    `part` counts the reports of a frame from 0. `reason` says why a frame was corrupt or rejected; of a dropped one
    it is the link model's reason, or null where it died with its process or link.
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
    """Join what was sent with what arrived.

    An authentic arrival belongs to the journaled frame with its link, epoch, seq and CRC. A corrupt one belongs to
    the frame of its link that the link model made into these very bytes; failing that, to the frame with the CRC it
    still carries or, the CRC being what was hit, with its epoch and seq. A journaled frame to which nothing belongs
    was dropped.

    A report that went up is used if it is in `used`; else late, if the frame that delivered it says so; else unused,
    if a frame delivered it; else lost. Frames that go down have no report fate.

    Args:
        journal: rows of all journals, `sent.journal_table_schema()`.
        received: rows of all receive logs, `received.received_table_schema()`.
        used: the reports that are in fixes, of all rounds.

    Returns:
        `ledger_schema()`, the journaled frames in the journal's order and then the strays.

    Raises:
        LocalError: a journal holds what is no message, or a frame of another link.
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
    """Return what is not a control message; a rejected one is known by its bytes."""
    return [
        row
        for row in received.to_pylist()
        if row["frame_fate"] is not None
        and not (row["frame_fate"] == FrameFate.REJECTED and is_control(row["data"] or b""))
    ]


class _Links:
    """The journaled frames, to be found by what arrivals say; each is found once."""

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
    # What is certain comes first, and is not left to the guesses about corrupt frames.
    strays = [arrival for arrival in authentic if not links.authentic(arrival)]
    unknown = [arrival for arrival in corrupt if not links.exactly(arrival)]
    strays += [arrival for arrival in unknown if not links.by_claim(arrival)]
    return links.arrival_of, [_stray(arrival) for arrival in strays]


def _stray(arrival: Row) -> Row:
    # The link it came by, not the BS it says it is from.
    names = ("bs", "direction", "t_received_ns", "frame_fate", "reason", "crc32")
    row: Row = {name: arrival[name] for name in names} | {"part": 0}
    if arrival["frame_fate"] != FrameFate.CORRUPT:  # nothing that a corrupt message says is a key
        row |= {name: arrival[name] for name in ("epoch", "seq")}
    return row


def _report_fates(sent: list[_Sent], arrival_of: list[Row | None], used: frozenset[ReportKey]) -> dict[ReportKey, str]:
    """Return the fate of each report that went up."""
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
