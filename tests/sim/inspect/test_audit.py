"""An audit holds for runs as they are, and fails for each table that was tampered with."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_world

from fronthaul.link.link_file import LinkPlan, with_options
from fronthaul.log.pcapng import CaptureWriter
from fronthaul.message.messages import Direction
from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.inspect.audit import Audit, audit
from sim.inspect.captures import Expected, Message, compare, read_capture
from sim.inspect.frames import recover
from sim.inspect.replay import replay
from sim.plan.outcome import Progress
from sim.plan.settings import EmulateSettings
from sim.records.manifest import Manifest, read_key, signing_key
from sim.world import store

CHECKS = [
    "files", "fates", "fixes", "stages", "truth", "positions", "CRC-32", "captures", "bytes of frames", "payload",
    "order", "link model", "sums of links", "kernel", "summary", "journals",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run over bad links, in bundles."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "ASSET_FOLDER", folder / "assets")
        return emulate(impaired(tiny_world.write(folder))).folder


@pytest.fixture(autouse=True)
def assets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let audits find the test set of that run."""
    whole: Path = request.getfixturevalue("whole")
    monkeypatch.setattr(store, "ASSET_FOLDER", whole.parents[1] / "assets")


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of that run, to be tampered with."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def impaired(settings: EmulateSettings, **changes: Any) -> EmulateSettings:
    links = with_options(
        LinkPlan(),
        {"delay": "1ms", "jitter": "2ms", "loss": "10%", "duplicate": "10%", "corrupt": "10%", "outage": "20ms-30ms"},
    )
    chosen = {"links": links, "deadline_ms": 6.0, "interval_ms": 2.0, "batch": 2, "bundle": 2, "controls": False}
    return EmulateSettings(**{**vars_of(settings), **chosen, **changes})


def vars_of(settings: EmulateSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in EmulateSettings.__dataclass_fields__}


def states(found: Audit) -> dict[str, str]:
    return {finding.name: finding.state for finding in found.findings}


def failing(folder: Path) -> dict[str, str]:
    return {finding.name: finding.detail for finding in audit(folder).findings if finding.state == "fails"}


Edit = Callable[[list[Any], int], list[Any]]


def change(path: Path, column: str, edit: Edit) -> None:
    """Write a table again with another column; `edit` has its values, and which row of a ledger came to a fix."""
    table = pq.read_table(path)
    at = table["report_fate"].to_pylist().index("used") if "report_fate" in table.column_names else 0
    index = table.column_names.index(column)
    made = pa.array(edit(table[column].to_pylist(), at), table.schema.field(column).type)
    pq.write_table(table.set_column(index, column, made), path)


def one(new: Callable[[Any], Any]) -> Edit:
    return lambda values, at: [*values[:at], new(values[at]), *values[at + 1 :]]


def every(new: object) -> Edit:
    return lambda values, _: [new] * len(values)


def test_a_run_holds_and_says_what_was_left_out(whole: Path) -> None:
    found = audit(whole)
    assert found.ok
    assert [finding.name for finding in found.findings] == CHECKS
    left_out = {"kernel", "journals"}  # links in memory; the run was not cut
    assert states(found) == {name: "left out" if name in left_out else "holds" for name in CHECKS}
    details = {finding.name: finding.detail for finding in found.findings}
    counts = json.loads((whole / "summary.json").read_text())
    assert all(counts["frames"][fate] for fate in ("delivered", "duplicate", "corrupt", "dropped"))
    assert f"{counts['fixes']} fixes of 20 snapshots" in details["fixes"]
    assert f"{sum(counts['frames'].values())} frames" in details["CRC-32"]


LEDGER = "links/bs-001.parquet"


