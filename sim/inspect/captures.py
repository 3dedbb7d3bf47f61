"""Read captures, and check them against the ledger of their link.

A capture holds the frames that its base station sent, as they went onto the link (including bits flipped by the link
model), and the frames that it received. The frames of a ledger are therefore expected in it as follows:

    up     delivered, duplicate, rejected   present, byte for byte, at the time of their release
           corrupt, or dropped without a    present, with the same length: no ledger holds which bits were flipped
           reason
           dropped by the link model        absent; but one that the transport could not take may be present
    down   received                         present, as received, at that time

If a process was killed, the capture may lack its last frames. Frames are compared by a digest of their bytes, so that
captures of any length fit into memory.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from fronthaul.account.streams import digest
from fronthaul.log.pcapng import CLOUD_MAC
from fronthaul.log.sent import DISCONNECTED, TRANSPORT_FULL
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Direction
from fronthaul.message.wire import is_control
from sim.errors import UserError

_SECTION, _PACKET = 0x0A0D0D0A, 6
_BLOCK = struct.Struct(">II")
_ENHANCED = struct.Struct(">IQII")  # interface, time, captured length, original length
_ECPRI = struct.Struct(">6s6sHBBHII")  # to, from, ethertype, revision, type, size, PC_ID, SEQ_ID
_MORE = 1 << 31
_WINDOW_BYTES = 1 << 22
MAX_BLOCK_BYTES = 1 << 17
"""Maximum length of a block of a capture [B]: an Ethernet frame of 64 kB and its description."""

Array = npt.NDArray[Any]


class Message(NamedTuple):
    """One captured message.

    Attributes:
        direction: which way it went.
        bs: base station.
        seq: sequence number in the capture.
        data: its bytes, reassembled.
        t_ns: when it was sent or received [ns].
    """

    direction: Direction
    bs: int
    seq: int
    data: bytes
    t_ns: int


class Expected(NamedTuple):
    """A frame of a ledger: direction, epoch, bytes on the wire before any impairment, times [ns] and fate."""

    direction: Direction
    epoch: int
    seq: int
    data: bytes
    t_release_ns: int
    t_received_ns: int | None
    fate: str
    reason: str | None


@dataclass(frozen=True)
class Comparison:
    """Result of checking a capture against a ledger.

    Attributes:
        expected: number of frames of the ledger.
        frames: number of captured frames.
        size: their total size [B].
        cut: number of frames missing from the capture because their process died.
        problems: one sentence for each kind of contradiction.
    """

    expected: int
    frames: int
    size: int
    cut: int
    problems: tuple[str, ...]


def read_capture(path: Path) -> Iterator[Message]:
    """Yield the messages of a capture written by a run, up to the first incomplete block.

    Raises:
        UserError: it cannot be read, or holds anything but messages of a run.
    """
    pieces: dict[tuple[bytes, int, int], bytes] = {}
    try:
        with path.open("rb") as file:
            for t_ns, packet in _packets(file, path):
                if len(packet) < _ECPRI.size:
                    raise UserError(f"{path} holds a frame of {len(packet)} B, which is no message of a run.")
                to, _, ethertype, revision, kind, size, pc_id, seq = _ECPRI.unpack_from(packet)
                payload = packet[_ECPRI.size :]
                if (ethertype, revision, kind, size) != (0xAEFE, 0x10, 3, 8 + len(payload)):
                    raise UserError(f"{path} holds a frame that is no eCPRI message of type 3.")
                key = (to, pc_id & 0xFFFF, seq)
                whole = pieces.pop(key, b"") + payload
                if pc_id & _MORE:
                    pieces[key] = whole
                else:
                    direction = Direction.UP if to == CLOUD_MAC else Direction.DOWN
                    yield Message(direction, pc_id & 0xFFFF, seq, whole, t_ns)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error


@dataclass(frozen=True)
class _Captured:
    """Captured messages as arrays."""

    down: Array
    digest: Array
    size: Array
    t_ns: Array
    control: Array


@dataclass(frozen=True)
class _Frames:
    """Frames of a ledger as arrays; `t_ns` is when a capture has them, `moment_ns` the time by which they are ordered.

    `exact`: expected byte for byte; `vague`: expected with the same length; `full`: refused by the transport.
    """

    down: Array
    epoch: Array
    seq: Array
    digest: Array
    size: Array
    t_ns: Array
    exact: Array
    vague: Array
    full: Array

    def where(self, chosen: Array) -> _Frames:
        """Return the chosen frames."""
        return _Frames(*(getattr(self, field.name)[chosen] for field in fields(self)))


def compare(
    captured: Iterable[Message], frames: Iterable[Expected], strays: int, died: Mapping[int, bool]
) -> Comparison:
    """Check the captured messages of one link against its ledger.

    Args:
        captured: messages of all epochs of the base station.
        frames: frames sent over the link, both directions.
        strays: number of frames received on the downlink that no sender journaled; the ledger has no bytes of them.
        died: by epoch, whether its process may have died without closing its capture.
    """
    there, sent = _captured(captured), _expected(frames)
    exact, vague = sent.where(sent.exact), sent.where(sent.vague)
    wanted, have = _key(exact.digest, exact.down), _key(there.digest, there.down)
    found = _matched(wanted, have)
    left = ~_matched(have, wanted)
    late = int(found.sum()) - int(_matched(_both(wanted, exact.t_ns), _both(have, there.t_ns)).sum())
    sizes = _key(there.size, there.down)[left]
    like = _key(vague.size, vague.down)
    found_vague = _matched(like, sizes)
    late += int(found_vague.sum()) - int(_matched(_both(like, vague.t_ns), _both(sizes, there.t_ns[left])).sum())
    full = sent.where(sent.full)  # captured before the transport refused them
    rest = ~_matched(sizes, np.concatenate([like, _key(full.size, full.down)]))
    control = int(np.count_nonzero(there.control & there.down & left))
    unexplained = max(0, int(rest.sum()) - strays - control)
    missing = [exact.where(~found), vague.where(~found_vague)]
    present = [exact.where(found), vague.where(found_vague)]
    gone, cut = _gone(missing, present, died)
    problems = []
    if gone:
        problems.append(f"frames of the ledger that are not in the capture: {len(gone)}, first {gone[0]}")
    if unexplained:
        problems.append(f"captured frames that are not in the ledger: {unexplained}")
    if late:
        problems.append(f"captured frames of another time than in the ledger: {late}")
    return Comparison(len(sent.seq), len(there.size), int(there.size.sum()), cut, tuple(problems))


def _captured(messages: Iterable[Message]) -> _Captured:
    rows = (
        (one.direction is Direction.DOWN, digest(None, one.data), len(one.data), one.t_ns, is_control(one.data))
        for one in messages
    )
    return _Captured(*_arrays(rows, (np.bool_, np.uint64, np.int64, np.int64, np.bool_)))


def _expected(frames: Iterable[Expected]) -> _Frames:
    kinds = (np.bool_, np.int64, np.int64, np.uint64, np.int64, np.int64, np.bool_, np.bool_, np.bool_)
    return _Frames(*_arrays(map(_expected_row, frames), kinds))


def _expected_row(frame: Expected) -> tuple[Any, ...]:
    down = frame.direction is Direction.DOWN
    exact = frame.fate not in (FrameFate.CORRUPT, FrameFate.DROPPED)
    lost = not down and frame.fate == FrameFate.DROPPED and frame.reason is None
    t_ns = frame.t_received_ns if down and frame.t_received_ns is not None else frame.t_release_ns
    refused = not down and frame.reason in (TRANSPORT_FULL, DISCONNECTED)
    told = (down, frame.epoch, frame.seq, digest(None, frame.data), len(frame.data), t_ns)
    return (*told, exact, frame.fate == FrameFate.CORRUPT or lost, refused)


def _arrays(rows: Iterable[tuple[Any, ...]], kinds: Sequence[type[np.generic]]) -> list[Array]:
    """Return the columns of rows, which are taken in chunks: as arrays they need a tenth of the memory."""
    parts: list[list[Array]] = [[np.zeros(0, kind)] for kind in kinds]
    rows = iter(rows)
    while chunk := list(itertools.islice(rows, _ROWS_AT_ONCE)):
        for part, column, kind in zip(parts, zip(*chunk, strict=True), kinds, strict=True):
            part.append(np.array(column, kind))
    return [np.concatenate(part) for part in parts]


_ROWS_AT_ONCE = 1 << 16


def _key(value: Array, down: Array) -> Array:
    """Return a number for a value and a direction."""
    key: Array = value.astype(np.uint64) << np.uint64(1) | down.astype(np.uint64)
    return key


def _both(key: Array, t_ns: Array) -> Array:
    """Return a number for a key and a time: equal where both are, and hardly ever otherwise."""
    mixed: Array = key * np.uint64(0x9E3779B97F4A7C15) ^ t_ns.astype(np.uint64)
    return mixed


def _matched(wanted: Array, have: Array) -> Array:
    """Return which of the wanted keys are there, each of those there serving once, in order."""
    order = np.argsort(wanted, kind="stable")
    known, counts = np.unique(have, return_counts=True)
    if not len(known):
        return np.zeros(len(wanted), np.bool_)
    keys = wanted[order]
    begins = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
    rank = np.arange(len(keys)) - np.repeat(begins, np.diff(np.append(begins, len(keys))))
    at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    found = np.zeros(len(wanted), np.bool_)
    found[order] = (known[at] == keys) & (rank < counts[at])
    return found


def _gone(missing: list[_Frames], present: list[_Frames], died: Mapping[int, bool]) -> tuple[list[str], int]:
    """Return the names of frames that are missing, and the number of those that died with their process.

    A frame may have died with its process if no later one of the same epoch and direction was captured.
    """
    last_ns: dict[tuple[int, bool], int] = {}
    for frames in present:
        for epoch in np.unique(frames.epoch).tolist():
            for down in (False, True):
                t_ns = frames.t_ns[(frames.epoch == epoch) & (frames.down == down)]
                if len(t_ns):
                    last_ns[epoch, down] = max(last_ns.get((epoch, down), 0), int(t_ns.max()))
    gone, cut = [], 0
    for frames in missing:
        rows = zip(*(column.tolist() for column in (frames.epoch, frames.down, frames.seq, frames.t_ns)), strict=True)
        for epoch, down, seq, t_ns in rows:
            if died.get(epoch) and last_ns.get((epoch, down), t_ns) <= t_ns:
                cut += 1
            else:
                gone.append(f"epoch {epoch} {Direction.DOWN if down else Direction.UP} seq {seq}")
    return gone, cut


def _packets(file: BinaryIO, path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield time [ns] and bytes of each whole packet.

    Raises:
        UserError: the file does not begin as a capture of a run does.
    """
    data, at = file.read(_WINDOW_BYTES), 0
    if data[:4] != _SECTION.to_bytes(4, "big"):
        raise UserError(f"{path} is no capture of a run.")
    while True:
        if len(data) - at < MAX_BLOCK_BYTES and (more := file.read(_WINDOW_BYTES)):
            data, at = data[at:] + more, 0
        if at + _BLOCK.size > len(data):
            return
        kind, total = _BLOCK.unpack_from(data, at)
        if total < 12 or at + total > len(data):
            return
        if kind == _PACKET and total >= _BLOCK.size + _ENHANCED.size:
            _, t_ns, size, _ = _ENHANCED.unpack_from(data, at + _BLOCK.size)
            begin = at + _BLOCK.size + _ENHANCED.size
            yield t_ns, data[begin : begin + size]
        at += total
