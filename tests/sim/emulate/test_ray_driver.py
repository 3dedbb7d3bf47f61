"""Runs on Ray and ZeroMQ: the same bits and fixes as in process, and ends that are never silent."""

import dataclasses
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dying_scheme
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import run_tables

from edge.scheme import EdgeScheme, EdgeSetup
from fronthaul.link.link_file import link_plan
from fronthaul.roster import Roster
from sim.emulate.emulator import RunResult, emulate
from sim.errors import UserError
from sim.inspect.audit import audit
from sim.inspect.frames import check_books, recover
from sim.inspect.replay import replay
from sim.plan import plan as compose
from sim.plan.settings import EmulateSettings
from sim.records.folder import RunFolder

if TYPE_CHECKING:
    from sim.emulate.ray_driver import Run

pytestmark = pytest.mark.ray

SAME = [
    *("bs", "epoch", "snapshot", "seq", "payload_bits", "crc32", "side", "payload", "zmtp_bytes"),
    *("frame_fate", "report_fate", "reason"),
]
"""Columns of a ledger that both drivers must agree on."""


@pytest.fixture
def settings(settings: EmulateSettings) -> EmulateSettings:
    # The deadline is far away: an overloaded machine must not change who takes part.
    return dataclasses.replace(settings, driver="ray", snapshots=12, deadline_ms=30_000.0, cpus_per_bs=0.1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Yield the address of two nodes, one CPU each."""
    from sim.emulate.ray_session import own_token  # isort: skip  # before Ray: it sets its environment

    from ray.cluster_utils import Cluster

    with own_token():
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        made.add_node(num_cpus=1)
        yield made.address
        made.shutdown()  # type: ignore[no-untyped-call]


def fixes(folder: Path) -> pa.Table:
    names = ["snapshot", "x_m", "y_m", "z_m", "used_bs", "used_epoch", "error_3d_m"]
    return pq.read_table(folder / "fixes.parquet", columns=names)


def require_same_as_in_process(settings: EmulateSettings) -> RunResult:
    """Run on Ray and in process; return the former, of which the kernels counted what was predicted, to the byte."""
    on_ray = emulate(settings)
    in_process = emulate(settings.in_process())
    assert run_tables.rows(on_ray.folder, SAME) == run_tables.rows(in_process.folder, SAME)
    assert fixes(on_ray.folder).equals(fixes(in_process.folder))
    for key in ("frames", "reports", "conservation", "missing_bs"):
        assert on_ray.summary[key] == in_process.summary[key]
    counted, simulated = (result.summary["bytes"] for result in (on_ray, in_process))
    for key in ("payload", "side", "header", "padding", "zmtp"):
        assert counted[key] == simulated[key]
    assert simulated["heartbeat"] == simulated["curve"] == 0 < counted["heartbeat"]
    kernel = on_ray.summary["bytes_kernel"]
    assert kernel["exact"] and kernel["cut_connections"] == 0
    least, most = kernel["predicted_least"], kernel["predicted_most"]
    assert sum(counted.values()) == least == most == kernel["sent"] == kernel["received"]
    stages = {"start", "estimate", "encode", "pack", "fronthaul", "wait", "fuse", "total"}
    assert set(on_ray.summary["latency_ms"]) == stages
    assert replay(on_ray.folder).identical == on_ray.summary["fixes"] == settings.snapshots
    assert not list(on_ray.folder.rglob("*.arrow"))
    return on_ray


def policies(run: "Run") -> set[int]:
    """Return how the threads of a run's processes are scheduled."""
    assert run.cloud is not None
    threads = [folder for each in (run.cloud, *run.edges) for folder in Path(f"/proc/{each.pid}/task").glob("*")]
    return {os.sched_getscheduler(int(folder.name)) for folder in threads}


def test_ray_on_this_host_gives_what_the_process_gives(
    settings: EmulateSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    """Over links that lose, copy and damage frames: draws know no time, so both drivers' are the same."""
    links = link_plan({"default": {"delay": "2ms", "loss": "10%", "duplicate": "10%", "corrupt": "10%"}})
    chosen = dataclasses.replace(settings, bs_per_actor=2, links=links, snapshots=30)
    found = require_same_as_in_process(chosen).summary
    assert capfd.readouterr().out == ""
    assert not found["encrypted"] and found["bytes"]["curve"] == 0
    assert all(found["frames"][fate] > 3 for fate in ("duplicate", "corrupt", "dropped"))
    assert found["reports"]["lost"] > 3
    for link in found["links"]:
        assert False not in (link["within"] | {"delay": None}).values()  # a busy machine adds to the delay


def test_random_subsets_are_drawn_alike_at_both_ends(settings: EmulateSettings) -> None:
    """Each node draws for itself; batches and bundles hold snapshots in which some are silent.

    In closed loop, where the threads of all processes take long turns on a core.
    """
    chosen = dataclasses.replace(
        settings, bs=2, random_subset=True, batch=3, bundle=2, bs_per_actor=2, curve=True, snapshots=20, compact=True
    )
    chosen = dataclasses.replace(chosen, interval_ms=0.0, deadline_ms=EmulateSettings.deadline_ms)
    seen: list[set[int]] = []

    def look(run: "Run") -> None:
        if run.t0_ns and not seen:
            time.sleep(1.0)  # until all have begun
            seen.append(policies(run))

    on_ray = emulate(chosen, on_tick=look)
    assert seen == [{os.SCHED_BATCH}]
    in_process = emulate(chosen.in_process())
    free = set(SAME) - {"zmtp_bytes"}  # a frame is longer where it is encrypted
    assert run_tables.rows(on_ray.folder, free) == run_tables.rows(in_process.folder, free)
    roster = Roster(chosen.seed, 3, 2)
    for found in (on_ray, in_process):
        assert fixes(found.folder)["used_bs"].to_pylist() == [sorted(roster.of(n)) for n in range(chosen.snapshots)]
        assert audit(found.folder).ok and check_books(found.folder).ok and replay(found.folder).ok


def test_two_nodes_give_what_the_process_gives(settings: EmulateSettings, cluster: str) -> None:
    """On a cluster links are encrypted, unless told otherwise; both nodes are this host, so its clock is one."""
    chosen = dataclasses.replace(settings, ray_address=cluster, compact=True)
    found = require_same_as_in_process(chosen).summary
    assert found["bytes"]["header"] == 6 * settings.bs * settings.snapshots
    assert found["encrypted"] and found["bytes"]["curve"] > 0
    assert found["frames"]["delivered"] == settings.bs * settings.snapshots
    assert found["clock_offsets"] == []


def test_a_port_in_use_is_one_sentence(settings: EmulateSettings, cluster: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        changed = dataclasses.replace(settings, ray_address=cluster, host="127.0.0.1", port=port)
        with pytest.raises(UserError, match=f"port {port} on 127.0.0.1 is in use"):
            emulate(changed)
    assert list(settings.output.iterdir()) == []


def test_too_few_cpus_are_one_sentence(settings: EmulateSettings, cluster: str) -> None:
    with pytest.raises(UserError, match=r"reserve 6\.5 CPUs, Ray has 2: lower --cpus-per-bs"):
        emulate(dataclasses.replace(settings, ray_address=cluster, cpus_per_bs=2.0))
    with pytest.raises(UserError, match=r"An actor of 3 base stations reserves 1\.2 CPUs"):
        emulate(dataclasses.replace(settings, ray_address=cluster, cpus_per_bs=0.4, bs_per_actor=3))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (dying_scheme.build_exiting, "BS 1 died"),
        (dying_scheme.build_failing, r"BS 2 failed: no such logarithm \(ArithmeticError\)"),
    ],
)
def test_a_base_station_that_ends_early_is_named_and_accounted(
    settings: EmulateSettings,
    cluster: str,
    monkeypatch: pytest.MonkeyPatch,
    build: Callable[[EdgeSetup], EdgeScheme],
    sentence: str,
) -> None:
    monkeypatch.setattr(compose, "load_edge_scheme", lambda _: build)
    with pytest.raises(UserError, match=sentence):
        emulate(dataclasses.replace(settings, ray_address=cluster, restarts=0))
    (folder,) = settings.output.iterdir()
    assert folder.name.endswith(".part")
    used = fixes(folder)["used_bs"].to_pylist()
    assert len(used) == settings.snapshots  # the others went on
    assert len(used[0]) == 3 and len(used[-1]) == 2
    found = recover(folder)
    assert found.conservation.ok and found.conservation.frames_journaled >= 2 * settings.snapshots
    assert len(found.books.fixes) == settings.snapshots


def test_links_over_ipv6_give_what_the_process_gives(settings: EmulateSettings) -> None:
    """Below the stream, only the IP header is longer."""
    links = link_plan({"default": {"loss": "10%", "rate": "10mbit"}})
    chosen = dataclasses.replace(settings, host="::1", links=links)
    found = require_same_as_in_process(chosen)
    in_process = emulate(chosen.in_process()).summary["bytes_modelled"]
    modelled, crossed = found.summary["bytes_modelled"], found.summary["frames"]
    segments = sum(crossed[fate] for fate in ("delivered", "duplicate", "corrupt"))
    for name in ("tcpip", "ethernet"):
        assert modelled[name] == in_process[name] + 20 * segments
    for link in found.summary["links"]:
        assert link["within"]["rate"] is not False
    assert audit(found.folder).ok


def test_an_unknown_host_is_told_before_ray_starts(settings: EmulateSettings) -> None:
    with pytest.raises(UserError, match=r"^--host: there is no host 'nowhere\.invalid': [^(]*\.$"):
        emulate(dataclasses.replace(settings, host="nowhere.invalid"))
    assert list(settings.output.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("nowhere.invalid:6379", "there is no host 'nowhere.invalid'"),
        ("[::1]:1", r"No Ray cluster answers at --ray-address \[::1\]:1: Connection refused"),
        ("::1:6379", r"or \[fd00::5\]:6379"),
    ],
)
def test_a_clusters_address_may_be_a_name_or_of_ipv6(settings: EmulateSettings, address: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        emulate(dataclasses.replace(settings, ray_address=address))


@pytest.mark.slow
def test_a_run_goes_on_where_somebody_sets_the_clock(
    settings: EmulateSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward by 3 s, and back by a minute."""
    wall_ns = time.time_ns
    settings = dataclasses.replace(settings, snapshots=40, deadline_ms=3000.0, bs_per_actor=3)
    steps = iter((3, 3, 3, -60))
    seen: set[int] = set()

    def set_clock(run: "Run") -> None:
        if run.t0_ns and (step_s := next(steps, None)) is not None:
            monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + step_s * 10**9)
            seen.update(policies(run))

    begin_s = time.monotonic()
    result = emulate(settings, on_tick=set_clock)
    assert 0 < result.summary["seconds"] < time.monotonic() - begin_s
    assert result.summary["fixes"] == 40
    assert seen == {os.SCHED_OTHER}  # with an interval, no thread waits longer for a core than the kernel says
    (note,) = [note for note in result.summary["notes"] if "wall clock" in note]
    assert note.startswith("The wall clock was set by -60 s during the run")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "ray://127.0.0.1:10001"])
def test_an_address_without_ray_is_refused_quickly(settings: EmulateSettings, address: str) -> None:
    begin = time.monotonic()
    with pytest.raises(UserError, match="--ray-address"):
        emulate(dataclasses.replace(settings, ray_address=address))
    assert time.monotonic() - begin < 30  # Ray takes minutes
    assert list(settings.output.iterdir()) == []


def test_a_port_where_something_else_listens_is_refused_quickly(settings: EmulateSettings) -> None:
    begin = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(UserError, match=f"No Ray cluster answers at --ray-address {address}"):
            emulate(dataclasses.replace(settings, ray_address=address))
    assert time.monotonic() - begin < 30  # Ray takes minutes


OUTSIDER = """
import os, sys, ray
from ray._raylet import GcsClient
def me():
    return os.getuid()
GcsClient(address=sys.argv[1])  # the first step of `init`, which tries it again for 20 s
ray.init(address=sys.argv[1], logging_level="CRITICAL", log_to_driver=False)
print("ran as", ray.get(ray.remote(me).remote(), timeout=30))
"""
"""What whoever reaches Ray's port can do: run code as Ray's user."""


def outsider(address: str, **variables: str) -> subprocess.Popen[str]:
    """Let another process attach to a running Ray."""
    free = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")}
    command = [sys.executable, "-c", OUTSIDER, address]
    return subprocess.Popen(command, env=free | variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_ray_admits_nobody_without_the_token(settings: EmulateSettings, tmp_path: Path) -> None:
    from sim.emulate.ray_session import ray_session  # isort: skip  # before Ray: it sets its environment

    import ray

    from sim.emulate.ray_metrics import RayMetrics

    elsewhere = tmp_path / "token"
    elsewhere.write_text("0" * 64)
    before = {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH_")}
    plan = compose.load_plan(settings)
    with ray_session(None, [plan]):
        with pytest.raises(UserError, match="Ray on this machine exports no metrics"):  # that port asks for no token
            RayMetrics(plan, RunFolder(tmp_path))
        token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        address = ray.get_runtime_context().gcs_address
        port = int(address.rsplit(":", 1)[1])
        with pytest.raises(ConnectionRefusedError):  # it listens at 127.0.0.1, not at every address
            socket.create_connection(("127.0.0.2", port)).close()
        stranger = outsider(address, RAY_AUTH_MODE="disabled")
        liar = outsider(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(elsewhere))
        friend = outsider(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token))
        assert f"ran as {os.getuid()}" in friend.communicate(timeout=120)[0]
        for refused in (stranger, liar):
            said, _ = refused.communicate(timeout=120)
            assert "InvalidAuthToken" in said and "ran as" not in said
    assert not token.exists()
    assert before == {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH_")}


def test_another_token_than_the_clusters_is_one_sentence(
    settings: EmulateSettings, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = dataclasses.replace(settings, ray_address=cluster)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    with pytest.raises(UserError, match=f"at --ray-address {cluster} refuses the token: set RAY_AUTH_TOKEN_PATH"):
        emulate(changed)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(settings.output / "nowhere"))
    with pytest.raises(UserError, match=f"no token for the Ray cluster at --ray-address {cluster}"):
        emulate(changed)
    assert list(settings.output.iterdir()) == []
