"""The command line: bad input, help, exit status. What commands do is tested with what they call."""

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import packages_distributions, requires, version
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement

import cli
from fronthaul.link.link_config import IMPAIRMENTS
from sim.commands.chaos import chaos
from sim.commands.emulate import emulate
from sim.commands.sweep import sweep
from sim.plan.options import OPTIONS, as_text, parse_bits, parse_payload, settings_of
from sim.plan.settings import SETTINGS, EmulateSettings
from sim.sweep.cases import cases_of, value_of
from sim.world.scenario import SCENARIO_FOLDER

ROOT = Path(cli.__file__).resolve().parent
COMMANDS = (
    "emulate",
    "report",
    "inspect",
    "replay",
    "audit",
    "keys",
    "sweep",
    "compare",
    "new-scheme",
    "chaos",
    "import",
    "preview",
    "trace",
    "train",
    "reproduce",
    "bench",
    "doctor",
)

HELP_NEEDS = {"cofix", "typer", "rich"}
REQUIRED = {Requirement(it).name for it in requires("cofix") or ()} - HELP_NEEDS
UNNEEDED = ["asyncio", "multiprocessing", "fronthaul.message.messages", "sim.plan.plan"] + [
    module for module, packages in packages_distributions().items() if REQUIRED.intersection(packages)
]
"""What `--help` must not import, to start in under 0.5 s: among it every package required by any other part."""


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
    ("emulate --bs 7 --random-subset", r"--bs 7 is more than the 6 sites of scenario 'paris-6'"),
    ("emulate --track", r"--track is for users on walks; scenario 'paris-6' has none: add a \[walk\] table"),
    ("emulate --track-acceleration 0", r"--track-acceleration must be above 0 m²/s³, it is 0"),
    ("emulate --live tv", r"--live"),
    ("emulate --random-subset", r"--random-subset needs --bs"),
    ("emulate --bs 2 --random-subset --minimum-bs 3", r"--minimum-bs must lie in 1\.\.2"),
    ("emulate --layout 0", r"--layout is for scenarios of several layouts; 'paris-6' has one"),
    ("emulate --layout -1", r"--layout must lie in 0"),
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
    ("emulate --queue 4kB", r"queue has no effect without rate"),
    ("emulate --jitter-shape paretoo --jitter 1ms", r"no jitter_shape 'paretoo' \(did you mean 'pareto'\?\)"),
    ("emulate --links nowhere.toml", r"Cannot read --links nowhere.toml"),
    ("emulate --links links.toml", r"--links links.toml: \[up\] has an unknown key 'los' \(did you mean 'loss'\?\)"),
    ("emulate --links beyond.toml", r"--links has a table for BS 9, but base stations are 0 to 5"),
    ("emulate --window 2000", r"--window 2000 ms must be before --deadline"),
    ("emulate --bundle 2", r"--bundle 2 is more than --batch 1"),
    ("emulate --driver process --curve", r"--curve has no meaning"),
    ("emulate --driver process --plaintext", r"--curve has no meaning"),
    ("emulate --driver process --hwm 1000", r"--hwm has no meaning with --driver process"),
    ("emulate --driver process --ping 500", r"--ping has no meaning"),
    ("emulate --driver process --restarts 3", r"--restarts has no meaning"),
    ("emulate --driver process --bs-per-actor 2", r"--bs-per-actor has no meaning"),
    ("emulate --driver process --cpus-per-bs 0.25", r"--cpus-per-bs has no meaning"),
    ("emulate --driver process --gpus-per-bs 1", r"--gpus-per-bs has no meaning"),
    ("emulate --driver process --cloud-cpus 2", r"--cloud-cpus has no meaning"),
    ("emulate --driver process --netns", r"--netns has no meaning"),
    ("emulate --driver process --metrics", r"--metrics has no meaning"),
    ("emulate --metrics", r"--metrics needs --ray-address: "),
    ("emulate --driver process --log-json empty", r"--log-json empty cannot be written: Is a directory"),
    ("emulate --scheme rss --bits bfp9 --driver process", r"is for schemes that send the channel itself, not 'rss'"),
    ("emulate --interval 4e6", r"--interval must be .* at most 3600000 ms"),
    ("emulate --keys empty --plaintext", r"--keys encrypts the links"),
    ("emulate --hwm 0", r"--hwm"),
    ("emulate --restarts -1", r"--restarts"),
    ("import none.npz", r"There is no none\.npz"),
    ("import empty --name ../up", r"'\.\./up' is no name"),
    ("import empty --name own", r"empty is neither a file that ends in \.npz, "),
    ("import none.npz --field array", r"--field is NAME=VALUE, the value as JSON, it is 'array'"),
    ("import none.npz --every 0", r"--every"),
    ("preview nowhere", r"There is no scenario 'nowhere'"),
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
    ("sweep --random-subset", r"--random-subset needs --bs"),
    ("sweep --layout 1", r"--layout is for scenarios of several layouts"),
    ("sweep --reorder 0,1%", r"reorder has no effect without delay or jitter.*--reorder 1%"),
    ("sweep --bits 2 --bs 2,3 --links beyond.toml", r"--links has a table for BS 9, but base stations are 0 to 2"),
    ("sweep --output file --bits 2 --snapshots 5", r"--output file"),
    ("report", r"RUN"),
    ("report empty", r"empty is not a run's folder"),
    ("report empty empty", r"empty is given twice"),
    ("inspect empty --fate los", r"no fate 'los' \(did you mean 'lost'\?\)"),
    ("inspect empty --direction left", r"--direction is up or down"),
    ("inspect empty --most 0", r"--most"),
    ("inspect empty --from 5 --to 2", r"--from 5 must be before --to 2\."),
    ("inspect empty --epoch 1", r"--epoch .*--frame"),
    ("inspect empty --link 0 --frame 1 --timeline", r"--frame selects one frame"),
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
    ("train music --budget 1", r"--budget and --device are not for music"),
    ("train toa --device cpu", r"--budget and --device are not for toa"),
    ("emulate --scheme nrppa-path --driver process --option paths=9", r"0 to 8 further paths, not 9"),
    ("emulate --scheme nrppa-sample --driver process --option window=48", r"32, 64 or 128 samples, not 48"),
    ("emulate --scheme nrppa-sample-learned --driver process --option k=4", r"trained for k=5, not 4"),
    ("emulate --scheme nrppa-sample-learned --driver process --option phases=1", r"trained without phases"),
    ("train nrppa --budget 1", r"--budget and --device are not for nrppa"),
    ("emulate --scheme toa --driver process --option k=6", r"2\^k Tc with k from 0 to 5, not 6"),
    ("train ecc --bits 9", r"--bits .*it is '9'"),
    ("sweep --scheme ecc,rss --weights file", r"--weights file is for one scheme, and ecc, rss need weights of"),
    ("sweep --scheme ecc,rss --weights toa=file", r"'toa' is none of this sweep's schemes"),
    ("train diffloc", r"data/paris-7/paths.npz is missing"),
    ("train vinloc", r"data/inf-dh-18/paths.npz is missing"),
    ("train diffloc --model unet --fused", r"--fused is for diffloc with --model ct"),
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