@pytest.mark.parametrize(
    ("name", "column", "edit", "checks"),
    [
        (LEDGER, "payload", one(lambda b: bytes([b[0] ^ 1]) + b[1:]), {"CRC-32", "captures"}),
        (LEDGER, "side", one(lambda b: bytes([b[0] ^ 1]) + b[1:]), {"CRC-32", "captures"}),
        (LEDGER, "crc32", one(lambda crc: crc ^ 1), {"CRC-32"}),
        (LEDGER, "snapshot", one(lambda n: n + 100), {"fates", "CRC-32", "captures"}),
        (LEDGER, "header_bytes", one(lambda n: n + 1), {"bytes of frames", "sums of links", "summary"}),
        (LEDGER, "zmtp_bytes", one(lambda n: n - 1), {"bytes of frames", "sums of links", "summary"}),
        (LEDGER, "payload_bits", one(lambda n: n - 8), {"CRC-32", "payload"}),
        (LEDGER, "frame_fate", every("rejected"), {"fates", "summary"}),
        (LEDGER, "report_fate", every("late"), {"fates", "summary"}),
        ("fixes.parquet", "used_epoch", one(lambda used: [used[0] + 1, *used[1:]]), {"fates"}),
        ("fixes.parquet", "snapshot", lambda numbers, _: [numbers[1], *numbers[1:]], {"fates"}),
        ("fixes.parquet", "x_m", one(lambda x: x + 0.001), {"fixes"}),
        ("fixes.parquet", "error_3d_m", one(lambda e: e + 0.001), {"fixes", "summary"}),
        ("links/connections.parquet", "data_up_bytes", one(lambda n: n + 1), {"sums of links"}),
        ("links/connections.parquet", "control_up_bytes", one(lambda n: n + 1), {"sums of links", "summary"}),
        ("links/connections.parquet", "handshake_down_bytes", one(lambda n: n + 1), {"sums of links", "summary"}),
        ("links/connections.parquet", "bs", one(lambda n: 7), {"sums of links"}),
    ],
)  # fmt: skip
def test_a_table_that_was_tampered_with_fails(run: Path, name: str, column: str, edit: Edit, checks: set[str]) -> None:
    change(run / name, column, edit)
    assert set(failing(run)) >= checks


def test_a_summary_that_was_tampered_with_fails(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    for key, value in (("fixes", 21), ("bytes", summary["bytes"] | {"payload": 1}), ("error_3d_m", None)):
        (run / "summary.json").write_text(json.dumps(summary | {key: value}))
        assert set(failing(run)) == {"files", "summary"}


def test_a_ledger_that_is_gone_fails(run: Path) -> None:
    (run / LEDGER).unlink()
    assert {"fates", "sums of links", "summary"} <= set(failing(run))
    assert "there is no ledger of BS 1" in failing(run)["fates"]


@pytest.mark.parametrize("change_bytes", ["payload", "cut", "gone"])
def test_a_capture_that_was_tampered_with_fails(run: Path, change_bytes: str) -> None:
    path = run / "links" / "bs-001.pcapng"
    data = path.read_bytes()
    if change_bytes == "gone":
        path.unlink()
    elif change_bytes == "cut":
        path.write_bytes(data[:-10])
    else:
        ledger = pq.read_table(run / LEDGER)
        at = data.index(ledger["payload"].to_pylist()[ledger["report_fate"].to_pylist().index("used")])
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert set(failing(run)) == {"files", "captures"}
    path.write_bytes(b"no capture at all")
    assert "is no capture" in failing(run)["CRC-32"]


def test_kernels_that_counted_something_else_fail(run: Path) -> None:
    connections = run / "links" / "connections.parquet"
    table = pq.read_table(connections).to_pylist()
    for row in table:
        row["connections"] = 1
        for way in ("up", "down"):
            row[f"least_{way}_bytes"] = row[f"most_{way}_bytes"]
            row[f"kernel_sent_{way}_bytes"] = row[f"kernel_received_{way}_bytes"] = row[f"most_{way}_bytes"]
    schema = pq.read_schema(connections)
    pq.write_table(pa.Table.from_pylist(table, schema), connections)
    sockets = run / "links" / "sockets.parquet"
    rows = [
        {
            "bs": row["bs"], "local": f"{end} {row['bs']}", "remote": f"{other} {row['bs']}", "t_opened_ns": 0,
            "t_closed_ns": 1, "sent_bytes": row[f"most_{out}_bytes"], "received_bytes": row[f"most_{back}_bytes"],
            "cut": False, "end": end,
        }
        for row in table
        for end, other, out, back in (("edge", "cloud", "up", "down"), ("cloud", "edge", "down", "up"))
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(sockets)), sockets)
    assert states(audit(run))["kernel"] == "holds"

    change(sockets, "sent_bytes", one(lambda n: n + 1))
    assert "another count than their sockets" in failing(run)["kernel"]
    change(connections, "kernel_sent_up_bytes", one(lambda n: n + 1))
    assert "were predicted" in failing(run)["kernel"]


