"""Base stations whose links go down during a run, on sockets and the wall clock: nobody waits for what cannot come."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_world

from cloud.node import CloudNode
from edge.node import EdgeNode
from edge.pacing import End, run_schedule
from fronthaul.clock import WallClock
from fronthaul.link.link_file import link_plan
from fronthaul.transport.connect import cloud_transport, edge_transport
from sim.plan.outcome import RunRecord
from sim.plan.plan import load_plan
from sim.records.books import derive_books
from sim.records.fix_table import fix_table
from sim.records.folder import RunFolder
from sim.records.stream_bytes import byte_problems

LINKS = link_plan({"bs": {"1": {"up": {"outage": "1s-1000s"}}, "2": {"up": {"outage": "1s-1.5s"}}}})


def test_a_link_that_goes_down_for_good_holds_up_neither_fixes_nor_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sim.world.store.ASSET_FOLDER", tmp_path / "assets")
    settings = replace(
        tiny_world.write(tmp_path), driver="ray", scheme="rss", links=LINKS, snapshots=25, interval_ms=200.0,
        deadline_ms=10_000.0, ping_ms=100.0, controls=False,
    )  # fmt: skip
    plan = load_plan(settings)
    folder = RunFolder.create(settings, "tiny")
    socket = cloud_transport("127.0.0.1", 0, keys=None, queue_messages=100, delayed=False, load=plan.cloud.load)
    cloud = CloudNode(plan.cloud, socket, folder.links, WallClock())
    cloud.rehearse()
    serving = threading.Thread(target=cloud.run, args=(60.0,))
    serving.start()
    nodes = []
    for site in plan.sites:
        bs = site.station.bs
        link = edge_transport(socket.address, bs, keys=None, queue_messages=100, delayed=site.up is not None)
        nodes.append(EdgeNode(site, link, folder.links, WallClock()))
    for node in nodes:
        node.rehearse()
        node.register()
        node.await_welcome(30.0)
    t0_ns = time.time_ns() + 500_000_000
    cloud.ask(("start", t0_ns))
    ends: list[End] = []

    def run() -> None:
        ends.append(run_schedule(nodes, plan.schedule(t0_ns), WallClock(), first_snapshot=0, end_s=60.0))
        for bs in ends[0].cut_off:
            cloud.ask(("gone", bs))  # as the driver does

    running = threading.Thread(target=run)
    running.start()
    for thread in (running, serving):
        thread.join(100.0)
        assert not thread.is_alive()
    for node in nodes:
        node.close()
    cloud.close()
    assert ends == [End([], [1])] and cloud.outcome().missing == frozenset()

    books = derive_books(plan, folder)
    fixes = fix_table(plan, RunRecord(cloud.outcome(), t0_ns, True, 1.0, socket.address), books)
    assert books.conservation().ok and byte_problems(books.connections) == []
    # BS 1, whose heartbeats stay without answers, gives its connection up and makes new ones.
    assert all(connection.exact for connection in books.connections if connection.bs != 1)
    used = fixes["used_bs"].to_pylist()
    assert len(used) == 25 and used[:4] == 4 * [[0, 1, 2]] and 1 not in used[-1]
    # Silent for three pings, and no longer waited for: far sooner than at the deadline.
    assert fixes["total_ns"].to_pylist()[-1] < 5_000_000_000
