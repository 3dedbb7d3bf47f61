"""Emulations in process as tasks on the nodes of a Ray cluster; their folders come back to the driver's node."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from sim.emulate.ray_session import ray_session, sentence  # isort: skip  # before Ray: it sets its environment

import ray
from ray.exceptions import RayError, RayTaskError

from sim.emulate.emulator import run_plan
from sim.errors import UserError
from sim.plan.outcome import RunResult
from sim.plan.plan import Plan, load_plan
from sim.plan.settings import EmulateSettings
from sim.records.folder import commit
from sim.world.pilot_store import STORE_BYTES, of_this_process
from sim.world.radio import Radio

Ran = tuple[RunResult, dict[str, bytes]]
"""A run on another node, and the files of its folder by relative path."""


def emulated_on_ray(
    settings: Sequence[EmulateSettings], workers: int, address: str
) -> Generator[tuple[int, RunResult | UserError]]:
    """Run emulations in process on the nodes of a cluster; yield each one's number and result as it ends.

    A node needs no data: the plan of a run is sent to it. A run on a node that is lost is run again on another.

    Args:
        settings: of each run, with ``driver="process"``; its folder is made here, in its `output`.
        workers: runs at the same time, with a CPU each.
        address: of the cluster, as of `--ray-address`.

    Raises:
        UserError: the cluster cannot be used, or a run has failed for another reason than its settings.
    """
    one_of_each = {each.scheme: each for each in settings}
    with ray_session(address, [load_plan(each) for each in one_of_each.values()]):
        task = ray.remote(run_there).options(num_cpus=1, scheduling_strategy="SPREAD", max_retries=3)
        waiting = deque(enumerate(settings))
        running: dict[Any, int] = {}
        while waiting or running:
            while waiting and len(running) < workers:
                number, each = waiting.popleft()
                running[task.remote(load_plan(each), commit(), STORE_BYTES // workers)] = number
            (call,), _ = ray.wait(list(running), num_returns=1)
            number = running.pop(call)
            try:
                yield number, _bring_home(ray.get(call), settings[number].output)
            except RayTaskError as error:
                if not isinstance(error.cause, UserError):
                    raise UserError(sentence(error, "A row")) from error
                yield number, error.cause
            except RayError as error:
                raise UserError(sentence(error, "A row")) from error


def run_there(plan: Plan, source: str | None, store_bytes: int) -> Ran:
    """Run a plan of the driver, whose commit is `source`, on this node, in a folder that is removed again.

    The process keeps what radios have received, up to `store_bytes`, for the next rows that it gets.
    """
    store = of_this_process(store_bytes)
    sites = [replace(site, radio=cast(Radio, site.radio).kept_in(store)) for site in plan.sites]
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(plan.settings, output=Path(folder))
        result = run_plan(replace(plan, settings=settings, sites=sites), source=source)
        paths = [path for path in result.folder.rglob("*") if path.is_file()]
        return result, {path.relative_to(result.folder).as_posix(): path.read_bytes() for path in paths}


def _bring_home(ran: Ran, output: Path) -> RunResult:
    """Write a run's folder to `output`, whole or under a name that ends in ``.part``."""
    result, files = ran
    part = output / f"{result.folder.name}.part"
    for name, data in files.items():
        path = part / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return replace(result, folder=part.rename(output / result.folder.name))
