"""The Ray driver: actors as base stations and cloud, ZeroMQ between them, wall clock.

Ray only places and starts processes; all reports travel over the fronthaul.

    driver                      cloud actor                   edge actors (one or several BSs each)
      | start -------------------> import, load networks ------> import, load networks
      | listen ------------------> bind, address
      | serve -------------------> poll ... poll ... poll
      | connect -------------------------------------------------> register, welcome
      | ask start(t0) -----------> t0
      | run(t0) -------------------------------------------------> pace, send, answer, goodbye
      | close -------------------> streams                        streams

A process that dies, also while it starts, is restarted, as often as the settings allow: a base station in its next
epoch, from the next snapshot that is due; the cloud in its next incarnation, from the logs of the previous one, at the
same port. One that dies after its work was done is not, and the run ends well: what it recorded is on disk. Every wait
has a limit: an actor that does not start, fails or falls silent makes the run fail with an error that names the actor;
what was recorded until then is kept.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sim.emulate.ray_session import has_died, ray_session, sentence  # isort: skip  # before Ray: it sets its environment

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from cloud.cloud_spec import CloudOutcome
from fronthaul.clock import adopt, origin, read_origin, real_ns
from fronthaul.errors import LocalError, TransportError
from fronthaul.log.sent import read_journal
from fronthaul.log.stream_names import SENT, incarnation_name
from fronthaul.message.messages import Direction
from fronthaul.message.wire import report_keys
from fronthaul.transport.endpoint import host_of
from sim.emulate.ray_launch import START_EACH_S, START_S, Launcher, Process, ray_nodes
from sim.emulate.ray_metrics import RayMetrics
from sim.emulate.ray_room import require_room
from sim.errors import UserError
from sim.kernel.namespaces import Namespaces
from sim.plan.outcome import OnProgress, Progress, Restart, RunRecord
from sim.plan.plan import Plan
from sim.records.folder import RunFolder

LEAD_S = 0.5
"""Time from the call that starts a run to its t0 [s], so that the call reaches every actor before t0."""
IDLE_S = 15.0
"""Silence after which the cloud gives up on a base station [s], in addition to the longest regular silence."""
END_S = 10.0
"""How long base stations may take to return once the cloud has finished [s]."""
TICK_S = 0.2
"""Time between two checks of the actors [s]."""

LOOK_S = 2.0
"""Time between two looks whether all nodes of a cluster answer [s]."""

OnTick = Callable[["Run"], None]


def run_on_ray(plan: Plan, folder: RunFolder, on_progress: OnProgress, on_tick: OnTick = lambda _: None) -> RunRecord:
    """Run a plan on Ray; all streams go to `folder`.

    Args:
        plan: what to run.
        folder: folder of the run.
        on_progress: called with the progress of the run.
        on_tick: called a few times a second during the run, for fault injection.

    Raises:
        UserError: Ray is not available, actors do not fit or do not start, or the port is in use. Later errors are
            listed in the record's `failures`.
    """
    _require_host(plan.settings.host)
    adopt(read_origin())
    stations = [site.station.bs for site in plan.sites]
    spaces = Namespaces(stations, plan.settings.links) if plan.settings.netns else None
    with ray_session(plan.settings.ray_address, [plan]) as local, spaces or contextlib.nullcontext():
        require_room(plan.settings, len(stations), ray_nodes(), ray.get_runtime_context().get_node_id())
        metrics = RayMetrics(plan, folder) if plan.settings.metrics else None
        run = Run(plan, folder, on_progress, on_tick, Launcher(plan, folder, local, spaces), spaces, metrics)
        try:
            return run.run()
        finally:
            run.kill()
            if metrics is not None:
                metrics.close()


def _is_unanswered(error: RayError) -> bool:
    """Return whether a base station failed because its link did not bring the cloud's answer."""
    return isinstance(error, RayTaskError) and isinstance(error.cause, TransportError)


def _require_host(name: str | None) -> None:
    """Check that the name of the cloud's host is known; whoever listens there finds out whether it is this machine.

    Raises:
        UserError: it is not.
    """
    scheme, _, host = (name or "").rpartition("://")
    if not host or scheme not in ("", "tcp"):  # none, or an address of another transport
        return
    try:
        host_of(host)
    except LocalError as error:
        raise UserError(f"--host: {error}.") from error


