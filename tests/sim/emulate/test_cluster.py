"""Three nodes of a Ray cluster: base stations have their places, and a node that is lost takes no record with it."""

import dataclasses
import json
import os
import re
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fronthaul.log.sent import read_journal
from fronthaul.log.stream_names import SENT
from fronthaul.message.wire import is_control
from sim.commands.summary import event_lines
from sim.emulate.emulator import emulate
from sim.emulate.ray_room import reserved
from sim.errors import UserError
from sim.inspect.audit import audit
from sim.inspect.frames import check_books
from sim.inspect.replay import replay
from sim.plan.plan import load_plan
from sim.plan.settings import EmulateSettings
from sim.sweep.sweep import Row, combinations, run_sweep
from sim.world import radio
from sim.world.pilot_store import of_this_process

pytestmark = pytest.mark.ray


@pytest.fixture
def settings(settings: EmulateSettings) -> EmulateSettings:
    return dataclasses.replace(
        settings,
        driver="ray",
        snapshots=40,
        interval_ms=100.0,
        deadline_ms=30_000.0,
        cpus_per_bs=0.1,
        node_label="site",
    )


@dataclasses.dataclass
class Nodes:
    """A Ray cluster of three nodes at different sites, of which all but the first can be killed."""

    address: str
    north: str
    add: Callable[..., Any]
    kill: Callable[[str], None]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    from sim.emulate.ray_session import own_token, small_agent  # isort: skip  # before Ray: it sets its environment

    from ray.cluster_utils import Cluster

    with own_token():
        head = {"num_cpus": 1, "include_dashboard": False, "labels": {"site": "east"}}
        cluster = Cluster(initialize_head=True, head_node_args=head)

        def add(**options: Any) -> Any:
            with small_agent():  # the driver's node alone has metrics of ours
                return cluster.add_node(**options)

        north = add(num_cpus=1, labels={"site": "north"})
        add(num_cpus=1, labels={"site": "west"})

        def kill(node_id: str) -> None:
            node = next(node for node in cluster.worker_nodes if node.node_id == node_id)
            cluster.remove_node(node, allow_graceful=False)

        yield Nodes(cluster.address, north.node_id, add, kill)
        cluster.shutdown()  # type: ignore[no-untyped-call]


def test_a_sweep_on_the_cluster_has_the_rows_of_one_here(
    settings: EmulateSettings, nodes: Nodes, tmp_path: Path
) -> None:
    base = dataclasses.replace(settings.in_process(), node_label=None, snapshots=6)

    def rows(output: Path, address: str | None) -> list[Row]:
        def settings_of(texts: Mapping[str, str]) -> EmulateSettings:
            return dataclasses.replace(base, bs=int(texts["bs"]))

        cases = combinations({"bs": ["2", "3"]}, settings_of, output)
        made = run_sweep(cases, output, "a command", workers=1 if address is None else 2, ray_address=address).rows
        for row in made:
            assert audit(output / str(row["run"])).ok
        return [{**row, "run": ""} for row in made]

    assert rows(tmp_path / "there", nodes.address) == rows(tmp_path / "here", None)
    with pytest.raises(UserError, match="No Ray cluster answers"):
        rows(tmp_path / "nowhere", "127.0.0.1:1")


