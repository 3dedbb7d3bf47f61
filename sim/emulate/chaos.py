"""Fault injection: a run with faults on a schedule drawn from a seed, and how soon fixes resume after each.

    kill         SIGKILL of a base station's process; it is restarted in its next epoch
    cut          its TCP connection is cut for a while; queued messages are lost
    freeze       SIGSTOP of its process for a while: it is silent, then late
    overlap      it is restarted while its old process is frozen; old and new epoch then send at the same time
    kill cloud   SIGKILL of the cloud's process; it is restarted in its next incarnation
    freeze cloud SIGSTOP of the cloud's process: a slow consumer

Fixes *resume* with the first fix of a snapshot that was due after the fault began. They must resume within two
deadlines after a fault of a base station or link, and within 15 s after a fault of the cloud (for a freeze: after its
end).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from fronthaul.clock import real_ns
from fronthaul.draws import generator
from sim.emulate.emulator import emulate, sign
from sim.errors import UserError
from sim.files import write_json, write_text
from sim.plan.outcome import OnProgress
from sim.plan.settings import EmulateSettings
from sim.records.folder import RunFolder
from sim.report.page import write_report
from sim.world.scenario import load_scenario

if TYPE_CHECKING:
    from sim.emulate.ray_driver import Run
    from sim.emulate.ray_launch import Process

KINDS = ("kill", "cut", "freeze", "kill cloud", "overlap", "cut", "freeze cloud", "kill")
"""Kinds of faults. The schedule repeats the list, each time in a new random order."""
CLOUD_LIMIT_S = 15.0
"""Limit for fixes to resume after a fault of the cloud [s]."""
FIRST_S = 5.0
"""Time from time zero to the first fault [s]."""
LAST_S = 25.0
"""Minimum time from the last fault to the end of the run [s], so that the run also recovers from that fault."""
GAP_S = (7.0, 12.0)
"""Range of the random time from one fault to the next [s]."""
CLOUD_GAP_S = 18.0
"""Time from a fault of the cloud to the next fault [s]."""
OVERLAP_S = 2.0
"""How long old and new epoch send at the same time [s]."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A scheduled fault.

    Attributes:
        at_s: when it is due, after time zero [s].
        kind: one of `KINDS`, explained at the top of this file.
        bs: base station; None for the cloud.
        seconds: how long a cut or freeze lasts [s]; 0 for other faults.
    """

    at_s: float
    kind: str
    bs: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Aftermath:
    """How fixes recovered after a fault.

    Attributes:
        fault: the fault, with its actual target.
        t_ns: when it was injected [ns].
        resumed_s: from then to the first fix of a later snapshot [s]; None if there was none.
        limit_s: upper limit for `resumed_s` [s].
        whole_s: from `t_ns` to the first fix of a later snapshot with all base stations [s]; None if there was none.
    """

    fault: Fault
    t_ns: int
    resumed_s: float | None
    limit_s: float
    whole_s: float | None

    @property
    def ok(self) -> bool:
        """Whether fixes resumed in time."""
        return self.resumed_s is not None and self.resumed_s <= self.limit_s


@dataclass(frozen=True)
class ChaosResult:
    """A run with faults: its folder, its summary, and each fault's aftermath."""

    folder: Path
    summary: dict[str, Any]
    aftermaths: list[Aftermath] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether fixes resumed in time after every fault; the run itself has checked that its books balance."""
        return all(aftermath.ok for aftermath in self.aftermaths)


def schedule(seed: int, seconds: float, stations: int) -> list[Fault]:
    """Draw the faults of a run of `seconds` [s] with `stations` base stations.

    Raises:
        UserError: the run is too short for a single fault.
    """
    draw = generator(seed, "chaos")
    faults: list[Fault] = []
    at_s = FIRST_S
    turn: list[str] = []
    while at_s <= seconds - LAST_S:
        if not turn:
            turn = [KINDS[int(index)] for index in draw.permutation(len(KINDS))]
        kind = turn.pop()
        lasts = {"cut": (1.0, 5.0), "freeze": (1.0, 5.0), "freeze cloud": (1.0, 3.0)}.get(kind)
        bs, length, gap_s = int(draw.integers(stations)), float(draw.random()), float(draw.uniform(*GAP_S))
        of_cloud = kind.endswith("cloud")
        length_s = 0.0 if lasts is None else lasts[0] + length * (lasts[1] - lasts[0])
        faults.append(Fault(round(at_s, 3), kind, None if of_cloud else bs, round(length_s, 3)))
        at_s += CLOUD_GAP_S if of_cloud else gap_s
    if not faults:
        raise UserError(f"A chaos run takes {FIRST_S + LAST_S:g} s or more: the first fault comes after {FIRST_S:g} s.")
    return faults


def run_chaos(settings: EmulateSettings, seconds: float, on_progress: OnProgress = lambda _: None) -> ChaosResult:
    """Run an emulation for `seconds` [s] with faults drawn from its seed.

    Raises:
        UserError: the run could not start, did not survive the faults, or its books do not balance.
    """
    if settings.driver != "ray" or settings.interval_ms <= 0:
        raise UserError("Faults need processes and a schedule: --driver ray, and an --interval above 0.")
    settings = replace(
        settings, snapshots=max(1, round(seconds / (settings.interval_ms / 1e3))), restarts=1000, controls=False
    )
    stations = settings.stations(load_scenario(settings.scenario))
    injector = Injector(schedule(settings.seed, seconds, len(stations)))
    try:
        result = emulate(settings, on_progress, injector.tick)
    finally:
        injector.thaw()
    aftermaths = _aftermaths(result.folder, injector.done, settings)
    found = ChaosResult(result.folder, result.summary, aftermaths)
    rows = [asdict(aftermath) | {"ok": aftermath.ok} for aftermath in aftermaths]
    write_json(result.folder / "chaos.json", {"seconds": seconds, "seed": settings.seed, "faults": rows})
    write_text(result.folder / "chaos.md", markdown(found))
    if settings.report:  # once more, with the faults
        write_report([result.folder], RunFolder(result.folder).report)
    sign(settings, result.folder)
    return found


class Injector:
    """Injects the scheduled faults when they are due.

    A fault of a base station that is down or frozen moves to the next one that is up. A fault of the cloud is skipped
    while the cloud is down.

    Attributes:
        done: injected faults, each with its time [ns].
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        """Store the schedule."""
        self._faults = list(faults)
        self._frozen: list[tuple[int, int]] = []  # when to thaw [ns], pid
        self._doomed: list[tuple[int, int]] = []  # when to kill [ns], pid
        self._overlaps: list[tuple[int, Process]] = []  # base station, its old process
        self.done: list[tuple[Fault, int]] = []

    def tick(self, run: Run) -> None:
        """Inject the faults that are due; the driver calls this a few times a second."""
        now_ns = real_ns()
        self._end_due_faults(run, now_ns)
        while self._faults and run.t0_ns and now_ns >= run.t0_ns + self._faults[0].at_s * 1e9:
            fault = self._faults.pop(0)
            done = self._cloud_fault(run, fault) if fault.bs is None else self._edge_fault(run, fault)
            if done is not None:
                self.done.append((done, now_ns))

    def thaw(self) -> None:
        """Resume all frozen processes, so that they can be ended."""
        for _, pid in self._frozen:
            _signal(pid, signal.SIGCONT)
        for _, process in self._overlaps:
            if process.pid is not None:
                _signal(process.pid, signal.SIGCONT)

    def _end_due_faults(self, run: Run, now_ns: int) -> None:
        for t_ns, pid in [item for item in self._frozen if item[0] <= now_ns]:
            _signal(pid, signal.SIGCONT)
            self._frozen.remove((t_ns, pid))
        for t_ns, pid in [item for item in self._doomed if item[0] <= now_ns]:
            _signal(pid, signal.SIGKILL)
            self._doomed.remove((t_ns, pid))
        for bs, old in list(self._overlaps):
            if run.edge_of(bs).running is not None:  # the new epoch sends: let the old one send as well
                assert old.pid is not None
                _signal(old.pid, signal.SIGCONT)
                self._doomed.append((now_ns + round(OVERLAP_S * 1e9), old.pid))
                self._overlaps.remove((bs, old))

    def _cloud_fault(self, run: Run, fault: Fault) -> Fault | None:
        cloud = run.cloud
        if cloud is None or cloud.pid is None or cloud.connecting is not None:
            return None
        if fault.kind == "kill cloud":
            _signal(cloud.pid, signal.SIGKILL)
        else:
            _signal(cloud.pid, signal.SIGSTOP)
            self._frozen.append((real_ns() + round(fault.seconds * 1e9), cloud.pid))
        return fault

    def _edge_fault(self, run: Run, fault: Fault) -> Fault | None:
        assert fault.bs is not None
        busy = {pid for _, pid in self._frozen} | {old.pid for _, old in self._overlaps}
        stations = sorted(bs for edge in run.edges for bs in edge.stations)
        first = stations.index(fault.bs)
        for bs in (*stations[first:], *stations[:first]):
            edge = run.edge_of(bs)
            if edge.pid is None or edge.running is None or edge.pid in busy:
                continue
            if fault.kind == "kill":
                _signal(edge.pid, signal.SIGKILL)
            elif fault.kind == "cut":
                run.cut(bs, fault.seconds)
            elif fault.kind == "freeze":
                _signal(edge.pid, signal.SIGSTOP)
                self._frozen.append((real_ns() + round(fault.seconds * 1e9), edge.pid))
            else:
                _signal(edge.pid, signal.SIGSTOP)
                self._overlaps.append((bs, run.replace(bs)))
            return replace(fault, bs=bs)
        return None


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
        os.kill(pid, number)


