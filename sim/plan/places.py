"""Where base stations run on Ray: how many share a process, and how much of a core is reserved for each."""

from __future__ import annotations

import math

from sim.cores import cores

ACTORS_PER_CORE = 4
"""Number of base-station processes per core: each takes seconds to start, and 300 MB."""


def places_of(
    per_actor: int | None, cpus: float | None, *, stations: int, cloud_cpus: float, local: bool
) -> tuple[int, float]:
    """Return base stations per actor and CPUs per base station.

    None is replaced by a value that fits on this machine if `local`, else by 1 base station and 0.25 CPUs.
    """
    here = cores()
    room = max(here - cloud_cpus, 0.01)
    fits_cpus = min(0.25, math.floor(1000 * room / max(stations, 1)) / 1000) if local else 0.25
    fits_actors = max(1, math.ceil(stations / (ACTORS_PER_CORE * here))) if local else 1
    return (fits_actors if per_actor is None else per_actor), (fits_cpus if cpus is None else cpus)
