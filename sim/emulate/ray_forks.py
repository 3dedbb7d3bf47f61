"""Ray's workers as forks of one process that has imported what they need.

A worker that starts from nothing imports Ray twice and torch, 2.5 s of a core and 190 MB; a fork takes 0.15 s and
shares the memory of the libraries.

    driver                   fork server                   Ray, for each worker
      | fork_server -------> import torch
      | start Ray ----------------------------------------> ray_fork_request.py
      | import_ray --------> import Ray                      |
      |                      <-- arguments, streams, ... ----|
      |                      fork -------------------------> ends
      |                        '-> Ray's worker script
      | end Ray ------------------------------------------> end, with all workers
      | close its input ---> end
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow

REQUEST = Path(__file__).with_name("ray_fork_request.py")
"""The script that asks for a worker, for Ray to start."""
LIBRARIES = ("cloud.node", "edge.node", "fronthaul.transport.zeromq", "sim.world.channel")
"""What the processes of a run import of ours, and with it theirs."""
_RAY = (
    *("cloud.actor", "edge.actor", "ray._private.workers.default_worker"),
    *("ray._common.pydantic_compat", "ray._common.usage.usage_lib"),
)
_SAME = ("RAY_JOB_ID", "RAY_RAYLET_PID")
"""Variables that Ray reads once, when it is imported."""
_FIRST_JOB = "01000000"
"""Ray's id of the first driver that connects to it."""


class ForkServer:
    """A fork server that runs.

    Attributes:
        path: of its socket.
    """

    def __init__(self, path: str, process: subprocess.Popen[bytes]) -> None:
        """Take over a server that listens at `path`."""
        self.path = path
        self._process = process

    def import_ray(self, raylet: int) -> None:
        """Have it import Ray now, for workers of the raylet with this process id, rather than at the first request."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died: Ray's own script makes the workers
            self._process.stdin.write(f"{raylet}\n".encode())
            self._process.stdin.flush()


@contextlib.contextmanager
def fork_server(variables: Mapping[str, str]) -> Iterator[ForkServer]:
    """Start a fork server, and end it afterwards.

    Its workers end with their Ray, as others do.

    Args:
        variables: of the environment in which actors' libraries are imported; PYTHONPATH has to hold our packages.
    """
    # Not where TMPDIR says: the path of a socket may have no more than 107 bytes.
    with tempfile.TemporaryDirectory(prefix="cofix-forks-", dir="/tmp") as folder:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{folder}/socket")
            listener.listen()
            server = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(listener.fileno())],
                cwd=folder,
                env={**os.environ, **variables},
                stdin=subprocess.PIPE,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
        with server:  # closes its input, then waits
            yield ForkServer(f"{folder}/socket", server)


def main() -> None:
    """Serve until standard input ends; go on as a worker in each child."""
    _import(LIBRARIES)
    pyarrow.array([0])  # imports pandas, where it is installed
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        request = _serve(listener)
    if request is not None:
        _work(request)


def _serve(listener: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; return it in the child, and None once standard input has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for workers
    known: Mapping[str, str] = {}
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            raylet = sys.stdin.readline().strip()
            if not raylet:
                return None
            known = known or _import_ray({"RAY_JOB_ID": _FIRST_JOB, "RAY_RAYLET_PID": raylet})
            continue
        connection, _ = listener.accept()
        with connection:
            _, streams, _, _ = socket.recv_fds(connection, 1, 3)
            with connection.makefile("rb") as file:
                request: dict[str, Any] = json.load(file)
            known = known or _import_ray(request["environment"])
            if all(request["environment"].get(name) == known.get(name) for name in _SAME):
                if os.fork() == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.setpgid(0, 0)  # Ray kills the process group of a worker that died
                    for number, stream in enumerate(streams):
                        os.dup2(stream, number)
                        os.close(stream)
                    return request
                connection.sendall(b"\0")
        for stream in streams:
            os.close(stream)


def _import(modules: Iterable[str]) -> None:
    for module in modules:
        importlib.import_module(module)


def _import_ray(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Import Ray with these variables, and return them."""
    os.environ.update(environment)
    _import(_RAY)
    gc.collect()
    gc.freeze()  # a collection in a worker would copy the memory that it looks at
    return environment


def _work(request: Mapping[str, Any]) -> None:
    """Be the worker that Ray's own script would start."""
    from ray._private.runtime_env.context import RuntimeEnvContext

    Path("/proc/self/oom_score_adj").write_text(request["oom_score_adj"])
    parser = argparse.ArgumentParser()
    parser.add_argument("--serialized-runtime-env-context", default="{}")
    parser.add_argument("--language")
    options, arguments = parser.parse_known_args(request["arguments"])
    context = RuntimeEnvContext(**json.loads(options.serialized_runtime_env_context))
    os.environ.clear()
    os.environ.update(request["environment"] | context.env_vars)
    os.chdir(request["folder"])
    if context.command_prefix:
        _cd, folder, _and = shlex.split(" ".join(context.command_prefix))
        os.chdir(folder)
    while arguments[0].startswith("-"):  # options of the interpreter
        del arguments[0]
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
