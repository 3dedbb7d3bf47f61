"""The frames of a ledger, whole and in batches, and put together again.

Journaled frames only: of a stray no ledger knows more than that it came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fronthaul.account.streams import Array
from fronthaul.errors import LocalError
from fronthaul.message.messages import Direction, Frame, Payload, Report, ReportKey
from fronthaul.message.wire import encode
from sim.records.links import Ledgers, mask, numbers, valid

if TYPE_CHECKING:
    import pyarrow as pa

BUILT_FROM = (
    *("bs", "epoch", "snapshot", "round", "seq", "part", "direction", "t_sent_ns"),
    *("payload_bits", "side", "payload"),
)
"""The columns of which frames are put together."""


@dataclass(frozen=True)
class LedgerFrames:
    """Rows of P reports that are F whole frames.

    Attributes:
        rows: of the ledger.
        begins: (F,) the first row of each frame.
    """

    rows: pa.Table
    begins: Array

    @property
    def frame(self) -> Array:
        """(P,) Index of each row's frame."""
        return np.repeat(np.arange(len(self.begins)), np.diff(np.append(self.begins, len(self.rows))))

    def name(self, row: int) -> str:
        """Return the name of a row's frame."""
        at = {name: self.rows[name][row].as_py() for name in ("bs", "epoch", "direction", "seq")}
        return f"BS {at['bs']} epoch {at['epoch']} {at['direction']} seq {at['seq']}"

    def messages(self) -> Iterator[bytes | str]:
        """Yield the bytes of each frame, or why it cannot be put together; the rows have the columns `BUILT_FROM`."""
        names = ("bs", "epoch", "snapshot", "round", "payload", "payload_bits", "side")
        reports = list(zip(*(self.rows[name].to_pylist() for name in names), strict=True))
        ends = [*self.begins[1:].tolist(), len(reports)]
        for begin, end, seq in zip(self.begins.tolist(), ends, self._first("seq"), strict=True):
            try:
                yield encode(
                    Frame(
                        seq,
                        tuple(
                            Report(ReportKey(bs, epoch, snapshot, round_), Payload(payload, bits), side)
                            for bs, epoch, snapshot, round_, payload, bits, side in reports[begin:end]
                        ),
                    )
                )
            except (LocalError, TypeError, ValueError) as error:
                yield str(error)

    def directions(self) -> list[Direction]:
        """Return the direction of each frame."""
        return [Direction.DOWN if way == Direction.DOWN else Direction.UP for way in self._first("direction")]

    def _first(self, name: str) -> list[Any]:
        found: list[Any] = self.rows[name].take(self.begins).to_pylist()
        return found


def ledger_frames(ledgers: Ledgers, bs: int, columns: Sequence[str]) -> Iterator[LedgerFrames]:
    """Yield the journaled frames of a ledger in batches.

    Args:
        ledgers: of a run.
        bs: base station.
        columns: the columns to read; `part`, `t_sent_ns`, and those that name a frame are always there.

    Raises:
        UserError: the ledger is damaged.
    """
    import pyarrow as pa

    names = tuple(dict.fromkeys((*columns, "bs", "epoch", "direction", "seq", "part", "t_sent_ns")))
    rest: pa.Table | None = None  # the last frame of a batch may go on in the next one
    for batch in ledgers.batches(bs, names):
        rows = pa.Table.from_batches([batch]).filter(mask(valid(batch, "t_sent_ns")))
        rows = rows if rest is None else pa.concat_tables([rest, rows]).combine_chunks()
        begins = _begins(rows)
        last = int(begins[-1]) if len(begins) else 0
        rest = rows.slice(last)
        if last:
            yield LedgerFrames(rows.slice(0, last).combine_chunks(), begins[:-1])
    if rest is not None and len(rest):
        yield LedgerFrames(rest.combine_chunks(), _begins(rest))


def _begins(rows: pa.Table) -> Array:
    """Return the first row of each frame: the first of all, and where the name changes or the parts begin again."""
    first = numbers(rows, "part") == 0
    for name in ("epoch", "seq"):
        first[1:] |= np.diff(numbers(rows, name)) != 0
    first[:1] = True
    return np.flatnonzero(first)
