"""Processes and links that die in a run on Ray: what is started again goes on, and every frame keeps its fate."""

import dataclasses
import os
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import run_tables

from sim.emulate import ray_driver as cluster  # isort: skip  # before Ray: it sets its environment

import ray

from sim.emulate import ray_launch
from sim.emulate.emulator import emulate
from sim.emulate.ray_launch import Process
from sim.inspect.audit import audit
from sim.inspect.frames import check_books
from sim.inspect.replay import replay
from sim.plan.settings import EmulateSettings

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SNAPSHOTS = 80


class Faults:
    """Kills BS 1, then the cloud, then cuts the link of BS 2, each once what came before is mended."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def __call__(self, run: cluster.Run) -> None:
        if not self.done and run.t0_ns and time.time_ns() > run.t0_ns + 1_500_000_000:
            self._kill(run.edges[1].pid, "BS 1")
        elif self.done == ["BS 1"] and len(run.restarts) == 1:
            assert run.cloud is not None
            self._kill(run.cloud.pid, "the cloud")
        elif self.done == ["BS 1", "the cloud"] and len(run.restarts) == 2:
            run.cut(2, 0.5)
            self.done.append("link 2")

    def _kill(self, pid: int | None, name: str) -> None:
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        self.done.append(name)


def link_row(folder: Path, bs: int) -> dict[str, int]:
    rows = pq.read_table(folder / "links" / "connections.parquet").to_pylist()
    return next(row for row in rows if row["bs"] == bs)


def test_a_run_survives_kill_9_of_a_base_station_and_of_the_cloud_and_a_cut_link(
    settings: EmulateSettings,
) -> None:
    faults = Faults()
    chosen = dataclasses.replace(settings, driver="ray", snapshots=SNAPSHOTS, interval_ms=250.0, cpus_per_bs=0.1)
    result = emulate(chosen, on_tick=faults)
    summary, folder = result.summary, result.folder
    assert faults.done == ["BS 1", "the cloud", "link 2"]
    assert [restart["name"] for restart in summary["restarts"]] == ["BS 1", "The cloud"]
    assert all(restart["t_died_ns"] < restart["t_back_ns"] for restart in summary["restarts"])
    assert summary["failures"] == [] and summary["missing_bs"] == []

    assert summary["conservation"]["ok"] and check_books(folder).ok
    assert [finding.detail for finding in audit(folder).findings if finding.state == "fails"] == []
    assert summary["frames"]["corrupt"] == 0
    assert replay(folder).identical == summary["fixes"]
    fixes = run_tables.fixes(folder).to_pylist()
    snapshots = [fix["snapshot"] for fix in fixes]
    assert snapshots == sorted(set(snapshots))
    assert fixes[-1]["snapshot"] == SNAPSHOTS - 1 and fixes[-1]["used_bs"] == [0, 1, 2]

    # BS 1 is there in two epochs, one after the other, and missing from the fixes between them.
    starts = run_tables.rows(folder, ["bs", "epoch", "snapshot"])
    first, second = ([s for bs, epoch, s in starts if bs == 1 and epoch == number] for number in (0, 1))
    assert {epoch for bs, epoch, _ in starts if bs == 1} == {0, 1}
    assert {epoch for bs, epoch, _ in starts if bs != 1} == {0}
    assert max(first) < min(second) and max(second) == SNAPSHOTS - 1
    between = [fix for fix in fixes if max(first) < fix["snapshot"] < min(second)]
    assert between and all(1 not in fix["used_bs"] for fix in between)
    assert fixes[-1]["used_epoch"] == [0, 1, 0]

    # What nobody can know after a kill is an interval, and the kernels' counts lie in it.
    kernel = summary["bytes_kernel"]
    assert not kernel["exact"] and kernel["predicted_least"] < kernel["predicted_most"]
    assert link_row(folder, 0)["connections"] == 2 and link_row(folder, 2)["connections"] == 3
    assert not list(folder.rglob("*.arrow"))


def pid_of(process: Process) -> int:
    """Return the process id of a process that has not said it yet, because it is starting."""
    pid: int = ray.get(process.actor.process.remote(), timeout=60.0)[1]
    return pid


def test_who_dies_while_starting_is_started_again(settings: EmulateSettings) -> None:
    killed: list[str] = []

    def kill(run: cluster.Run) -> None:
        assert run.cloud is not None
        for name, process in (("cloud", run.cloud), *((f"BS {n}", edge) for n, edge in enumerate(run.edges[1:], 1))):
            if name not in killed and process.number == 0 and process.node is None:  # it is not up
                os.kill(pid_of(process), signal.SIGKILL)
                killed.append(name)

    chosen = dataclasses.replace(settings, driver="ray", snapshots=10, interval_ms=100.0, cpus_per_bs=0.1)
    result = emulate(chosen, on_tick=kill)
    assert killed == ["cloud", "BS 1", "BS 2"]
    summary = result.summary
    # Two base stations die at once: which death is noticed first is open.
    assert sorted(restart["name"] for restart in summary["restarts"]) == ["BS 1", "BS 2", "The cloud"]
    assert summary["failures"] == [] and summary["fixes"] == 10
    assert audit(result.folder).ok


def test_who_is_not_welcomed_after_its_restart_is_absent_and_the_run_ends_well(
    settings: EmulateSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    frozen: list[int] = []

    def kill(run: cluster.Run) -> None:
        if not killed and run.t0_ns and time.time_ns() > run.t0_ns + 1_000_000_000:
            assert run.cloud is not None
            monkeypatch.setattr(ray_launch, "REGISTER_S", 0.5)
            killed.append(pid_of(run.edges[1]))
            frozen.append(pid_of(run.cloud))  # so that nobody answers
            os.kill(frozen[0], signal.SIGSTOP)
            os.kill(killed[0], signal.SIGKILL)
        elif frozen and run.edges[1].running is None and run.edges[1].connecting is None:
            os.kill(frozen.pop(), signal.SIGCONT)

    # The deadline is far away: what a busy machine delays is used nevertheless.
    chosen = dataclasses.replace(
        settings, driver="ray", snapshots=50, interval_ms=200.0, deadline_ms=30_000.0, cpus_per_bs=0.1
    )
    result = emulate(chosen, on_tick=kill)
    summary = result.summary
    assert killed and summary["failures"] == [] and summary["missing_bs"] == [1]
    assert [(restart["name"], restart["t_back_ns"]) for restart in summary["restarts"]] == [("BS 1", None)]
    fixes = run_tables.fixes(result.folder).to_pylist()
    assert [fix["snapshot"] for fix in fixes] == list(range(50))
    assert fixes[0]["used_bs"] == [0, 1, 2] and fixes[-1]["used_bs"] == [0, 2]
    assert check_books(result.folder).ok and audit(result.folder).ok


def test_who_dies_after_its_work_does_not_cost_the_run(
    settings: EmulateSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = cluster.Run._await_end

    def kill(run: cluster.Run) -> None:
        os.kill(pid_of(run.edges[0]), signal.SIGKILL)
        run.edges[0].running = run.edges[0].actor.process.remote()  # as if its main call had not returned yet
        whole(run)
        assert run.cloud is not None
        for process in (run.cloud, run.edges[1]):
            os.kill(pid_of(process), signal.SIGKILL)

    monkeypatch.setattr(cluster.Run, "_await_end", kill)
    chosen = dataclasses.replace(settings, driver="ray", snapshots=10, interval_ms=100.0, cpus_per_bs=0.1)
    result = emulate(chosen)
    summary = result.summary
    assert [(restart["name"], restart["t_back_ns"]) for restart in summary["restarts"]] == [
        ("BS 0", None), ("BS 1", None), ("The cloud", None),
    ]  # fmt: skip
    assert summary["failures"] == [] and summary["missing_bs"] == [] and summary["fixes"] == 10
    assert audit(result.folder).ok
