"""The queue of trainings: order, log, resuming, failures, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cli
from sim.errors import UserError
from sim.learn.queue import read_queue
from sim.reproduce.tables import TABLES
from sim.world.scenario import load_scenario

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path / "queue"


def log_of(queue: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(f"{queue}.log").read_text().splitlines()]


def test_a_queue_is_worked_through_once_and_what_failed_again(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queue.write_text(
        "# arrays\ntrain music --output a.safetensors\ntrain music --bits 99\n\ntrain music --output b.npz\n"
    )
    assert cli.main(["train", "--queue", str(queue), "--workers", "2"]) == 1
    said = capsys.readouterr()
    assert "Failed, see" in said.err and "train music --bits 99." in said.err and "2 succeeded" in said.out
    assert {row["command"]: row["status"] for row in log_of(queue)} == {
        "train music --output a.safetensors": 0, "train music --bits 99": 2, "train music --output b.npz": 0,
    }  # fmt: skip
    assert all(float(str(row["cpu_seconds"])) > 0.1 for row in log_of(queue))
    assert "--bits must be a whole number" in Path(f"{queue}.2.txt").read_text()
    assert log_of(queue)[-1]["command"] == "train music --output b.npz"  # the second group came last
    made = Path("a.safetensors").stat().st_mtime_ns
    assert cli.main(["train", "--queue", str(queue)]) == 1  # only the failed one runs again
    assert [row["command"] for row in log_of(queue)[3:]] == ["train music --bits 99"]
    assert Path("a.safetensors").stat().st_mtime_ns == made


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("emulate --bs 6\n", "Line 1 of queue must begin with one of trace, train, twin, reproduce; it is 'emulate"),
        ("\ntrain 'ecc\n", "Line 2 of queue is not a command: No closing quotation."),
        ("train --queue queue\n", "Line 1 of queue must begin"),
        ("# nothing\n", "The queue queue holds no command."),
    ],
)
def test_a_bad_line_is_one_sentence(text: str, sentence: str, queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queue.write_text(text)
    assert cli.main(["train", "--queue", "queue"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(sentence) and said.count("\n") == 1
    assert not Path(f"{queue}.log").exists()


@pytest.mark.parametrize("words", [[], ["ecc", "--queue", "queue"], ["ecc", "--workers", "2"]])
def test_a_scheme_or_a_queue(words: list[str], queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", *words]) == 2
    assert capsys.readouterr().err == "Name either a scheme, or a file with --queue (and --workers).\n"


def test_a_log_of_something_else_is_kept(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queue.write_text("train music\n")
    Path(f"{queue}.log").write_text("once\n")
    assert cli.main(["train", "--queue", "queue"]) == 2
    assert capsys.readouterr().err == "queue.log is not the log of a queue: move it away to begin anew.\n"
    assert Path(f"{queue}.log").read_text() == "once\n"


def test_the_queue_of_all_tables_names_each() -> None:
    commands = [command.split() for group in read_queue(ROOT / "benchmarks/tables.queue") for command in group]
    assert sorted(name for word, name, *_ in commands if word == "reproduce") == sorted(TABLES)
    for name in (name for word, name, *_ in commands if word == "trace"):
        assert load_scenario(name).name == name


def test_the_queue_of_all_tables_traces_what_they_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where there are no data
    traced = {command for group in read_queue(ROOT / "benchmarks/tables.queue") for command in group}
    needed: set[str] = set()
    for table in TABLES.values():
        bench = table.bench()
        try:
            bench.require_data(name for row in table.rows(bench) for name in (*row.jobs, *row.features))
        except UserError as error:
            needed.update(re.findall(r"`python cli.py (trace [^`]*)`", str(error)))
    assert "trace paris-7-fast" in needed and needed <= traced


def test_whoever_stops_the_queue_stops_what_runs(queue: Path) -> None:
    queue.write_text("trace paris-6 --positions 100000\n")
    command = [sys.executable, "-m", "cli", "train", "--queue", str(queue)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as working:
        assert working.stdout is not None
        assert working.stdout.readline() == "begins  trace paris-6 --positions 100000\n"
        (child,) = children(working.pid)
        time.sleep(1.0)
        working.send_signal(signal.SIGTERM)
        _, said = working.communicate(timeout=60.0)
    assert working.returncode == 130 and "the same command resumes" in said
    assert not Path(f"{queue}.log").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def children(pid: int) -> list[int]:
    deadline = time.monotonic() + 30.0
    while time.monotonic() < deadline:
        if found := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            return [int(word) for word in found]
        time.sleep(0.05)
    return []