# An LLVM that aborts is tried where there is one; what is said of it is tested in sim/world/test_sionna_rt.py as well.
OLD_LLVM = [str(path) for path in Path("/usr/lib").glob("*/libLLVM-1[56].so.1")]


@pytest.mark.parametrize(
    ("scenario", "environment", "pattern"),
    [
        ("paris-6", {"DRJIT_LIBLLVM_PATH": "/nowhere/libLLVM.so"}, r"needs the LLVM shared library.*libllvm19"),
        *(
            ("paris-6", {"DRJIT_LIBLLVM_PATH": path}, r"^Tracing one ray with LLVM 1[56].* ended in 'LLVM ERROR: .*lib")
            for path in OLD_LLVM
        ),
        ("scene.toml", {}, r"no scene 'atlantis'"),
    ],
    ids=["no LLVM", *OLD_LLVM, "unknown scene"],
)
def test_tracing_that_cannot_start_says_why(
    folder: Path, scenario: str, environment: dict[str, str], pattern: str
) -> None:
    done = run(folder, "trace", scenario, "--positions", "10", **environment)
    assert done.returncode == 2
    assert re.search(pattern, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not list(folder.rglob("*.npz"))


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_states_every_default_and_imports_nothing_that_it_does_not_need(command: str) -> None:
    code = (
        "import sys, cli; status = cli.main([a for a in sys.argv[2:] if a])\n"
        "unneeded = set(sys.argv[1].split()) & set(sys.modules)\n"
        "sys.exit(f'imported {unneeded}' if unneeded else status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, " ".join(UNNEEDED), command, "--help"],
        cwd=ROOT, env=os.environ | {"COLUMNS": "200"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"Usage: cofix {command}".strip() in done.stdout
    blocks = re.split(r"^│ +(?:\* +)?--([a-z-]+)", done.stdout.replace("╭", "│ --panel"), flags=re.MULTILINE)
    for name, about in zip(blocks[1::2], blocks[2::2], strict=True):
        if name not in ("help", "version", "panel", "install-completion", "show-completion"):
            assert "default" in about, f"--{name}: {about}"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_no_word_in_brackets_that_would_not_be_shown(command: str) -> None:
    it = typer.main.get_command(cli.app).commands[command]  # type: ignore[attr-defined]
    for text in (it.help, *(getattr(parameter, "help", None) for parameter in it.params)):
        assert not re.search(r"(?<!\\)\[[a-z/]", text or ""), text


def options_of(command: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature({"emulate": emulate, "sweep": sweep, "chaos": chaos}[command]).parameters)


def test_emulate_has_every_setting_and_every_impairment() -> None:
    settings = {setting.word for setting in SETTINGS.values()}
    others = {
        "context", "from_run", "live", "quiet", "steps", "fusion", "where", "bits_per_report", "total_bits", "entropy",
        "json",
    }  # fmt: skip
    assert set(options_of("emulate")) - others == settings | set(IMPAIRMENTS)


def test_without_words_the_settings_are_the_defaults() -> None:
    assert settings_of({"bs_per_actor": 1, "cpus_per_bs": 0.25}) == EmulateSettings()


def test_sweep_and_emulate_have_the_same_defaults() -> None:
    """But for the list that is swept where nothing is said, and for files that no figure comes from."""
    theirs, own = options_of("emulate"), options_of("sweep")
    listed = {name for name, (_, it) in OPTIONS.items() if it.listed}
    beside = {"context", "from_run", "workers", "ray_address", "dry_run", "quiet"}
    for name in set(own) - beside - {"bits", "capture", "report", "output"}:
        default = theirs[name].default
        assert own[name].default == (as_text(default) if name in listed else default), name
    in_process = {name for name, (_, it) in OPTIONS.items() if "process" in it.drivers}
    assert set(own) - beside == in_process - {"driver", "controls", "json", "live"}


@pytest.mark.parametrize(
    "words", [{}, {"scheme": "vinloc", "bits": "8"}, {"scheme": "diffloc", "bs": "3", "seed": "4"}]
)
def test_sweep_and_emulate_mean_the_same(words: dict[str, str]) -> None:
    own = {name: it.default for name, it in options_of("sweep").items() if name in OPTIONS and name != "output"}
    [case] = cases_of(own | {"bits": "4"} | words, Path("sweep"))
    typed = {name: value_of(name, text) for name, text in words.items()}
    theirs = settings_of(typed | {"driver": "process"})
    assert case.settings == replace(theirs, controls=False, capture=False, report=False, output=Path("sweep/single"))
    assert case.settings.interval_ms == (200.0 if "vinloc" in words.values() else 30.0)


def test_help_has_six_panels(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["emulate", "--help"]) == 0
    panels = re.findall(r"^╭─ (.+?) ─", capsys.readouterr().out, flags=re.MULTILINE)
    assert set(panels) == {"Options", "What runs", "Links", "Timing", "Placement", "Security", "Output"}
    assert len(panels) == 7


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"cofix {version('cofix')}\n"


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


def test_keys_are_written_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["keys", "new", "--bs", "2"]) == 0
    out = capsys.readouterr().out
    assert "bs-000.key to bs-001.key" in out and out.endswith("are in new\n")
    names = {path.name: path.stat().st_mode & 0o777 for path in Path("new").iterdir()}
    secret = {"cloud.key", "bs-000.key", "bs-001.key"}
    assert set(names) == secret | {"cloud.pub", "allowed.toml"}
    assert {names[name] for name in secret} == {0o600}
    assert cli.main(["keys", "new", "--bs", "2"]) == 2
    assert capsys.readouterr().err == "The folder new is not empty: keys are written to a folder of their own.\n"


def test_ctrl_c_says_what_is_on_disk(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sim.world.tracer

    def stopped(*_: object) -> Callable[[], None]:
        raise KeyboardInterrupt

    monkeypatch.setattr(sim.world.tracer, "trace_scenario", stopped)
    assert cli.main(["trace", "paris-6"]) == 130
    assert "finished shards are in data/paris-6/shards" in capsys.readouterr().err.splitlines()[-1]
