"""What became of every frame: the senders' journals joined with what arrived (accounting, "Fates").

    SendJournal ---+
                   +--> close_ledger --> ledger table --> write_parquet
    ReceiveLog ----+        ^                 |
                       report fates           +--> conservation

Notation: a *link* is a BS and a direction; a frame is *journaled* if its sender wrote it down, a *stray* if
it arrived without that. Strays keep null in the columns that only a sender knows.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fronthaul.conservation import Conservation, conservation
from fronthaul.errors import LocalError
from fronthaul.fates import FrameFate, ReportFate
from fronthaul.journal import journal_schema
from fronthaul.messages import Direction, ReportKey
from fronthaul.rowstream import RowStream
from fronthaul.transport import bs_of
from fronthaul.wire import claim

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Conservation",
    "ReceiveLog",
    "close_ledger",
    "conservation",
    "ledger_schema",
    "receive_schema",
    "write_parquet",
]


@functools.cache
def receive_schema() -> pa.Schema:
    """Return the receive log's columns.

    `peer` is the connection's identity, `bytes` the message's length. bs .. seq and `crc32` are what the
    message says of itself: a claim where it is corrupt, null where it is too short for one.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("peer", pa.binary()),
            ("bs", pa.uint16()),
            ("epoch", pa.uint16()),
            ("snapshot", pa.uint32()),
            ("round", pa.uint8()),
            ("seq", pa.uint32()),
            ("direction", pa.string()),
            ("t_received_ns", pa.int64()),
            ("frame_fate", pa.string()),
            ("reason", pa.string()),
            ("bytes", pa.uint32()),
            ("crc32", pa.uint32()),
        ]
    )


@functools.cache
def ledger_schema() -> pa.Schema:
    """Return the ledger's columns: design, "The ledger's columns", and `reason` for what did not go well."""
    import pyarrow as pa

    sender = {field.name: field for field in journal_schema()}
    return pa.schema(
        [
            *(sender[name] for name in ("bs", "epoch", "snapshot", "round", "seq", "direction", "t_sent_ns")),
            pa.field("t_received_ns", pa.int64()),
            *(sender[name] for name in ("payload_bits", "side_bits", "header_bytes", "padding_bits")),
            *(sender[name] for name in ("zmtp_bytes", "curve_bytes")),
            pa.field("frame_fate", pa.string()),
            pa.field("report_fate", pa.string()),
            *(sender[name] for name in ("crc32", "side", "payload")),
            pa.field("reason", pa.string()),
        ]
    )


class ReceiveLog:
    """What arrived at one end of links of one direction; one row a message, survives kill -9."""

    def __init__(self, path: Path, *, direction: Direction = Direction.UP) -> None:
        """Create the log at `path`.

        Raises:
            LocalError: there is a file at `path` already.
        """
        self._direction = direction
        self._rows = RowStream(path, receive_schema())

    def append(
        self,
        peer: bytes,
        data: bytes,
        t_received_ns: int,
        frame_fate: FrameFate,
        reason: str | None = None,
    ) -> None:
        """Write down one message that arrived.

        Args:
            peer: identity of the link's BS, in both directions.
            data: the message as it came.
            t_received_ns: when [ns].
            frame_fate: what becomes of it; never "dropped".
            reason: why it is corrupt or rejected.

        Raises:
            LocalError: a fate that nothing which arrived can have, a reason for a good one, or a closed log.
        """
        if frame_fate is FrameFate.DROPPED:
            raise LocalError("a frame that arrived was not dropped")
        if reason is not None and frame_fate not in (FrameFate.CORRUPT, FrameFate.REJECTED):
            raise LocalError(f"a frame is {frame_fate} without a reason")
        *key, crc32 = claim(data) or (None,) * 6
        self._rows.append(
            peer,
            *key,
            self._direction.value,
            t_received_ns,
            frame_fate.value,
            reason,
            len(data),
            crc32,
        )

    def close(self) -> None:
        """Mark the log's end; closing twice is fine."""
        self._rows.close()


