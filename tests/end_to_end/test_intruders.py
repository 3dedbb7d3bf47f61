"""Who has no key, an unknown one or another's gets nothing into the fusion, and shows in what the cloud writes down."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import tiny_world

from cloud.node import CloudNode
from edge.node import EdgeNode
from edge.pacing import run_schedule
from fronthaul.clock import WallClock
from fronthaul.errors import TransportError
from fronthaul.message.messages import Frame, Registration, Report
from fronthaul.message.wire import encode
from fronthaul.transport.keys import EdgeKeys, KeyRing
from fronthaul.transport.new_keys import ephemeral
from fronthaul.transport.zeromq import DealerTransport, RouterTransport
from sim.plan.plan import Plan, load_plan
from sim.records.books import derive_books
from sim.records.folder import RunFolder
from sim.records.stream_bytes import byte_problems


def forged(plan: Plan, bs: int, snapshot: int) -> list[bytes]:
    """A registration and a frame of `bs`, as its own would be."""
    site = plan.sites[bs]
    (report,) = site.station.assemble().reports([snapshot], site.radio.observe(snapshot)[None])
    registration = Registration(
        bs, 0, plan.settings.scheme, plan.format, plan.answer_format, site.position, site.orientation
    )
    stolen = Report(report.key, report.payload, report.side)
    return [encode(registration), encode(Frame(0, (stolen,)))]


def intrude(address: str, bs: int, keys: EdgeKeys | None, messages: list[bytes]) -> None:
    """Connect, send what there is, and go away."""
    with closing(DealerTransport(address, bs, keys=keys)) as intruder:
        for message in messages:
            try:
                intruder.send(message)
                intruder.receive(0.15)
            except TransportError:  # the cloud does not know the key, and says so
                return


def test_intruders_change_nothing_and_are_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sim.world.store.ASSET_FOLDER", tmp_path / "assets")
    settings = replace(
        tiny_world.write(tmp_path), driver="ray", curve=True, bs=3, snapshots=40, interval_ms=60.0, controls=False
    )
    plan = load_plan(settings)
    folder = RunFolder.create(settings, "tiny")
    ring: KeyRing = ephemeral(3)
    socket = RouterTransport(keys=ring.cloud)
    cloud = CloudNode(plan.cloud, socket, folder.links, WallClock())
    nodes = [
        EdgeNode(plan.sites[bs], DealerTransport(socket.address, bs, keys=ring.edges[bs]), folder.links, WallClock())
        for bs in (0, 1)  # BS 2's place is empty: an intruder who spoke for it would be fused
    ]
    serving = threading.Thread(target=cloud.run, args=(5.0,))
    serving.start()
    for node in nodes:
        node.register()
        node.await_welcome(10.0)
    t0_ns = time.time_ns() + 100_000_000
    cloud.ask(("start", t0_ns))
    schedule = plan.schedule(t0_ns)
    kwargs = {"first_snapshot": 0, "end_s": 10.0}
    running = [
        threading.Thread(target=run_schedule, args=([node], schedule, WallClock()), kwargs=kwargs) for node in nodes
    ]
    stranger = ephemeral(1).edges[0]
    unknown = EdgeKeys(ring.cloud.public, stranger.public, stranger.secret)
    attacks: list[Callable[[], None]] = [
        lambda: intrude(socket.address, 2, None, forged(plan, 2, 38)),
        lambda: intrude(socket.address, 2, unknown, forged(plan, 2, 38)),
        lambda: intrude(socket.address, 2, ring.edges[1], forged(plan, 2, 38)),  # BS 1's key, claiming to be BS 2
    ]
    for thread in running:
        thread.start()
    for attack in attacks:
        attack()
    for thread in (*running, serving):
        thread.join(40.0)
        assert not thread.is_alive()
    for node in nodes:
        node.close()
    cloud.close()

    books = derive_books(plan, folder)
    assert {bs for used in books.fixes["used_bs"].to_pylist() for bs in used} == {0, 1}
    assert cloud.registered == {0, 1}
    refused = [row for row in books.sockets.events.to_pylist() if row["kind"] == "refused"]
    assert len(refused) >= 2  # without a key, and with an unknown one
    ledger = pq.read_table(folder.ledger(1)).to_pylist()
    rejected = [row for row in ledger if row["frame_fate"] == "rejected"]
    assert [row["reason"] for row in rejected] == ["BS 2 does not own this connection"]
    assert pq.read_table(folder.ledger(2)).num_rows == 0
    assert books.conservation().problems == ()
    assert byte_problems(books.connections) == []  # although BS 1's key was used for what no sender wrote down
    (link,) = (connection for connection in books.connections if connection.bs == 1)
    assert link.up.stray > 0 and link.connections == 2
