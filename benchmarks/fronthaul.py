"""Six base stations and a cloud as processes: cost of our fronthaul against bare pyzmq and against Ray.

All sides carry the same messages: one report of 384 B payload and 4 B side information, or 16 of them in a message.
Ours writes its ledger meanwhile: journals before sending, the receive log at each poll. A round is six states down and
six reports up. Sides take turns within a repetition, so that other load on the machine affects them alike.

Each base station is a process, as in a deployment. With fewer cores than processes, these rates are limited by the
whole machine; rates with all base stations in one process are closer to those of the receiver alone.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import rayside
from benchmarks.peers import BATCH, MESSAGES_PER_POLL, Order
from benchmarks.receiver import receivers
from benchmarks.samples import STATIONS
from benchmarks.timing import Bench, Row, row
from fronthaul.errors import TransportError

ROOT = Path(__file__).resolve().parent.parent
OURS, BARE, RAY = "ours, ledger on", "bare pyzmq", "Ray"
SIDES = {"ours": OURS, "bare": BARE}

REPORTS = {1: 6400, BATCH: 25600}
"""Reports of each base station in a repetition, by the number of reports in a message."""
RAY_REPORTS = {1: 160, BATCH: 2560}
ROUNDS, RAY_ROUNDS = 300, 30
POLLS = (MESSAGES_PER_POLL, STATIONS)
"""Messages a poll, of a cloud that receives as fast as it can and of one that keeps up."""


def run(bench: Bench) -> list[Row]:
    """Return rates [reports/s], processor times of a report at the receiver and times of a round [µs]."""
    share = 20 if bench.quick else 1
    taken: dict[tuple[str, str], list[float]] = {}
    repetitions = bench.effort.runs + 2
    with ExitStack() as stack:
        one_each = stack.enter_context(_processes(bench.folder / "each", STATIONS))
        shared = stack.enter_context(_processes(bench.folder / "shared", 1))
        ours, bare = stack.enter_context(receivers(bench.folder))
        ray_side = stack.enter_context(rayside.session())
        for repetition in range(-1, repetitions):  # the first is a warm-up: it connects and loads
            note = taken if repetition >= 0 else {}
            for bundle, reports in REPORTS.items():
                count = max(2 * BATCH, reports // share)
                what = f"rate, {_bundled(bundle)}"
                for processes, where in ((one_each, ""), (shared, ", one sender")):
                    for side, name in SIDES.items():
                        seconds = processes.obey("rate", side, count, bundle)
                        _note(note, what + where, name, STATIONS * count / seconds)
                ray_count = max(2 * BATCH, RAY_REPORTS[bundle] // share)
                _note(note, what, RAY, STATIONS * ray_count / ray_side.rate(ray_count, bundle))
            for most in POLLS:
                _note(note, f"receiving, up to {most} a poll", OURS, ours(most))
                _note(note, f"receiving, up to {most} a poll", BARE, bare())
            for side, name in SIDES.items():
                seconds = one_each.obey("round", side, max(2, ROUNDS // share), 1)
                _note(note, "round", name, 1e6 * seconds)
            _note(note, "round", RAY, 1e6 * ray_side.round(max(2, RAY_ROUNDS // share)))
    return _rows(taken)


def _bundled(bundle: int) -> str:
    return "one by one" if bundle == 1 else f"{bundle} aggregated"


def _note(taken: dict[tuple[str, str], list[float]], what: str, side: str, value: float) -> None:
    taken.setdefault((what, side), []).append(value)


def _rows(taken: dict[tuple[str, str], list[float]]) -> list[Row]:
    """Return one row per measurement: ours relative to bare pyzmq, and Ray, if measured, relative to ours."""
    rows = []
    for what in dict.fromkeys(what for what, _ in taken):
        unit = "reports/s" if what.startswith("rate") else "µs"
        ours, bare = taken[what, OURS], taken[what, BARE]
        rows.append(row(f"{what}: {OURS}", unit, ours, f"{what}: {BARE}", bare))
        rows.append(row(f"{what}: {BARE}", unit, bare))
        if (what, RAY) in taken:
            rows.append(row(f"{what}: {RAY}", unit, taken[what, RAY], f"{what}: {OURS}", ours))
    return rows


class _Processes:
    """Receiver and sender processes, which execute orders."""

    def __init__(self, receiver: subprocess.Popen[str], senders: Sequence[subprocess.Popen[str]]) -> None:
        self._receiver, self._senders = receiver, senders
        self._number = 0

    def obey(self, what: str, side: str, count: int, bundle: int) -> float:
        """Send an order to all processes; return the receiver's time [s]."""
        self._number += 1
        order = json.dumps(dataclasses.asdict(Order(what, side, count, bundle, self._number)))
        for process in (self._receiver, *self._senders):
            assert process.stdin is not None
            process.stdin.write(order + "\n")
            process.stdin.flush()
        seconds = float(_answer(self._receiver))
        for sender in self._senders:
            _answer(sender)
        return seconds


@contextmanager
def _processes(folder: Path, count: int) -> Iterator[_Processes]:
    """Start a receiver and `count` sender processes, which share the base stations among them."""
    folder.mkdir()
    with ExitStack() as stack:

        def start(*words: str) -> subprocess.Popen[str]:
            command = [sys.executable, "-m", "benchmarks.peers", words[0], str(folder), *words[1:]]
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(_end, process)
            return process

        receiver = start("receiver")
        addresses = _answer(receiver)
        both = (addresses["ours"], addresses["bare"])
        senders = [start("sender", *both, *map(str, range(STATIONS)[first::count])) for first in range(count)]
        for sender in senders:
            _answer(sender)
        yield _Processes(receiver, senders)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def _answer(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise TransportError("a process of the benchmark ended before its time")
    return json.loads(line)
