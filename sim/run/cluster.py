"""The Ray driver: actors as base stations and cloud, ZeroMQ between them, wall clock.

Ray places and starts; every byte that is reported travels over the fronthaul.

    driver                      cloud actor                   edge actors (one or several BSs each)
      | listen ------------------> bind, address
      | serve -------------------> poll ... poll ... poll
      | connect -------------------------------------------------> register, welcome
      | ask start(t0) -----------> t0
      | run(t0) -------------------------------------------------> pace, send, goodbye
      | collect -----------------> outcome                         outcome, journal

Nothing here waits without a limit: an actor that does not come up, dies or falls silent ends the run, with what there
is, and by name.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before Ray is imported: it reads them once.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cloud.actor import CloudActor
from cloud.node import CloudOutcome
from edge.actor import EdgeActor
from edge.node import EdgeOutcome
from sim.errors import UserError
from sim.run.compose import Plan
from sim.run.record import OnProgress, Progress, RunRecord
from sim.run.runfolder import THREADS, RunFolder
from sim.run.settings import EmulateSettings

START_S = 180.0
"""How long actors may take to come up [s], and `START_EACH_S` for each: they import torch, two cores at a time."""
START_EACH_S = 6.0
REGISTER_S = 30.0
"""How long the cloud may take to welcome a base station [s]."""
LEAD_S = 0.5
"""From the call that starts a run to its t0 [s], so that the call has reached every actor by then."""
IDLE_S = 15.0
"""The cloud gives up on whoever is missing after so much silence [s], and the longest regular one."""
END_S = 10.0
"""How long base stations may take to return once the cloud is done [s]."""

_PACKAGES = ("fronthaul", "edge", "cloud", "sim")
_ROOT = Path(__file__).resolve().parents[2]


def run_on_ray(plan: Plan, folder: RunFolder, on_progress: OnProgress) -> RunRecord:
    """Run a plan on Ray; journals and receive log go to `folder`.

    Raises:
        UserError: Ray is not to be had, actors do not fit or do not start, or the port is in use. What goes
            wrong later is in the record's `failures`.
    """
    with _ray(plan) as local:
        _require_room(plan.settings)
        run = _Run(plan, folder, on_progress, local)
        try:
            return run.run()
        finally:
            run.kill()


@dataclass
class _Edge:
    """An edge actor."""

    actor: Any
    stations: list[int]

    @property
    def name(self) -> str:
        return "BS " + ", ".join(map(str, self.stations))


class _Run:
    """The actors of one run, from their start to their end."""

    def __init__(self, plan: Plan, folder: RunFolder, on_progress: OnProgress, local: bool) -> None:
        self._plan = plan
        self._folder = folder
        self._on_progress = on_progress
        self._local = local
        self._node = ray.get_runtime_context().get_node_id()
        self._cloud: Any = None
        self._edges: list[_Edge] = []
        self._failures: list[str] = []

    def run(self) -> RunRecord:
        settings = self._plan.settings
        address = self._start_cloud()
        # A batch is silent for as long as it collects.
        idle_s = IDLE_S + settings.batch * settings.interval_ms / 1e3 + settings.deadline_ms / 1e3
        serving = self._cloud.serve.remote(idle_s)
        self._start_edges(address)
        t0_ns = time.time_ns() + round(LEAD_S * 1e9)
        self._ask(("start", t0_ns))
        schedule = self._plan.schedule(t0_ns)
        running = {edge.actor.run.remote(schedule): edge for edge in self._edges}
        self._watch(serving, running)
        seconds = max(0.0, (time.time_ns() - t0_ns) / 1e9)
        self._await_end(running)
        edges = self._collect_edges()
        return RunRecord(
            edges=edges,
            cloud=self._collect_cloud(),
            t0_ns=t0_ns,
            wall_clock=True,
            seconds=seconds,
            address=address,
            failures=self._failures,
        )

    def kill(self) -> None:
        """End all actors that are still there."""
        for actor in (self._cloud, *(edge.actor for edge in self._edges)):
            if actor is not None:
                ray.kill(actor)

    def _start_cloud(self) -> str:
        settings = self._plan.settings
        self._cloud = (
            ray.remote(CloudActor)
            .options(
                num_cpus=settings.cloud_cpus,
                max_concurrency=3,
                scheduling_strategy=NodeAffinitySchedulingStrategy(self._node, soft=True),
            )
            .remote(self._plan.cloud, THREADS)
        )
        host = settings.host or ("127.0.0.1" if self._local else None)
        log = self._folder.receive_log.resolve()
        listening = self._cloud.listen.remote(host, settings.port, log, self._node)
        address: str = _started(listening, "The cloud", START_S)
        return address

    def _start_edges(self, address: str) -> None:
        settings = self._plan.settings
        sites = self._plan.sites
        for begin in range(0, len(sites), settings.bs_per_actor):
            group = sites[begin : begin + settings.bs_per_actor]
            actor = (
                ray.remote(EdgeActor)
                .options(
                    num_cpus=settings.cpus_per_bs * len(group),
                    num_gpus=settings.gpus_per_bs * len(group),
                    scheduling_strategy="SPREAD",
                )
                .remote(group, THREADS, settings.gpus_per_bs * len(group))
            )
            self._edges.append(_Edge(actor, [site.station.bs for site in group]))
        links = self._folder.links.resolve()
        journals = {
            site.station.bs: links / self._folder.journal(site.station.bs, site.station.epoch).name for site in sites
        }
        connecting = [
            edge.actor.connect.remote(address, {bs: journals[bs] for bs in edge.stations}, self._node, REGISTER_S)
            for edge in self._edges
        ]
        until_s = time.monotonic() + START_S + START_EACH_S * len(self._edges)
        for reference, edge in zip(connecting, self._edges, strict=True):
            _started(reference, edge.name, until_s - time.monotonic())

    def _watch(self, serving: Any, running: dict[Any, _Edge]) -> None:
        """Wait for the cloud to be done; tell it of base stations that die."""
        total = self._plan.settings.snapshots
        pending = dict(running)
        while True:
            done, _ = ray.wait([serving, *pending], num_returns=1, timeout=0.25)
            for reference in done:
                if reference != serving:
                    edge = pending.pop(reference)
                    self._note_end(reference, edge)
            if serving in done:
                self._note_failure(serving, "The cloud")
                return
            closed = self._closed_snapshots()
            if closed is not None:
                self._on_progress(Progress("run", closed, total))

    def _note_end(self, reference: Any, edge: _Edge) -> None:
        if self._note_failure(reference, edge.name):
            for bs in edge.stations:
                self._ask(("gone", bs))

    def _note_failure(self, reference: Any, name: str) -> bool:
        try:
            ray.get(reference)
        except RayError as error:
            self._failures.append(_sentence(error, name))
            return True
        return False

    def _await_end(self, running: dict[Any, _Edge]) -> None:
        """Give base stations a moment to return; where the cloud failed there is nothing to wait for."""
        timeout_s = 0.0 if self._failures else END_S
        _, late = ray.wait(list(running), num_returns=len(running), timeout=timeout_s)
        for reference in late:
            edge = running[reference]
            if not self._failures:
                self._failures.append(f"{edge.name} did not come to an end.")
            ray.kill(edge.actor)

    def _collect_edges(self) -> dict[int, EdgeOutcome]:
        outcomes = {}
        for edge in self._edges:
            try:
                collected = ray.get(edge.actor.collect.remote(), timeout=END_S)
            except RayError as error:
                if not self._failures:
                    self._failures.append(_sentence(error, edge.name))
                continue
            for outcome, journal in collected:
                outcomes[outcome.bs] = outcome
                if journal is not None:
                    _write_bytes(self._folder.journal(outcome.bs, outcome.epoch), journal)
        return outcomes

    def _collect_cloud(self) -> CloudOutcome:
        try:
            outcome, log = ray.get(self._cloud.collect.remote(), timeout=END_S)
        except RayError as error:
            if not self._failures:
                self._failures.append(_sentence(error, "The cloud"))
            return CloudOutcome()
        if log is not None:
            _write_bytes(self._folder.receive_log, log)
        assert isinstance(outcome, CloudOutcome)
        if outcome.missing and not self._failures:
            missing = ", ".join(map(str, sorted(outcome.missing)))
            self._failures.append(f"BS {missing} fell silent before the end of the run.")
        return outcome

    def _ask(self, request: tuple[str, int]) -> None:
        try:
            ray.get(self._cloud.ask.remote(request), timeout=END_S)
        except RayError:
            return  # the cloud is gone: `serve` says so too, and there it is noted

    def _closed_snapshots(self) -> int | None:
        try:
            return int(ray.get(self._cloud.closed_snapshots.remote(), timeout=1.0))
        except RayError:
            return None


@contextmanager
def _ray(plan: Plan) -> Iterator[bool]:
    """Start or find Ray, and leave it; yields whether all of it is on this host."""
    address = plan.settings.ray_address or "local"
    local = address == "local"
    if ray.is_initialized():  # somebody else's, who made our code importable there and also ends it
        yield local
        return
    if not local:
        _require_reachable(address)
    try:
        ray.init(
            address=address,
            include_dashboard=False if local else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=_runtime_environment(plan, local),
        )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        where = "on this machine" if local else f"at --ray-address {address}"
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"Ray cannot be used {where}: {reason}") from error
    try:
        yield local
    finally:
        ray.shutdown()


_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""Client preface and an empty SETTINGS frame (RFC 9113, 3.4): gRPC, as Ray speaks it, answers in kind."""


