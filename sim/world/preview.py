"""A look at a scenario before anything is traced: its sites, and where its users may stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fronthaul.draws import generator
from sim.world.scenario import Scenario
from sim.world.store import GroundPlan, load_traced
from sim.world.tracer import Tracer, trace_ground_plan
from sim.world.walks import area_test

POINTS = 4000
"""Points drawn in the users' box."""


@dataclass(frozen=True)
class Preview:
    """What can be said of a scenario without a trace.

    Attributes:
        scenario: the scenario; of a scenario with layouts, with the sites of its first test layout.
        ground: the scene seen from above; None without a scene, as for a hall and for what was imported.
        drawn: number of points drawn in the users' box, or of positions that were imported.
        removed: for each rule that takes points away, in order, how many of those that are left.
        position: points that are left (N, 3) [m].
        in_sight: whether a straight line from point to site meets no surface (N, K); None without a scene.
        covered: whether a surface is above each site (K,).
        heard: of an imported scenario, whether site hears position (N, K); else None.
        links: of an imported scenario, what its links hold.
    """

    scenario: Scenario
    ground: GroundPlan | None
    drawn: int
    removed: dict[str, int]
    position: npt.NDArray[np.float64]
    in_sight: npt.NDArray[np.bool_] | None
    covered: npt.NDArray[np.bool_]
    heard: npt.NDArray[np.bool_] | None = None
    links: str = ""

    @property
    def sure(self) -> int | None:
        """Number of points that see `users.min_links` sites, so that no trace removes them; None without a scene."""
        if self.in_sight is None:
            return None
        return int((self.in_sight.sum(1) >= self.scenario.users.min_links).sum())


def make_preview(scenario: Scenario, points: int = POINTS) -> Preview:
    """Draw points as `trace` draws users, apply its rules but for that of paths, and look from them to the sites.

    Of an imported scenario the points are its positions, and what is known is which site hears them.

    Raises:
        UserError: data of an imported scenario are missing, Sionna RT or its LLVM library is missing, the scene is
            unknown, the carrier frequency is outside the range of one of its materials, or there are no roofs for the
            sites of a layout.
    """
    if scenario.is_own:
        paths = load_traced(scenario)
        links = "measured channels" if len(paths.csi) else f"{len(paths.delay)} paths"
        nothing = np.zeros(paths.sites, bool)
        return Preview(scenario, None, len(paths), {}, paths.position, None, nothing, paths.heard, links)
    users = scenario.users
    tracer = None if scenario.factory is not None else Tracer(scenario)
    if tracer is not None and scenario.layouts is not None:
        from sim.world.layouts import draw_places

        scenario = scenario.at_layout(draw_places(tracer, scenario.layouts, "test", 0))
    position = generator(scenario.tracing.seed, "users", 0).uniform(users.low, users.high, (points, 3))
    rules: dict[str, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.bool_]]] = {}
    if users.area == "hull":
        rules["outside the sites' hull (users.area)"] = area_test(replace(scenario, users=replace(users, strip=None)))
    if users.strip is not None:
        rules["outside users.strip"] = users.strip.holds
    if users.outdoor == "sky" and tracer is not None:
        rules["below a surface (users.outdoor)"] = tracer.sees_sky
    removed = {}
    for name, keeps in rules.items():
        kept = keeps(position)
        removed[name] = int((~kept).sum())
        position = position[kept]
    site = np.array([one.position for one in scenario.sites])
    if tracer is None:
        return Preview(scenario, None, points, removed, position, None, np.zeros(len(site), bool))
    sight = [tracer.clear(np.broadcast_to(place, position.shape), position) for place in site]
    return Preview(
        scenario,
        trace_ground_plan(scenario, tracer=tracer),
        points,
        removed,
        position,
        np.stack(sight, 1),
        ~tracer.sees_sky(site),
    )