def test_a_damaged_table_is_one_sentence(run: Path) -> None:
    pq.write_table(pq.read_table(run / LEDGER).drop_columns(["crc32"]), run / LEDGER)
    found = failing(run)
    assert found["CRC-32"] == "bs-001.parquet is damaged: it has no column crc32."


def test_a_row_of_another_base_station_is_one_sentence(run: Path) -> None:
    change(run / LEDGER, "bs", one(lambda bs: bs + 1))
    assert failing(run)["link model"] == f"{run / LEDGER} is damaged: it has rows of BS 2."


def test_a_record_without_its_settings_is_one_sentence(run: Path) -> None:
    (run / "run.toml").write_text("")
    with pytest.raises(UserError, match=r"run\.toml is damaged: it lacks 'settings'\.$"):
        audit(run)


def test_a_run_without_captures_leaves_them_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ASSET_FOLDER", tmp_path / "assets")
    result = emulate(impaired(tiny_world.write(tmp_path), capture=False))
    assert states(audit(result.folder))["captures"] == "left out"


def test_a_recovered_run_is_audited_with_its_journals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ASSET_FOLDER", tmp_path / "assets")
    settings = impaired(tiny_world.write(tmp_path))

    def cut(progress: Progress) -> None:
        if progress.stage == "write":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        emulate(settings, cut)
    (part,) = settings.output.iterdir()
    with pytest.raises(UserError, match="inspect --recover"):
        audit(part)
    recover(part)
    found = states(audit(part))
    left_out = ("files", "stages", "truth", "positions", "link model", "kernel", "summary")
    assert found == dict.fromkeys(CHECKS, "holds") | dict.fromkeys(left_out, "left out")
    change(part / LEDGER, "t_sent_ns", one(lambda t: t + 1))
    assert set(failing(part)) == {"journals"}


def test_a_capture_reads_back_what_was_written(tmp_path: Path) -> None:
    writer = CaptureWriter(tmp_path / "bs.pcapng", 300)
    items = [
        (Direction.UP, 0, b"\x21up", 5),
        (Direction.DOWN, 2**32 - 1, bytes(70000), 2**60),  # split
        (Direction.UP, 1, b"", 7),
    ]
    writer.write(items)
    writer.close()
    assert [*read_capture(tmp_path / "bs.pcapng")] == [
        Message(way, 300, seq, data, t_ns) for way, seq, data, t_ns in items
    ]


def frame(seq: int, data: bytes, fate: str = "delivered", reason: str | None = None, epoch: int = 0) -> Expected:
    came = None if fate == "dropped" else seq
    return Expected(Direction.UP, epoch, seq, data, seq, came, fate, reason)


def test_a_capture_is_held_against_a_ledger() -> None:
    sent = [Message(Direction.UP, 0, n, bytes([1, n]), n) for n in range(3)]
    frames = [frame(n, bytes([1, n])) for n in range(3)]
    assert compare(sent, frames, 0, {}).problems == ()
    # The link model's bits flip: as long, but other bytes.
    assert not compare(
        [*sent, Message(Direction.UP, 0, 9, b"??", 3)], [*frames, frame(3, b"ok", "corrupt")], 0, {}
    ).problems
    # What the link model drops is not there, what a full queue drops may be.
    assert not compare(sent, [*frames, frame(3, b"x", "dropped", "loss")], 0, {}).problems
    for reason, count in (("transport", 0), ("disconnected", 0), ("queue", 1), ("loss", 1), ("outage", 1)):
        late = compare(
            [*sent, Message(Direction.UP, 0, 3, b"x", 3)], [*frames, frame(3, b"x", "dropped", reason)], 0, {}
        )
        assert len(late.problems) == count
    # The last frames of a process that died may be gone, others not.
    assert compare(sent, [*frames, frame(3, b"xyz")], 0, {0: True}).cut == 1
    assert compare(sent, [*frames, frame(3, b"xyz")], 0, {0: False}).problems
    assert compare(sent[1:], frames, 0, {0: True}).problems
    assert compare([*sent, sent[0]], frames, 0, {}).problems == ("captured frames that are not in the ledger: 1",)


