"""Streams of rows: plain Arrow files, as pyarrow would have written them, which survive what happens to writers."""

import errno
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fronthaul
from fronthaul.errors import LocalError
from fronthaul.log import arrow_batches
from fronthaul.log import arrow_rows as rowpack
from fronthaul.log.arrow_rows import RowPacker
from fronthaul.log.arrow_stream import RowStream, read_stream
from fronthaul.log.received import received_schema
from fronthaul.log.sent import journal_schema

SCHEMA = pa.schema([("number", pa.uint16()), ("text", pa.string())])
TYPES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.uint8(), st.integers(0, 255)),
    (pa.uint16(), st.integers(0, 65535)),
    (pa.uint32(), st.integers(0, (1 << 32) - 1)),
    (pa.uint64(), st.integers(0, (1 << 64) - 1)),
    (pa.int8(), st.integers(-128, 127)),
    (pa.int16(), st.integers(-32768, 32767)),
    (pa.int32(), st.integers(-(1 << 31), (1 << 31) - 1)),
    (pa.int64(), st.integers(-(1 << 63), (1 << 63) - 1)),
    (pa.float32(), st.floats(width=32)),
    (pa.float64(), st.floats()),
    (pa.string(), st.text(max_size=9).filter(lambda text: all(not 0xD800 <= ord(c) <= 0xDFFF for c in text))),
    (pa.binary(), st.binary(max_size=40)),
    (pa.list_(pa.uint32()), st.lists(st.integers(0, (1 << 32) - 1), max_size=5)),
    (pa.list_(pa.float64()), st.lists(st.floats(), max_size=3)),
    (pa.bool_(), st.booleans()),
]


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.Schema, list[list[tuple[object, ...]]]]:
    """Return any schema, and batches of rows for it; booleans, which are not packed fast, now and then."""
    kinds = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=6))
    schema = pa.schema([(f"column {index}", kind) for index, (kind, _) in enumerate(kinds)])
    rows = st.tuples(*(st.none() | values for _, values in kinds))
    return schema, draw(st.lists(st.lists(rows, min_size=1, max_size=20), min_size=1, max_size=4))


def serialised(schema: pa.Schema, rows: list[tuple[object, ...]]) -> bytes:
    """Return the batch message that pyarrow makes."""
    arrays = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), schema, strict=True)]
    message: bytes = pa.RecordBatch.from_arrays(arrays, schema=schema).serialize().to_pybytes()
    return message


@given(tables())
def test_batches_are_byte_equal_to_those_of_pyarrow(case: tuple[pa.Schema, list[list[tuple[object, ...]]]]) -> None:
    """The first of its shape, and the second, which takes over what was learned from the first."""
    schema, batches = case
    packer = RowPacker(schema)
    for rows in batches:
        assert packer.pack(rows) == serialised(schema, rows) == packer.pack(rows)


@given(tables())
def test_columns_are_packed_as_their_rows_are(case: tuple[pa.Schema, list[list[tuple[object, ...]]]]) -> None:
    """Also where a column of nulls alone is given as none at all."""
    schema, batches = case
    packer = RowPacker(schema)
    for rows in batches:
        columns = [None if set(column) == {None} else column for column in zip(*map(_hashable, rows), strict=True)]
        for _ in range(2):
            assert packer.pack_columns(len(rows), columns) == serialised(schema, rows)


def _hashable(row: tuple[object, ...]) -> tuple[object, ...]:
    return tuple([tuple(value) if isinstance(value, list) else value for value in row])