def _aftermaths(folder: Path, faults: Sequence[tuple[Fault, int]], settings: EmulateSettings) -> list[Aftermath]:
    names = ("t_zero_ns", "t_fix_ns", "used_bs")
    table = pq.read_table(folder / "fixes.parquet", columns=list(names))
    fixes = sorted(zip(*(table[name].to_pylist() for name in names), strict=True), key=lambda fix: fix[1])
    found = []
    for fault, t_ns in faults:
        later = [fix for fix in fixes if fix[0] >= t_ns]
        resumed = next((fix[1] for fix in later), None)
        whole = next((fix[1] for fix in later if len(set(fix[2])) == settings.bs), None)
        limit_s = CLOUD_LIMIT_S if fault.bs is None else 2 * settings.deadline_ms / 1e3
        found.append(
            Aftermath(
                fault=fault,
                t_ns=t_ns,
                resumed_s=None if resumed is None else (resumed - t_ns) / 1e9,
                # A frozen cloud cannot fix anything: there the limit counts from its thaw.
                limit_s=limit_s + (fault.seconds if fault.bs is None else 0.0),
                whole_s=None if whole is None else (whole - t_ns) / 1e9,
            )
        )
    return found


def markdown(result: ChaosResult) -> str:
    """Return the table of faults and the totals of frames, reports and bytes, as Markdown."""
    summary = result.summary
    lines = [
        "| after | fault | target | lasts | fixes resume after | limit | all BSs again after |",
        "|---|---|---|---|---|---|---|",
    ]
    t0_ns = min((aftermath.t_ns - aftermath.fault.at_s * 1e9 for aftermath in result.aftermaths), default=0)
    for aftermath in result.aftermaths:
        fault = aftermath.fault
        mark = "" if aftermath.ok else " **missed**"
        cells = (
            f"{(aftermath.t_ns - t0_ns) / 1e9:.1f} s",
            fault.kind.removesuffix(" cloud"),
            "cloud" if fault.bs is None else f"BS {fault.bs}",
            f"{fault.seconds:.1f} s" if fault.seconds else "",
            _seconds(aftermath.resumed_s) + mark,
            _seconds(aftermath.limit_s),
            _seconds(aftermath.whole_s),
        )
        lines.append(f"| {' | '.join(cells)} |")
    kernel = summary["bytes_kernel"] or {}
    lines += [
        "",
        f"{summary['fixes']} fixes of {summary['snapshots']} snapshots, none twice, "
        f"{len(summary['restarts'])} restarts.",
        "",
        *(_sum(name, summary[name]) for name in ("frames", "reports")),
        "",
        f"Connections cut: {kernel.get('cut_connections')}; bytes on the streams between "
        f"{kernel.get('predicted_least')} and {kernel.get('predicted_most')} B by the books.",
        "",
    ]
    return "\n".join(lines)


def _sum(name: str, fates: dict[str, int]) -> str:
    return f"{name.capitalize()} journaled: {sum(fates.values())} = {' + '.join(f'{n} {f}' for f, n in fates.items())}."


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"
