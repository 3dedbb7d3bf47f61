"""A queue of commands that trace, train and measure: resumable, side by side, with a log of CPU time."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sim.cores import cores
from sim.errors import UserError

COMMANDS = ("trace", "train", "twin", "reproduce")
"""Commands that a queue may hold: all of them resume."""
LOOK_S = 0.2
"""How often running commands are looked at [s]."""
_PATIENCE_S = 30.0
"""How long a command that is stopped may take to write its checkpoint [s]."""


@dataclass(frozen=True)
class Entry:
    """One command that ended, a line of the log.

    Attributes:
        command: as in the queue.
        began: when it began, in UTC, ISO 8601.
        seconds: how long it took [s].
        cpu_seconds: CPU time of it and its children [s].
        status: its exit status; negative: the signal that ended it.
    """

    command: str
    began: str
    seconds: float
    cpu_seconds: float
    status: int


@dataclass
class _Running:
    command: str
    process: subprocess.Popen[bytes]
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    started_s: float = field(default_factory=time.monotonic)

    def ended(self) -> Entry | None:
        """Return what is logged of it, or None while it runs."""
        pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        if pid == 0:
            return None
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return Entry(
            self.command,
            self.began.isoformat(timespec="seconds"),
            round(time.monotonic() - self.started_s, 1),
            round(usage.ru_utime + usage.ru_stime, 1),
            self.process.returncode,
        )


def read_queue(path: Path) -> list[list[str]]:
    """Return the commands of a queue's file, in groups; an empty line ends a group, ``#`` begins a comment.

    Raises:
        UserError: the file cannot be read, or a line is no command of `COMMANDS`.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The queue {path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    groups: list[list[str]] = [[]]
    for number, line in enumerate(lines, start=1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise UserError(f"Line {number} of {path} is not a command: {error}.") from error
        if words and (words[0] not in COMMANDS or "--queue" in words):
            raise UserError(f"Line {number} of {path} must begin with one of {', '.join(COMMANDS)}; it is {line!r}.")
        if words:
            groups[-1].append(shlex.join(words))
        elif not line.strip() and groups[-1]:
            groups.append([])
    groups = [group for group in groups if group]
    if not groups:
        raise UserError(f"The queue {path} holds no command.")
    return groups


def read_log(path: Path) -> list[Entry]:
    """Return the log of a queue; it is empty if there is none yet.

    Raises:
        UserError: it is not such a log.
    """
    if not path.is_file():
        return []
    try:
        return [Entry(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is not the log of a queue: move it away to begin anew.") from error


def run_queue(path: Path, workers: int, on_line: Callable[[str], None]) -> list[Entry]:
    """Run the commands of a queue that have not succeeded yet; return the log's entries of all that ended.

    Commands of a group run side by side, `workers` at a time, each with its share of the cores; a group begins when the
    one before has ended. The log is ``QUEUE.log``, a line of JSON for each command that ended; what command number N
    prints goes to ``QUEUE.N.txt``. Ctrl-C stops all that run, as SIGTERM does, so that each keeps its checkpoint.

    Args:
        path: file of the queue.
        workers: commands at a time.
        on_line: called with a line for each command that begins or ends.

    Raises:
        UserError: see `read_queue` and `read_log`.
    """
    groups, log = read_queue(path), Path(f"{path}.log")
    entries = read_log(log)
    done = {entry.command for entry in entries if entry.status == 0}
    numbers = {command: number for number, command in enumerate((c for group in groups for c in group), start=1)}
    threads = str(max(1, cores() // workers))
    environment = os.environ | {"OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
    running: list[_Running] = []
    try:
        for group in groups:
            waiting = [command for command in group if command not in done]
            while waiting or running:
                while waiting and len(running) < workers:
                    command = waiting.pop(0)
                    on_line(f"begins  {command}")
                    with Path(f"{path}.{numbers[command]}.txt").open("ab") as output:
                        words = [sys.executable, "-m", "cli", *shlex.split(command)]
                        process = subprocess.Popen(
                            words, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
                        )
                    running.append(_Running(command, process))
                time.sleep(LOOK_S)
                for one in list(running):
                    if (entry := one.ended()) is not None:
                        running.remove(one)
                        entries.append(entry)
                        with log.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(asdict(entry)) + "\n")
                        how = "ended" if entry.status == 0 else f"failed ({entry.status})"
                        on_line(f"{how}  {entry.command}: {entry.seconds:g} s, {entry.cpu_seconds:g} s of CPU")
    finally:
        for one in running:
            one.process.terminate()
        for one in running:
            try:
                one.process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
    return entries
