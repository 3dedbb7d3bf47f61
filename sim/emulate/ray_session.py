"""Ray itself: start it here or connect to a cluster, and ship our code to its nodes."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

# Before Ray is imported: it reads them once.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Ray started here listens at loopback alone, as it does by default on other systems than Linux. Clusters are started
# elsewhere and know their own addresses.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import ray
from ray._private.node import Node
from ray._private.parameter import RayParams
from ray._private.ray_constants import PROCESS_TYPE_RAYLET
from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError, RayActorError, RayError, RayTaskError

from cloud.center import FusionError
from fronthaul.errors import LocalError
from fronthaul.transport.endpoint import host_of
from sim.arithmetic import THREADS
from sim.cores import cores
from sim.emulate.ray_fork_request import SERVER
from sim.emulate.ray_forks import REQUEST, ForkServer, fork_server
from sim.errors import UserError
from sim.plan.plan import Plan
from sim.signals import STOPPING

_PACKAGES = ("fronthaul", "edge", "cloud", "sim")
_ROOT = Path(__file__).resolve().parents[2]
_CONNECT = {"raylet_client_connect_timeout_milliseconds": 20, "raylet_client_num_connect_attempts": 500}
"""How Ray's processes on one host connect: the raylet tries before its store listens, and by default waits for 1 s."""
_DASHBOARD = "ray.dashboard.optional_deps"
"""What Ray imports to find out whether the libraries of its dashboard are installed."""


@contextmanager
def ray_session(address: str | None, plans: Sequence[Plan]) -> Iterator[bool]:
    """Start Ray or connect to a cluster, and shut down afterwards; yield whether all of Ray is on this host.

    If Ray is already initialised, it is used as it is and not shut down.

    Args:
        address: of the cluster, as of `--ray-address`; None starts Ray here.
        plans: of runs with all the schemes that are used.

    Raises:
        UserError: Ray cannot be started, or the cluster cannot be used.
    """
    address = address or "local"
    local = address == "local"
    if ray.is_initialized():  # somebody else's, who made our code importable there and also ends it
        yield local
        return
    with own_token() if local else _users_token():
        if not local:
            _require_reachable(address)
            _require_token(address)
        yield from _connected(plans, address)


def _connected(plans: Sequence[Plan], address: str) -> Iterator[bool]:
    local = address == "local"
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *STOPPING)}
    with ExitStack() as stack:
        try:
            empty = stack.enter_context(tempfile.TemporaryDirectory(prefix="cofix-empty-"))
            environment = _runtime_environment(plans, local, empty)
            if local:
                address = stack.enter_context(_own_node(environment["env_vars"]))
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=environment)
        except Exception as error:  # Ray raises plain ones, too, such as where its node takes too long to start
            where = "on this machine" if local else f"at --ray-address {address}"
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"Ray cannot be used {where}: {reason}") from error
        stack.callback(ray.shutdown)
        # Ray puts handlers of its own into their place, which dump the stack of its C++ code.
        for number, handler in handlers.items():
            if threading.current_thread() is threading.main_thread():
                signal.signal(number, handler)
        # What Ray has to say of processes that died goes to standard error: standard output is the command's own.
        stack.enter_context(redirect_stdout(sys.stderr))
        yield local


class _Node(Node):
    """Ray's processes of this host, whose workers a fork server makes; without the server of the dashboard's API."""

    def __init__(self, parameters: RayParams, forks: ForkServer) -> None:
        """Start them, as the head of a cluster."""
        self._forks = forks
        super().__init__(parameters, head=True, shutdown_at_exit=False, spawn_reaper=True)

    def start_api_server(self, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
        """Start none: Ray does so even without a dashboard, and waits a second for it."""

    def start_raylet(self, *arguments: Any, **options: Any) -> None:
        """Start the raylet, and have the fork server go on while it comes up."""
        super().start_raylet(*arguments, **options)
        self._forks.import_ray(self.all_processes[PROCESS_TYPE_RAYLET][0].process.pid)


@contextmanager
def _own_node(variables: Mapping[str, str]) -> Iterator[str]:
    """Start Ray here as `ray.init` does, but with forked workers and no more processes than needed; yield its address.

    Args:
        variables: of the environment of actors.
    """
    with fork_server(variables) as forks:
        # No worker that Ray starts before it knows actors' environment is of use.
        with _environment({SERVER: forks.path, "RAY_prestart_worker_first_driver": "0"}), small_agent():
            node = _Node(
                RayParams(
                    num_cpus=cores(),
                    include_dashboard=False,
                    include_log_monitor=False,  # type: ignore[arg-type]  # shows what workers print
                    no_monitor=True,  # of the autoscaler
                    setup_worker_path=str(REQUEST),
                    _system_config=_CONNECT,  # type: ignore[arg-type]
                ),
                forks,
            )
        try:
            yield node.gcs_address
        finally:
            node.kill_all_processes(check_alive=False, allow_graceful=True)


@contextmanager
def small_agent() -> Iterator[None]:
    """Let Ray that is started in this block believe that `ray[default]` is not installed.

    Its agent would listen at two more ports, at the one for metrics without asking for a token, and nobody could read
    metrics that end with the run.
    """
    before = sys.modules.pop(_DASHBOARD, None)
    sys.modules[_DASHBOARD] = None  # type: ignore[assignment]  # to import it fails
    try:
        yield
    finally:
        del sys.modules[_DASHBOARD]
        if before is not None:
            sys.modules[_DASHBOARD] = before


@contextmanager
def own_token() -> Iterator[None]:
    """Let the Ray that is started in this block admit only who has a new token, in a file that only its owner can read.

    Whoever reaches Ray's ports can otherwise run code as its user. The user's own token and settings of Ray are left
    alone.
    """
    with tempfile.TemporaryDirectory(prefix="cofix-ray-") as folder:
        path = Path(folder) / "token"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        with _authentication({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path), "RAY_AUTH_TOKEN": None}):
            yield


