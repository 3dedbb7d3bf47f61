"""Captures: read back by an independent reader, cut anywhere, merged, and dissected by tshark."""

import os
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import needed
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fronthaul.errors import LocalError
from fronthaul.log.pcapng import CLOUD_MAC, MAX_PIECE_BYTES, Captured, CaptureWriter, bs_mac, merge_captures
from fronthaul.message.messages import Direction

UP, DOWN = Direction.UP, Direction.DOWN
T0 = 1_700_000_000_123_456_789

messages = st.tuples(
    st.sampled_from(Direction),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=70) | st.integers(0, 2**17 + 100).map(lambda size: bytes(i % 251 for i in range(size))),
    st.integers(0, 2**64 - 1),
)


class Packet(NamedTuple):
    interface: str
    t_ns: int
    comment: str
    frame: bytes


def blocks(data: bytes) -> Iterator[tuple[int, str, bytes]]:
    """Whole blocks of a pcapng file: type, byte order, body; a rest that is no whole block fails."""
    order = "?"
    at = 0
    while at < len(data):
        if data[at : at + 4] == bytes.fromhex("0a0d0d0a"):
            order = {bytes.fromhex("1a2b3c4d"): ">", bytes.fromhex("4d3c2b1a"): "<"}[data[at + 8 : at + 12]]
        kind, total = struct.unpack_from(order + "II", data, at)
        assert total % 4 == 0 and at + total <= len(data)
        assert struct.unpack_from(order + "I", data, at + total - 4) == (total,)
        yield kind, order, data[at + 8 : at + total - 4]
        at += total


