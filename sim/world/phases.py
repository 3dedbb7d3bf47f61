"""Carrier phases of paths: as they were traced, drawn anew, or without what the way adds to them.

A path of delay τ has the phase of its coefficient and −2π f_c τ of its way. What a learner may make of it differs:

- ``traced``: both. Over half a wavelength the phase turns once: it tells nothing of a place metres away.
- ``drawn``: uniform draws in place of both (`sim.world.channel.redrawn_phases`): it tells nothing at all.
- ``initial``: the coefficient's alone. That is TR 38.901 to the letter, whose absolute time of arrival (Sec. 7.6.9)
  delays the pulse and not the carrier, and whose spatially consistent initial phases (Sec. 7.6.3.1) are alike over ten
  metres: a phase that can be learnt, and that no real channel has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from sim.world.channel import PaddedPaths, redrawn_phases
from sim.world.scenario import Scenario


def phased(scenario: Scenario, paths: PaddedPaths, sites: Sequence[int]) -> PaddedPaths:
    """Return paths with the phases that the scenario wants.

    Args:
        scenario: `phases` is one of those above.
        paths: as `pad_paths` gives them, of N users and K sites.
        sites: their K numbers in the scenario.
    """
    if scenario.phases == "drawn":
        return redrawn_phases(paths, sites, scenario.tracing.seed)
    if scenario.phases == "initial":
        way = torch.polar(
            torch.ones(()), (2 * math.pi * (paths.distance.double() / scenario.numerology.wavelength_m % 1.0)).float()
        )
        matrix = None if paths.matrix is None else paths.matrix * way[..., None, None]
        return replace(paths, coefficient=paths.coefficient * way, matrix=matrix)
    return paths
