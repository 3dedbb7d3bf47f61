"""Layouts: sites drawn on roofs, and each layout's users ray-traced. Keys: `sim.world.deployment.Layouts`.

Sites and users of each layout are drawn under a key of their own (seed, part, number): no test layout shares a
site or a user with training, and adding layouts later leaves the existing ones unchanged.

Files of a traced scenario, beside those that every scenario has:

============================  =============================================================================
``layouts/sites.npz``         positions [m] of the sites: ``train`` (L, P, 3), ``validation`` (V, K, 3) and
                              ``test`` (T, K, 3) float64
``layouts/train-0000.npz`` …  paths of one layout's users, to all its sites
``test.npz``                  paths of the users of all test layouts, in order
``test-layouts.npz``          ``site`` (T, K, 3) float64 [m], ``users`` of a layout
``train-positions.npz``       where the users of the training layouts stand
============================  =============================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fronthaul.draws import generator
from sim.errors import UserError
from sim.world.arrays import save_arrays
from sim.world.deployment import Layouts
from sim.world.paths import PathSet, concatenate, load_paths, rounded
from sim.world.scenario import Scenario
from sim.world.store import (
    PARTS,
    SITES_FILE,
    TEST_LAYOUTS_FILE,
    Part,
    Sites,
    layout_file,
    load_sites,
    require_layouts,
)
from sim.world.tracer import TraceProgress, Tracer

_MAX_DRAWS = 200  # batches; a region that yields too few roofs after this many is rejected
_BATCH = 400


@dataclass(frozen=True)
class LayoutSummary:
    """Summary of a trace.

    `training`, `test`: numbers of layouts. `users`: users of all training layouts. `heard`: number of sites that hear
    each test user (N,).
    """

    training: int
    users: int
    test: int
    heard: npt.NDArray[np.int64]


def draw_places(tracer: Tracer, layouts: Layouts, part: Part, number: int) -> Sites:
    """Draw the sites (P or K, 3) [m] of layout `number` of a part.

    Raises:
        UserError: there is hardly any roof in the region.
    """
    wanted = layouts.places if part == "train" else layouts.sites
    draw = generator(layouts.seed, f"layout sites {part}", number)
    found = np.zeros((0, 3))
    for _ in range(_MAX_DRAWS):
        place = layouts.region.at(draw.random((_BATCH, 2)))
        height = tracer.surface_m(place)
        roof = height >= layouts.least_roof_m
        site = np.column_stack([place, height + layouts.above_roof_m])[roof]
        # Single precision, as Sionna RT keeps coordinates.
        found = np.concatenate([found, site.astype(np.float32).astype(np.float64)])
        if len(found) >= wanted:
            return found[:wanted]
    raise UserError(
        f"There is hardly any roof of {layouts.least_roof_m:g} m or more in layouts.region; "
        "check the region and layouts.least_roof_m."
    )


def trace_layouts(
    scenario: Scenario, folder: Path, on_progress: Callable[[TraceProgress], None] = lambda _: None
) -> LayoutSummary:
    """Draw and trace all layouts into `folder`; finished ones are reused, so an interrupted trace resumes.

    Raises:
        UserError: Sionna RT or its LLVM library is missing, the scene is unknown, there are no roofs or no outdoor
            positions, or the folder holds layouts of another scenario.
    """
    layouts = require_layouts(scenario)
    shards = folder / "layouts"
    sites = _all_sites(scenario, layouts, shards / SITES_FILE)
    total = sum(map(len, sites.values())) * layouts.users
    done = 0
    users: list[npt.NDArray[np.float64]] = []
    tested: list[PathSet] = []
    for part in ("test", "validation", "train"):  # the small parts first, so that an emulation can start early
        for number, places in enumerate(sites[part]):
            path = shards / layout_file(part, number)
            resumed = path.is_file()
            paths = load_paths(path) if resumed else _trace_layout(scenario, layouts, part, number, places)
            if paths.digest != scenario.tracing_digest():
                raise _foreign(folder)
            if not resumed:
                paths.save(path)
            if part == "train":
                users.append(paths.position)
            elif part == "test":
                tested.append(paths)
            done += len(paths)
            on_progress(TraceProgress(done, total, resumed))
    test = concatenate(tested)
    lean(scenario, test).save(folder / "test.npz")
    save_arrays(folder / TEST_LAYOUTS_FILE, site=sites["test"], users=np.array(layouts.users))
    save_arrays(folder / "train-positions.npz", position=np.concatenate(users).astype(np.float32))
    heard = test.paths_per_link() > 0
    return LayoutSummary(len(sites["train"]), len(users) * layouts.users, len(tested), heard.sum(1))


def lean(scenario: Scenario, paths: PathSet) -> PathSet:
    """Return paths without the data that the scenario's arrays do not use; shipped files shrink to a fifth.

    Drops mirrors (needed only to move users), and directions at single antennas and polarisations that the scenario
    does not use. Coefficients keep 12 bits of their mantissas, a relative precision of 1e-4.
    """
    parts: dict[str, npt.NDArray[np.float32]] = {"mirror": np.zeros((0, 4), np.float32)}
    if scenario.array.antennas == 1:
        parts["site_angle"] = np.zeros_like(paths.site_angle)
    if scenario.user_array.antennas == 1 and scenario.users.speed_mps == 0:
        parts["user_angle"] = np.zeros_like(paths.user_angle)
    matrix = np.zeros_like(paths.matrix) if not scenario.polarized else paths.matrix.copy()
    if not scenario.polarized:
        matrix[:, 0, 0] = paths.matrix[:, 0, 0]
    return replace(paths, matrix=rounded(matrix), **parts)  # type: ignore[arg-type]  # no key is the digest


def _trace_layout(scenario: Scenario, layouts: Layouts, part: Part, number: int, places: Sites) -> PathSet:
    """Draw and trace the users of one layout."""
    draw = generator(layouts.seed, f"layout users {part}", number)
    paths = Tracer(scenario.at_layout(places)).users(layouts.users, draw)
    return replace(paths, digest=scenario.tracing_digest())


def _save_sites(path: Path, scenario: Scenario, sites: dict[Part, Sites]) -> None:
    digest = np.array(scenario.tracing_digest())
    save_arrays(path, digest=digest, train=sites["train"], validation=sites["validation"], test=sites["test"])


def _all_sites(scenario: Scenario, layouts: Layouts, path: Path) -> dict[Part, Sites]:
    """Return the sites (L, P, 3) or (…, K, 3) [m] of all layouts, from `path` or, if it has too few, drawn anew."""
    counts: dict[Part, int] = {"train": layouts.training, "validation": layouts.validation, "test": layouts.test}
    if path.is_file():
        known = {part: load_sites(path, part) for part in PARTS}
        if any(digest != scenario.tracing_digest() for _, digest in known.values()):
            raise _foreign(path.parent.parent)
        sites = {part: known[part][0][:count] for part, count in counts.items()}
        if all(len(sites[part]) == count for part, count in counts.items()):
            if any(len(known[part][0]) > count for part, count in counts.items()):  # readers use all sites in the file
                _save_sites(path, scenario, sites)
            return sites
    tracer = Tracer(scenario)
    sites = {
        part: np.stack([draw_places(tracer, layouts, part, number) for number in range(count)])
        for part, count in counts.items()
    }
    _save_sites(path, scenario, sites)
    return sites


def _foreign(folder: Path) -> UserError:
    return UserError(f"{folder} holds layouts of another scenario; name another folder or remove it.")
