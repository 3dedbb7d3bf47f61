"""The ledger, with the fate of every frame: the senders' journals joined with the receive logs.

For the fates, see docs/fronthaul.md, "Deadlines and fates".

    journals ----- frames sent, as arrays ----+                       journals, once more
                                              +--> which came how --------+--> rows of the ledgers, in batches
    receive logs - frames arrived, as arrays -+        ^
                                                used reports

Memory holds some 100 B per report, and never payloads: these go from the journals to the ledgers batch by batch.

Notation: a *link* is a BS and a direction; a frame is *journaled* if it is in its sender's journal, and a
*stray* if it arrived without being in one; a *part* is a report of a frame. A stray is one row, with null in the
columns that only a sender knows. Control messages are not in the ledger: `control` accounts for them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fronthaul.account.costs import cost_columns
from fronthaul.account.streams import FATES, UNKNOWN_BS, Array, Arrived, Sent, Texts, read_arrived, read_sent
from fronthaul.account.used import UsedReports
from fronthaul.log.received import Received
from fronthaul.log.sent import Journal
from fronthaul.message.columns import frame_columns
from fronthaul.message.fates import FrameFate, ReportFate
from fronthaul.message.messages import Direction

if TYPE_CHECKING:
    import pyarrow as pa

_DELIVERED, _CORRUPT, _DROPPED = (
    FATES.index(fate) for fate in (FrameFate.DELIVERED, FrameFate.CORRUPT, FrameFate.DROPPED)
)
_REPORT_FATES = tuple(fate.value for fate in ReportFate)
_USED, _UNUSED, _LATE, _LOST = (
    _REPORT_FATES.index(fate) for fate in (ReportFate.USED, ReportFate.UNUSED, ReportFate.LATE, ReportFate.LOST)
)
_STRAYS_AT_ONCE = 1 << 16


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


class Closing:
    """The ledgers of a run, from its streams.

    An authentic arrival is matched with the journaled frame of the same link, epoch, seq and CRC. A corrupt one is
    matched with the frame of its link that the link model turned into exactly these bytes; failing that, with the
    frame that has the same CRC; failing that (the CRC itself may be hit), with the frame of the same epoch and seq. A
    journaled frame without a matching arrival was dropped.

    An uplink report is used if it is in a fix; else late, if the frame that delivered it arrived with it marked late;
    else unused, if a frame delivered it; else lost. Downlink frames have no report fate.

    Attributes:
        sent: what the journals hold.
        arrived: what the receive logs hold.
        strays: indices of the arrivals that no sender journaled.
    """

    def __init__(self, journals: Sequence[Journal], logs: Sequence[Received], used: UsedReports) -> None:
        """Read the streams and match them.

        Args:
            journals: all journals.
            logs: all receive logs.
            used: the reports used in fixes, of all rounds.

        Raises:
            LocalError: a journal contains bytes that are not a message, or a frame of another link.
        """
        self._journals = journals
        self._reasons = Texts()
        self.sent = read_sent(journals, self._reasons)
        self.arrived = read_arrived(logs, self._reasons)
        self._arrival_of, self.strays = _matched(self.sent, self.arrived)
        self._fates = _report_fates(self.sent, self.arrived, self._arrival_of, used)

    def stray_sizes(self) -> Iterator[tuple[int | None, Direction, int]]:
        """Yield link, direction and length of each stray [B]."""
        came, ways = self.arrived, list(Direction)
        for at in self.strays.tolist():
            bs = int(came.key[at] >> np.uint64(48)) if came.owned[at] else None
            yield bs, ways[int(came.down[at])], int(came.bytes[at])

    def rows(self) -> Iterator[tuple[int | None, pa.RecordBatch]]:
        """Yield rows, `ledger_schema()`, each batch of one base station; None stands for unknown connections.

        Rows of journaled frames come in the journals' order, then those of strays.
        """
        part = 0
        for journal, begin in zip(self._journals, self.sent.begins.tolist(), strict=False):
            for batch in journal.batches():
                rows, frames = self._journaled(journal, batch, begin, part)
                begin, part = begin + frames[0], part + frames[1]
                yield from _by_station(rows)
        for begin in range(0, len(self.strays), _STRAYS_AT_ONCE):
            yield from _by_station(self._stray(self.strays[begin : begin + _STRAYS_AT_ONCE]))

    def _journaled(
        self, journal: Journal, batch: pa.RecordBatch, first_frame: int, first_part: int
    ) -> tuple[pa.RecordBatch, tuple[int, int]]:
        """Return the rows of a journal's batch, and its numbers of frames and parts."""
        import pyarrow as pa

        frames = frame_columns(batch["message"])
        of = frames.frame + first_frame
        arrival = self._arrival_of[of]
        came = arrival >= 0
        at = np.where(came, arrival, 0)
        message = pa.array(frames.message[frames.frame])
        own_reason = self.sent.reason[of]
        parts = np.arange(first_part, first_part + len(of))
        up = journal.direction is Direction.UP
        fates = pa.array(_REPORT_FATES).take(pa.array(self._fates[parts])) if up else pa.nulls(len(of), pa.string())
        costs = cost_columns(frames, journal.transport)
        columns = {
            "bs": frames.bs[frames.frame],
            "epoch": frames.epoch[frames.frame],
            "snapshot": frames.snapshot,
            "round": frames.round,
            "seq": frames.seq[frames.frame],
            "part": frames.part,
            "direction": pa.repeat(journal.direction.value, len(of)),
            "t_sent_ns": batch["t_sent_ns"].take(message),
            "t_release_ns": batch["t_release_ns"].take(message),
            "t_received_ns": pa.array(_take(self.arrived.t_ns, at), mask=~came),
            **costs,
            "frame_fate": pa.array(FATES).take(pa.array(np.where(came, _take(self.arrived.fate, at), _DROPPED))),
            "report_fate": fates,
            "crc32": frames.crc32[frames.frame],
            "side": frames.sides,
            "payload": frames.payloads,
            "reason": self._reasons.column(
                np.where(own_reason > 0, own_reason, np.where(came, _take(self.arrived.reason, at), 0))
            ),
        }
        schema = ledger_schema()
        arrays = [_column(columns[field.name], field.type) for field in schema]
        rows = pa.RecordBatch.from_arrays(arrays, schema=schema)
        amends = self.sent.amends[of]
        if amends.any():
            rows = rows.filter(pa.array(~amends))
        return rows, (len(frames.message), len(of))

    def _stray(self, index: Array) -> pa.RecordBatch:
        """Return the rows of strays."""
        import pyarrow as pa

        came = self.arrived
        schema = ledger_schema()
        # No field of a corrupt message is a reliable key.
        unnamed = (came.fate[index] == _CORRUPT) | ~came.named[index]
        key = came.key[index]
        # The link it arrived on, not the BS that it names.
        columns = {
            "bs": pa.array(key >> np.uint64(48), mask=~came.owned[index]),
            "epoch": pa.array(key >> np.uint64(32) & np.uint64(0xFFFF), mask=unnamed),
            "seq": pa.array(key & np.uint64(0xFFFFFFFF), mask=unnamed),
            "part": np.zeros(len(index), np.uint8),
            "direction": pa.array([d.value for d in Direction]).take(pa.array(came.down[index].astype(np.int8))),
            "t_received_ns": came.t_ns[index],
            "frame_fate": pa.array(FATES).take(pa.array(came.fate[index])),
            "crc32": pa.array(came.crc32[index], mask=~came.named[index]),
            "reason": self._reasons.column(came.reason[index]),
        }
        arrays = [
            _column(columns[field.name], field.type) if field.name in columns else pa.nulls(len(index), field.type)
            for field in schema
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _matched(sent: Sent, arrived: Arrived) -> tuple[Array, Array]:
    """Return (the arrival of each frame sent, -1 for none; the arrivals of no frame)."""
    arrival_of = np.full(len(sent.key), -1, np.int32)
    arrivals_of = _by_link(arrived.key, arrived.down)
    for link, frames in _by_link(sent.key, sent.down).items():
        came = arrivals_of.get(link)
        if came is not None:
            _match_link(sent, arrived, frames[~sent.amends[frames]], came[arrived.owned[came]], arrival_of)
    stray = np.ones(len(arrived.key), np.bool_)
    stray[arrival_of[arrival_of >= 0]] = False
    return arrival_of, np.flatnonzero(stray)


def _by_link(key: Array, down: Array) -> dict[tuple[int, bool], Array]:
    """Return the indices of frames by base station and whether they went down, in order."""
    link = (key >> np.uint64(47)).astype(np.int32) & ~1 | down
    order = np.argsort(link, kind="stable").astype(np.int32)
    known, begins = np.unique(link[order], return_index=True)
    ends = [*begins[1:].tolist(), len(order)][: len(known)]
    return {
        (one >> 1, bool(one & 1)): order[begin:end]
        for one, begin, end in zip(known.tolist(), begins.tolist(), ends, strict=True)
    }


def _match_link(sent: Sent, arrived: Arrived, frames: Array, came: Array, arrival_of: Array) -> None:
    """Match the arrivals of one link with its frames, in place; certain matches come first.

    So guesses about corrupt frames cannot take the frames of others.
    """
    corrupt = arrived.fate[came] == _CORRUPT
    authentic = came[~corrupt & arrived.named[came]]
    equal = sent.crc32, arrived.crc32
    _claim(arrival_of, frames, sent.key[frames], authentic, arrived.key[authentic], equal)
    damaged = came[corrupt]
    if not len(damaged):
        return
    wire = frames[sent.reason[frames] == 0]  # else it cannot have arrived corrupt
    mine, at = _found(wire, sent.flipped[0])
    looks = np.searchsorted(arrived.damaged[0], damaged)
    left = _claim(arrival_of, wire[at], sent.flipped[1][mine], damaged, arrived.damaged[1][looks])
    left = left[arrived.named[left]]
    left = _claim(arrival_of, wire, sent.crc32[wire], left, arrived.crc32[left])
    _claim(arrival_of, wire, sent.key[wire], left, arrived.key[left])


def _claim(
    arrival_of: Array,
    frames: Array,
    keys: Array,
    arrivals: Array,
    wanted: Array,
    equal: tuple[Array, Array] | None = None,
) -> Array:
    """Assign arrivals, in order, to frames of the same key that have none yet; return the arrivals left.

    Args:
        arrival_of: by frame, changed in place.
        frames: the frames to be had; of several with one key only the first is.
        keys: of `frames`.
        arrivals: the arrivals that ask, in order.
        wanted: the keys that `arrivals` ask for.
        equal: values by frame and by arrival that must be equal too.
    """
    if not len(frames) or not len(arrivals):
        return arrivals
    order = np.argsort(keys, kind="stable")
    known = keys[order]
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    frame = frames[order[at]]
    fits = (known[at] == wanted) & (arrival_of[frame] < 0)
    if equal is not None:
        fits &= equal[0][frame] == equal[1][arrivals]
    candidates = np.flatnonzero(fits)
    _, first = np.unique(frame[candidates], return_index=True)
    winners = candidates[first]
    arrival_of[frame[winners]] = arrivals[winners]
    left = np.ones(len(arrivals), np.bool_)
    left[winners] = False
    rest: Array = arrivals[left]
    return rest


def _report_fates(sent: Sent, arrived: Arrived, arrival_of: Array, used: UsedReports) -> Array:
    """Return the code of each part's report fate; those of downlink frames mean nothing."""
    fates = np.full(len(sent.frame), _LOST, np.int8)
    for begin, end in itertools.pairwise(np.searchsorted(sent.frame, sent.begins).tolist()):
        if begin == end or sent.down[sent.frame[begin]]:
            continue
        parts, frames = slice(begin, end), sent.frame[begin:end]
        start = sent.key[frames] >> np.uint64(32)  # BS and epoch: a journal usually is of one start alone
        for one in np.unique(start).tolist():
            mine = None if len(start) == 0 or (start == one).all() else start == one
            _start_fates(sent, arrived, arrival_of, used.of(one >> 16, one & 0xFFFF), fates, parts, mine)
    return fates


def _start_fates(
    sent: Sent, arrived: Arrived, arrival_of: Array, used: Array, fates: Array, parts: slice, mine: Array | None
) -> None:
    """Fill in the fates of the reports of one start, which are `mine` among the `parts`, or all of them."""
    at = np.arange(parts.start, parts.stop) if mine is None else parts.start + np.flatnonzero(mine)
    report, frame = sent.report[at], sent.frame[at]
    arrival = arrival_of[frame]
    delivered = np.flatnonzero((arrival >= 0) & ~sent.amends[frame])
    delivered = delivered[arrived.fate[arrival[delivered]] == _DELIVERED]
    late = arrived.late[arrival[delivered]] >> sent.part[at[delivered]].astype(np.uint64) & np.uint64(1)
    order = np.argsort(report[delivered], kind="stable")
    found, which = _found(report[delivered][order], report)
    fates[at[found]] = np.where(late[order[which]], _LATE, _UNUSED)
    fates[at[_found(np.sort(used).astype(np.uint64), report)[0]]] = _USED


def _found(known: Array, keys: Array) -> tuple[Array, Array]:
    """Return the indices of keys that are among the sorted `known` ones, and where they are."""
    if not len(known):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    found = np.flatnonzero(known[at] == keys)
    return found, at[found]


def _take(values: Array, at: Array) -> Array:
    """Return values by index; zeros if there are no values."""
    taken: Array = values[at] if len(values) else np.zeros(len(at), values.dtype)
    return taken


def _column(values: Any, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if isinstance(values, np.ndarray):
        values = pa.array(values)
    return values if values.type == kind else values.cast(kind)


def _by_station(rows: pa.RecordBatch) -> Iterator[tuple[int | None, pa.RecordBatch]]:
    """Split rows by base station."""
    import pyarrow as pa

    bs = rows["bs"].cast(pa.int32()).fill_null(UNKNOWN_BS).to_numpy(zero_copy_only=False)
    found = np.unique(bs)
    if len(found) == 1:
        yield _number(int(found[0])), rows
        return
    order = np.argsort(bs, kind="stable")
    ends = np.searchsorted(bs[order], found, side="right")
    for station, begin, end in zip(found.tolist(), [0, *ends], ends, strict=False):
        yield _number(station), rows.take(pa.array(order[begin:end]))


def _number(bs: int) -> int | None:
    return None if bs == UNKNOWN_BS else bs
