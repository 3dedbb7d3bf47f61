"""`trace --dry-run`: how long a trace takes and what it writes, from a few positions that are traced to find out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sim.commands.tracing import save_data_set
from sim.terminal import duration, megabytes
from sim.world.mismatch import Mismatch
from sim.world.paths import PathSet
from sim.world.scenario import Scenario
from sim.world.store import load_test_paths

SAMPLE = 100
"""Positions that are traced; as many before them compile what traces."""
FACTORY_SAMPLE = 1000
"""Users of an indoor factory that are drawn."""


def plan_scene(scenario: Scenario, folder: Path) -> None:
    """Trace some positions of the scene, and print what all that are not yet in `folder` take."""
    from sim.world.tracer import Tracer, shard_users

    total, size = scenario.tracing.positions, shard_users(scenario)
    left = max(0, total - size * len([*(folder / "shards").glob("shard-*.npz")]))
    begun = time.monotonic()
    tracer = Tracer(scenario)
    paths, pace_s, before_s = _traced(begun, lambda shard: tracer.shard(shard, min(SAMPLE, size)))
    with TemporaryDirectory(prefix="cofix-dry-run-") as made:
        paths = replace(paths, digest=scenario.tracing_digest())
        save_data_set(scenario, paths, Path(made))
        paths.save(Path(made) / "shards" / "shard-0000.npz")
        each = _size(Path(made)) / len(paths)
    _tell(f"{total} positions, {left} of them not traced yet", before_s + pace_s * left, each * total, len(paths))


def plan_world(scenario: Scenario, positions: int | None) -> None:
    """Trace some test positions again in the world of a mismatch, and print what all take."""
    from sim.world.tracer import Tracer

    position = load_test_paths(replace(scenario, mismatch=Mismatch())).position[:positions]
    begun = time.monotonic()
    tracer = Tracer(scenario, scenario.mismatch)
    paths, pace_s, before_s = _traced(begun, lambda _: tracer.at(position[:SAMPLE]))
    with TemporaryDirectory(prefix="cofix-dry-run-") as made:
        paths.save(Path(made) / "paths.npz")
        each = _size(Path(made)) / len(paths)
    total = len(position)
    _tell(f"{total} test positions", before_s + pace_s * total, each * total, len(paths))


def plan_layouts(scenario: Scenario, folder: Path) -> None:
    """Draw and trace one layout, and print what all that are not yet in `folder` take."""
    from sim.world.layouts import draw_places
    from sim.world.store import require_layouts
    from sim.world.tracer import Tracer

    layouts = require_layouts(scenario)
    total = layouts.training + layouts.validation + layouts.test
    left = max(0, total - len([*(folder / "layouts").glob("*-*.npz")]))
    begun = time.monotonic()
    places = [draw_places(Tracer(scenario), layouts, "train", number) for number in range(2)]
    draw = np.random.default_rng(0)
    paths, pace_s, before_s = _traced(
        begun, lambda number: Tracer(scenario.at_layout(places[number])).users(layouts.users, draw)
    )
    with TemporaryDirectory(prefix="cofix-dry-run-") as made:
        paths.save(Path(made) / "paths.npz")
        each = _size(Path(made))
    per_layout_s = pace_s * len(paths)
    _tell(f"{total} layouts, {left} of them not traced yet", before_s + per_layout_s * left, each * total, len(paths))


def plan_factory(scenario: Scenario, folder: Path) -> None:
    """Draw a factory with fewer users to one site, and print what all users and sites take.

    The factor of the correlation between N users takes a time in N³, each site's fields one in N².
    """
    from sim.world.factory import Hall, as_path_set

    total, sites = scenario.tracing.positions, len(scenario.sites)
    left = sites - len([*(folder / "shards").glob(f"site-*-of-{total}.npz")])
    few = min(FACTORY_SAMPLE, total)
    begun = time.monotonic()
    hall = Hall(replace(scenario, tracing=replace(scenario.tracing, positions=few)))
    drawn = time.monotonic()
    paths = as_path_set(hall.users, *hall.links(0))
    fields_s, factor_s, more = time.monotonic() - drawn, drawn - begun, total / few
    with TemporaryDirectory(prefix="cofix-dry-run-") as made:
        paths.save(Path(made) / "paths.npz")
        each = 2 * _size(Path(made)) * more  # a file of each site, and one of all
    seconds = (factor_s * more**3 if left else 0.0) + left * fields_s * more**2
    _tell(f"{total} users, {left} of {sites} sites not drawn yet", seconds, each * sites, few)


def _traced(begun: float, trace: Callable[[int], PathSet]) -> tuple[PathSet, float, float]:
    """Return what the second of two traces finds, its time [s] a position, and the time from `begun` until it [s]."""
    trace(0)
    ready = time.monotonic()
    paths = trace(1)
    return paths, (time.monotonic() - ready) / len(paths), ready - begun


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _tell(what: str, seconds: float, size: float, sample: int) -> None:
    print(f"{what}: about {duration(seconds)} and {megabytes(size)}, by {sample} made here now. Nothing was done.")
