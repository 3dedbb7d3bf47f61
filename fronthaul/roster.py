"""Which base stations measure which snapshot, if each snapshot is measured by a random subset.

Both ends evaluate the same pure function, so nothing is exchanged about it: base stations that are not drawn send
nothing, and the cloud waits only for the others.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from fronthaul.draws import generator
from fronthaul.message.checks import require_between


@dataclass(frozen=True, slots=True)
class Roster:
    """For each snapshot, a new random subset of the base stations 0 … `stations` − 1; all subsets are equally likely.

    Attributes:
        seed: the run's seed.
        stations: number of base stations.
        members: number of base stations that measure a snapshot.

    Raises:
        LocalError: `members` is not in 1 … `stations`.
    """

    seed: int
    stations: int
    members: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_between("members", self.members, 1, self.stations)

    def of(self, snapshot: int) -> frozenset[int]:
        """Return the base stations that measure `snapshot`; the draw is keyed (seed, "subset", snapshot)."""
        return _drawn(self, snapshot)


@functools.lru_cache(4096)  # all base stations of a process ask for the same few snapshots
def _drawn(roster: Roster, snapshot: int) -> frozenset[int]:
    # The members with the smallest of independent numbers: plain doubles, which every version of NumPy draws alike.
    drawn = generator(roster.seed, "subset", snapshot).random(roster.stations)
    return frozenset(np.argsort(drawn, kind="stable")[: roster.members].tolist())
