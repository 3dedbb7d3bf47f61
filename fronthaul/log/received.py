"""The receive log of one end of the links: one row per message, which survives kill -9.

The sender's journal holds the bytes of frames that decode, so only their identifying fields are kept here. Of corrupt
and rejected messages the first bytes are kept, as evidence; control messages, which are short, are kept whole.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fronthaul.errors import LocalError
from fronthaul.log.arrow_batches import StreamFile
from fronthaul.log.arrow_rows import Columns
from fronthaul.log.arrow_stream import RowStream
from fronthaul.log.remote import StreamPath
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Direction
from fronthaul.message.wire import HEADER_BYTES, ReportHeads, claim, head, is_control, named

if TYPE_CHECKING:
    import pyarrow as pa

EVIDENCE_BYTES = 64
"""What is kept of a corrupt or rejected message [B]: header and side information of a report, and some payload."""


class Arrival(NamedTuple):
    """A message that arrived, and its fate.

    Attributes:
        bs: base station that owns the connection it arrived on; None if unknown.
        data: the message as received; its standard form, if it came in its compact form and that could be read.
        t_received_ns: time of arrival [ns].
        fate: the frame's fate, never "dropped"; None for a control message.
        reason: why it is corrupt or rejected; None otherwise.
        late: for a delivered frame, bit i is set if report i came after the deadline.
        size: length of the message as received [B]; None if it is that of `data`.
    """

    bs: int | None
    data: bytes
    t_received_ns: int
    fate: FrameFate | None
    reason: str | None = None
    late: int = 0
    size: int | None = None


@functools.cache
def received_schema() -> pa.Schema:
    """Return the columns of a receive log's file; the direction is in its metadata.

    `bytes` is the message's length. epoch, seq and crc32 are the frame's own fields: unreliable if it is corrupt, null
    if it is too short to have them, and for control messages. `head` names the reports of a good frame (`wire.head`);
    `data` holds control messages, and the first `EVIDENCE_BYTES` of all others.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("bs", pa.uint16()),
            ("t_received_ns", pa.int64()),
            ("frame_fate", pa.string()),
            ("reason", pa.string()),
            ("late", pa.uint64()),
            ("bytes", pa.uint32()),
            ("epoch", pa.uint16()),
            ("seq", pa.uint32()),
            ("crc32", pa.uint32()),
            ("head", pa.binary()),
            ("data", pa.binary()),
        ]
    )


class ReceiveLog:
    """The receive log of one end, for one direction of its links."""

    def __init__(self, path: StreamPath, *, direction: Direction) -> None:
        """Create the log at `path`.

        Raises:
            LocalError: `path` already exists, or the disk is full.
        """
        self._rows = RowStream(path, received_schema(), {"direction": direction.value})

    def append(self, arrivals: Sequence[Arrival]) -> None:
        """Record messages that arrived, in one write.

        Raises:
            LocalError: the fate "dropped", a reason for a good frame or none for a bad one, a closed log, or a full
                disk; nothing is written then.
        """
        columns = _columns_of_good_frames(arrivals)
        if columns is None:
            self._rows.extend([_row(arrival) for arrival in arrivals])
        else:
            self._rows.extend_columns(len(arrivals), columns)

    def append_delivered(
        self, t_received_ns: Sequence[int], sent: Sequence[bytes], heads: ReportHeads, late: Sequence[int]
    ) -> None:
        """Record frames of one report each that were delivered, in one write.

        Args:
            t_received_ns: times of arrival [ns].
            sent: the frames, each of which arrived as it is over a connection of its base station.
            heads: their headers.
            late: 1 for a late report, else 0.

        Raises:
            LocalError: a closed log, or a full disk; nothing is written then.
        """
        fates, sizes = [FrameFate.DELIVERED] * len(sent), list(map(len, sent))
        frame = (sizes, heads.epochs, heads.seqs, heads.crc32s, [data[:HEADER_BYTES] for data in sent])
        self._rows.extend_columns(len(sent), (heads.stations, t_received_ns, fates, None, late, *frame, None))

    def take_back(self) -> None:
        """Remove the rows of the last call again."""
        self._rows.take_back()

    def close(self) -> None:
        """Mark the log's end; closing twice is fine."""
        self._rows.close()


def _columns_of_good_frames(arrivals: Sequence[Arrival]) -> Columns | None:
    """Return the rows of `_row` by columns; None unless all are good frames, as nearly always.

    This takes a third of the time.
    """
    if not arrivals:
        return None
    stations, messages, t_received_ns, fates, reasons, late, sizes = zip(*arrivals, strict=True)
    good = fates.count(FrameFate.DELIVERED) or fates.count(FrameFate.DUPLICATE)  # mostly one of them for all
    if good < len(arrivals) or reasons.count(None) < len(arrivals):
        return None
    try:
        epochs, seqs, crcs, heads = zip(*map(named, messages), strict=True)
    except (struct.error, IndexError):  # not frames
        return None
    lengths = [len(data) if size is None else size for data, size in zip(messages, sizes, strict=True)]
    return (stations, t_received_ns, fates, None, late, lengths, epochs, seqs, crcs, heads, None)


def _row(arrival: Arrival) -> tuple[object, ...]:
    bs, data, t_received_ns, fate, reason, late, size = arrival
    size = len(data) if size is None else size
    if fate is FrameFate.DELIVERED or fate is FrameFate.DUPLICATE:
        if reason is not None:
            raise LocalError(f"a frame is {fate} without a reason")
        epoch, seq, crc32 = _named(data)
        return (bs, t_received_ns, fate.value, None, late, size, epoch, seq, crc32, head(data), None)
    if fate is None:
        return (bs, t_received_ns, None, reason, late, size, None, None, None, None, data)
    if fate is FrameFate.DROPPED:
        raise LocalError("a frame that arrived was not dropped")
    if reason is None:
        raise LocalError(f"a frame is {fate} for a reason")
    named = (None, None, None) if fate is FrameFate.REJECTED and is_control(data) else _named(data)
    return (bs, t_received_ns, fate.value, reason, late, size, *named, None, data[:EVIDENCE_BYTES])


def _named(data: bytes) -> tuple[int, int, int] | tuple[None, None, None]:
    claimed = claim(data)
    return (None, None, None) if claimed is None else claimed[1:]


class Received:
    """A receive log on disk, even of a writer that was killed.

    Attributes:
        direction: direction of its messages.
    """

    def __init__(self, path: Path) -> None:
        """Read what the log says of itself.

        Raises:
            FileNotFoundError: there is no such file.
            LocalError: the file is not a receive log.
        """
        self._stream = StreamFile(path)
        direction = (self._stream.schema.metadata or {}).get(b"direction", b"").decode(errors="replace")
        if self._stream.schema != received_schema() or direction not in set(Direction):
            raise LocalError(f"{path} is not a receive log")
        self.direction = Direction(direction)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield its rows, `received_schema()`, in order."""
        return self._stream.batches()


def read_received(path: Path) -> pa.Table:
    """Return the rows of a receive log, `received_schema()`, even if its writer was killed.

    Raises:
        FileNotFoundError: there is no such file.
        LocalError: the file is not a receive log.
    """
    import pyarrow as pa

    return pa.Table.from_batches(Received(path).batches(), received_schema()).combine_chunks()