@pytest.mark.parametrize(
    ("schema", "row"),
    [
        (journal_schema(), (3, 1 << 60, 1 << 60, None, None, bytes(403))),
        (journal_schema(), (3, 1 << 60, 1 << 60, "loss", (1, 77), bytes(403))),
        (received_schema(), (3, 1 << 60, "delivered", None, 0, 403, 1, 77, 1 << 31, bytes(15), None)),
        (received_schema(), (None, 1 << 60, "corrupt", "checksum", 0, 7, None, None, None, None, b"garbage")),
    ],
)
@pytest.mark.parametrize("count", [1, 2, 16])
def test_journals_and_logs_take_the_fast_way(
    schema: pa.Schema, row: tuple[object, ...], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    packer = RowPacker(schema)
    first = packer.pack([row] * count)
    monkeypatch.delattr(RowPacker, "_serialised")
    assert packer.pack([row] * count) == first == serialised(schema, [row] * count)


def test_other_contents_of_a_known_shape_are_packed_afresh() -> None:
    packer = RowPacker(SCHEMA)
    packer.pack([(1, "abc"), (2, None)])
    assert packer.pack([(3, None), (4, "xyz")]) == serialised(SCHEMA, [(3, None), (4, "xyz")])
    packer.pack([(1, "abc"), (2, "d")])
    assert packer.pack([(1, "a"), (2, "bcd")]) == serialised(SCHEMA, [(1, "a"), (2, "bcd")])


def test_memory_of_shapes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rowpack, "MAX_SHAPES", 4)
    packer = RowPacker(SCHEMA)
    for length in [*range(20), *range(20)]:
        rows: list[tuple[object, ...]] = [(length, "x" * length)]
        assert packer.pack(rows) == serialised(SCHEMA, rows)
        assert 1 <= len(packer._layouts) <= 4


@pytest.mark.parametrize(
    "row", [(1 << 16, "a"), (-1, "a"), (1 << 70, "a"), ("a", "a"), (1, 1), (1, "\ud800"), (1,), (1, "a", 2)]
)
@pytest.mark.parametrize("known", [False, True])
def test_what_does_not_fit_is_refused_and_not_written(tmp_path: Path, row: tuple[object, ...], known: bool) -> None:
    stream = RowStream(tmp_path / "rows", SCHEMA)
    if known:
        stream.append(1, "a")
    with pytest.raises(LocalError, match="does not fit"):
        stream.extend([(2, "b"), row])
    stream.append(3, "c")
    stream.close()
    assert read_stream(tmp_path / "rows")["number"].to_pylist() == [1, 3][not known :]


def test_columns_that_do_not_fit_are_refused_and_not_written(tmp_path: Path) -> None:
    stream = RowStream(tmp_path / "rows", SCHEMA)
    for columns in ([(1, 1 << 16), None], [(1, 2, 3), ("a", "b")], [(1, 2)], [(1, 2), None, None]):
        with pytest.raises(LocalError, match="does not fit"):
            stream.extend_columns(2, columns)
    stream.extend_columns(0, [(), ()])
    stream.extend_columns(2, [None, ("a", None)])
    stream.close()
    assert read_stream(tmp_path / "rows").to_pylist() == [{"number": None, "text": "a"}, {"number": None, "text": None}]
    with pytest.raises(LocalError, match="closed"):
        stream.extend_columns(1, [(1,), None])