def test_a_process_makes_the_pilots_of_rows_alike_once(
    settings: EmulateSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sim.emulate.ray_rows import run_there

    received: list[int] = []
    made = radio._receive_piece
    monkeypatch.setattr(radio, "_receive_piece", lambda rows, out: [received.append(len(rows)), made(rows, out)])
    plan = load_plan(dataclasses.replace(settings.in_process(), node_label=None))
    for fresh in (settings.bs * settings.snapshots, 0):
        received.clear()
        run_there(plan, None, 1 << 20)
        assert sum(received) == fresh
    of_this_process.cache_clear()


def test_a_node_that_is_lost_takes_no_record_with_it(settings: EmulateSettings, nodes: Nodes) -> None:
    """Base stations 0, 1, 2 are at the sites east, north, west; the node of north is killed, and no other is there."""
    import ray

    from sim.emulate.ray_driver import Run

    log = settings.output.parent / "log.jsonl"
    settings = dataclasses.replace(settings, ray_address=nodes.address, metrics=True, log_json=log)
    with pytest.raises(UserError, match="--node-label rack: no node of the Ray cluster has it"):
        emulate(dataclasses.replace(settings, node_label="rack"))
    seen: dict[int, str | None] = {}
    open_there: list[str] = []
    journaled: list[bytes] = []
    agents: list[str] = []

    def kill(run: Run) -> None:
        if not run.t0_ns or seen or time.time_ns() < run.t0_ns + 1_000_000_000:
            return
        seen.update({bs: run.edge_of(bs).node for bs in (0, 1, 2)})
        for node in ray.nodes():  # type: ignore[no-untyped-call]
            if run.cloud is not None and node["NodeID"] == run.cloud.node:
                agents.append(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics")
        for bs in (2, 1):
            _, pid = ray.get(run.edge_of(bs).actor.process.remote())
            open_there.extend(str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir())
        os.kill(pid, signal.SIGKILL)
        nodes.kill(nodes.north)
        (journal,) = settings.output.glob(f"*/links/bs-001-*{SENT}")
        journaled.extend(read_journal(journal)["message"].to_pylist())

    result = emulate(settings, on_tick=kill)
    assert seen[1] == nodes.north and len(set(seen.values())) == 3
    found = result.summary
    assert found["fixes"] == settings.snapshots and found["missing_bs"] == [1] and found["encrypted"]
    (restart,) = found["restarts"]
    assert (restart["name"], restart["t_back_ns"], restart["node_lost"]) == ("BS 1", None, True)
    told = " ".join(event_lines(found))
    assert "BS 1 died with its node, not back at the end" in told and "not connected at the end:[/yellow] BS 1" in told
    # What the lost node had sent was on record here when it was killed; it had no stream of its own.
    assert open_there and not [path for path in open_there if path.endswith(".arrow")]
    sent = pq.read_table(result.folder / "links" / "bs-001.parquet", columns=["snapshot", "report_fate"])
    frames = [message for message in journaled if not is_control(message)]
    assert len(frames) <= len(sent) <= len(frames) + 1 < settings.snapshots  # a last one may have been on its way here
    assert set(sent["report_fate"].to_pylist()) <= {"used", "lost"}  # lost: on its way when the node died
    assert found["strays"] == 0 and found["conservation"]["ok"]
    assert audit(result.folder).ok and check_books(result.folder).ok and replay(result.folder).ok
    assert_metrics_are_of_the_ledger(agents[0], result.folder, found)
    lines = [line for line in map(json.loads, log.read_text().splitlines()) if line["run"] == result.folder.name]
    assert {(line["event"], line.get("bs")) for line in lines} >= {
        *((event, bs) for bs in (0, 1, 2) for event in ("connected", "disconnected")),
        ("restart", None), ("missing", 1), ("started", None), ("finished", None),
    }  # fmt: skip
    assert sum(line["event"] == "fix" and line["snapshot"] >= 0 for line in lines) == found["fixes"]
    assert "BS 1 died with its node" in next(line["message"] for line in lines if line["event"] == "restart")


def assert_metrics_are_of_the_ledger(address: str, folder: Path, summary: dict[str, Any]) -> None:
    """Scrape the agent of the driver's node, as Prometheus does, and compare every count with the closed books."""
    with urllib.request.urlopen(address, timeout=10) as answer:
        text = answer.read().decode()
    values: Counter[tuple[str, ...]] = Counter()
    for name, labels, value in re.findall(r"^ray_cofix_(\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        of = dict(re.findall(r'(\w+)="(.*?)"', labels))
        if of["run"] == folder.name:
            assert of["scheme"] == "ecc"
            values[name, of.get("bs", ""), of.get("fate", ""), of.get("le", "")] += float(value)
    for bs, link in enumerate(summary["links"]):
        rows = pq.read_table(folder / f"links/bs-{bs:03d}.parquet").to_pylist()
        fates = Counter(row["frame_fate"] for row in rows)
        assert values["frames_sent_total", str(bs), "", ""] == len(rows)
        assert values["frames_received_total", str(bs), "delivered", ""] == fates["delivered"]
        dropped = values["frames_dropped_total", str(bs), "", ""] + values["frames_in_flight", str(bs), "", ""]
        assert dropped == fates["dropped"]
        assert values["arrival_ms_count", str(bs), "", ""] == fates["delivered"]
        assert values["reports_total", str(bs), "used", ""] == sum(row["report_fate"] == "used" for row in rows)
        sent = values["bytes_sent_total", str(bs), "", ""] - values["bytes_returned_total", str(bs), "", ""]
        assert sent == link["stream_bytes"]
    assert re.search(r'^ray_cofix_frames_dropped_total\{.*reason="outage".*\} 0', text, re.MULTILINE)
    for name in ("fixes_total", "fix_ms_count", "fuse_ms_count", "snapshots_total"):
        assert values[name, "", "", ""] == summary["fixes"] == summary["snapshots"]
    assert values["fix_ms_bucket", "", "", "+Inf"] == summary["fixes"] and values["rounds_waiting", "", "", ""] == 0


def test_gpus_are_shared_as_asked(settings: EmulateSettings, nodes: Nodes) -> None:
    """Ray takes a node's word for its GPUs, so none is needed."""
    import ray

    from sim.emulate.ray_session import ray_session

    class Actor:
        def share(self) -> tuple[list[int], float]:
            return ray.get_gpu_ids(), ray.get_runtime_context().get_assigned_resources()["GPU"]

    nodes.add(num_cpus=1, num_gpus=2)
    with ray_session(nodes.address, []):
        shared: Any = ray.remote(Actor).options(**reserved(0.1, 0.4), scheduling_strategy="SPREAD")
        actors = [shared.remote() for _ in range(5)]
        fit, rest = ray.wait([actor.share.remote() for actor in actors], num_returns=4, timeout=60.0)
        shares = ray.get(fit)
        assert Counter(gpu for (gpu,), _ in shares) == {0: 2, 1: 2} and {share for _, share in shares} == {0.4}
        assert ray.wait(rest, timeout=0.5)[0] == []  # 0.2 of each GPU is left
    settings = dataclasses.replace(settings, ray_address=nodes.address, node_label=None)
    with pytest.raises(
        UserError, match=r"room for 2 of 3 actors that reserve 0\.1 CPUs and 0\.6 GPUs each: lower --gpus"
    ):
        emulate(dataclasses.replace(settings, gpus_per_bs=0.6))


def test_base_stations_of_a_lost_node_go_on_at_another(settings: EmulateSettings, nodes: Nodes) -> None:
    """Without a label any node will do."""
    import ray

    from sim.emulate.ray_driver import Run

    settings = dataclasses.replace(settings, ray_address=nodes.address, node_label=None, snapshots=90)
    homes: dict[int, str | None] = {}
    lost: list[str] = []

    def kill(run: Run) -> None:
        now = {edge.stations[0]: edge.node for edge in run.edges}
        if not run.t0_ns or time.time_ns() < run.t0_ns + 300_000_000:
            return
        if not lost:
            lost.append(next(node for node in now.values() if node and node != ray.get_runtime_context().get_node_id()))
            homes.update(now)
            nodes.kill(lost[0])
        assert all(node in (None, homes[bs]) or homes[bs] == lost[0] != node for bs, node in now.items())

    result = emulate(settings, on_tick=kill)
    found = result.summary
    away = {f"BS {bs}" for bs, node in homes.items() if node == lost[0]}
    assert {each["name"] for each in found["restarts"] if each["node_lost"] and each["t_back_ns"]} == away
    assert len(found["restarts"]) == len(away) and found["missing_bs"] == []
    used = pq.read_table(result.folder / "fixes.parquet", columns=["used_bs"])["used_bs"].to_pylist()
    assert used[-1] == [0, 1, 2] and len(used) == settings.snapshots
    assert found["strays"] == 0 and found["conservation"]["ok"]
    assert audit(result.folder).ok and check_books(result.folder).ok and replay(result.folder).ok