def _users_token() -> AbstractContextManager[None]:
    """Show a cluster the token of the user's settings, unless these say that it has none."""
    return _authentication({"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token")})


@contextmanager
def _authentication(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables of the environment, or delete those that are None, for Ray and its processes."""
    try:
        with _environment(variables):
            _read_anew()
            yield
    finally:
        _read_anew()


@contextmanager
def _environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables of the environment in this block, or delete those that are None."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def _read_anew() -> None:
    """Have Ray read its variables again: it keeps both for as long as the process lives, unless it is told."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""Client preface and an empty SETTINGS frame (RFC 9113, 3.4), which Ray's gRPC answers with a SETTINGS frame."""


def _require_reachable(address: str) -> None:
    """Check within seconds that a cluster answers at `address`; Ray itself would take minutes.

    Raises:
        UserError: the address is malformed, or no Ray cluster answers.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    bare = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if "/" in address or not host or bare or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(
            f"--ray-address {address!r} must be 'local', 'auto' or a cluster's address such as 10.0.0.5:6379 or "
            "[fd00::5]:6379."
        )
    try:
        literal = host_of(host).strip("[]")
    except LocalError as error:
        raise UserError(f"--ray-address {address}: {error}.") from error
    try:
        with socket.create_connection((literal, int(port)), timeout=3.0) as probe:
            probe.sendall(_HTTP2_HELLO)
            answer = probe.recv(9)
    except OSError as error:
        raise UserError(f"No Ray cluster answers at --ray-address {address}: {error.strerror or error}.") from error
    if answer[3:4] != b"\x04":  # the type of a SETTINGS frame
        raise UserError(f"What answers at --ray-address {address} is not a Ray cluster.")


def _require_token(address: str) -> None:
    """Check that there is a token for a cluster and that it takes it; Ray would end the process, or try for long.

    Raises:
        UserError: there is none, or the cluster has another one.
    """
    advice = (
        "set RAY_AUTH_TOKEN_PATH to the file of the cluster's token, or RAY_AUTH_MODE=disabled for a cluster without "
        "any, which runs whatever anybody sends it."
    )
    if os.environ["RAY_AUTH_MODE"] != "disabled":
        try:
            has_token = AuthenticationTokenLoader.instance().has_token()
        except AuthenticationError:  # the file that the user names cannot be read
            has_token = False
        if not has_token:
            raise UserError(f"There is no token for the Ray cluster at --ray-address {address}: {advice}")
    if address == "auto":
        return
    try:
        GcsClient(address=address)
    except AuthenticationError as error:
        raise UserError(f"The Ray cluster at --ray-address {address} refuses the token: {advice}") from error


def _runtime_environment(plans: Sequence[Plan], local: bool, empty: str) -> dict[str, Any]:
    """Return the runtime environment that makes our code importable where actors run.

    On this host, that is the driver's own import path, in its order. Other hosts may have no copy of our code, or
    another version: the driver sends them the packages, and the modules of a user's own scheme. Data and weights are
    not sent, since actors get theirs as arguments.

    Actors work in a copy of `empty`: without a working directory, Ray puts the driver's first on their import
    path, where a user may have a file named like one of our modules.
    """
    variables = {"OMP_NUM_THREADS": str(THREADS)}
    if local:
        path = [str(Path(entry).absolute()) for entry in (*sys.path, str(_ROOT))]
        variables["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path))
        return {"env_vars": variables, "working_dir": empty}
    return {
        "env_vars": variables,
        "working_dir": empty,
        "py_modules": [*(str(_ROOT / package) for package in _PACKAGES), *_foreign_modules(plans)],
        "excludes": ["assets", "assets/**", "**/assets/**", "**/__pycache__/**"],
    }


def _foreign_modules(plans: Sequence[Plan]) -> list[str]:
    """Return the folders or files of the top-level modules of a user's own schemes."""
    builders = [builder for plan in plans for builder in (plan.cloud.build, plan.sites[0].station.build)]
    names = {builder.__module__.partition(".")[0] for builder in builders} - {*_PACKAGES}
    found = []
    for name in sorted(names):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None:
            path = Path(file)
            found.append(str(path.parent if path.name == "__init__.py" else path))
    return found


def has_died(error: RayError) -> bool:
    """Return whether an actor's process ended, and it might do better elsewhere; not if its constructor raised."""
    return isinstance(error, RayActorError) and not error.actor_init_failed


def sentence(error: RayError, name: str) -> str:
    """Return one sentence that describes what happened to an actor."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, FusionError):  # a sentence that has the error's name already
            return f"{name} failed: {cause}."
        return f"{name} failed: {cause} ({type(cause).__name__})."
    if has_died(error):
        return f"{name} died: the actor's process ended."
    lines: Sequence[str] = str(error).strip().splitlines() or [type(error).__name__]
    return f"{name} failed: {lines[-1 if isinstance(error, RayActorError) else 0]}"  # a traceback's last line says why
