"""A link's messages for packet analysers: eCPRI over Ethernet in a pcapng file.

The capture is for viewing only: nothing is derived from it, and no message crossed a wire in this form (each was a
ZeroMQ message in a TCP stream). One message is one eCPRI message of type 3, generic data transfer:

    bytes    6          6         2        1     1      2       4        4
        +---------+----------+--------+------+------+------+-------+--------+---------+
        | to MAC  | from MAC | 0xAEFE | 0x10 | 0x03 | size | PC_ID | SEQ_ID | message |
        +---------+----------+--------+------+------+------+-------+--------+---------+
                                                        bytes after this field, u16

    PC_ID   the base station in the low 16 bits; the high 16 bits are 0 in a message that was not split
    SEQ_ID  `seq` of the message

The size field has 16 bits, so a message of more than `MAX_PIECE_BYTES` is split into consecutive eCPRI messages of one
SEQ_ID and one time. The high half of their PC_ID holds, from the top, 1 bit "more pieces follow" (the inverse of
O-RAN's E bit, so that an unsplit message has 0) and the 15-bit number of the piece, from 0. All pieces but the last are
`MAX_PIECE_BYTES` long. Short frames are not padded to Ethernet's minimum, as in any capture at the sender.

MAC addresses are made up: 02:c0:f1:00 and two bytes of BS, 02:c0:f1:01:00:00 for the cloud. A comment on every
frame says "up" or "down".
"""

import heapq
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from fronthaul.errors import LocalError
from fronthaul.files import whole_file
from fronthaul.log.remote import StreamPath
from fronthaul.log.stream_names import link_name
from fronthaul.message.messages import Direction

MAX_PIECE_BYTES = 0xFFFF - 12
"""Longest piece of a message [B]: 65535 B less PC_ID and SEQ_ID, which eCPRI's 16-bit size includes, and the common
header of 4 B, which it does not include; Wireshark dissects no eCPRI message of more than 65535 B in total."""
CLOUD_MAC = bytes.fromhex("02c0f1010000")
"""The cloud's made-up MAC address, locally administered."""

Captured = tuple[Direction, int, bytes, int]
"""One message: direction, seq (u32), bytes, time [ns since the Unix epoch]."""

# pcapng (draft-ietf-opsawg-pcapng). Our sections are big endian, as eCPRI is: header of block, of Ethernet and of
# eCPRI are then one struct, and the time stamp's two words one number.
_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_MAGIC = 0x1A2B3C4D
_COMMENT, _SECTION_APPLICATION, _INTERFACE_NAME, _INTERFACE_RESOLUTION = 1, 4, 2, 9
_ETHERNET = 1
# Block: type, total, interface, time, captured, original. Frame: MACs to eCPRI type, size, PC_ID, SEQ_ID.
_HEADER = struct.Struct(">IIIQII16sHII")
_BLOCK_BYTES = 28
_FRAME_BYTES = 26
_WORD = struct.Struct(">I")
_CACHED_TAILS = 1024
_BUFFER_BYTES = 1 << 18


def bs_mac(bs: int) -> bytes:
    """Return the made-up MAC address of a base station (u16), locally administered."""
    return bytes.fromhex("02c0f100") + bs.to_bytes(2, "big")


class CaptureWriter:
    """The capture of one link, complete up to the last `write` that returned, even after kill -9."""

    def __init__(self, path: StreamPath, bs: int) -> None:
        """Create the file.

        Args:
            path: file to create, usually ``*.pcapng``.
            bs: base station at the link's edge, u16; names the interface ("bs-003").

        Raises:
            LocalError: `path` already exists or cannot be created, or `bs` is not a u16.
        """
        if not 0 <= bs <= 0xFFFF:
            raise LocalError(f"bs must be in 0..65535, not {bs}")
        self._path = path
        self._bs = bs
        ecpri = bytes.fromhex("aefe1003")  # ethertype; revision 1, nothing concatenated; type 3
        self._up = CLOUD_MAC + bs_mac(bs) + ecpri
        self._down = bs_mac(bs) + CLOUD_MAC + ecpri
        self._tails_up: dict[int, bytes] = {}
        self._tails_down: dict[int, bytes] = {}
        try:
            self._file = path.open("xb", buffering=0)
        except FileExistsError as error:
            raise LocalError(f"{path} exists already: a capture is never overwritten") from error
        except OSError as error:
            raise LocalError(f"cannot write {path}: {error.strerror}") from error
        self._offset = 0  # end of the last whole block
        try:
            self._write(_section() + _interface(link_name(bs)))
        except LocalError:
            self._file.close()
            raise

    def write(self, items: Sequence[Captured]) -> None:
        """Append messages in order, in a single system call; they have been passed to the kernel on return.

        Raises:
            LocalError: the writer is closed, a number does not fit, or the disk is full; then nothing of `items`
                is in the file.
        """
        if self._file.closed:
            raise LocalError("the capture is closed")
        parts: list[bytes] = []
        pack = _HEADER.pack
        try:
            for direction, seq, data, t_ns in items:
                if direction is Direction.UP:
                    ends, tails = self._up, self._tails_up
                elif direction is Direction.DOWN:
                    ends, tails = self._down, self._tails_down
                else:
                    raise LocalError(f"a message goes up or down, not {direction!r}")
                size = len(data)
                if size > MAX_PIECE_BYTES:
                    self._split(parts, direction, seq, data, t_ns)
                    continue
                tail = tails.get(size) or _remember(tails, size, direction)
                frame = _FRAME_BYTES + size
                total = _BLOCK_BYTES + frame + len(tail)
                parts += (pack(_PACKET, total, 0, t_ns, frame, frame, ends, 8 + size, self._bs, seq), data, tail)
        except struct.error as error:
            raise LocalError(f"seq must fit 32 bits and the time 64, neither below zero: {error}") from error
        self._write(b"".join(parts))

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._file.close()

    def _split(self, parts: list[bytes], direction: Direction, seq: int, data: bytes, t_ns: int) -> None:
        ends = self._up if direction is Direction.UP else self._down
        for piece, start in enumerate(range(0, len(data), MAX_PIECE_BYTES)):
            data_here = data[start : start + MAX_PIECE_BYTES]
            more = start + MAX_PIECE_BYTES < len(data)
            pc_id = more << 31 | piece << 16 | self._bs
            tail = _tail(len(data_here), direction)
            frame = _FRAME_BYTES + len(data_here)
            total = _BLOCK_BYTES + frame + len(tail)
            parts.append(
                _HEADER.pack(_PACKET, total, 0, t_ns, frame, frame, ends, 8 + len(data_here), pc_id, seq)
                + data_here
                + tail
            )

    def _write(self, data: bytes) -> None:
        written = 0
        try:
            while written < len(data):  # once, unless the disk fills up or a signal interrupts it
                written += self._file.write(data[written:] if written else data)
        except OSError as error:
            self._file.truncate(self._offset)
            self._file.seek(self._offset)
            raise LocalError(f"cannot write {self._path}: {error.strerror}") from error
        self._offset += written