FIXES, STAGES, CAPTURE = "fixes.parquet", "links/stages.parquet", "links/bs-001.pcapng"
FAR_NS = 10_000_000_000


def in_toml(old: str, new: str) -> Callable[[Path], None]:
    def tamper(run: Path) -> None:
        text = (run / "run.toml").read_text()
        assert old in text
        (run / "run.toml").write_text(text.replace(old, new, 1))

    return tamper


def in_table(name: str, column: str, edit: Edit) -> Callable[[Path], None]:
    return lambda run: change(run / name, column, edit)


def in_summary(*keys: str | int, add: float = 0.125) -> Callable[[Path], None]:
    def tamper(run: Path) -> None:
        summary = inner = json.loads((run / "summary.json").read_text())
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = (inner[keys[-1]] or 0) + add
        (run / "summary.json").write_text(json.dumps(summary))

    return tamper


def every_sent_later(run: Path) -> None:
    for path in (run / "links").glob("bs-*.parquet"):
        change(path, "t_sent_ns", lambda values, _: [value and value + 1_000_000_000 for value in values])


def behind_the_deadline(run: Path) -> None:
    change(run / LEDGER, "t_received_ns", one(lambda t: t + FAR_NS))


def before_sending(run: Path) -> None:
    sent = pq.read_table(run / LEDGER)["t_sent_ns"].to_pylist()
    change(run / LEDGER, "t_received_ns", lambda values, at: [*values[:at], sent[at] - 1, *values[at + 1 :]])


def lost_otherwise(run: Path) -> None:
    change(
        run / LEDGER,
        "reason",
        lambda values, _: [value if value in (None, "checksum") else "queue" for value in values],
    )


def corrupt_otherwise(run: Path) -> None:
    change(run / LEDGER, "reason", lambda values, _: ["field" if value == "checksum" else value for value in values])


def turned(run: Path) -> None:
    table = pq.read_table(run / LEDGER)
    pq.write_table(table.take(list(range(len(table)))[::-1]), run / LEDGER)


def captured_later(run: Path) -> None:
    data = bytearray((run / CAPTURE).read_bytes())
    at = data.index((6).to_bytes(4, "big")) + 12  # the first packet's time
    data[at + 7] ^= 0xFF
    (run / CAPTURE).write_bytes(data)


def linked(run: Path) -> None:
    (run / LEDGER).rename(run.parent / "elsewhere")
    (run / LEDGER).symlink_to(run.parent / "elsewhere")


def gone(run: Path) -> None:
    (run / "links/events.parquet").unlink()


