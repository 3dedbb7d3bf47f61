"""Which values of a scenario are well-typed and still impossible."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import UserError
from sim.world.deployment import FACTORY_KINDS, FACTORY_SCENE, Factory, Layouts, Strip

if TYPE_CHECKING:  # the scenario is checked as it is read
    from sim.world.scenario import Scenario, Walk

MOST_SNAPSHOTS = 1000  # of a walk: a shard of traced paths holds whole walks
MOST_SITES = 1000  # of a layout; a fronthaul of more base stations is none that could be run

Rules = list[tuple[bool, str]]


def require_possible(scenario: Scenario, where: str) -> None:
    """Reject values that are well-typed and still impossible (`where` names the source in errors).

    Raises:
        UserError: one sentence on the first such value.
    """
    rules: Rules = []
    if scenario.walk is not None:
        rules += _walk_rules(scenario.walk)
    if scenario.layouts is not None:
        rules += _layout_rules(scenario, scenario.layouts)
    if scenario.factory is not None:
        rules += _factory_rules(scenario, scenario.factory)
    for holds, sentence in rules + _rules(scenario):
        if not holds:
            raise UserError(f"{where}: {sentence}.")


def _rules(scenario: Scenario) -> Rules:
    n, users, tracing, budget = scenario.numerology, scenario.users, scenario.tracing, scenario.link_budget
    arrays, sites = (scenario.array, scenario.user_array), scenario.station_count
    x, y = np.array([site.position[:2] for site in scenario.sites] or [(0, 0)]).T
    flat = np.linalg.matrix_rank(np.stack([x - x[0], y - y[0]])) < 2
    drawn = scenario.layouts is not None
    clock = scenario.clock
    return [
        (bool(scenario.sites) or drawn, "sites: at least one site is needed"),
        (len({s.position for s in scenario.sites}) == len(scenario.sites), "sites: two sites share one position"),
        (n.carrier_hz > 0 and n.subcarrier_spacing_hz > 0, "numerology: frequencies must be positive"),
        (n.tones >= 1 and n.slots >= 1 and n.tone_stride >= 1, "numerology: tones, slots and tone_stride must be >= 1"),
        (n.tones * n.tone_stride <= n.subcarriers, "numerology: tones * tone_stride exceeds subcarriers"),
        (n.subcarriers * n.subcarrier_spacing_hz <= n.bandwidth_hz, "numerology: subcarriers do not fit the bandwidth"),
        (n.taps >= 0 and (n.taps > 0) == (n.ifft != 0), "numerology: taps and ifft must both be given, or neither"),
        (n.taps == 0 or n.tone_stride == 1, "numerology.taps: neighbouring tones are needed, tone_stride = 1"),
        (n.taps == 0 or n.ifft >= max(n.tones, n.taps), "numerology.ifft must not be below tones or taps"),
        (min(a.rows for a in arrays) >= 1, "array and user_array: rows must be >= 1"),
        (min(a.columns for a in arrays) >= 1, "array and user_array: columns must be >= 1"),
        (all(a.polarizations in (1, 2) for a in arrays), "array and user_array: polarizations must be 1 or 2"),
        (min(a.spacing_wavelengths for a in arrays) > 0, "array and user_array: spacing_wavelengths must be positive"),
        (all(a <= b for a, b in zip(users.low, users.high, strict=True)), "users: low must not exceed high"),
        (users.outdoor in ("sky", "any"), "users.outdoor must be 'sky' or 'any'"),
        (users.area in ("box", "hull"), "users.area must be 'box' or 'hull'"),
        (users.area != "hull" or not drawn, "users.area: a hull needs sites that are listed, not drawn"),
        (users.area != "hull" or not flat, "users.area: a hull needs three sites that do not stand in one line"),
        (users.strip is None or _is_area(users.strip), "users.strip: it needs two ends apart and width_m > 0"),
        (0 <= users.min_links <= sites, "users.min_links must lie between 0 and the number of sites"),
        (users.speed_mps >= 0, "users.speed_mps must not be negative"),
        (tracing.positions >= (not drawn) and tracing.depth >= 0, "tracing: positions >= 1 and depth >= 0 are needed"),
        (not (drawn and tracing.positions), "tracing.positions: with [layouts], layouts.users says how many"),
        (tracing.samples_per_source >= 1, "tracing.samples_per_source must be >= 1"),
        (n.slot_spacing_s > 0, "numerology.slot_spacing_s must be positive"),
        (budget.temperature_k > 0, "link_budget.temperature_k must be positive"),
        (budget.noise in ("thermal", "none", "snr"), "link_budget.noise must be 'thermal', 'none' or 'snr'"),
        (min(clock.ue_bias_ns, clock.bs_sigma_ns) >= 0, "clock: deviations must not be negative"),
        (clock.bs_limit_sigmas >= 0, "clock.bs_limit_sigmas must not be negative; 0 is no limit"),
        (scenario.phases in ("traced", "drawn", "initial"), "phases must be 'traced', 'drawn' or 'initial'"),
        (min(scenario.splits.test, scenario.splits.validation) >= 1, "splits: test and validation must be >= 1"),
        (scenario.splits.block_m > 0 and scenario.splits.guard_m >= 0, "splits: block_m must be > 0, guard_m >= 0"),
        (0 < scenario.splits.block_fraction < 1, "splits.block_fraction must lie between 0 and 1"),
        (scenario.factory is not None or scenario.scene != FACTORY_SCENE, f"scene {FACTORY_SCENE!r} needs [factory]"),
    ]


def _walk_rules(walk: Walk) -> Rules:
    return [
        (1 <= walk.snapshots <= MOST_SNAPSHOTS, f"walk.snapshots must lie between 1 and {MOST_SNAPSHOTS}"),
        (walk.interval_s > 0, "walk.interval_s must be positive"),
        (0 <= walk.speed_mps[0] <= walk.speed_mps[1], "walk.speed_mps must be two speeds, the lower one first"),
    ]


def _layout_rules(scenario: Scenario, layouts: Layouts) -> Rules:
    counts = (layouts.training, layouts.validation, layouts.test, layouts.users)
    return [
        (scenario.walk is None, "layouts: positions in layouts are no walks; leave out [walk]"),
        (_is_area(layouts.region), "layouts.region: it needs two ends apart and width_m > 0"),
        (1 <= layouts.sites <= MOST_SITES, f"layouts.sites must lie between 1 and {MOST_SITES}"),
        (layouts.sites <= layouts.places <= MOST_SITES, f"layouts.places must lie between sites and {MOST_SITES}"),
        (min(counts) >= 1, "layouts: training, validation, test and users must be >= 1"),
        (layouts.least_roof_m > 0, "layouts.least_roof_m must be positive: the ground is no roof"),
        (layouts.above_roof_m > 0, "layouts.above_roof_m must be positive"),
    ]


def _factory_rules(scenario: Scenario, factory: Factory) -> Rules:
    size = np.array([factory.length_m, factory.width_m, factory.height_m])
    corners = np.array([scenario.users.low, scenario.users.high])
    sites = np.array([site.position for site in scenario.sites]).reshape(-1, 3)
    return [
        (scenario.scene == FACTORY_SCENE, f"factory: the scene of a factory is {FACTORY_SCENE!r}"),
        (scenario.layouts is None, "factory: the sites of a factory are listed; leave out [layouts]"),
        (scenario.walk is None, "factory: positions in a factory are no walks; leave out [walk]"),
        (factory.kind in FACTORY_KINDS, f"factory.kind must be one of {', '.join(FACTORY_KINDS)}"),
        (min(size) > 0, "factory: length_m, width_m and height_m must be positive"),
        (0 < factory.clutter_density < 1, "factory.clutter_density must lie between 0 and 1"),
        (0 < factory.clutter_height_m <= factory.height_m, "factory.clutter_height_m must lie between 0 and height_m"),
        (factory.clutter_size_m > 0, "factory.clutter_size_m must be positive"),
        (factory.excess_sigma_log10 >= 0, "factory.excess_sigma_log10 must not be negative"),
        (factory.excess_distance_m > 0, "factory.excess_distance_m must be positive"),
        (bool(np.all((corners >= 0) & (corners <= size))), "factory: users.low and users.high must lie in the hall"),
        (bool(np.all((sites >= 0) & (sites <= size))), "factory: all sites must stand in the hall"),
        (scenario.users.outdoor == "any", "factory: nobody is outdoors there; users.outdoor must be 'any'"),
    ]


def _is_area(strip: Strip) -> bool:
    return strip.start != strip.end and strip.width_m > 0 and math.isfinite(strip.width_m)
