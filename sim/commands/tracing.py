"""Data sets of `trace`: paths traced in a scene or in layouts of random sites, or drawn for an indoor factory."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from sim.commands.common import stoppable
from sim.errors import UserError
from sim.learn.splits import write_test_set
from sim.terminal import ProgressBar
from sim.world.mismatch import Mismatch
from sim.world.paths import PathSet
from sim.world.scenario import Scenario
from sim.world.store import data_folder, load_test_paths, world_file


def trace_scene_data(scenario: Scenario, folder: Path, bar: ProgressBar) -> None:
    """Trace paths from positions in the scene to the scenario's sites, and write the data set."""
    from sim.world.tracer import TraceProgress, trace_ground_plan, trace_scenario

    shards = folder / "shards"
    with stoppable(lambda: _stopped("shards", shards)):

        def advance(progress: TraceProgress) -> None:
            bar.update(f"tracing {scenario.name}", progress.done, progress.total, restart=progress.resumed)

        paths = trace_scenario(scenario, shards, advance)
        save_data_set(scenario, paths, folder)
        trace_ground_plan(scenario).save(folder / "ground-plan.npz")
    _tell(paths, folder, scenario)


def trace_world_data(scenario: Scenario, positions: int | None, bar: ProgressBar) -> None:
    """Trace the first test positions, by default all, again in the world of the scenario's mismatch."""
    from sim.world.tracer import TraceProgress, trace_world

    test = load_test_paths(replace(scenario, mismatch=Mismatch()))
    chosen = test.select(np.arange(len(test))[:positions])
    target = world_file(scenario)
    with stoppable(lambda: "Stopped; nothing is written."):

        def advance(progress: TraceProgress) -> None:
            bar.update(f"tracing {scenario.name}", progress.done, progress.total)

        paths = trace_world(scenario, chosen, advance)
    paths.save(target)
    print(f"{len(paths)} test positions, {len(paths.delay)} paths to {paths.sites} sites: {target}")


def draw_factory_data(scenario: Scenario, folder: Path, bar: ProgressBar) -> None:
    """Draw the channels of an indoor factory, and write the data set."""
    from sim.world.factory import draw_factory

    shards = folder / "shards"
    with stoppable(lambda: _stopped("sites", shards)):

        def advance(done: int, total: int) -> None:
            bar.update(f"drawing {scenario.name}", done, total)

        paths = draw_factory(scenario, shards, advance)
        save_data_set(scenario, paths, folder)
    _tell(paths, folder, scenario)


def trace_layout_data(scenario: Scenario, folder: Path, bar: ProgressBar) -> None:
    """Draw layouts of sites on roofs, trace the users of each, and write the data set."""
    from sim.world.layouts import trace_layouts
    from sim.world.tracer import TraceProgress, trace_ground_plan

    with stoppable(lambda: _stopped("layouts", folder / "layouts")):

        def advance(progress: TraceProgress) -> None:
            bar.update(f"tracing {scenario.name}", progress.done, progress.total, restart=progress.resumed)

        summary = trace_layouts(scenario, folder, advance)
        trace_ground_plan(scenario).save(folder / "ground-plan.npz")
    print(f"{summary.training} training layouts with {summary.users} users: {folder / 'layouts'}")
    heard = summary.heard
    print(
        f"{summary.test} test layouts with {len(heard)} users, each with a path to {heard.mean():.1f} of "
        f"{scenario.station_count} sites ({heard.min()} at least): {folder / 'test.npz'}"
    )


def save_data_set(scenario: Scenario, paths: PathSet, folder: Path) -> None:
    """Write all paths, and the test sets of all splits that the positions allow."""
    paths.save(folder / "paths.npz")
    write_test_set(scenario, paths, folder)
    with contextlib.suppress(UserError):  # an area of fewer than three blocks has no block split
        write_test_set(scenario, paths, folder, "block")
    with contextlib.suppress(UserError):  # positions that do not form walks have no user split
        write_test_set(scenario, paths, folder, "user")


def _tell(paths: PathSet, folder: Path, scenario: Scenario) -> None:
    print(f"{len(paths)} positions, {len(paths.delay)} paths to {paths.sites} sites: {folder / 'paths.npz'}")
    usual = data_folder(scenario).resolve() == folder.resolve()
    use = "`emulate`" if usual else f"`emulate --test` (without it: {data_folder(scenario) / 'test.npz'})"
    print(f"test positions of the random split, for {use}: {folder / 'test.npz'}")


def _stopped(what: str, folder: Path) -> str:
    return f"Stopped; finished {what} are in {folder}, and the same command resumes."
