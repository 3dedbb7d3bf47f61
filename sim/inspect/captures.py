"""Read captures, and check them against the ledger of their link.

A capture holds the frames that its base station sent, as they went onto the link (including bits flipped by the link
model), and the frames that it received. The frames of a ledger are therefore expected in it as follows:

    up     delivered, duplicate, rejected   present, byte for byte
           corrupt, or dropped without a    present, with the same length: no ledger holds which bits were flipped
           reason
           dropped by the link model        absent; but a frame dropped by a transport's full queue may be present
    down   received                         present, as received

If a process was killed, the capture may lack its last frames.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fronthaul.log.pcapng import CLOUD_MAC
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Direction
from fronthaul.message.wire import is_control
from sim.errors import UserError

_SECTION, _PACKET = 0x0A0D0D0A, 6
_BLOCK = struct.Struct(">II")
_ENHANCED = struct.Struct(">IQII")  # interface, time, captured length, original length
_ECPRI = struct.Struct(">6s6sHBBHII")  # to, from, ethertype, revision, type, size, PC_ID, SEQ_ID
_MORE = 1 << 31


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
    """A frame of a ledger: direction, epoch, bytes before any impairment, times [ns] and fate."""

    direction: Direction
    epoch: int
    seq: int
    data: bytes
    t_sent_ns: int
    t_received_ns: int | None
    fate: str
    reason: str | None


@dataclass(frozen=True)
class Comparison:
    """Result of checking a capture against a ledger.

    Attributes:
        frames: number of captured frames.
        size: their total size [B].
        cut: number of frames missing from the capture because their process died.
        problems: one sentence for each kind of contradiction.
    """

    frames: int
    size: int
    cut: int
    problems: tuple[str, ...]


def read_capture(path: Path) -> list[Message]:
    """Read a capture written by a run, up to the first incomplete block.

    Raises:
        UserError: it cannot be read, or holds anything but messages of a run.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    if data[:4] != _SECTION.to_bytes(4, "big"):
        raise UserError(f"{path} is no capture of a run.")
    messages: list[Message] = []
    pieces: dict[tuple[bytes, int, int], bytes] = {}
    for t_ns, packet in _packets(data):
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
            messages.append(Message(direction, pc_id & 0xFFFF, seq, whole, t_ns))
    return messages


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
    captured = list(captured)
    frames = list(frames)
    exact = Counter((message.direction, message.data) for message in captured)
    present: list[Expected] = []
    missing: list[Expected] = []
    for frame in (frame for frame in frames if _is_exact(frame)):
        key = (frame.direction, frame.data)
        (present if exact[key] else missing).append(frame)
        exact[key] -= 1
    left = Counter({key: count for key, count in exact.items() if count > 0})
    by_size: Counter[tuple[Direction, int]] = Counter()
    for (direction, data), count in left.items():
        by_size[direction, len(data)] += count
    for frame in (frame for frame in frames if _is_vague(frame)):
        size = (frame.direction, len(frame.data))
        (present if by_size[size] > 0 else missing).append(frame)
        by_size[size] -= 1
    for frame in frames:  # captured before the transport found its queue full
        size = (frame.direction, len(frame.data))
        if frame.reason == "queue" and frame.direction is Direction.UP and by_size[size] > 0:
            by_size[size] -= 1
    extra = sum(count for count in by_size.values() if count > 0)
    controls = sum(count for (way, data), count in left.items() if way is Direction.DOWN and is_control(data))
    unexplained = max(0, extra - strays - controls)
    gone = [frame for frame in missing if not (died.get(frame.epoch) and _is_last(frame, present))]
    problems = []
    if gone:
        first = gone[0]
        name = f"epoch {first.epoch} {first.direction} seq {first.seq}"
        problems.append(f"frames of the ledger that are not in the capture: {len(gone)}, first {name}")
    if unexplained:
        problems.append(f"captured frames that are not in the ledger: {unexplained}")
    size_bytes = sum(len(message.data) for message in captured)
    return Comparison(len(captured), size_bytes, len(missing) - len(gone), tuple(problems))


def _is_exact(frame: Expected) -> bool:
    return frame.fate not in (FrameFate.CORRUPT, FrameFate.DROPPED)


def _is_vague(frame: Expected) -> bool:
    if frame.fate == FrameFate.CORRUPT:
        return True
    return frame.direction is Direction.UP and frame.fate == FrameFate.DROPPED and frame.reason is None


def _is_last(frame: Expected, present: Iterable[Expected]) -> bool:
    """Return whether no later frame of the same epoch and direction was captured."""

    def moment_ns(one: Expected) -> int:
        return one.t_sent_ns if one.direction is Direction.UP or one.t_received_ns is None else one.t_received_ns

    same = (one for one in present if (one.epoch, one.direction) == (frame.epoch, frame.direction))
    return all(moment_ns(one) <= moment_ns(frame) for one in same)


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield time [ns] and bytes of each whole packet."""
    at = 0
    while at + _BLOCK.size <= len(data):
        kind, total = _BLOCK.unpack_from(data, at)
        if total < 12 or at + total > len(data):
            return
        if kind == _PACKET:
            _, t_ns, size, _ = _ENHANCED.unpack_from(data, at + _BLOCK.size)
            begin = at + _BLOCK.size + _ENHANCED.size
            yield t_ns, data[begin : begin + size]
        at += total
