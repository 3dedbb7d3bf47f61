"""Which base stations measure which snapshot, where each snapshot has a random part of them.

A pure function that both ends evaluate: the base stations that are not drawn stay silent, and the cloud waits for the
others alone, without a word about it on any link.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from fronthaul.draws import generator
from fronthaul.message.checks import require_between


@dataclass(frozen=True, slots=True)
class Roster:
    """Draws `members` of the base stations 0 … `stations` − 1 anew for each snapshot, all sets equally likely.

    Attributes:
        seed: of the run.
        stations: how many there are.
        members: how many of them measure a snapshot.

    Raises:
        LocalError: not 1 … `stations` members.
    """

    seed: int
    stations: int
    members: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_between("members", self.members, 1, self.stations)

    def of(self, snapshot: int) -> frozenset[int]:
        """Return the base stations that measure `snapshot`, keyed (seed, "subset", snapshot)."""
        return _drawn(self, snapshot)


@functools.lru_cache(4096)  # all base stations of a process ask for the same few snapshots
def _drawn(roster: Roster, snapshot: int) -> frozenset[int]:
    # The smallest of independent numbers: plain doubles, which every version of NumPy draws alike.
    drawn = generator(roster.seed, "subset", snapshot).random(roster.stations)
    return frozenset(np.argsort(drawn, kind="stable")[: roster.members].tolist())
