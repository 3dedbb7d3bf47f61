"""The command line: bad input, help, exit status. What commands do is tested with what they call."""

import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import tiny_world

import cli
import sim.run.compose
import sim.world.store
from sim.commands.common import parse_bits, parse_payload
from sim.commands.emulate import emulate
from sim.run.settings import EmulateSettings
from sim.world.scenario import SCENARIO_FOLDER

ROOT = Path(cli.__file__).resolve().parent
COMMANDS = ("emulate", "inspect", "replay", "audit", "keys", "sweep", "chaos", "trace", "train", "reproduce", "doctor")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with some bad files in it."""
    monkeypatch.chdir(tmp_path)
    shipped = (SCENARIO_FOLDER / "paris-6.toml").read_text()
    (tmp_path / "misspelt.toml").write_text(shipped.replace("tones =", "tone ="))
    (tmp_path / "broken.toml").write_text(shipped + "\n[")
    (tmp_path / "nan.toml").write_text(shipped.replace("speed_mps = 1.5", "speed_mps = nan"))
    (tmp_path / "scene.toml").write_text(shipped.replace('scene = "etoile"', 'scene = "atlantis"'))
    (tmp_path / "links.toml").write_text('[up]\nlos = "1%"\n')
    (tmp_path / "beyond.toml").write_text('[bs.9]\nloss = "1%"\n')
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


BAD_INPUT = [
    ("emulat", r"No such command 'emulat'.*emulate"),
    ("emulate --bogus 3", r"--bogus"),
    ("emulate --bs many", r"--bs"),
    ("emulate --bits 0", r"--bits .*1 to 8 bit, or 'lossless'; it is '0'"),
    ("emulate --bits 9", r"--bits .*it is '9'"),
    ("emulate --bits -1", r"--bits .*it is '-1'"),
    ("emulate --bits four", r"--bits .*it is 'four'"),
    ("emulate --bits lossles", r"--bits .*'lossless'; it is 'lossles'"),
    ("emulate --bs 0", r"--bs .*it is 0"),
    ("emulate --bs 7", r"--bs 7 is more than the 6 sites of scenario 'paris-6'"),
    ("emulate --snapshots 0", r"--snapshots"),
    ("emulate --seed -1", r"--seed"),
    ("emulate --minimum-bs 4 --bs 3", r"--minimum-bs"),
    ("emulate --deadline 0", r"--deadline .*above 0 ms"),
    ("emulate --interval nan", r"--interval"),
    ("emulate --batch 0", r"--batch"),
    ("emulate --port 70000", r"--port .*65535"),
    ("emulate --driver proces", r"driver 'proces' \(did you mean 'process'\?\)"),
    ("emulate --driver process --port 4000", r"--port has no meaning"),
    ("emulate --scenario pari-6", r"no scenario 'pari-6' \(did you mean 'paris-6'\?\)"),
    ("emulate --scenario nowhere.toml", r"Cannot read the scenario file nowhere.toml"),
    ("emulate --scenario misspelt.toml", r"Unknown key 'tone' in .*did you mean 'tones'"),
    ("emulate --scenario broken.toml", r"broken.toml is not valid TOML"),
    ("emulate --scenario nan.toml", r"users: speed_mps.* must be finite"),
    ("emulate --scheme ekk", r"'ekk'"),
    ("emulate --bits iq17", r"forwarded as complex64, iq16 or bfp1 to bfp16 .*not as 'iq17'"),
    ("emulate --bits iq16 --forward bfp9", r"--bits iq16 and --forward bfp9 contradict each other"),
    ("emulate --forward iq16", r"--forward iq16 is for .*--bits lossless"),
    ("emulate --loss 150%", r"--loss '150%': every link, up: loss must be a probability"),
    ("emulate --delay 2", r"--delay '2': delay '2' needs a unit"),
    ("emulate --rate 3mbits", r"--rate .*unknown unit.*mbit"),
    ("emulate --queue 4kB", r"queue changes nothing without rate"),
    ("emulate --jitter-shape paretoo --jitter 1ms", r"no jitter_shape 'paretoo' \(did you mean 'pareto'\?\)"),
    ("emulate --links nowhere.toml", r"Cannot read --links nowhere.toml"),
    ("emulate --links links.toml", r"--links links.toml: \[up\] has an unknown key 'los' \(did you mean 'loss'\?\)"),
    ("emulate --links beyond.toml", r"--links has a table for BS 9, but base stations are 0 to 5"),
    ("emulate --window 2000", r"--window 2000 ms must be before --deadline"),
    ("emulate --bundle 2", r"--bundle 2 is more than --batch 1"),
    ("emulate --driver process --curve", r"--curve has no meaning"),
    ("emulate --keys empty --plaintext", r"--keys encrypts the links"),
    ("emulate --hwm 0", r"--hwm"),
    ("emulate --restarts -1", r"--restarts"),
    ("keys", r"FOLDER"),
    ("keys new --bs 0", r"--bs must lie in 1"),
    ("keys file", r"file"),
    ("audit nowhere", r"nowhere"),
    ("audit empty", r"empty is not a run"),
    ("sweep --bits 2,", r"--bits must be values with commas between them, it is '2,'"),
    ("sweep --bits 2,2", r"--bits lists a value twice"),
    ("sweep --bs 1,two", r"--bs must be whole numbers.*'two'"),
    ("sweep --deadline 5,x", r"--deadline must be numbers in ms.*'x'.*--deadline x\)"),
    ("sweep --bs 6,7", r"--bs 7 is more than the 6 sites .*--bs 7\)"),
    ("sweep --reorder 0,1%", r"reorder changes nothing without delay or jitter.*--reorder 1%"),
    ("sweep --output file --bits 2 --snapshots 5", r"--output file"),
    ("inspect empty --fate los", r"no fate 'los' \(did you mean 'lost'\?\)"),
    ("inspect empty --direction left", r"--direction is up or down"),
    ("inspect empty --most 0", r"--most"),
    ("inspect empty --epoch 1", r"--epoch .*--frame"),
    ("inspect empty --link 0 --frame 1 --timeline", r"--frame is one frame"),
    ("inspect nowhere", r"nowhere"),
    ("inspect empty", r"empty is not a run"),
    ("inspect file", r"file is not a run"),
    ("inspect", r"RUN"),
    ("replay nowhere", r"nowhere"),
    ("replay empty", r"empty is not a run"),
    ("trace pari-6", r"no scenario 'pari-6'"),
    ("trace paris-6 --positions 0", r"--positions must be at least 1"),
    ("trace", r"SCENARIO"),
    ("train ekk", r"'ekk'"),
    ("train ecc --scenario pari-6", r"no scenario 'pari-6'"),
    ("train ecc --bits 9", r"--bits .*it is '9'"),
]


@pytest.mark.parametrize(("line", "pattern"), BAD_INPUT, ids=[line for line, _ in BAD_INPUT])
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(
    folder: Path, capsys: pytest.CaptureFixture[str], line: str, pattern: str
) -> None:
    before = contents(folder)
    assert cli.main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert re.search(pattern, err, re.IGNORECASE), err
    assert contents(folder) == before


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), *arguments],
        cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scenario", "environment", "pattern"),
    [
        ("paris-6", {"DRJIT_LIBLLVM_PATH": "/nowhere/libLLVM.so"}, r"needs the LLVM shared library.*libllvm19"),
        ("scene.toml", {}, r"no scene 'atlantis'"),
    ],
    ids=["no LLVM", "unknown scene"],
)
def test_tracing_that_cannot_start_says_why(
    folder: Path, scenario: str, environment: dict[str, str], pattern: str
) -> None:
    done = run(folder, "trace", scenario, "--positions", "10", **environment)
    assert done.returncode == 2
    assert re.search(pattern, done.stderr.splitlines()[-1]), done.stderr
    assert "Traceback" not in done.stderr
    assert not list(folder.rglob("*.npz"))


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_states_every_default_and_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys, cli; status = cli.main([a for a in sys.argv[1:] if a])\n"
        "heavy = {'numpy', 'torch', 'ray', 'zmq', 'pyarrow', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, command, "--help"],
        cwd=ROOT, env=os.environ | {"COLUMNS": "200"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"Usage: cofix {command}".strip() in done.stdout
    blocks = re.split(r"^│ +(?:\* +)?--([a-z-]+)", done.stdout.replace("╭", "│ --panel"), flags=re.MULTILINE)
    for name, about in zip(blocks[1::2], blocks[2::2], strict=True):
        if name not in ("help", "panel"):
            assert "default" in about, f"--{name}: {about}"


LINK_OPTIONS = {
    "rate", "delay", "jitter", "jitter_shape", "loss", "burst", "duplicate", "reorder", "corrupt", "outage", "queue",
}  # fmt: skip


def test_option_defaults_are_those_of_the_settings() -> None:
    own = {name: p.default for name, p in inspect.signature(emulate).parameters.items()}
    renamed = {
        "interval_ms": "interval", "deadline_ms": "deadline", "window_ms": "window", "round_ms": "round_",
        "ping_ms": "ping",
    }  # fmt: skip
    # What depends on the scheme and the scenario is found out first; link models and the scheme's options are told.
    elsewhere = ("links", "scenario", "bs", "option")
    assert {own.pop(name) for name in (*elsewhere, "steps", "fusion", "where")} == {None}
    for field in dataclasses.fields(EmulateSettings):
        if field.name not in (*elsewhere, "options"):
            given = own.pop(renamed.get(field.name, field.name))
            assert (parse_bits(given) if field.name == "bits" else given) == field.default, field.name
    assert own == {"as_json": False} | dict.fromkeys(LINK_OPTIONS)


@pytest.mark.parametrize("text", ["1", "8"])
def test_bits_are_numbers_or_lossless(text: str) -> None:
    assert parse_bits(text) == int(text)
    assert parse_bits("lossless") is None


@pytest.mark.parametrize(
    ("bits", "forward", "meant"),
    [
        ("4", "complex64", (4, "complex64")),
        ("lossless", "complex64", (None, "complex64")),
        ("lossless", "bfp9", (None, "bfp9")),
        ("iq16", "complex64", (None, "iq16")),
        ("bfp9", "bfp9", (None, "bfp9")),
        ("complex64", "complex64", (None, "complex64")),
    ],
)
def test_a_payload_has_a_short_form(bits: str, forward: str, meant: tuple[int | None, str]) -> None:
    assert parse_payload(bits, forward) == meant


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options of a short emulation in process, of a world in the working directory."""
    monkeypatch.chdir(tmp_path)
    settings = tiny_world.write(tmp_path)
    for module in (sim.run.compose, sim.world.store):
        monkeypatch.setattr(module, "ASSET_FOLDER", tmp_path / "assets", raising=False)
    chosen = {"scenario": settings.scenario, "bs": 3, "snapshots": 20, "driver": "process", "weights": settings.weights}
    return [word for name, value in chosen.items() for word in (f"--{name}", str(value))]


