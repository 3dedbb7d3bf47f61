"""What a terminal cannot show, a closed output and a full one: one sentence at most, and never a traceback."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cli
from sim.commands.summary import event_lines
from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.learn.checkpoint import Checkpoint
from sim.plan.settings import EmulateSettings
from sim.plan.weights import Weights, save_weights
from sim.terminal import ProgressBar

ROOT = Path(cli.__file__).resolve().parent


def test_many_excluded_stations_share_a_line() -> None:
    few, many = ({str(bs): 2 + bs for bs in range(count)} for count in (8, 64))
    assert len(event_lines({"excluded": few})) == 8
    (line,) = event_lines({"excluded": many})
    assert "64 base stations could not be used for 2 to 65 snapshots each" in line


@pytest.fixture
def run(settings: EmulateSettings) -> Path:
    return emulate(settings).folder


def inspected(run: Path, how: str) -> "subprocess.CompletedProcess[bytes]":
    """Inspect a run in a shell, in which `how` says what becomes of the output."""
    command = f'"{sys.executable}" -P "{ROOT / "cli.py"}" inspect "{run}" {how}'
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    return subprocess.run(["bash", "-c", command], capture_output=True, env=environment, timeout=300)


def test_output_that_cannot_be_shown_or_written(run: Path) -> None:
    ascii_only = inspected(run, "")
    assert ascii_only.returncode == 0 and not ascii_only.stderr
    assert b"books balance" in ascii_only.stdout and ascii_only.stdout.isascii()
    closed = inspected(run, ">&-")
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, b"", b"")
    full = inspected(run, "> /dev/full")
    told = full.stderr.decode()
    assert full.returncode == 2 and told.startswith("The output cannot be written: No space left on device.")
    assert len(told.splitlines()) == 1
    gone = inspected(run, "| true; exit ${PIPESTATUS[0]}")
    assert gone.returncode in (0, 1, 2) and len(gone.stderr.splitlines()) <= 1


def test_a_file_that_the_system_refuses_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As any command that writes, `trace` meets a file where its folder should be."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").write_text("")
    assert cli.main(["trace", "inf-dh-18", "--positions", "2"]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("Cannot use ") and len(told.splitlines()) == 1


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="too large") as raised:
            save_weights(path, Weights({}, {"cloud.a": torch.zeros(9999)}))
        with pytest.raises(UserError, match=r"a\.pt cannot be written"):
            Checkpoint(tmp_path / "a.pt", {}, {"net": torch.nn.Linear(99, 99)}).save(1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.filename == str(path) and list(tmp_path.iterdir()) == []


def test_a_run_without_any_fix_says_why_and_fails(
    settings: EmulateSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["emulate", "--scenario", settings.scenario, "--weights", str(settings.weights), "--bs", "3"]
    command += ["--snapshots", "4", "--warmup", "0", "--driver", "process", "--output", str(settings.output)]
    assert cli.main([*command, "--loss", "100%"]) == 1
    assert "note: The run has no fix: all 12 reports were lost." in capsys.readouterr().out
    assert cli.main(command) == 0
    assert "The run has no fix" not in capsys.readouterr().out


def test_ctrl_c_speaks_for_its_own_run_alone(
    settings: EmulateSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another run begins in the same folder while this one is under way."""

    def interrupt(bar: ProgressBar, description: str, done: int = 0, *_: object, **__: object) -> None:
        (settings.output / "another.part").mkdir(parents=True, exist_ok=True)
        if description == "positioning" and done:
            raise KeyboardInterrupt

    monkeypatch.setattr(ProgressBar, "update", interrupt)
    command = ["emulate", "--scenario", settings.scenario, "--weights", str(settings.weights), "--bs", "3"]
    command += ["--snapshots", "4", "--warmup", "0", "--driver", "process", "--output", str(settings.output)]
    assert cli.main(command) == 130
    told = capsys.readouterr().err
    assert "tiny-ecc-b4.part" in told and "another.part" not in told