def test_rows_and_metadata_come_back(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    stream = RowStream(path, SCHEMA, {"direction": "up", "of": "ünïcode"})
    stream.append(1, "a")
    stream.extend([])
    stream.extend([(2, None), (3, "c")])
    table = read_stream(path)
    stream.close()
    assert table.schema == SCHEMA
    assert table.schema.metadata == {b"direction": b"up", b"of": "ünïcode".encode()}
    assert table.to_pylist() == [
        {"number": 1, "text": "a"},
        {"number": 2, "text": None},
        {"number": 3, "text": "c"},
    ]
    assert read_stream(path).equals(table)
    with pa.OSFile(str(path), "rb") as file:  # any reader of Arrow streams reads it
        assert pa.ipc.open_stream(file).read_all().to_pylist() == table.to_pylist()


def test_streams_are_never_written_over_or_after_closing(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    stream = RowStream(path, SCHEMA)
    with pytest.raises(LocalError, match="exists already"):
        RowStream(path, SCHEMA)
    stream.close()
    stream.close()
    with pytest.raises(LocalError, match="closed"):
        stream.append(1, "a")
    assert read_stream(path).num_rows == 0
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[int]]:
    """Return a stream of three batches of two rows, and how long the file was before each and at the end."""
    path = tmp_path_factory.mktemp("stream") / "rows"
    rows = RowStream(path, SCHEMA)
    ends = []
    for number in range(3):
        ends.append(path.stat().st_size)
        rows.extend([(number, "a"), (number, "b")])
    ends.append(path.stat().st_size)
    rows.close()
    return path.read_bytes(), ends


def test_a_cut_tail_loses_the_cut_batch_alone(stream: tuple[bytes, list[int]], tmp_path: Path) -> None:
    data, ends = stream
    path = tmp_path / "cut"
    for length in range(ends[0], len(data) + 1):
        path.write_bytes(data[:length])
        whole = [number for number in range(3) for _ in "ab" if ends[number + 1] <= length]
        assert read_stream(path)["number"].to_pylist() == whole


def test_a_file_that_is_no_stream_is_refused(stream: tuple[bytes, list[int]], tmp_path: Path) -> None:
    path = tmp_path / "other"
    for data in (b"", b"hello", stream[0][:40]):
        path.write_bytes(data)
        with pytest.raises(LocalError, match="not an Arrow stream"):
            read_stream(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.data())
def test_any_bytes_behind_whole_batches_do_no_harm(
    stream: tuple[bytes, list[int]], tmp_path: Path, tail: bytes, data: st.DataObject
) -> None:
    whole = data.draw(st.integers(0, 3))
    path = tmp_path / "tail"
    path.write_bytes(stream[0][: stream[1][whole]] + tail)
    assert read_stream(path)["number"].to_pylist()[: 2 * whole] == [n for n in range(whole) for _ in "ab"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_loses_nothing_before_it(
    stream: tuple[bytes, list[int]], tmp_path: Path, damage: list[tuple[int, int]]
) -> None:
    """And whatever it hits, the schema included, is a LocalError or a shorter table."""
    data, path = bytearray(stream[0]), tmp_path / "damaged"
    for place, byte in damage:
        data[place % len(data)] = byte
    path.write_bytes(data)
    first = min(place % len(data) for place, _ in damage)
    whole = [number for number in range(3) for _ in "ab" if stream[1][number + 1] <= first]
    try:
        table = read_stream(path)
    except LocalError:
        assert first < stream[1][0]
        return
    if first >= stream[1][0]:
        assert table["number"].to_pylist()[: len(whole)] == whole
    table.to_pylist()


FULL_DISK = """
import resource, signal
from pathlib import Path
from tempfile import TemporaryDirectory
import pyarrow as pa
from fronthaul.errors import LocalError
from fronthaul.log.arrow_stream import RowStream, read_stream
path = Path({path!r})
stream = RowStream(path, pa.schema([("data", pa.binary())]))
stream.append(b"first")
room = path.stat().st_size
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (room + 500, hard))  # the next row fits in part
try:
    stream.append(bytes(1000))
except LocalError as error:
    print(error)
print(path.stat().st_size == room, read_stream(path)["data"].to_pylist())
resource.setrlimit(resource.RLIMIT_FSIZE, (room + 5, hard))
try:
    stream.append(bytes(1000))
except LocalError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
stream.append(b"second")
stream.close()
print(read_stream(path)["data"].to_pylist())
"""


def test_a_disk_that_fills_up_leaves_whole_batches(tmp_path: Path) -> None:
    """The limit on a file's size stands for the disk: it takes part of a write just so."""
    path = tmp_path / "rows"
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK.format(path=str(path))],
        cwd=Path(fronthaul.__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    message, whole, again, rows = ran.stdout.splitlines()
    assert message == again == f"the disk is full: {path} ends before what was to be added (File too large)"
    assert whole == "True [b'first']"
    assert rows == "[b'first', b'second']"


def test_a_full_disk_refuses_a_new_stream_and_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows"
    stream = RowStream(path, SCHEMA)
    stream.append(1, "a")

    class Full:
        """A file on a full disk."""

        closed = False

        def __init__(self, *_: object, **__: object) -> None:
            """Open anything."""

        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "no space")

        def truncate(self, size: int) -> None:
            raise OSError(errno.EIO, "no disk")

        def close(self) -> None:
            self.closed = True

    stream._file.close()
    stream._file = Full()  # type: ignore[assignment]
    with pytest.raises(LocalError, match=r"the disk is full: .*No space left"):
        stream.close()
    with pytest.raises(LocalError, match="closed"):
        stream.append(2, "b")
    assert read_stream(path)["number"].to_pylist() == [1]

    def opened(path: Path, *_: object, **__: object) -> Full:
        path.touch()
        return Full()

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(LocalError, match="the disk is full"):
        RowStream(tmp_path / "second", SCHEMA)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path]


