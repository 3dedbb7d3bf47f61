"""Whatever a file or a payload holds, its reader gives a value or one sentence: damage of any kind, by Hypothesis.

Messages are in `test_fronthaul_wire`, streams in `test_fronthaul_rowstream`, single values of link files in
`test_fronthaul_linkfile`, captures that end early in `test_fronthaul_capture`.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from any_message import controls, frames
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from whole_ledger import close_ledger

from cloud.fixlog import FixLog, FixRecord, read_fixes
from cloud.history import read_past
from edge.stages import StageLog, StageRow, read_stages
from fronthaul.account.used import UsedReports
from fronthaul.codec.bitstream import pack, unpack
from fronthaul.codec.iq import compress, decompress, iq_codec
from fronthaul.errors import LocalError, RemoteError
from fronthaul.files import write_parquet
from fronthaul.link.link_file import link_plan, link_table, read_links
from fronthaul.log.pcapng import CaptureWriter, merge_captures
from fronthaul.log.received import Arrival, Received, ReceiveLog, read_received
from fronthaul.log.sent import Departure, Journal, SendJournal, amended, read_journal
from fronthaul.log.stream_names import FIXES, RECEIVED, SENT, STAGES
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Direction, Frame, Message, Payload, Report, ReportKey
from fronthaul.message.wire import encode
from fronthaul.transport.identity import bs_of, identity
from fronthaul.transport.keys import load_cloud_keys, load_edge_keys
from fronthaul.transport.new_keys import write_keys
from fronthaul.transport.zmtp import ZMTP_NULL
from sim.errors import UserError
from sim.plan import plan as compose
from sim.plan.settings import EmulateSettings
from sim.records.folder import RunFolder, read_configuration, write_configuration
from sim.records.links import read_table
from sim.world.scenario import SCENARIO_FOLDER, load_scenario

Change = tuple[str, int, bytes]
changes: st.SearchStrategy[list[Change]] = st.lists(
    st.tuples(st.sampled_from(["write", "insert", "remove", "cut"]), st.integers(0), st.binary(min_size=1, max_size=6)),
    min_size=1,
    max_size=3,
)
TOML_PIECES = [bytes([character]) for character in b"='\"[]{}\n.-#0"] + [b"[[", b"9" * 5000, b"1e999", b"nan", b"true"]
toml_changes: st.SearchStrategy[list[Change]] = st.lists(
    st.tuples(
        st.sampled_from(["write", "insert", "remove", "cut"]),
        st.integers(0),
        st.sampled_from(TOML_PIECES) | st.binary(min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=3,
)
files = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def damaged(whole: bytes, changes: list[Change]) -> bytes:
    """Return `whole` with bytes written over, put in, taken out, or with its end cut off."""
    data = bytearray(whole)
    for kind, place, piece in changes:
        at = place % (len(data) + 1)
        if kind == "cut":
            del data[at:]
        else:
            data[at : at if kind == "insert" else at + len(piece)] = b"" if kind == "remove" else piece
    return bytes(data)


def copied(whole: Path, target: Path, name: str, changes: list[Change]) -> None:
    """Copy a folder with one of its files damaged."""
    for path in whole.iterdir():
        data = path.read_bytes()
        (target / path.name).write_bytes(damaged(data, changes) if path.name == name else data)


def refused_in_one_sentence(read: Callable[[], object], kind: type[Exception] = LocalError) -> bool:
    """Read; return whether that was refused, by an error of this kind and in one line."""
    try:
        read()
    except kind as error:
        assert str(error) and "\n" not in str(error)
        return True
    return False


# Streams


def some_streams(folder: Path) -> None:
    """What two ends of a link write down, whole."""
    message = encode(Frame(7, (Report(ReportKey(3, 2, 1), Payload(b"\xa7\x00", 9), b"side"),)))
    journal = SendJournal(folder / f"cloud-0{SENT}", direction=Direction.DOWN, transport=ZMTP_NULL)
    log = ReceiveLog(folder / f"cloud-0{RECEIVED}", direction=Direction.UP)
    fixes = FixLog(folder / f"cloud-0{FIXES}")
    stages = StageLog(folder, "bs-000")
    for number in range(3):
        journal.append(3, [Departure(message, number, number, None, (number,)), Departure(message, 9, 9, "loss")])
        log.append(
            [Arrival(3, message, number, FrameFate.DELIVERED), Arrival(None, b"x", 1, FrameFate.CORRUPT, "type")]
        )
        fixes.append([FixRecord(number, (ReportKey(3, 2, number),), (1.0, 2.0, 3.0), np.eye(3), 3, 1, 2, 3, 4)])
        stages.append([StageRow(number, 0, 1, 2, 3, 4)])
    for stream in (journal, log, fixes, stages):
        stream.close()


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    some_streams(folder)
    return folder


READERS: dict[str, Callable[[Path], object]] = {
    f"cloud-0{SENT}": lambda path: amended(read_journal(path).to_pylist()),
    f"cloud-0{RECEIVED}": lambda path: read_received(path).to_pylist(),
    f"cloud-0{FIXES}": read_fixes,
    f"bs-000{STAGES}": lambda path: read_stages(path).to_pylist(),
}


@pytest.mark.parametrize("name", READERS)
@given(changes)
@files
def test_damaged_streams(name: str, streams: Path, tmp_path: Path, changes: list[Change]) -> None:
    path = tmp_path / "damaged"
    path.write_bytes(damaged((streams / name).read_bytes(), changes))
    refused_in_one_sentence(lambda: READERS[name](path))


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("other", READERS)
def test_a_stream_is_not_taken_for_another(name: str, other: str, streams: Path, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes((streams / other).read_bytes())
    refused = refused_in_one_sentence(lambda: READERS[name](path))
    assert refused == (name != other)


@given(st.sampled_from([name for name in READERS if name.startswith("cloud")]), changes)
@files
def test_a_cloud_starts_whatever_its_earlier_incarnation_left(streams: Path, name: str, changes: list[Change]) -> None:
    with TemporaryDirectory() as folder:
        copied(streams, Path(folder), name, changes)
        refused_in_one_sentence(lambda: read_past(Path(folder), 1))


@given(st.lists(frames() | controls, min_size=1, max_size=4), st.lists(st.binary(max_size=40), max_size=4))
def test_ledgers_close_over_whatever_arrived(sent: list[Message], arrived: list[bytes]) -> None:
    """Messages that were journaled, and bytes that nobody sent."""
    with TemporaryDirectory() as folder:
        path = Path(folder)
        journal = SendJournal(path / "sent", direction=Direction.UP, transport=ZMTP_NULL)
        for message in sent:
            journal.append(getattr(message, "bs", 0), [Departure(encode(message), 0, 0)])
        journal.close()
        log = ReceiveLog(path / "received", direction=Direction.UP)
        log.append([Arrival(0, data, 0, FrameFate.CORRUPT, "checksum") for data in arrived])
        log.close()
        ledger = close_ledger([Journal(path / "sent")], [Received(path / "received")], UsedReports.of_fixes([]))
    first_parts = [row["frame_fate"] for row in ledger.to_pylist() if row["part"] == 0]
    assert first_parts.count("corrupt") == len(arrived)


@given(changes)
@files
def test_damaged_tables(tmp_path: Path, changes: list[Change]) -> None:
    path = tmp_path / "table.parquet"
    write_parquet(pa.table({"bs": [1, 2, 3], "reason": ["a", None, "b"]}), path)
    path.write_bytes(damaged(path.read_bytes(), changes))
    refused_in_one_sentence(lambda: read_table(path), UserError)


# Captures


@given(changes)
@files
def test_damaged_captures(tmp_path: Path, changes: list[Change]) -> None:
    with TemporaryDirectory(dir=tmp_path) as folder:
        first, second, target = (Path(folder, name) for name in ("1", "2", "merged"))
        for bs, path in enumerate((first, second)):
            writer = CaptureWriter(path, bs)
            writer.write([(Direction.UP, number, bytes(number), number) for number in range(5)])
            writer.close()
        first.write_bytes(damaged(first.read_bytes(), changes))
        refused = refused_in_one_sentence(lambda: merge_captures([first, second], target))
        assert target.exists() != refused and not list(target.parent.glob(".*.part"))
        if not refused:
            assert target.stat().st_size <= first.stat().st_size + second.stat().st_size


# Texts

LINKS = b"""
[default]
rate = "10mbit"
delay = "2ms"
queue = "64kB"
[up]
loss = "1%"
burst = "1% 25%"
[bs.3.up]
outage = "2s-3s"
"""


@given(toml_changes)
def test_damaged_link_files(changes: list[Change]) -> None:
    text = damaged(LINKS, changes).decode("utf-8", "replace")
    if not refused_in_one_sentence(lambda: read_links(text)):
        plan = read_links(text)
        assert link_plan(link_table(plan)) == plan


@given(st.text(max_size=60))
def test_any_text_for_a_link_file(text: str) -> None:
    refused_in_one_sentence(lambda: read_links(text))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    write_keys(folder, 2)
    return folder


@given(st.sampled_from(["cloud.key", "cloud.pub", "allowed.toml", "bs-001.key"]), toml_changes | changes)
@files
def test_damaged_keys(keys: Path, name: str, changes: list[Change]) -> None:
    """One sentence without a secret in it, or keys that are keys."""
    secrets = [(keys / of).read_text().split('"')[3] for of in ("cloud.key", "bs-001.key")]
    with TemporaryDirectory() as folder:
        copied(keys, Path(folder), name, changes)
        for read in (lambda: load_cloud_keys(Path(folder)), lambda: load_edge_keys(Path(folder), 1)):
            try:
                read()
            except LocalError as error:
                assert "\n" not in str(error)
                for secret in secrets:
                    assert not any(secret[at : at + 6] in str(error) for at in range(35))


@given(st.binary(max_size=12) | st.integers(0, 99999).map(lambda number: b"bs-%03d" % number))
def test_a_name_is_a_base_stations_only_as_written(name: bytes) -> None:
    bs = bs_of(name)
    assert bs is None or identity(bs) == name


@given(toml_changes)
@files
def test_damaged_configurations(settings: EmulateSettings, tmp_path: Path, changes: list[Change]) -> None:
    folder = tmp_path / "run"
    if not folder.exists():
        folder.mkdir()
        write_configuration(RunFolder(folder), compose.load_plan(settings))
        (folder / "whole").write_bytes((folder / "run.toml").read_bytes())
    (folder / "run.toml").write_bytes(damaged((folder / "whole").read_bytes(), changes))
    refused_in_one_sentence(lambda: read_configuration(RunFolder(folder)), UserError)


@given(toml_changes)
@files
def test_damaged_scenarios(tmp_path: Path, changes: list[Change]) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes(damaged((SCENARIO_FOLDER / "paris-6.toml").read_bytes(), changes))
    refused_in_one_sentence(lambda: load_scenario(str(path)), UserError)


# Payloads


@st.composite
def payloads(draw: st.DrawFn) -> Payload:
    """Any bits, often of a length that a codec might expect."""
    bits = draw(st.integers(0, 200) | st.sampled_from([64 * 6, 32 * 6, 8 * 28, 8 * 2 * 28, 8 * 49]))
    value = draw(st.integers(0, (1 << bits) - 1))
    return Payload((value << -bits % 8).to_bytes(-(-bits // 8), "big"), bits)


@given(payloads(), st.integers(1, 32), st.integers(0, 60))
def test_any_payload_is_unpacked_or_has_another_length(payload: Payload, bits: int, count: int) -> None:
    try:
        index = unpack(payload, bits, count)
    except RemoteError as error:
        assert error.reason == "length" and payload.bits != bits * count
    else:
        assert pack(index, bits) == payload


@given(st.data(), st.sampled_from(["complex64", "iq16", *(f"bfp{width}" for width in range(1, 17))]))
def test_any_payload_is_csi_or_refused(data: st.DataObject, name: str) -> None:
    codec = iq_codec(name, 2, 3)
    exact = codec.bits * codec.words
    bits = data.draw(st.sampled_from([exact, exact, exact - 1, exact + 8]))
    raw = data.draw(st.binary(min_size=-(-bits // 8), max_size=-(-bits // 8)))
    raw = (int.from_bytes(raw, "big") >> -bits % 8 << -bits % 8).to_bytes(len(raw), "big")
    scale = data.draw(st.sampled_from([1.0, 1e-30, 3.0e38, 0.5]))
    with np.errstate(all="raise", under="ignore", invalid="ignore", over="ignore" if name == "complex64" else "raise"):
        try:
            csi = decompress(codec, Payload(raw, bits), scale)
        except RemoteError as error:
            assert error.reason == "field" if bits == exact else error.reason == "length"
            return
    assert bits == exact and csi.shape == (2, 3) and csi.dtype == np.complex64
    if name != "complex64":
        assert np.isfinite(csi).all()
    elif scale == 1.0:
        assert compress(codec, csi).payload.data == raw


# What once let another error out


def journal_with_direction(folder: Path, direction: bytes) -> None:
    some_streams(folder)
    for name in (f"cloud-0{SENT}", f"cloud-0{RECEIVED}"):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data.replace(b"down", direction).replace(b"up\0", direction[:2] + b"\0"))


ONCE: dict[str, Callable[[Path], object]] = {
    "journal, direction": lambda folder: read_journal(folder / f"cloud-0{SENT}"),
    "receive log, direction": lambda folder: read_received(folder / f"cloud-0{RECEIVED}"),
    "fixes, columns": lambda folder: read_fixes(folder / f"bs-000{STAGES}"),
    "stages, columns": lambda folder: read_stages(folder / f"cloud-0{FIXES}"),
    "link file, queue": lambda _: read_links('[up]\nrate = 1\nqueue = "1e999kB"'),
    "keys, number": lambda folder: load_cloud_keys(folder),
    "scenario, number": lambda folder: load_scenario(str(folder / "number.toml")),
    "configuration, number": lambda folder: read_configuration(RunFolder(folder)),
}


@pytest.mark.parametrize("name", ONCE)
def test_single_cases(name: str, tmp_path: Path) -> None:
    journal_with_direction(tmp_path, b"\xff\xff\xff\xff")
    for file in ("cloud.key", "number.toml", "run.toml"):
        (tmp_path / file).write_text("public = " + "9" * 5000)
    with pytest.raises((LocalError, UserError)):
        ONCE[name](tmp_path)
