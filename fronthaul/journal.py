"""What a sender sent, known even after kill -9: one row a frame, written before the frame is sent.

A copy that the link model makes, and a frame that it drops, are rows of their own (accounting, "Fates"). A BS
writes one journal an epoch, direction "up"; the cloud writes one a link, direction "down".
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from fronthaul.accounting import frame_cost
from fronthaul.errors import LocalError
from fronthaul.messages import Direction, Frame
from fronthaul.rowstream import RowStream, read_stream
from fronthaul.wire import CRC_BYTES, encode

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SendJournal", "journal_schema", "read_stream"]


@functools.cache
def journal_schema() -> pa.Schema:
    """Return the journal's columns; `drop_reason` is null for a frame that is sent."""
    import pyarrow as pa

    return pa.schema(
        [
            ("bs", pa.uint16()),
            ("epoch", pa.uint16()),
            ("snapshot", pa.uint32()),
            ("round", pa.uint8()),
            ("seq", pa.uint32()),
            ("direction", pa.string()),
            ("t_sent_ns", pa.int64()),
            ("payload_bits", pa.uint32()),
            ("side_bits", pa.uint16()),
            ("header_bytes", pa.uint16()),
            ("padding_bits", pa.uint8()),
            ("zmtp_bytes", pa.uint8()),
            ("curve_bytes", pa.uint8()),
            ("crc32", pa.uint32()),
            ("side", pa.binary()),
            ("payload", pa.binary()),
            ("drop_reason", pa.string()),
        ]
    )


class SendJournal:
    """The journal of one link, for one epoch and direction."""

    def __init__(
        self, path: Path, bs: int, *, direction: Direction = Direction.UP, curve: bool = False
    ) -> None:
        """Create the journal of the link of `bs`.

        Args:
            path: file to create.
            bs: base station at the link's edge.
            direction: which way the frames go.
            curve: whether the link is encrypted, which costs bytes.

        Raises:
            LocalError: there is a file at `path` already.
        """
        self._bs = bs
        self._direction = direction
        self._curve = curve
        self._rows = RowStream(path, journal_schema())

    def append(self, frame: Frame, t_sent_ns: int, *, drop_reason: str | None = None) -> None:
        """Write one frame; call this before the frame is sent.

        Args:
            frame: what is about to be sent.
            t_sent_ns: when [ns].
            drop_reason: why the link model drops the frame, or None.

        Raises:
            LocalError: the frame is of another BS, or the journal is closed.
        """
        key, payload, side = frame.report.key, frame.report.payload, frame.report.side
        if key.bs != self._bs:
            raise LocalError(f"a frame of BS {key.bs} does not belong on the link of BS {self._bs}")
        cost = frame_cost(frame, curve=self._curve)
        self._rows.append(
            key.bs,
            key.epoch,
            key.snapshot,
            key.round,
            frame.seq,
            self._direction.value,
            t_sent_ns,
            cost.payload_bits,
            cost.side_bits,
            cost.header_bytes,
            cost.padding_bits,
            cost.zmtp_bytes,
            cost.curve_bytes,
            int.from_bytes(encode(frame)[-CRC_BYTES:], "big"),
            side,
            payload.data,
            drop_reason,
        )

    def close(self) -> None:
        """Mark the journal's end; closing twice is fine."""
        self._rows.close()