def merge_captures(paths: Iterable[Path], target: Path) -> None:
    """Merge captures into one file with an interface for each, ordered by time if each capture is.

    Only whole blocks are copied: the truncated last block of a file is left out.

    Args:
        paths: captures written by `CaptureWriter` or by this function; they may still be growing.
        target: file to write; an existing one is replaced once the new one is complete.

    Raises:
        LocalError: one of `paths` is not such a capture or cannot be read, or `target` cannot be written.
    """
    # One section: some analysers name the interfaces of later sections after those of the first.
    interfaces = 0
    sources: list[Iterator[bytes]] = []
    try:
        with whole_file(target) as temporary, ExitStack() as stack:
            merged = stack.enter_context(temporary.open("wb"))
            merged.write(_section())
            for path in paths:
                source = stack.enter_context(path.open("rb", buffering=_BUFFER_BYTES))
                blocks = _whole_blocks(source.read, path)
                first = interfaces
                for block in blocks:
                    if _WORD.unpack_from(block)[0] == _PACKET:
                        sources.append(_renumbered(chain([block], blocks), first))
                        break
                    merged.write(block)
                    interfaces += 1
            merged.writelines(_in_time(sources))
    except OSError as error:
        raise LocalError(f"cannot merge into {target}: {error.filename or target}: {error.strerror}") from error


def _in_time(sources: list[Iterator[bytes]]) -> Iterator[bytes]:
    """Interleave packets by time; it is big endian, so its bytes compare like the number."""
    return heapq.merge(*sources, key=lambda block: block[12:20])


def _renumbered(packets: Iterator[bytes], first: int) -> Iterator[bytes]:
    """Add `first` to the packets' interface numbers."""
    for block in packets:
        (interface,) = _WORD.unpack_from(block, 8)
        yield block[:8] + _WORD.pack(first + interface) + block[12:]


def _whole_blocks(read: Callable[[int], bytes], path: Path) -> Iterator[bytes]:
    """Yield interfaces and packets of our section, up to the end or the first block that is not whole."""
    section = read(len(_section()))
    if not _section().startswith(section):
        raise LocalError(f"{path} is not a capture of this project")
    while len(start := read(8)) == 8:
        kind, total = struct.unpack(">II", start)
        if total < 12:  # a power failure may leave zeros
            return
        if kind not in (_INTERFACE, _PACKET):
            raise LocalError(f"{path} is not a capture of this project")
        block = start + read(total - 8)
        if len(block) != total or _WORD.unpack_from(block, total - 4)[0] != total:
            return
        yield block


def _section() -> bytes:
    application = _option(_SECTION_APPLICATION, b"cofix") + _option(0, b"")
    return _block(_SECTION, struct.pack(">IHHq", _MAGIC, 1, 0, -1) + application)  # length of the section unknown


def _interface(name: str) -> bytes:
    options = _option(_INTERFACE_NAME, name.encode()) + _option(_INTERFACE_RESOLUTION, b"\x09") + _option(0, b"")
    return _block(_INTERFACE, struct.pack(">HHI", _ETHERNET, 0, 0) + options)  # no limit on a packet's length


def _block(kind: int, body: bytes) -> bytes:
    total = _WORD.pack(12 + len(body))
    return _WORD.pack(kind) + total + body + total


def _option(code: int, value: bytes) -> bytes:
    return struct.pack(">HH", code, len(value)) + value + bytes(-len(value) % 4)


def _tail(size: int, direction: Direction) -> bytes:
    """Return what follows a message of `size` bytes in its block: padding, comment, total length."""
    frame = _FRAME_BYTES + size
    tail = bytes(-frame % 4) + _option(_COMMENT, direction.value.encode()) + _option(0, b"")
    return tail + _WORD.pack(_BLOCK_BYTES + frame + len(tail) + 4)


def _remember(tails: dict[int, bytes], size: int, direction: Direction) -> bytes:
    if len(tails) >= _CACHED_TAILS:  # a scheme has few lengths; many must not cost memory
        tails.clear()
    tails[size] = _tail(size, direction)
    return tails[size]