def options(order: str, data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while data:
        code, length = struct.unpack_from(order + "HH", data)
        assert len(data) >= 4 + length + -length % 4
        if code == 0:
            assert length == 0 and len(data) == 4
            return found
        found[code], data = data[4 : 4 + length], data[4 + length + -length % 4 :]
    return found


def packets(data: bytes) -> Iterator[Packet]:
    names: list[str] = []
    for kind, order, body in blocks(data):
        if kind == 0x0A0D0D0A:
            assert struct.unpack_from(order + "IHHq", body) == (0x1A2B3C4D, 1, 0, -1)
            names = []
        elif kind == 1:
            assert struct.unpack_from(order + "HHI", body) == (1, 0, 0)
            found = options(order, body[8:])
            assert found[9] == b"\x09"
            names.append(found[2].decode())
        else:
            assert kind == 6
            interface, high, low, captured, original = struct.unpack_from(order + "IIIII", body)
            assert captured == original
            rest = 20 + captured + -captured % 4
            assert not any(body[20 + captured : rest])
            comment = options(order, body[rest:])[1].decode()
            yield Packet(names[interface], high << 32 | low, comment, body[20 : 20 + captured])


def messages_of(data: bytes) -> list[tuple[str, Captured]]:
    """Undo CaptureWriter: (interface, message), pieces joined."""
    found: list[tuple[str, Captured]] = []
    pieces: list[bytes] = []
    for packet in packets(data):
        direction = Direction(packet.comment)
        target, source, ethertype, revision, kind, size, more, bs, seq = struct.unpack_from(
            ">6s6sHBBHHHI", packet.frame
        )
        ends = (CLOUD_MAC, bs_mac(bs)) if direction is UP else (bs_mac(bs), CLOUD_MAC)
        assert (target, source) == ends
        assert (ethertype, revision, kind, size) == (0xAEFE, 0x10, 3, len(packet.frame) - 18)
        assert packet.interface == f"bs-{bs:03d}"
        assert more & 0x7FFF == len(pieces)
        pieces.append(packet.frame[26:])
        if not more >> 15:
            found.append((packet.interface, (direction, seq, b"".join(pieces), packet.t_ns)))
            pieces = []
        else:
            assert len(pieces[-1]) == MAX_PIECE_BYTES
    assert not pieces
    return found


def written(path: Path, bs: int, *batches: list[Captured]) -> bytes:
    writer = CaptureWriter(path, bs)
    for batch in batches:
        writer.write(batch)
    writer.close()
    return path.read_bytes()


def some(count: int, size: int = 40) -> list[Captured]:
    return [((UP, DOWN)[i % 2], i, bytes([i % 256]) * (size + i), T0 + i) for i in range(count)]


@given(st.integers(0, 0xFFFF), st.lists(st.lists(messages, max_size=4), max_size=4))
@settings(max_examples=60)
def test_any_messages_read_back(bs: int, batches: list[list[Captured]]) -> None:
    with TemporaryDirectory() as folder:
        data = written(Path(folder, "a.pcapng"), bs, *batches)
    assert messages_of(data) == [(f"bs-{bs:03d}", message) for batch in batches for message in batch]


@given(st.data())
@settings(max_examples=100)
def test_a_file_cut_at_any_byte_merges_to_its_whole_blocks(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        first, second, target = (Path(folder, name) for name in ("1", "2", "merged"))
        whole = written(first, 3, some(4))
        written(second, 4, some(3))
        cut = data.draw(st.integers(0, len(whole)))
        first.write_bytes(whole[:cut])
        merge_captures([first, second], target)
        merged = messages_of(target.read_bytes())
    ends = list(accumulate(len(body) + 12 for _, _, body in blocks(whole)))
    kept = max(0, sum(end <= cut for end in ends) - 2)  # section and interface are no messages
    assert [message for name, message in merged if name == "bs-003"] == some(4)[:kept]
    assert [message for name, message in merged if name == "bs-004"] == some(3)


@given(st.lists(st.lists(messages, max_size=4), max_size=4))
@settings(max_examples=30)
def test_merging_keeps_every_message_and_their_time_order(links: list[list[Captured]]) -> None:
    links = [sorted(link, key=lambda message: message[3]) for link in links]
    with TemporaryDirectory() as folder:
        paths = [Path(folder, str(bs)) for bs in range(len(links))]
        for bs, link in enumerate(links):
            written(paths[bs], bs, link)
        merge_captures(paths[:2], Path(folder, "some"))
        merge_captures([Path(folder, "some"), *paths[2:]], Path(folder, "merged"))  # merged ones merge again
        found = list(packets(Path(folder, "merged").read_bytes()))
        apart = [packet for path in paths for packet in packets(path.read_bytes())]
    assert sorted(found) == sorted(apart)
    assert [packet.t_ns for packet in found] == sorted(packet.t_ns for packet in found)


def test_golden_bytes(tmp_path: Path) -> None:
    data = written(tmp_path / "a", 0x0203, [(DOWN, 0x01020304, b"hello", 0x0102030405060708)])
    packet = list(blocks(data))[2][2]
    assert packet.hex() == (
        "00000000" "0102030405060708" "0000001f" "0000001f"
        "02c0f1000203" "02c0f1010000" "aefe" "1003000d" "00000203" "01020304" "68656c6c6f" "00"
        "00010004" "646f776e" "00000000"
    )  # fmt: skip


def test_a_long_message_is_split_where_the_size_field_ends(tmp_path: Path) -> None:
    longest = bytes(MAX_PIECE_BYTES)
    sent = [(UP, 7, longest, T0), (UP, 8, longest + b"x", T0), (DOWN, 9, os.urandom(1 << 20), T0)]
    data = written(tmp_path / "a", 3, sent)
    assert [len(packet.frame) - 26 for packet in packets(data)][:3] == [MAX_PIECE_BYTES, MAX_PIECE_BYTES, 1]
    assert [message for _, message in messages_of(data)] == sent


def test_what_was_written_is_there_without_a_close(tmp_path: Path) -> None:
    path = tmp_path / "a"
    writer = CaptureWriter(path, 3)
    assert messages_of(path.read_bytes()) == []
    writer.write(some(5))
    assert len(messages_of(path.read_bytes())) == 5
    writer.close()
    writer.close()
    with pytest.raises(LocalError, match="closed"):
        writer.write(some(1))


def test_a_capture_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a"
    before = written(path, 3, some(2))
    with pytest.raises(LocalError, match="exists already"):
        CaptureWriter(path, 3)
    assert path.read_bytes() == before
    with pytest.raises(LocalError, match="cannot write"):
        CaptureWriter(tmp_path / "no such folder" / "a", 3)
    with pytest.raises(LocalError, match=r"0\.\.65535"):
        CaptureWriter(tmp_path / "b", 65536)


@pytest.mark.parametrize(
    "bad", [(UP, -1, b"", 0), (UP, 2**32, b"", 0), (UP, 0, b"", -1), (UP, 0, b"", 2**64), ("up", 0, b"", 0)]
)
def test_a_bad_message_writes_nothing_of_its_batch(tmp_path: Path, bad: Captured) -> None:
    path = tmp_path / "a"
    writer = CaptureWriter(path, 3)
    writer.write(some(1))
    for batch in ([*some(2), bad], [(*bad[:2], bytes(MAX_PIECE_BYTES + 1), bad[3])]):
        with pytest.raises(LocalError):
            writer.write(batch)
    writer.write(some(2))
    writer.close()
    assert [message for _, message in messages_of(path.read_bytes())] == some(1) + some(2)


def test_a_full_disk_leaves_whole_blocks(tmp_path: Path) -> None:
    """In a process of its own: a limit on the size of files stands in for the disk, and cuts a write short."""
    code = f"""
import resource, signal, sys
from pathlib import Path
from fronthaul.log.pcapng import CaptureWriter
from fronthaul.errors import LocalError
from fronthaul.message.messages import Direction
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, {resource.RLIM_INFINITY}))
writer = CaptureWriter(Path(sys.argv[1]), 3)
writer.write([(Direction.UP, i, bytes(100), i) for i in range(10)])
try:
    writer.write([(Direction.UP, i, bytes(100), i) for i in range(50)])
except LocalError as error:
    print(error)
writer.write([(Direction.UP, 10, bytes(100), 10)])
writer.close()
resource.setrlimit(resource.RLIMIT_FSIZE, (10, {resource.RLIM_INFINITY}))
try:
    CaptureWriter(Path(sys.argv[1] + " b"), 3)
except LocalError as error:
    print(error)
"""
    path = tmp_path / "a"
    command = [sys.executable, "-W", "error", "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("cannot write") == done.stdout.count("large") == 2
    assert done.stderr == ""  # no file is left open
    assert [seq for _, (_, seq, _, _) in messages_of(path.read_bytes())] == list(range(11))


def test_merging_stops_at_what_is_no_whole_block(tmp_path: Path) -> None:
    data = written(tmp_path / "b", 3, some(2))
    for rest in (
        b"",
        bytes(64),
        struct.pack(">III", 6, 16, 0) + struct.pack(">I", 20),
        struct.pack(">II", 6, 2**32 - 4),
    ):
        (tmp_path / "a").write_bytes(data + rest)
        merge_captures([tmp_path / "a"], tmp_path / "merged")
        assert (tmp_path / "merged").read_bytes() == data


def test_merging_nothing_is_a_capture_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()  # of a writer that died before its first byte
    merge_captures([tmp_path / "empty"], tmp_path / "merged")
    assert [kind for kind, _, _ in blocks((tmp_path / "merged").read_bytes())] == [0x0A0D0D0A]


def test_merging_refuses_other_files_and_leaves_the_target(tmp_path: Path) -> None:
    ours = written(tmp_path / "ours", 3, some(2))
    others = {
        "text": b"This is no capture.",
        "little": struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28),
        "two": ours + ours,  # sections
        "headless": ours[next(i for i in range(4, len(ours)) if ours[i : i + 4] == bytes([0, 0, 0, 1])) :],
    }
    (tmp_path / "target").write_bytes(b"before")
    for name, data in others.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(LocalError, match=f"{name} is not a capture of this project"):
            merge_captures([tmp_path / "ours", tmp_path / name], tmp_path / "target")
    with pytest.raises(LocalError, match="missing: No such file"):
        merge_captures([tmp_path / "missing"], tmp_path / "target")
    assert {path.name for path in tmp_path.iterdir()} == {"target", "ours", *others}
    assert (tmp_path / "target").read_bytes() == b"before"


def test_a_frame_costs_microseconds(tmp_path: Path) -> None:
    """The figure is near 1 us; the limit is wide because others share the machine."""
    batch = some(16, 400)
    writer = CaptureWriter(tmp_path / "a", 3)
    best = float("inf")
    for _ in range(20):
        start = time.thread_time()
        for _ in range(20):
            writer.write(batch)
        best = min(best, (time.thread_time() - start) / (20 * len(batch)))
    writer.close()
    assert best < 20e-6


FIELDS = (
    "frame.interface_name", "frame.time_epoch", "frame.comment", "eth.src", "eth.dst", "eth.type",
    "ecpri.revision", "ecpri.cbit", "ecpri.type", "ecpri.size", "ecpri.pcid", "ecpri.payload",
)  # fmt: skip


def tshark(path: Path, *arguments: str) -> list[str]:
    command = [needed.program("tshark"), "-n", "-r", str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_tshark_dissects_every_frame(tmp_path: Path) -> None:
    sizes = (0, 1, 19, 24, 45, 46, 100, 411, 1448, 9000, MAX_PIECE_BYTES, 150_000)
    batch = [((UP, DOWN)[i % 2], 0xFFFF_FFF0 + i, os.urandom(size), T0 + i) for i, size in enumerate(sizes)]
    captures = [tmp_path / "3.pcapng", tmp_path / "65535.pcapng"]
    whole = [written(path, int(path.stem), batch) for path in captures]
    captures[0].write_bytes(whole[0][:-9])  # cut within the last block
    merged = tmp_path / "merged.pcapng"
    merge_captures(captures, merged)

    expected = list(packets(merged.read_bytes()))
    assert [packet.interface for packet in expected[:3]] == ["bs-003", "bs-65535", "bs-003"]
    assert len(expected) == 2 * (len(sizes) + 2) - 1  # 150 000 B are three pieces
    shown = [line.split("\t") for line in tshark(merged, "-T", "fields", *(x for f in FIELDS for x in ("-e", f)))]
    assert len(shown) == len(expected)
    for packet, (name, epoch, comment, source, target, *ecpri, payload) in zip(expected, shown, strict=True):
        seconds, nanoseconds = epoch.split(".")
        assert (name, int(seconds) * 10**9 + int(nanoseconds), comment) == packet[:3]
        assert bytes.fromhex((target + source).replace(":", "")) == packet.frame[:12]
        pc_id = int.from_bytes(packet.frame[18:22], "big")
        assert [int(value, 0) for value in ecpri] == [0xAEFE, 1, 0, 3, len(packet.frame) - 18, pc_id]
        assert payload.replace(":", "") == packet.frame[18:].hex()  # PC_ID, SEQ_ID and message
    assert tshark(merged, "-Y", "_ws.malformed || ecpri.payload.size.invalid || !ecpri") == []
