"""Base stations on other hosts: their clocks are off, and the fronthaul finds out by how much."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_world

from cloud.node import CloudNode
from edge.node import EdgeNode
from edge.pacing import run_schedule
from fronthaul.clock import WallClock
from fronthaul.transport.zeromq import DealerTransport, RouterTransport
from sim.plan.outcome import RunRecord
from sim.plan.plan import load_plan
from sim.records.books import derive_books
from sim.records.fix_table import fix_table
from sim.records.folder import RunFolder

AHEAD_NS = 7_300_000_000


class OtherHost:
    """A wall clock that is off; `name` says that it is another machine's."""

    name = "another host"

    def __init__(self, ahead_ns: int) -> None:
        """Be `ahead_ns` [ns] before everybody else."""
        self._clock, self._ahead_ns = WallClock(), ahead_ns

    def now_ns(self) -> int:
        """Return the time that this host believes in [ns]."""
        return self._clock.now_ns() + self._ahead_ns

    def sleep_until(self, t_ns: int) -> None:
        """Sleep until this host believes in `t_ns` [ns]."""
        self._clock.sleep_until(t_ns - self._ahead_ns)


class Stamped(DealerTransport):
    """A socket on another host, whose times are that host's."""

    def send(self, data: bytes, t_release_ns: int = 0) -> None:
        """Send at a time that this host believes in [ns]."""
        super().send(data, max(0, t_release_ns - AHEAD_NS))

    def receive(self, timeout_s: float) -> bytes | None:
        """Receive, and stamp."""
        data = super().receive(timeout_s)
        if data is not None:
            self.t_received_ns += AHEAD_NS
        return data


def test_one_way_latency_carries_offset_and_uncertainty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sim.world.store.ASSET_FOLDER", tmp_path / "assets")
    settings = replace(tiny_world.write(tmp_path), driver="ray", bs=2, interval_ms=40.0, ping_ms=50.0, controls=False)
    plan = load_plan(settings)
    folder = RunFolder.create(settings, "tiny")
    cloud_socket = RouterTransport()
    cloud = CloudNode(plan.cloud, cloud_socket, folder.links, WallClock())
    serving = threading.Thread(target=cloud.run, args=(20.0,))
    serving.start()
    other = OtherHost(AHEAD_NS)
    here = EdgeNode(plan.sites[0], DealerTransport(cloud_socket.address, 0), folder.links, WallClock())
    there = EdgeNode(plan.sites[1], Stamped(cloud_socket.address, 1), folder.links, other)
    nodes = (here, there)
    for node in nodes:
        node.register()
        node.await_welcome(10.0)
    t0_ns = time.time_ns() + 100_000_000
    cloud.ask(("start", t0_ns))
    running = [
        threading.Thread(
            target=run_schedule,
            args=([node], replace(plan.schedule(t0_ns), t0_ns=t0_ns + ahead_ns), clock),
            kwargs={"first_snapshot": 0, "end_s": 10.0},
        )
        for node, clock, ahead_ns in ((here, WallClock(), 0), (there, other, AHEAD_NS))
    ]
    for thread in running:
        thread.start()
    for thread in (*running, serving):
        thread.join(30.0)
        assert not thread.is_alive()
    for node in nodes:
        node.close()
    cloud.close()

    books = derive_books(plan, folder)
    assert books.clocks[0, 0] is None  # the cloud's own clock
    offset = books.clocks[1, 0]
    assert offset is not None and offset.samples >= 8
    found_ns, uncertainty_ns = offset.offset_ns, offset.uncertainty_ns
    assert abs(found_ns + AHEAD_NS) <= uncertainty_ns < 50_000_000
    record = RunRecord(cloud.outcome(), t0_ns, True, 1.0, cloud_socket.address)
    fixes = fix_table(plan, record, books)
    assert len(fixes) == settings.snapshots
    for last, took_ns, unsure_ns, late_ns in zip(
        *(fixes[name].to_pylist() for name in ("last_bs", "fronthaul_ns", "fronthaul_uncertainty_ns", "start_ns")),
        strict=True,
    ):
        assert (unsure_ns > 0) == (last == 1)
        assert -unsure_ns <= took_ns < 1_000_000_000  # and not seven seconds
        assert -unsure_ns <= late_ns < 1_000_000_000
    assert all(connection.exact for connection in books.connections)
