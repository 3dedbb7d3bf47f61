"""What the journals and receive logs of a run hold, without payloads: frames as arrays, control messages as rows.

Notation: F frames sent, which carry P reports (*parts*) in all; A frames arrived. Arrays take 50 B or so per frame.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fronthaul.errors import LocalError
from fronthaul.log.received import EVIDENCE_BYTES, Received
from fronthaul.log.sent import Journal, amended, flip
from fronthaul.message.columns import frame_columns, is_control
from fronthaul.message.compact import pack
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Direction
from fronthaul.message.wire import claim
from fronthaul.transport.transport_costs import TransportCosts

if TYPE_CHECKING:
    import pyarrow as pa

Array = npt.NDArray[Any]
UNKNOWN_BS = 1 << 16
"""Number in arrays of the connections that belong to no base station."""
FATES = tuple(fate.value for fate in FrameFate)
"""Frame fates by their code in arrays."""


class SentControl(NamedTuple):
    """A control message in a journal.

    Attributes:
        bs: base station at the link's edge.
        direction: which way it went.
        message: its bytes.
        t_sent_ns: when it was sent [ns].
        t_release_ns: when the link model let it onto the wire [ns].
        drop_reason: why it was never sent; None if it was.
        transport: the transport's overhead.
    """

    bs: int
    direction: Direction
    message: bytes
    t_sent_ns: int
    t_release_ns: int
    drop_reason: str | None
    transport: TransportCosts


class ReceivedControl(NamedTuple):
    """A control message in a receive log.

    Attributes:
        bs: base station that owns the connection; None if unknown.
        direction: which way it went.
        message: its bytes.
        t_received_ns: when it arrived [ns].
        rejected: whether it was rejected.
    """

    bs: int | None
    direction: Direction
    message: bytes
    t_received_ns: int
    rejected: bool


class Texts:
    """Texts by number; number 0 is None."""

    def __init__(self) -> None:
        self._numbers: dict[str | None, int] = {None: 0}

    def numbers(self, column: pa.Array) -> Array:
        """Return the numbers of a column of texts."""
        if column.null_count == len(column):
            return np.zeros(len(column), np.int32)
        coded = column.dictionary_encode()
        known = [self._numbers.setdefault(text, len(self._numbers)) for text in coded.dictionary.to_pylist()]
        indices = coded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
        found: Array = np.array([*known, 0], np.int32)[indices]
        return found

    def column(self, numbers: Array) -> pa.Array:
        """Return texts by their numbers."""
        import pyarrow as pa

        return pa.array(list(self._numbers), pa.string()).take(pa.array(numbers))


@dataclass(frozen=True)
class Sent:
    """The frames of journals, in order.

    Attributes:
        begins: index of each journal's first frame, and F.
        key: (F,) `frame_key` of link, epoch and seq, uint64.
        down: (F,) whether it went down.
        crc32: (F,) uint32.
        reason: (F,) number of its drop reason, in `reasons`.
        amends: (F,) whether the row only amends an earlier one.
        flipped: indices of frames with flipped bits, and `_damaged` of what these became.
        frame: (P,) frame of each part.
        part: (P,) its number within the frame.
        report: (P,) snapshot << 8 | round.
        reasons: all reasons.
        control: control messages, in order.
    """

    begins: Array
    key: Array
    down: Array
    crc32: Array
    reason: Array
    amends: Array
    flipped: tuple[Array, Array]
    frame: Array
    part: Array
    report: Array
    reasons: Texts
    control: Sequence[SentControl]


@dataclass(frozen=True)
class Arrived:
    """The frames of receive logs, in order, rejected and corrupt ones included.

    Attributes:
        owned: (A,) whether the connection belongs to a base station.
        down: (A,) whether it came down.
        t_ns: (A,) when it arrived [ns].
        fate: (A,) code of its fate, in `FATES`.
        reason: (A,) number of the reason for its fate, in `reasons`.
        late: (A,) uint64, bit i for report i.
        named: (A,) whether epoch, seq and CRC are known.
        key: (A,) `frame_key` of the connection's owner and what it says of itself; 0 where it says nothing.
        crc32: (A,) as it says.
        bytes: (A,) length of the message [B].
        damaged: indices of corrupt frames, and `_damaged` of them.
        reasons: all reasons.
        control: control messages, in order.
        sizes: by link and direction, how many messages of each length arrived [B].
    """

    owned: Array
    down: Array
    t_ns: Array
    fate: Array
    reason: Array
    late: Array
    named: Array
    key: Array
    crc32: Array
    bytes: Array
    damaged: tuple[Array, Array]
    reasons: Texts
    control: Sequence[ReceivedControl]
    sizes: dict[tuple[int | None, Direction], Counter[int]]


def frame_key(bs: Array, epoch: Array, seq: Array) -> Array:
    """Return link, epoch and seq of frames as one number, uint64."""
    key: Array = bs.astype(np.uint64) << np.uint64(48) | epoch.astype(np.uint64) << np.uint64(32)
    return key | seq.astype(np.uint64)


def digest(bs: int | None, data: bytes) -> int:
    """Return 64 bits that stand for `data` on the link of `bs`."""
    return int.from_bytes(blake2b(data, digest_size=8, salt=str(bs).encode()).digest(), "big")


def _damaged(bs: int | None, kept: bytes, size: int, crc32: int | None) -> int:
    """Return 64 bits that stand for a corrupt message on the link of `bs`, by what a receive log keeps of it."""
    return digest(bs, b"%b %d %d" % (kept, size, crc32 or 0))


def read_sent(journals: Sequence[Journal], reasons: Texts) -> Sent:
    """Read journals.

    Raises:
        LocalError: a journal contains bytes that are not a message, or a frame of another link.
    """
    columns: dict[str, list[Array]] = defaultdict(list)
    flipped: list[tuple[int, int]] = []
    control: list[SentControl] = []
    begins = [0]
    for journal in journals:
        count, rows = begins[-1], []
        for batch in journal.batches():
            count += _frames_of(batch, count, columns, flipped, reasons, journal)
            rows += batch.filter(_mask(is_control(batch["message"]))).to_pylist()
        begins.append(count)
        control += [
            SentControl(
                row["bs"], journal.direction, row["message"], row["t_sent_ns"], row["t_release_ns"],
                row["drop_reason"], journal.transport,
            )
            for row in amended(rows)
        ]  # fmt: skip
    found = {name: _joined(columns[name], kind) for name, kind in _SENT.items()}
    indices, digests = np.array(flipped, np.uint64).reshape(-1, 2).T
    amends = np.zeros(len(found["key"]), np.bool_)
    for begin, end in itertools.pairwise(begins):
        _amend(found["key"][begin:end], found["crc32"][begin:end], found["reason"][begin:end], amends[begin:end])
    return Sent(
        **found,
        begins=np.array(begins),
        amends=amends,
        flipped=(indices.astype(np.int64), digests),
        reasons=reasons,
        control=control,
    )


_SENT: dict[str, type[np.generic]] = {
    **{"key": np.uint64, "down": np.bool_, "crc32": np.uint32, "reason": np.int32},
    **{"frame": np.int32, "part": np.uint8, "report": np.uint64},
}


def _frames_of(
    batch: pa.RecordBatch,
    count: int,
    columns: dict[str, list[Array]],
    flipped: list[tuple[int, int]],
    reasons: Texts,
    journal: Journal,
) -> int:
    """Append the frames of a batch, after `count` earlier ones; return their number."""
    frames = frame_columns(batch["message"])
    bs = batch["bs"].to_numpy()[frames.message]
    if (bs != frames.bs).any():
        at = int(np.flatnonzero(bs != frames.bs)[0])
        raise LocalError(f"a frame of BS {frames.bs[at]} does not belong in the journal of BS {bs[at]}")
    columns["key"].append(frame_key(frames.bs, frames.epoch, frames.seq))
    columns["down"].append(np.full(len(bs), journal.direction is Direction.DOWN))
    columns["crc32"].append(frames.crc32.astype(np.uint32))
    columns["reason"].append(reasons.numbers(batch["drop_reason"])[frames.message])
    columns["frame"].append(frames.frame + count)
    columns["part"].append(frames.part.astype(np.uint8))
    columns["report"].append((frames.snapshot << 8 | frames.round).astype(np.uint64))
    bits, form = batch["flipped"], pack if journal.transport.compact else bytes
    if bits.null_count < len(bits):
        for at in np.flatnonzero(bits.is_valid().to_numpy(zero_copy_only=False)[frames.message]).tolist():
            row = int(frames.message[at])
            became = flip(form(batch["message"][row].as_py()), bits[row].as_py())
            claimed = claim(became)
            kept = (became[:EVIDENCE_BYTES], len(became), claimed and claimed.crc32)
            flipped.append((count + at, _damaged(int(bs[at]), *kept)))
    return len(bs)


def _amend(key: Array, crc32: Array, reason: Array, amends: Array) -> None:
    """Merge amending rows of one journal into those that they amend, in place."""
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(key[order][1:] == key[order][:-1])
    rows = [
        {"bs": int(key[at]), "message": int(crc32[at]), "drop_reason": int(reason[at]) or None, "at": at}
        for at in np.union1d(order[same], order[same + 1]).tolist()
    ]
    kept = amended(rows)
    amends[[row["at"] for row in rows]] = True
    for row in kept:
        amends[row["at"]] = False
        reason[row["at"]] = row["drop_reason"] or 0


def read_arrived(logs: Iterable[Received], reasons: Texts) -> Arrived:
    """Read receive logs."""
    columns: dict[str, list[Array]] = defaultdict(list)
    damaged: list[tuple[int, int]] = []
    control: list[ReceivedControl] = []
    sizes: dict[tuple[int | None, Direction], Counter[int]] = defaultdict(Counter)
    count = 0
    for log in logs:
        for batch in log.batches():
            count += _arrivals_of(batch, log.direction, count, columns, damaged, control, sizes, reasons)
    found = {name: _joined(columns[name], kind) for name, kind in _ARRIVED.items()}
    indices, digests = np.array(damaged, np.uint64).reshape(-1, 2).T
    return Arrived(
        **found, damaged=(indices.astype(np.int64), digests), reasons=reasons, control=control, sizes=dict(sizes)
    )


_ARRIVED: dict[str, type[np.generic]] = {
    **{"owned": np.bool_, "down": np.bool_, "t_ns": np.int64, "fate": np.uint8, "reason": np.int32, "late": np.uint64},
    **{"named": np.bool_, "key": np.uint64, "crc32": np.uint32, "bytes": np.uint32},
}


def _arrivals_of(
    batch: pa.RecordBatch,
    direction: Direction,
    count: int,
    columns: dict[str, list[Array]],
    damaged: list[tuple[int, int]],
    control: list[ReceivedControl],
    sizes: dict[tuple[int | None, Direction], Counter[int]],
    reasons: Texts,
) -> int:
    """Append the messages of a batch, after `count` earlier frames; return the number of frames."""
    import pyarrow as pa

    bs = batch["bs"].cast(pa.int32()).fill_null(UNKNOWN_BS).to_numpy(zero_copy_only=False)
    fate = batch["frame_fate"].dictionary_encode()
    codes = np.array([FATES.index(text) for text in fate.dictionary.to_pylist()] + [len(FATES)], np.uint8)
    fates = codes[fate.indices.fill_null(len(codes) - 1).to_numpy(zero_copy_only=False)]
    rejected = fates == FATES.index(FrameFate.REJECTED)
    is_frame = fates < len(FATES)
    if rejected.any():
        is_frame[np.flatnonzero(rejected)[is_control(batch["data"].filter(_mask(rejected)).fill_null(b""))]] = False
    length = batch["bytes"].to_numpy(zero_copy_only=False)
    for owner, size, times in zip(*_counted(bs, length), strict=True):
        sizes[None if owner == UNKNOWN_BS else owner, direction][size] += times
    for row in batch.filter(_mask(~is_frame)).to_pylist():
        told = (row["bs"], direction, row["data"] or b"", row["t_received_ns"])
        control.append(ReceivedControl(*told, row["frame_fate"] is not None))
    frames = batch.filter(_mask(is_frame)) if not is_frame.all() else batch
    chosen = np.flatnonzero(is_frame)

    def numbers(name: str) -> Array:
        found: Array = frames[name].fill_null(0).to_numpy(zero_copy_only=False)
        return found

    columns["owned"].append(bs[chosen] != UNKNOWN_BS)
    columns["down"].append(np.full(len(chosen), direction is Direction.DOWN))
    columns["t_ns"].append(numbers("t_received_ns"))
    columns["fate"].append(fates[chosen])
    columns["reason"].append(reasons.numbers(frames["reason"]))
    columns["late"].append(numbers("late"))
    columns["named"].append(frames["crc32"].is_valid().to_numpy(zero_copy_only=False))
    columns["key"].append(frame_key(bs[chosen] & 0xFFFF, numbers("epoch"), numbers("seq")))
    columns["crc32"].append(numbers("crc32"))
    columns["bytes"].append(length[chosen])
    corrupt = np.flatnonzero(fates[chosen] == FATES.index(FrameFate.CORRUPT)).tolist()
    kept = [[frames[name][at].as_py() for name in ("bs", "data", "bytes", "crc32")] for at in corrupt]
    damaged += [
        (count + at, _damaged(bs, data or b"", *rest)) for at, (bs, data, *rest) in zip(corrupt, kept, strict=True)
    ]
    return len(chosen)


def _counted(bs: Array, length: Array) -> tuple[list[int], list[int], list[int]]:
    """Return each pair of a base station and a length that occurs, and how often."""
    pairs, times = np.unique(bs.astype(np.int64) << 32 | length, return_counts=True)
    return (pairs >> 32).tolist(), (pairs & 0xFFFFFFFF).tolist(), times.tolist()


def _joined(parts: list[Array], kind: type[np.generic]) -> Array:
    joined: Array = np.concatenate([np.zeros(0, kind), *parts], dtype=kind, casting="unsafe")
    parts.clear()
    return joined


def _mask(values: Array) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.bool_())