TAMPERED: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "an arrival behind its deadline": (behind_the_deadline, {"order"}),
    "an arrival before it was sent": (before_sending, {"order"}),
    "all send times": (every_sent_later, {"order", "link model"}),
    "the time of a captured frame": (captured_later, {"captures"}),
    "drop reasons": (lost_otherwise, {"link model", "summary"}),
    "reasons of corrupt frames": (corrupt_otherwise, {"link model"}),
    "order of rows": (turned, {"order"}),
    "a true position": (in_table(FIXES, "true_x_m", one(lambda x: x + 1)), {"fixes", "truth"}),
    "true positions with their errors": (lambda run: moved(run), {"truth", "summary"}),
    "an error": (in_table(FIXES, "error_2d_m", one(lambda e: e + 1)), {"fixes", "summary"}),
    "a stage time's report": (in_table(STAGES, "snapshot", one(lambda n: n + 1000)), {"stages"}),
    "a stage time's station": (in_table(STAGES, "bs", one(lambda n: n + 1000)), {"stages"}),
    "a stage time given twice": (lambda run: rows_of(run / STAGES, [0, *range(60)]), {"stages"}),
    "a stage time that is gone": (lambda run: rows_of(run / STAGES, range(59)), {"stages"}),
    "a number of rounds": (in_table(FIXES, "rounds", one(lambda n: n + 1)), {"fixes"}),
    "a latency": (in_table(FIXES, "encode_ns", one(lambda t: t + 1)), {"fixes"}),
    "a time of arrival in a fix": (in_table(FIXES, "t_last_received_ns", one(lambda t: t + 1)), {"fixes", "order"}),
    "the distance to training": (in_table(FIXES, "training_distance_m", one(lambda d: d / 2)), {"truth"}),
    "the dilution of precision": (in_table(FIXES, "gdop", one(lambda d: 2 * (d or 1))), {"fixes"}),
    "a line of sight": (in_table("positions.parquet", "line_of_sight", one(lambda seen: not seen)), {"positions"}),
    "a link's gain": (in_table("positions.parquet", "gain_db", one(lambda gain: gain + 1)), {"positions"}),
    "median": (in_summary("error_3d_m", "median"), {"summary"}),
    "p90": (in_summary("error_3d_m", "p90"), {"summary"}),
    "rmse": (in_summary("error_3d_m", "rmse"), {"summary"}),
    "2D error": (in_summary("error_2d_m", "mean"), {"summary"}),
    "a stage": (in_summary("latency_ms", "fuse", "p95"), {"summary"}),
    "fixes per second": (in_summary("fixes_per_s"), {"summary"}),
    "an achieved loss": (in_summary("links", 1, "achieved", "loss"), {"summary"}),
    "early and late": (in_summary("arrivals", "late", add=1), {"summary"}),
    "modelled bytes": (in_summary("bytes_modelled", "ethernet", add=1), {"summary"}),
    "the seed": (in_toml("seed = ", "seed = 1"), {"summary", "link model"}),
    "the loss": (in_toml("loss = 0.1", "loss = 0.2"), {"summary", "link model"}),
    "the deadline": (in_toml("deadline_ms = 6.0", "deadline_ms = 7.0"), {"summary"}),
    "the commit": (in_toml('commit = "', 'commit = "0'), {"summary"}),
    "bits": (in_toml("bits = 4", "bits = 2"), {"summary"}),
    "events": (gone, {"summary"}),
    "a link to another file": (linked, set()),
    "a covariance": (in_table(FIXES, "covariance_m2", one(lambda _: [1.0] * 9)), set()),
}


def rows_of(path: Path, rows: Iterable[int]) -> None:
    table = pq.read_table(path)
    assert len(table) == 60
    pq.write_table(table.take([*rows]), path)


def moved(run: Path) -> None:
    """Say that all users were where the fixes are."""
    for axis in "xyz":
        estimate = pq.read_table(run / FIXES)[f"{axis}_m"].to_pylist()
        change(run / FIXES, f"true_{axis}_m", lambda *_, found=estimate: found)
    for name in ("3d", "2d", "vertical"):
        change(run / FIXES, f"error_{name}_m", every(0.0))


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_changed_is_found_by_the_manifest_and_by_computing_it_again(run: Path, what: str) -> None:
    tamper, checks = TAMPERED[what]
    tamper(run)
    assert set(failing(run)) >= {"files"} | checks
    if what != "a link to another file":
        Manifest(run).write()  # by somebody who thought of it
    assert set(failing(run)) >= checks and ("files" in failing(run)) == (what == "a link to another file")
    if what == "a covariance":
        assert not replay(run).ok


def test_a_signature_shows_who_wrote_a_manifest(run: Path, tmp_path: Path) -> None:
    key = signing_key(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600 and signing_key(tmp_path / "key") == key
    other = signing_key(tmp_path / "other")
    (told,) = (finding for finding in audit(run, key).findings if finding.name == "files")
    assert (told.state, told.detail) == ("fails", "there is no manifest.sig, the signature to check")
    Manifest(run).write(key)
    assert audit(run).ok and audit(run, key).ok
    pq.write_table(pq.read_table(run / FIXES), run / FIXES)  # the same rows in other bytes
    (told,) = (finding for finding in audit(run).findings if finding.name == "files")
    assert told.detail == "fixes.parquet was changed"
    Manifest(run).write(other)
    assert audit(run).ok
    (told,) = (finding for finding in audit(run, key).findings if finding.name == "files")
    assert told.detail == "manifest.sig is not this key's signature of manifest.json"
    (run / "manifest.sig").write_bytes(b"\xff\xe2")
    (told,) = (finding for finding in audit(run, key).findings if finding.name == "files")
    assert told.detail == "manifest.sig is not this key's signature of manifest.json"
    (tmp_path / "key").write_text("no key\n")
    with pytest.raises(UserError, match="cannot be read as a key"):
        read_key(tmp_path / "key")