def test_a_run_is_reported_inspected_and_replayed(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["emulate", *tiny, "--bits", "4"]) == 0
    out = capsys.readouterr().out
    for pattern in (
        r"payload 128 bit per BS and fix, 1\.56 % of lossless CSI",
        r"side information +counted +32 bit +240 B",
        r"header and CRC +counted +19 B +1 140 B",
        r"ZMTP frame headers +counted +2 B +120 B",
        r"frames over TCP/IP +modelled",
        r"position error \[m\] +mean +95 % interval +median +p90",
        r"3D +[\d.]+ +[\d.]+ … [\d.]+ +[\d.]+ +[\d.]+",
        r"latency \[ms, simulated clock\] +p50 +p95 +p99",
        r"delivered +60",
        r"used +60",
        r"fixes/s",
    ):
        assert re.search(pattern, out), pattern
    folder = out.split("run folder: ")[1].strip()
    assert Path(folder).is_dir()

    assert cli.main(["inspect", folder]) == 0
    assert re.search(r"BS 2 +2 560 +640 +380", capsys.readouterr().out)
    assert cli.main(["inspect", folder, "--link", "1", "--frame", "3"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"sequence number +3", out) and "32 of 4 bit" in out and "bytes 19 to 34" in out
    assert cli.main(["inspect", folder, "--link", "7"]) == 2
    assert cli.main(["inspect", folder, "--link", "1", "--frame", "99"]) == 2
    assert cli.main(["inspect", folder, "--frame", "3"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3

    assert cli.main(["replay", folder]) == 0
    assert capsys.readouterr().out == (
        "20 of 20 fixes are identical to the last bit; the largest difference is 0 m.\n"
    )
    assert cli.main(["audit", folder]) == 0
    assert re.search(r"holds +CRC-32 +60 frames.*\nThe run holds\.", capsys.readouterr().out, re.DOTALL)


IMPAIRED = "--rate 1mbit --delay 2ms --jitter 1ms --loss 20% --duplicate 10% --corrupt 10% --deadline 8 --window 3"


def test_impaired_links_are_reported_filtered_and_audited(
    tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*tiny, *IMPAIRED.split(), "--batch", "2", "--interval", "4", "--bundle", "2", "--no-controls"]
    assert cli.main(["emulate", *options]) == 0
    out = capsys.readouterr().out
    for pattern in (
        r"link: requested → achieved +\[Mbit/s\] +\[ms\] +\[%\] +\[%\] +\[%\]",
        r"BS 2 up +1 → – +3 → [\d.]+ . +20 → [\d.]+ ✓ +10 → [\d.]+ ✓ +10 → [\d.]+ ✓",
        r"receive window, reports of round 0: \d+ early, \d+ on time, \d+ late",
        r"\d+ fixes of 20 snapshots",
    ):
        assert re.search(pattern, out), pattern
    folder = out.split("run folder: ")[1].strip()
    summary = json.loads((Path(folder) / "summary.json").read_text())

    assert cli.main(["audit", folder]) == 0
    assert "The run holds." in capsys.readouterr().out
    assert cli.main(["inspect", folder, "--fate", "dropped", "--fate", "corrupt", "--most", "1000"]) == 0
    out = capsys.readouterr().out
    bad = sum(summary["frames"][fate] for fate in ("dropped", "corrupt"))
    assert len(re.findall(r"BS \d +up .*(?:dropped|corrupt) ", out)) == 2 * bad  # two reports a frame
    assert re.search(r" loss ", out) and re.search(r" (checksum|length|field|type) ", out)
    assert cli.main(["inspect", folder, "--from", "0", "--most", "3"]) == 0
    assert re.search(r"\d+ more; --most \d+ shows all", capsys.readouterr().out)
    assert cli.main(["inspect", folder, "--link", "1", "--from", "0.01", "--to", "0.03"]) == 0
    times = re.findall(r"^ +([\d.]+) +BS 1 ", capsys.readouterr().out, re.MULTILINE)
    assert times and all(10 <= float(t) < 30 for t in times)
    assert cli.main(["inspect", folder, "--direction", "down", "--from", "0"]) == 0
    assert "BS" not in capsys.readouterr().out
    assert cli.main(["inspect", folder, "--timeline"]) == 0
    seconds = re.findall(r"^ +0 +(\d+) +0 .* (\d+) $", capsys.readouterr().out, re.MULTILINE)
    assert seconds == [(str(sum(summary["frames"].values())), str(summary["fixes"]))]
    assert cli.main(["inspect", folder, "--link", "0", "--frame", "1"]) == 0
    out = capsys.readouterr().out
    assert "a bundle of 2 reports" in out and "report 1: snapshot 3, round 0" in out and out.count("32 of 4 bit") == 2


def test_a_link_file_is_overridden_by_options(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("links.toml").write_text('[default]\ndelay = "2ms"\n[bs.1.up]\nloss = "100%"\n')
    options = ["--links", "links.toml", "--delay", "5ms", "--no-controls"]
    assert cli.main(["emulate", *tiny, *options, "--json"]) == 0
    links = {(link["bs"], link["direction"]): link for link in json.loads(capsys.readouterr().out)["links"]}
    assert links[0, "up"]["requested"]["delay_s"] == 0.005
    assert links[0, "up"]["achieved"]["delay_mean_s"] == pytest.approx(0.005)
    assert links[1, "up"]["requested"]["loss"] == 1.0 == links[1, "up"]["achieved"]["loss"]


def test_keys_are_written_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["keys", "new", "--bs", "2"]) == 0
    out = capsys.readouterr().out
    assert "bs-000.key to bs-001.key" in out and out.endswith("are in new\n")
    names = {path.name: path.stat().st_mode & 0o777 for path in Path("new").iterdir()}
    secret = {"cloud.key", "bs-000.key", "bs-001.key"}
    assert set(names) == secret | {"cloud.pub", "allowed.toml"}
    assert {names[name] for name in secret} == {0o600}
    assert cli.main(["keys", "new", "--bs", "2"]) == 2
    assert capsys.readouterr().err.startswith("There are keys in new already")


def test_inspect_and_replay_fail_where_a_run_does_not_hold(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["emulate", *tiny, "--bits", "2"]) == 0
    assert "note: The weights were trained for 4 bit per coefficient" in capsys.readouterr().out
    (folder,) = Path("runs").iterdir()
    assert cli.main(["inspect", str(folder)]) == 0
    assert "books balance: 60 frames of 60 reports" in capsys.readouterr().out

    fixes = pq.read_table(folder / "fixes.parquet")
    moved = fixes.set_column(fixes.column_names.index("x_m"), "x_m", pc.add(fixes["x_m"], 0.01))
    pq.write_table(moved, folder / "fixes.parquet")
    assert cli.main(["replay", str(folder)]) == 1
    assert "The replay does not confirm the run" in capsys.readouterr().out

    pq.write_table(fixes, folder / "fixes.parquet")
    (folder / "links" / "bs-001.parquet").unlink()
    assert cli.main(["replay", str(folder)]) == 1
    assert "20 fixes were left out" in capsys.readouterr().out
    assert cli.main(["inspect", str(folder)]) == 1
    assert "books do not balance: reports in a fix that are not used: 20" in capsys.readouterr().out
    cut(folder / "fixes.parquet")
    assert cli.main(["replay", str(folder)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def cut(path: Path) -> None:
    """Keep the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("change", "more", "pattern"),
    [
        (lambda: None, "--weights gone.safetensors", r"weights gone.safetensors are missing"),
        (lambda: cut(Path("tiny.safetensors")), "", r"tiny.safetensors are truncated or damaged"),
        (lambda: Path("tiny.safetensors").write_text("{}"), "", r"tiny.safetensors are truncated or damaged"),
        (lambda: Path("assets/tiny/test.npz").unlink(), "", r"test.npz"),
        (lambda: cut(Path("assets/tiny/test.npz")), "", r"path data .*test.npz is truncated or damaged"),
        (lambda: cut(Path("assets/tiny/train-positions.npz")), "", r"train-positions.npz .*damaged"),
        (lambda: None, "--scheme ekk", r"no scheme 'ekk'.*ecc, rss"),
        (lambda: None, "--bs 4", r"--bs 4 is more than the 3 sites"),
        (lambda: None, "--bits lossless", r"weights .*tiny.safetensors do not fit"),
        (lambda: Path("runs").write_text(""), "", r"--output runs"),
    ],
)  # fmt: skip
def test_bad_files_are_one_sentence_and_leave_no_run_behind(
    tiny: list[str], capsys: pytest.CaptureFixture[str], change: Callable[[], object], more: str, pattern: str
) -> None:
    change()
    assert cli.main(["emulate", *tiny, *more.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert re.search(pattern, err), err
    assert not Path("runs").is_dir() or not list(Path("runs").iterdir())


def test_json_is_the_summary_and_nothing_else(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["emulate", *tiny, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    (summary,) = Path("runs").glob("*/summary.json")
    assert printed == json.loads(summary.read_text())


def test_ctrl_c_in_a_run_says_where_its_journal_is(
    tiny: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sim.terminal import ProgressBar

    def stopped(_: ProgressBar, description: str, done: float, *_others: object) -> None:
        if description == "positioning" and done:
            raise KeyboardInterrupt

    monkeypatch.setattr(ProgressBar, "update", stopped)
    assert cli.main(["emulate", *tiny]) == 130
    (part,) = Path("runs").glob("*.part")
    assert capsys.readouterr().err == f"Stopped; every frame sent until then is journaled in {part}.\n"
    assert cli.main(["inspect", str(part), "--recover"]) == 0
    assert re.search(r"recovered \d+ frames", capsys.readouterr().out)
    assert cli.main(["audit", str(part)]) == 0
    assert re.search(r"left out +summary.*\nholds +journals +3 ledgers", capsys.readouterr().out)
    assert cli.main(["inspect", str(part), "--timeline"]) == 0
    assert re.search(r"\n +0 +\d+ +0 ", capsys.readouterr().out)


def test_ctrl_c_says_what_is_on_disk(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sim.world.tracer

    def stopped(*_: object) -> Callable[[], None]:
        raise KeyboardInterrupt

    monkeypatch.setattr(sim.world.tracer, "trace_scenario", stopped)
    assert cli.main(["trace", "paris-6"]) == 130
    assert "finished shards are in data/paris-6/shards" in capsys.readouterr().err.splitlines()[-1]