def _require_reachable(address: str) -> None:
    """Refuse within seconds what Ray would take minutes to refuse."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(
            f"--ray-address {address!r} must be 'local', 'auto' or a cluster's address such as 10.0.0.5:6379."
        )
    try:
        with socket.create_connection((host, int(port)), timeout=3.0) as probe:
            probe.sendall(_HTTP2_HELLO)
            answer = probe.recv(9)
    except OSError as error:
        raise UserError(f"No Ray cluster answers at --ray-address {address}: {error.strerror or error}.") from error
    if answer[3:4] != b"\x04":  # the type of a SETTINGS frame
        raise UserError(f"What answers at --ray-address {address} is not a Ray cluster.")


def _require_room(settings: EmulateSettings) -> None:
    """Refuse actors that can never be placed."""
    group = min(settings.bs_per_actor, settings.bs)
    wanted = {
        "CPU": (settings.cpus_per_bs * settings.bs + settings.cloud_cpus, settings.cpus_per_bs * group),
        "GPU": (settings.gpus_per_bs * settings.bs, settings.gpus_per_bs * group),
    }
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    for kind, (all_actors, one_actor) in wanted.items():
        there = sum(node.get(kind, 0.0) for node in nodes)
        largest = max((node.get(kind, 0.0) for node in nodes), default=0.0)
        option = f"--{kind.lower()}s-per-bs"
        if all_actors > there + 1e-6:
            raise UserError(
                f"{settings.bs} base stations and the cloud reserve {all_actors:g} {kind}s, Ray has {there:g}: "
                f"lower {option} or --bs."
            )
        if one_actor > largest + 1e-6:
            raise UserError(
                f"An actor of {group} base stations reserves {one_actor:g} {kind}s, the largest node has "
                f"{largest:g}: lower {option} or --bs-per-actor."
            )


def _runtime_environment(plan: Plan, local: bool) -> dict[str, Any]:
    """Return what makes our code importable where actors run.

    On this host the driver's own import path does. Other hosts may have no copy of it, or another version:
    they get the packages from the driver, and the scheme's if it is a user's own; data and weights stay here,
    for actors get theirs as arguments.
    """
    variables = {"OMP_NUM_THREADS": str(THREADS)}
    if local:
        path = [entry or str(Path.cwd()) for entry in (str(_ROOT), *sys.path)]
        return {"env_vars": variables | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(path))}}
    return {
        "env_vars": variables,
        "py_modules": [*(str(_ROOT / package) for package in _PACKAGES), *_foreign_modules(plan)],
        "excludes": ["assets", "assets/**", "**/assets/**", "**/__pycache__/**"],
    }


def _foreign_modules(plan: Plan) -> list[str]:
    """Return folder or file of the top-level modules that a user's own scheme comes from."""
    builders = (plan.cloud.build, *(site.station.build for site in plan.sites))
    names = {builder.__module__.partition(".")[0] for builder in builders} - {*_PACKAGES}
    found = []
    for name in sorted(names):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None:
            path = Path(file)
            found.append(str(path.parent if path.name == "__init__.py" else path))
    return found


def _started(reference: Any, name: str, timeout_s: float) -> Any:
    """Return a call's result; what goes wrong while actors start is for the user."""
    try:
        return ray.get(reference, timeout=max(timeout_s, 0.1))
    except GetTimeoutError as error:
        raise UserError(
            f"{name} did not start in time: Ray may have too few CPUs free, or none of its nodes fits."
        ) from error
    except RayError as error:
        raise UserError(_sentence(error, name)) from error


def _sentence(error: RayError, name: str) -> str:
    """Say in one sentence what happened to an actor."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        return f"{name} failed: {cause} ({type(cause).__name__})."
    if isinstance(error, RayActorError):
        return f"{name} died: the actor's process ended."
    lines: Sequence[str] = str(error).strip().splitlines() or [type(error).__name__]
    return f"{name} failed: {lines[0]}"


def _write_bytes(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