class Run:
    """The actors of one run, from their start to their end.

    Attributes:
        cloud: process of the cloud.
        edges: processes of the base stations.
        t0_ns: time zero of snapshot 0 [ns]; 0 before the start.
        restarts: processes that died and were restarted.
    """

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        on_progress: OnProgress,
        on_tick: OnTick,
        launcher: Launcher,
        spaces: Namespaces | None,
        metrics: RayMetrics | None = None,
    ) -> None:
        self._plan = plan
        self._settings = plan.settings
        self._folder = folder
        self._on_progress = on_progress
        self._on_tick = on_tick
        self._launcher = launcher
        self._spaces = spaces
        self._metrics = metrics
        self._down: set[int] = set()  # links that are down on schedule, in namespaces
        self._failures: list[str] = []
        self.cloud: Process | None = None
        self.edges: list[Process] = []
        self.t0_ns = 0
        self.restarts: list[Restart] = []
        self._step_ns = 0
        self._next_look_s = 0.0
        self._zombies: list[Process] = []
        self._excused: set[int] = set()  # base stations that may be missing: link down at the end, or not started again
        self._outcome: CloudOutcome | None = None  # of the cloud's last incarnation, once it has finished

    def run(self) -> RunRecord:
        """Start all actors, supervise them until the run ends, and collect their streams."""
        self.cloud = self._launcher.cloud()
        self.edges = self._launcher.edges()
        limit_s = START_S + START_EACH_S * len(self.edges)
        self._start_up(limit_s)
        for edge in self.edges:
            self._launcher.connect(edge)
        self._start_up(limit_s)
        self.t0_ns = real_ns() + round(LEAD_S * 1e9)
        if self._metrics is not None:
            self._metrics.begin(self.t0_ns)
        self._ask(("start", self.t0_ns))
        for edge in self.edges:
            edge.running = edge.actor.run.remote(self._plan.schedule(self.t0_ns), 0, self._end_s)
        self._watch()
        seconds = max(0.0, (real_ns() - self.t0_ns) / 1e9)
        self._await_end()
        self._close_edges()
        if self._metrics is not None and (progress := self._progress()) is not None:
            self._metrics.update(self._settings.snapshots, progress[1])
        self._close_cloud()
        return RunRecord(
            cloud=self._judged_outcome(),
            t0_ns=self.t0_ns,
            wall_clock=True,
            seconds=seconds,
            address=self._launcher.address,
            failures=self._failures,
            restarts=self.restarts,
            step_ns=self._step_ns,
        )

    def kill(self) -> None:
        """Kill all actors that are still alive."""
        for process in (self.cloud, *self.edges, *self._zombies):
            if process is not None:
                ray.kill(process.actor)
        self._launcher.kill()

    # -- fault injection, see `sim.emulate.chaos`

    def edge_of(self, bs: int) -> Process:
        """Return the process of a base station."""
        return next(edge for edge in self.edges if bs in edge.stations)

    def cut(self, bs: int, seconds: float) -> None:
        """Cut the TCP connection of a base station for `seconds` [s]."""
        self.edge_of(bs).actor.cut.remote(bs, seconds)

    def replace(self, bs: int) -> Process:
        """Start a new process for a base station while the old one still runs; return the old one, which goes on."""
        old = self.edge_of(bs)
        self.edges[self.edges.index(old)] = fresh = self._launcher.edge(old.stations, old.number + 1)
        fresh.restart = real_ns()
        self._zombies.append(old)
        return old

    @property
    def _idle_s(self) -> float:
        # A batch is silent for as long as it collects.
        settings = self._settings
        return IDLE_S + settings.batch * settings.interval_ms / 1e3 + settings.deadline_ms / 1e3

    @property
    def _end_s(self) -> float:
        """How long a base station waits for the cloud's goodbye [s]: longer than a restart of the cloud takes."""
        return 3 * IDLE_S

    # -- running

    def _start_up(self, limit_s: float) -> None:
        """Wait until all processes are up, at most `limit_s` [s]; restart those that die meanwhile.

        Raises:
            UserError: one does not come up, or is refused.
        """
        until_s = time.monotonic() + limit_s
        while late := [process for process in self._processes if process.connecting is not None]:
            if self._turn() or self._failures:
                raise UserError(" ".join(self._failures))
            if time.monotonic() > until_s:
                raise UserError(
                    f"{late[0].name} did not start in time: Ray may have too few CPUs free, or none of its nodes fits."
                )

    def _watch(self) -> None:
        """Wait until the cloud has finished; restart processes that die."""
        while not self._turn() and not self._give_up_on_late_starts():
            self._outages()
            self._notice_lost_nodes()
            progress = self._progress()
            if progress is not None:
                self._on_progress(Progress("run", progress[0], self._settings.snapshots))
                if self._metrics is not None:
                    self._metrics.update(*progress)

    def _turn(self) -> bool:
        """Wait a moment for a call to return, and handle it; return whether the run is over."""
        waiting = {
            call: process for process in self._processes if (call := process.connecting or process.running) is not None
        }
        done, _ = ray.wait(list(waiting), num_returns=1, timeout=TICK_S)
        for call in done:
            process = waiting[call]
            if process is not self.cloud:
                self._edge_done(process, call)
            elif self._cloud_done(process, call):
                return True
        self._on_tick(self)
        self._step_ns = max(self._step_ns, read_origin().t_ns - origin().t_ns, key=abs)
        return False

    @property
    def _processes(self) -> list[Process]:
        return [process for process in (self.cloud, *self.edges) if process is not None]

    def _give_up_on_late_starts(self) -> bool:
        """Give up on restarted processes that do not come up; return whether the cloud is one, which ends the run.

        The run goes on without base stations.
        """
        late_ns = real_ns() - round(START_S * 1e9)
        for process in self._processes:
            if process.connecting is None or process.restart is None or process.restart > late_ns:
                continue
            if process is self.cloud:
                self._failures.append(f"{process.name} was started again and did not come up within {START_S:g} s.")
                process.connecting = process.running = None
                return True
            self._absent(process)
        return False

    def _outages(self) -> None:
        """Take links of namespaces down and up on schedule; without namespaces the link model does it."""
        if self._spaces is None:
            return
        after_s = (real_ns() - self.t0_ns) / 1e9
        for edge in self.edges:
            for bs in edge.stations:
                config = self._settings.links.config(bs, Direction.UP)
                down = config is not None and any(begin <= after_s < end for begin, end in config.outages)
                if down != (bs in self._down):
                    self._spaces.outage(bs, down)
                    self._down ^= {bs}

    def _cloud_done(self, cloud: Process, call: Any) -> bool:
        """Handle a call of the cloud that returned; return whether the run is over."""
        try:
            result = ray.get(call)
        except RayError as error:
            if not has_died(error) or cloud.number >= self._settings.restarts:
                self._failures.append(sentence(error, cloud.name))
                return True
            if cloud.connecting is None and not self._folder.links.joinpath(f"{incarnation_name(0)}{SENT}").exists():
                self._failures.append(
                    f"{cloud.name} died on another node: its streams are there, so it cannot be restarted here."
                )
                return True
            self.cloud = self._launcher.cloud(cloud.number + 1)
            self.cloud.restart = cloud.restart or real_ns()
            return False
        if cloud.connecting is None:
            self._outcome = result
            return True
        self._launcher.address = result
        self._launcher.stands(cloud)  # it listens
        if self.t0_ns:
            self._ask(("start", self.t0_ns))
            for edge in self.edges:
                if edge.ended:  # what the dead incarnation was told of it, if anything, is in none of its streams
                    self._gone(edge.stations)
        cloud.running = cloud.actor.serve.remote(self._idle_s)
        self._back(cloud)
        return False

    def _edge_done(self, edge: Process, call: Any) -> None:
        try:
            end = ray.get(call)
        except RayError as error:
            if has_died(error):
                self._edge_died(edge, sentence(error, edge.name))
                return
            if self.t0_ns and edge.connecting is not None and _is_unanswered(error):
                self._absent(edge)
                return
            self._gone(edge.stations)
            self._failures.append(sentence(error, edge.name))
            edge.connecting = edge.running = None
            return
        if edge.connecting is None:
            edge.running = None
            self._excused.update(end.cut_off)
            self._gone(end.cut_off)
            if end.unanswered and not self._failures:
                missed = ", ".join(map(str, end.unanswered))
                self._failures.append(f"BS {missed} received no goodbye from the cloud.")
            return
        self._launcher.stands(edge)  # it is registered
        self._back(edge)
        if self.t0_ns:
            first = max(self._next_of(bs) for bs in edge.stations)
            edge.running = edge.actor.run.remote(self._plan.schedule(self.t0_ns), first, self._end_s)

    def _edge_died(self, edge: Process, why: str) -> None:
        """Start a process again in its next epoch, if it is needed and there is a place for it."""
        if self._outcome is not None:  # its work was done
            self._died(edge)
            return
        self._gone(edge.stations)
        if edge.number >= self._settings.restarts:
            self._failures.append(why)
            edge.connecting = edge.running = None
            return
        edge.restart = edge.restart or real_ns()
        edge.node_lost |= edge.node in self._launcher.lost_nodes()
        if not self._launcher.has_place(edge.stations):
            self._absent(edge)
            return
        self.edges[self.edges.index(edge)] = fresh = self._launcher.edge(edge.stations, edge.number + 1)
        fresh.restart, fresh.node_lost = edge.restart, edge.node_lost

    def _notice_lost_nodes(self) -> None:
        """Treat processes on nodes that do not answer as dead; Ray waits for what they have to say."""
        if time.monotonic() < self._next_look_s:
            return
        lost = self._launcher.lost_nodes()
        for edge in [edge for edge in self.edges if edge.node in lost and not edge.ended]:
            ray.kill(edge.actor)
            self._edge_died(edge, f"{edge.name} died: its node does not answer.")
        self._next_look_s = time.monotonic() + LOOK_S

    def _absent(self, edge: Process) -> None:
        """Go on without a base station that was started again and does not get to work."""
        ray.kill(edge.actor)
        self.restarts.append(Restart(edge.name, edge.restart or 0, None, edge.node_lost))
        edge.connecting = edge.running = edge.pid = None
        self._excused.update(edge.stations)
        self._gone(edge.stations)

    def _gone(self, stations: list[int]) -> None:
        """Tell the cloud that base stations are gone, without waiting: it may be frozen or dead itself."""
        assert self.cloud is not None
        if self.cloud.connecting is None:  # else it does not listen yet, and waits for nobody
            for bs in stations:
                self.cloud.actor.ask.remote(("gone", bs))

    def _died(self, process: Process) -> None:
        """Note that a process died after its work was done; it is not started again."""
        self.restarts.append(Restart(process.name, real_ns(), None, process.node in self._launcher.lost_nodes()))
        process.connecting = process.running = process.pid = None

    def _back(self, process: Process) -> None:
        if process.restart is not None:
            self.restarts.append(Restart(process.name, process.restart, real_ns(), process.node_lost))
            process.restart = None

    def _next_of(self, bs: int) -> int:
        """Return the snapshot after the last one that earlier epochs of a BS have journaled here; at least 1."""
        last = 0
        for path in self._folder.streams(SENT, bs):
            try:
                messages = read_journal(path)["message"].to_pylist()
            except LocalError:  # never begun
                continue
            last = max([last, *(key.snapshot for data in messages for key in report_keys(data))])
        return last + 1

    # -- ending

    def _await_end(self) -> None:
        """Wait a limited time for base stations to return, and not at all if the cloud said no goodbye."""
        until_s = time.monotonic() + (END_S if self._outcome is not None else 0.0)
        for edge in self.edges:
            if edge.connecting is not None:  # started again, and too late for anything
                self._absent(edge)
            elif edge.running is not None:
                done, _ = ray.wait([edge.running], timeout=max(0.0, until_s - time.monotonic()))
                if done:
                    self._edge_done(edge, edge.running)
                    continue
                if not self._failures:
                    self._failures.append(f"{edge.name} did not end.")
                ray.kill(edge.actor)

    def _close_edges(self) -> None:
        for edge in self.edges:
            try:
                ray.get(edge.actor.close.remote(), timeout=END_S)
            except RayActorError:  # what it recorded is on disk
                if edge.connecting is None and edge.pid is not None and self._outcome is not None:
                    self._died(edge)
                continue
            except RayError as error:
                if not self._failures and edge.connecting is None:
                    self._failures.append(sentence(error, edge.name))

    def _close_cloud(self) -> None:
        assert self.cloud is not None
        try:
            ray.get(self.cloud.actor.close.remote(), timeout=END_S)
        except RayActorError as error:
            if self._outcome is not None:
                self._died(self.cloud)
            elif not self._failures:
                self._failures.append(sentence(error, self.cloud.name))
        except RayError as error:
            if not self._failures:
                self._failures.append(sentence(error, self.cloud.name))

    def _judged_outcome(self) -> CloudOutcome:
        """Return the outcome of the cloud; base stations that it misses without a reason are a failure."""
        outcome = self._outcome or CloudOutcome()
        if outcome.missing - self._excused and not self._failures:
            missing = ", ".join(map(str, sorted(outcome.missing - self._excused)))
            self._failures.append(f"BS {missing} stopped responding before the end of the run.")
        return replace(outcome, missing=outcome.missing | self._excused)

    def _ask(self, request: tuple[str, int]) -> None:
        assert self.cloud is not None
        try:
            ray.get(self.cloud.actor.ask.remote(request), timeout=END_S)
        except RayError:
            return  # the cloud is gone: its main call says so too, and there it is dealt with

    def _progress(self) -> tuple[int, int] | None:
        """Return closed snapshots and rounds that wait at the cloud; None while it is down."""
        if self.cloud is None or self.cloud.connecting is not None:
            return None
        try:
            closed, waiting = ray.get(self.cloud.actor.progress.remote(), timeout=TICK_S)
        except RayError:
            return None
        return int(closed), int(waiting)