def test_rows_survive_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    script = f"""
import os, signal
from pathlib import Path
from tempfile import TemporaryDirectory
import pyarrow as pa
from fronthaul.log.arrow_stream import RowStream
stream = RowStream(Path({str(path)!r}), pa.schema([("number", pa.uint16())]))
for number in range(5):
    stream.extend([(number,), (number,)])
os.kill(os.getpid(), signal.SIGKILL)
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=Path(fronthaul.__file__).parent.parent)
    assert ran.returncode == -signal.SIGKILL
    assert read_stream(path)["number"].to_pylist() == [number for number in range(5) for _ in "ab"]


@settings(deadline=None)
@given(tables(), st.integers(0, 300), st.sampled_from([4096, 1 << 24]))
def test_small_batches_are_read_as_they_were_written(
    case: tuple[pa.Schema, list[list[tuple[object, ...]]]], cut: int, window: int
) -> None:
    """Shapes in turn and in runs, in windows that are shorter than a batch, and with the end of the file cut off."""
    schema, batches = case
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrow_batches, "WINDOW_BYTES", window)
        path = Path(folder) / "rows"
        stream = RowStream(path, schema)
        written = [*batches, *batches, *batches[:1] * 3]
        begin, ends = path.stat().st_size, []
        for rows in written:
            stream.extend(rows)
            ends.append(path.stat().st_size)
        stream.close()
        path.write_bytes(path.read_bytes()[: max(begin, ends[-1] - cut)])
        whole = [rows for rows, end in zip(written, ends, strict=True) if end <= path.stat().st_size]
        table = pa.Table.from_batches(
            [pa.ipc.read_record_batch(pa.py_buffer(serialised(schema, rows)), schema) for rows in whole], schema
        )
        assert str(read_stream(path).to_pylist()) == str(table.to_pylist())  # NaN is not equal to itself


@pytest.mark.parametrize("place", ["offsets", "data"])
def test_a_damaged_batch_among_equal_ones_ends_the_stream(tmp_path: Path, place: str) -> None:
    path = tmp_path / "rows"
    stream = RowStream(path, SCHEMA)
    for number in range(9):
        stream.append(number, "text")
    stream.close()
    data = bytearray(path.read_bytes())
    hits = [at for at in range(len(data)) if data[at : at + 4] == b"text"]
    at = hits[-5]  # the fifth from the end, that of row 4
    data[at - 4 if place == "offsets" else at] = 0xFF  # a length, or a byte that is not UTF-8
    path.write_bytes(data)
    assert read_stream(path)["number"].to_pylist() == [0, 1, 2, 3]


def test_a_stream_that_grows_is_read_further(tmp_path: Path) -> None:
    path = tmp_path / "stream.arrow"
    stream = RowStream(path, SCHEMA)
    reader = arrow_batches.StreamFile(path)

    def further() -> list[int]:
        return [number for rows in reader.further() for number in rows["number"].to_pylist()]

    assert further() == []
    stream.extend([(1, "a"), (2, "bb")])
    assert further() == [1, 2] and further() == []
    stream.extend([(3, "c")])
    whole = path.read_bytes()
    stream.extend([(4, None)])
    every = path.read_bytes()
    path.write_bytes(every[: len(whole) + 20])  # the writer is in the midst of a batch
    assert further() == [3] and further() == []
    path.write_bytes(every)
    assert further() == [4]
    stream.close()
