"""Closing the books of a run: rate and peak memory, for streams written by the real parts without radio and fusion.

Six base stations report 3072 bit each on every snapshot, one message and one journal row at a time, over links that
lose 1 %, duplicate 1 % and corrupt 0.5 % of the frames; 1 % of the reports come late. The cloud logs what arrives and
fixes every snapshot. What is timed is what `inspect --recover`, `audit` and `inspect` do with these streams, in a
process of its own, whose peak memory includes the interpreter and its libraries.

    python -m benchmarks.closing REPORTS FOLDER      one run of any length, in a folder that is kept
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import world
from benchmarks.machine import peak_mb
from benchmarks.samples import BITS, SIDE, STATIONS, indices
from benchmarks.timing import FULL, Bench, Row, row
from cloud.fixlog import FixLog, FixRecord
from edge.stages import StageLog, StageRow
from fronthaul.codec.bitstream import pack
from fronthaul.draws import generator
from fronthaul.link.link_config import LinkConfig
from fronthaul.link.link_model import LinkModel
from fronthaul.log.received import Arrival
from fronthaul.log.recorder import Recorder
from fronthaul.log.sent import corrupted
from fronthaul.log.stream_names import FIXES, edge_name, incarnation_name
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Direction, Report, ReportKey
from fronthaul.sender.outbox import Outbox
from fronthaul.transport.zmtp import ZMTP_NULL
from sim.inspect.audit import audit
from sim.inspect.frames import Choice, link_totals, recover
from sim.inspect.timeline import timeline
from sim.plan.plan import load_plan
from sim.plan.settings import EmulateSettings
from sim.records.folder import RunFolder, write_configuration

ROOT = Path(__file__).resolve().parent.parent
LINKS = LinkConfig(loss=0.01, duplicate=0.01, corrupt=0.005)
LATE = 0.01
INTERVAL_NS = 1_000_000
ARRIVALS_AT_ONCE = 64


def run(bench: Bench) -> list[Row]:
    """Time closing, audit and inspection."""
    reports = 3_000 if bench.quick else 60_000
    found = []
    for _ in range(bench.effort.runs):
        with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            found.append(measure(world.settings(bench), reports, Path(folder)))
    return [
        *(row(f"{name}, {reports} reports", "reports/s", [one[name] for one in found]) for name in JOBS),
        row("peak memory", "MB", [one["peak"] for one in found]),
    ]


def measure(settings: EmulateSettings, reports: int, folder: Path) -> dict[str, float]:
    """Write the streams of a run, and return the rates of all jobs [reports/s] and the peak memory [MB]."""
    part = write_streams(settings, reports // STATIONS, folder)
    command = [sys.executable, "-m", "benchmarks.closing", str(part)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def write_streams(settings: EmulateSettings, snapshots: int, folder: Path) -> Path:
    """Write the streams of a run of `snapshots` that was cut before its books were closed; return its folder."""
    settings = dataclasses.replace(
        settings, snapshots=snapshots, output=folder, capture=False, interval_ms=INTERVAL_NS / 1e6, links=_plan()
    )
    run = RunFolder.create(settings, "closing")
    write_configuration(run, load_plan(settings))
    payload = pack(indices(BITS), BITS)
    draw = generator(settings.seed, "closing")
    with ExitStack() as stack:
        cloud = Recorder(run.links, incarnation_name(0), sends=Direction.DOWN, transport=ZMTP_NULL)
        fixes = FixLog(run.links / f"{incarnation_name(0)}{FIXES}")
        edges = [_Edge(run.links, bs, settings.seed) for bs in range(STATIONS)]
        for close_stream in (cloud.close, fixes.close, *(edge.close for edge in edges)):
            stack.callback(close_stream)
        pending: list[Arrival] = []
        for snapshot in range(snapshots):
            used, late = [], draw.random(STATIONS) < LATE
            for bs, edge in enumerate(edges):
                key = ReportKey(bs, 0, snapshot)
                arrivals = edge.report(Report(key, payload, SIDE), snapshot * INTERVAL_NS, late=bool(late[bs]))
                pending += arrivals
                if not late[bs] and any(one.fate is FrameFate.DELIVERED for one in arrivals):
                    used.append(key)
            if used:
                t_ns = snapshot * INTERVAL_NS + 2
                fixes.append(
                    [FixRecord(snapshot, tuple(used), (0.0, 0.0, 0.0), None, used[-1].bs, t_ns - 1, t_ns, t_ns, 1)]
                )
            if len(pending) >= ARRIVALS_AT_ONCE or snapshot == snapshots - 1:
                cloud.received(pending)
                pending = []
    return run.path


class _Edge:
    """The sending side of a base station."""

    def __init__(self, folder: Path, bs: int, seed: int) -> None:
        self._bs = bs
        name = edge_name(bs, 0)
        self._recorder = Recorder(folder, name, sends=Direction.UP, transport=ZMTP_NULL)
        self._stages = StageLog(folder, name)
        model = LinkModel(LINKS, seed=seed, bs=bs, direction=Direction.UP, epoch=0)
        self._outbox = Outbox(model, transport=ZMTP_NULL)

    def report(self, report: Report, now_ns: int, *, late: bool) -> list[Arrival]:
        """Journal a report, and return what arrives of it."""
        departures = self._outbox.frames([report], now_ns)
        self._recorder.sent(self._bs, departures)
        self._stages.append([StageRow(report.key.snapshot, 0, now_ns, 0, 0, 0)])
        arrivals, fate = [], FrameFate.DELIVERED
        t_ns = now_ns + (1_000_000_000 if late else 1)
        for departure in departures:
            if departure.flipped:
                arrivals.append(Arrival(self._bs, corrupted(departure), t_ns, FrameFate.CORRUPT, "checksum"))
            elif departure.drop_reason is None:
                arrivals.append(Arrival(self._bs, departure.message, t_ns, fate, None, int(late)))
                fate = FrameFate.DUPLICATE
        return arrivals

    def close(self) -> None:
        """Close the streams."""
        self._recorder.close()
        self._stages.close()


def _plan() -> Any:
    from fronthaul.link.link_file import LinkPlan, with_options

    return with_options(LinkPlan(), {"loss": "1%", "duplicate": "1%", "corrupt": "0.5%"})


def close(folder: Path) -> None:
    """Close the ledgers; everything must be accounted for."""
    found = recover(folder)
    assert found.conservation.ok, found.conservation.problems


def audited(folder: Path) -> None:
    """Audit the run."""
    found = audit(folder)
    assert found.ok, [finding for finding in found.findings if finding.state == "fails"]


def inspect(folder: Path) -> None:
    """Add up the links, and the seconds."""
    link_totals(folder)
    timeline(folder, Choice())


JOBS: dict[str, Callable[[Path], None]] = {"close": close, "audit": audited, "inspect": inspect}


def done(folder: Path) -> dict[str, float]:
    """Do all jobs in this process; return their rates [reports/s] and the peak memory [MB]."""
    found: dict[str, float] = {}
    for name, job in JOBS.items():
        begin_s = time.perf_counter()
        job(folder)
        found[name] = time.perf_counter() - begin_s
    reports = sum(sum(link.reports.values()) for link in link_totals(folder))
    rates = {name: reports / seconds for name, seconds in found.items()}
    return rates | {"peak": peak_mb(), "reports": reports}


def main(arguments: list[str]) -> None:
    """Measure one run: REPORTS FOLDER, or only its jobs: FOLDER."""
    if len(arguments) == 1:
        print(json.dumps(done(Path(arguments[0]))))
        return
    reports, folder = int(arguments[0]), Path(arguments[1])
    path, _ = world.weights(folder)
    begin_s = time.perf_counter()
    found = measure(world.settings(Bench(FULL, folder, path)), reports, folder)
    print(json.dumps(found | {"seconds": time.perf_counter() - begin_s}))


if __name__ == "__main__":
    main(sys.argv[1:])