def close_ledger(
    journal: pa.Table,
    received: pa.Table,
    report_fates: Mapping[ReportKey, ReportFate],
) -> pa.Table:
    """Join what was sent with what arrived.

    An authentic arrival belongs to the journaled frame with its link, epoch, seq and CRC. A corrupt one
    belongs to the frame of its link with the CRC it still carries or, the CRC being what was hit, with its
    epoch and seq. A journaled frame to which nothing belongs was dropped; a journaled report without fate
    and without delivered frame was lost. Reports go up: frames that go down have no report fate.

    Args:
        journal: rows of all journals, `journal_schema()`.
        received: rows of all receive logs, `receive_schema()`.
        report_fates: what the cloud decided.

    Returns:
        `ledger_schema()`, the journaled frames in the journal's order and then the strays.
    """
    import pyarrow as pa

    arrivals = received.to_pylist()
    arrival_of, strays = _match(journal, arrivals)
    fates = [a["frame_fate"] if a else FrameFate.DROPPED.value for a in arrival_of]
    drop_reasons = journal["drop_reason"].to_pylist()
    arrived = {
        "t_received_ns": [a["t_received_ns"] if a else None for a in arrival_of],
        "frame_fate": fates,
        "report_fate": _report_fates(journal, fates, report_fates),
        "reason": [
            drop if a is None or drop else a["reason"]
            for a, drop in zip(arrival_of, drop_reasons, strict=True)
        ],
    }
    schema = ledger_schema()
    columns = [
        pa.chunked_array([pa.array(arrived[field.name], field.type)])
        if field.name in arrived
        else journal[field.name]
        for field in schema
    ]
    journaled = pa.Table.from_arrays(columns, schema=schema)
    return pa.concat_tables([journaled, pa.Table.from_pylist(strays, schema=schema)])


def _match(
    journal: pa.Table, arrivals: list[dict[str, Any]]
) -> tuple[list[dict[str, Any] | None], list[dict[str, Any]]]:
    """Return (the arrival of each journaled frame, the stray rows)."""
    names = ("bs", "direction", "epoch", "seq", "crc32", "drop_reason")
    sent = list(zip(*(journal[name].to_pylist() for name in names), strict=True))
    by_seq: dict[tuple[object, ...], int] = {}
    by_crc: dict[tuple[object, ...], int] = {}
    for row, (bs, direction, epoch, seq, crc32, drop_reason) in enumerate(sent):
        by_seq.setdefault((bs, direction, epoch, seq), row)
        if drop_reason is None:  # else it cannot have arrived corrupt
            by_crc.setdefault((bs, direction, crc32), row)

    arrival_of: list[dict[str, Any] | None] = [None] * len(sent)
    strays = []
    # Authentic arrivals first: what is certain is not left to the guesses about corrupt ones.
    for arrival in sorted(arrivals, key=lambda a: a["frame_fate"] == FrameFate.CORRUPT):
        bs = bs_of(arrival["peer"])
        seq_row = by_seq.get((bs, arrival["direction"], arrival["epoch"], arrival["seq"]))
        if arrival["frame_fate"] == FrameFate.CORRUPT:
            crc_row = by_crc.get((bs, arrival["direction"], arrival["crc32"]))
            candidates = [crc_row, seq_row if seq_row is not None and sent[seq_row][-1] is None else None]
        else:
            genuine = seq_row is not None and (arrival["bs"], arrival["crc32"]) == (bs, sent[seq_row][4])
            candidates = [seq_row if genuine else None]
        free = [row for row in candidates if row is not None and arrival_of[row] is None]
        if free:
            arrival_of[free[0]] = arrival
        else:
            strays.append(_stray(arrival, bs))
    return arrival_of, strays


def _stray(arrival: dict[str, Any], bs: int | None) -> dict[str, Any]:
    row = {name: arrival[name] for name in ("direction", "t_received_ns", "frame_fate", "reason", "crc32")}
    row["bs"] = bs  # the link it came by, not the BS it says it is from
    if arrival["frame_fate"] != FrameFate.CORRUPT:  # nothing that a corrupt message says is a key
        row |= {name: arrival[name] for name in ("epoch", "snapshot", "round", "seq")}
    return row


def _report_fates(
    journal: pa.Table,
    frame_fates: list[str],
    report_fates: Mapping[ReportKey, ReportFate],
) -> list[str | None]:
    names = ("bs", "epoch", "snapshot", "round", "direction")
    *keys, directions = (journal[name].to_pylist() for name in names)
    reports = [
        ReportKey(*key) if direction == Direction.UP else None
        for *key, direction in zip(*keys, directions, strict=True)
    ]
    delivered = {
        report
        for report, fate in zip(reports, frame_fates, strict=True)
        if report and fate == FrameFate.DELIVERED
    }
    column: list[str | None] = []
    for report in reports:
        fate = report_fates.get(report) if report else None
        if report and fate is None and report not in delivered:
            fate = ReportFate.LOST
        column.append(fate.value if fate else None)
    return column


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table under a temporary name, then rename: `path` is whole or absent."""
    import pyarrow.parquet as pq

    temporary = path.with_name(path.name + ".tmp")
    pq.write_table(table, temporary, compression="zstd")
    temporary.replace(path)
