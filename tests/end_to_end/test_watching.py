"""What the driver of a run on Ray does when the cloud dies, without Ray: its calls are answered here."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

import sim.emulate.ray_session  # isort: skip  # noqa: F401 - before Ray: it sets its environment

from ray.exceptions import ActorDiedError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sim.emulate import ray_driver as cluster
from sim.emulate import ray_launch as launch
from sim.emulate.ray_launch import Launcher, Process
from sim.plan.plan import load_plan
from sim.plan.settings import EmulateSettings
from sim.records.folder import RunFolder


@dataclass
class FakeActor:
    """Notes what is asked; every call is what it was called."""

    asked: list[tuple[str, int]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: self._called(name, arguments))

    def _called(self, name: str, arguments: tuple[Any, ...]) -> str:
        if name == "ask":
            self.asked.append(arguments[0])
        return name


class FakeLauncher:
    """Lives of the cloud as they are started."""

    node, address = "here", "tcp://127.0.0.1:5"

    def __init__(self) -> None:
        self.incarnations: list[Process] = []

    def cloud(self, incarnation: int = 0) -> Process:
        self.incarnations.append(Process(FakeActor(), "The cloud", number=incarnation, connecting="listen"))
        return self.incarnations[-1]

    def stands(self, process: Process) -> None:
        process.connecting = None


Watched = Callable[[bool], tuple[cluster.Run, FakeLauncher]]


@pytest.fixture
def watched(settings: EmulateSettings, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Return what makes a run whose cloud, that has its streams here or elsewhere, is about to die."""

    def get(call: str, timeout: float | None = None) -> str:
        if call == "dead":
            raise RayActorError
        if call == "refused":
            raised = AssertionError("Torch not compiled with CUDA enabled")
            raise ActorDiedError(RayTaskError("__init__", f"Traceback:\nAssertionError: {raised}", raised))
        return call

    def make(here: bool) -> tuple[cluster.Run, FakeLauncher]:
        monkeypatch.setattr(cluster.ray, "get", get)
        plan = load_plan(replace(settings, driver="ray", restarts=2))
        folder, launcher = RunFolder.create(plan.settings, "tiny"), FakeLauncher()
        run = cluster.Run(plan, folder, lambda _: None, lambda _: None, launcher, None)  # type: ignore[arg-type]
        run.cloud = Process(FakeActor(), "The cloud", running="dead")
        run.edges = [Process(FakeActor(), f"BS {bs}", [bs], running="run") for bs in range(3)]
        if here:
            (folder.links / "cloud-0-sent.arrow").write_bytes(b"")
        return run, launcher

    return make


def test_base_stations_start_beside_the_cloud_and_connect_once_it_listens(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, launcher = watched(True)
    waiting = [Process(FakeActor(), f"BS {bs}", [bs]) for bs in range(2)]
    monkeypatch.setattr(launcher, "edges", lambda: waiting, raising=False)
    monkeypatch.setattr(cluster.ray, "wait", lambda calls, **_: (calls, []))

    def connect(edge: Process) -> None:
        assert edge is waiting[0] and run.edges is waiting  # all have been started
        raise InterruptedError(launcher.address)

    monkeypatch.setattr(launcher, "connect", connect, raising=False)
    with pytest.raises(InterruptedError, match="listen"):  # what the cloud's call returned
        run.run()
    assert launcher.incarnations[0].actor.asked == []  # nobody is gone who has not come yet


def test_a_new_incarnation_is_told_again_who_ended_for_good(watched: Watched) -> None:
    run, launcher = watched(True)
    run.t0_ns = 77
    run.edges[1].running = None  # ended for good
    run.edges[2].running, run.edges[2].connecting = None, "connect"  # is coming back
    assert run.cloud is not None
    assert not run._cloud_done(run.cloud, "dead")
    (again,) = launcher.incarnations
    assert run.cloud is again and again.number == 1 and again.restart
    assert not run._cloud_done(again, "listen")
    assert again.actor.asked == [("start", 77), ("gone", 1)]
    assert again.running == "serve" and [restart.name for restart in run.restarts] == ["The cloud"]


def test_a_cloud_that_died_elsewhere_is_not_started_again(watched: Watched) -> None:
    run, launcher = watched(False)
    assert run.cloud is not None
    assert run._cloud_done(run.cloud, "dead")
    assert launcher.incarnations == []
    assert run._failures == ["The cloud died on another node: its streams are there, so it cannot be restarted here."]


def test_what_cannot_start_on_its_node_ends_the_run(watched: Watched) -> None:
    """As where a node's torch has no CUDA: a process that raises is not started again."""
    run, launcher = watched(True)
    assert run.cloud is not None
    run.edges[0].connecting = "refused"
    run._edge_done(run.edges[0], "refused")
    assert run._cloud_done(run.cloud, "refused") and launcher.incarnations == [] and run.restarts == []
    assert run._failures == [
        f"{name} failed: AssertionError: Torch not compiled with CUDA enabled" for name in ("BS 0", "The cloud")
    ]


def test_what_does_not_come_up_again_is_given_up(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = watched(True)
    killed: list[object] = []
    monkeypatch.setattr(cluster.ray, "kill", killed.append)
    late, soon = run.edges[0], run.edges[1]
    now_ns = time.time_ns()
    for edge, since_s in ((late, cluster.START_S + 1), (soon, cluster.START_S - 60)):
        edge.running, edge.connecting, edge.restart = None, "connect", now_ns - round(since_s * 1e9)
    assert not run._give_up_on_late_starts()
    assert killed == [late.actor] and late.connecting is None and soon.connecting == "connect"
    assert run._failures == [] and [restart.name for restart in run.restarts] == [late.name]
    assert run.cloud is not None
    run.cloud.connecting, run.cloud.restart = "listen", 1
    assert run._give_up_on_late_starts()  # without the cloud nothing goes on
    assert run._failures == ["The cloud was started again and did not come up within 180 s."]


def test_every_incarnation_of_the_cloud_is_held_to_this_node(
    settings: EmulateSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed: list[NodeAffinitySchedulingStrategy] = []
    ports: list[int] = []

    def options(scheduling_strategy: NodeAffinitySchedulingStrategy, **_: object) -> Any:
        placed.append(scheduling_strategy)
        listen = SimpleNamespace(remote=lambda host, port, *_: ports.append(port))
        return SimpleNamespace(remote=lambda *_: SimpleNamespace(listen=listen))

    monkeypatch.setattr(launch.ray, "remote", lambda _: SimpleNamespace(options=options))
    monkeypatch.setattr(
        launch.ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "ab" * 28), raising=False
    )
    plan = load_plan(settings)
    launcher = Launcher(plan, RunFolder.create(settings, "tiny"), True, None)
    launcher.cloud()
    launcher.address = "tcp://127.0.0.1:4711"
    launcher.cloud(1)
    assert [(strategy.node_id, strategy.soft) for strategy in placed] == 2 * [("ab" * 28, False)]
    assert ports == [0, 4711]
