"""What radios have received, kept for the next runs in the same world: a sweep makes each channel once."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import fields

import numpy as np
import numpy.typing as npt

from sim.world.channel import PaddedPaths
from sim.world.scenario import Scenario

STORE_BYTES = 1 << 30
"""Most that a store keeps [B]: pilots of 23 000 snapshots of paris-6, 7680 B for each of six sites."""

Pilots = npt.NDArray[np.complex64]
Shelf = dict[int, Pilots]
"""Pilots (slot, pair, tone or tap) of one radio, by snapshot."""


class PilotStore:
    """Pilots by radio and snapshot. When it is full, the radio that was opened first gives way."""

    def __init__(self, limit_bytes: int = STORE_BYTES) -> None:
        """Start empty."""
        self._limit_bytes = limit_bytes
        self._kept_bytes = 0
        self._shelves: dict[str, Shelf] = {}

    def shelf(self, scenario: Scenario, paths: PaddedPaths, site: int, seed: int) -> Shelf:
        """Return what is kept of a radio; two radios share it exactly if they receive the same."""
        return self._shelves.setdefault(_digest(scenario, paths, site, seed), {})

    def keep(self, shelf: Shelf, snapshot: int, pilots: Pilots) -> None:
        """Keep a copy of what a radio received in a snapshot, if it finds room besides what its own radio keeps."""
        while self._kept_bytes + pilots.nbytes > self._limit_bytes:
            first = next((key for key, other in self._shelves.items() if other is not shelf and other), None)
            if first is None:
                return
            oldest = self._shelves[first]
            self._kept_bytes -= sum(each.nbytes for each in oldest.values())
            oldest.clear()
        shelf[snapshot] = pilots.copy()
        self._kept_bytes += pilots.nbytes


@functools.cache
def of_this_process(limit_bytes: int = STORE_BYTES) -> PilotStore:
    """Return the store that a process keeps from one run to the next, as it works off a sweep's rows."""
    return PilotStore(limit_bytes)


def _digest(scenario: Scenario, paths: PaddedPaths, site: int, seed: int) -> str:
    """Return a digest of everything that a radio's pilots depend on."""
    world = [(field.name, getattr(scenario, field.name)) for field in fields(scenario) if field.name != "sites"]
    digest = hashlib.blake2b(repr((world, scenario.sites[site], site, seed)).encode())
    for field in fields(paths):
        tensor = getattr(paths, field.name)
        if tensor is not None:
            digest.update(f"{field.name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
