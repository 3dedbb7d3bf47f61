"""Carrier phases of paths: as traced, redrawn, or without the propagation phase.

The phase of a path with delay τ is that of its coefficient plus the propagation phase −2π f_c τ. The choices differ in
what a learner can exploit:

- ``traced``: both parts. The phase turns once per wavelength of path length, so it carries no information about
  positions metres away.
- ``drawn``: uniform draws replace both (`sim.world.channel.redrawn_phases`); the phase carries no information at all.
- ``initial``: the coefficient's phase alone. This follows TR 38.901 literally: its absolute time of arrival
  (Sec. 7.6.9) delays the pulse but not the carrier, and its spatially consistent initial phases (Sec. 7.6.3.1) are
  similar over ten metres. Such a phase can be learnt, but no real channel has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from sim.world.channel import PaddedPaths, redrawn_phases
from sim.world.scenario import Scenario


def phased(scenario: Scenario, paths: PaddedPaths, sites: Sequence[int]) -> PaddedPaths:
    """Return paths with the phases that the scenario asks for.

    Args:
        scenario: its `phases` is one of the choices above.
        paths: as returned by `pad_paths`, of N users and K sites.
        sites: numbers of the K sites in the scenario.
    """
    if scenario.phases == "drawn":
        return redrawn_phases(paths, sites, scenario.tracing.seed)
    if scenario.phases == "initial":
        turn = 2 * math.pi * (paths.distance.double() / scenario.numerology.wavelength_m % 1.0)
        way = torch.polar(torch.ones_like(paths.distance), turn.float())
        matrix = None if paths.matrix is None else paths.matrix * way[..., None, None]
        return replace(paths, coefficient=paths.coefficient * way, matrix=matrix)
    return paths
