"""Admission: which base stations may take part, by the format of their reports and by their position.

Fusion rules are built from the planned positions (`CloudSetup.stations`) before any base station registers, and a
replay knows no others. A base station that registers a different position is therefore refused, so that every
participant is at the position that the fusion rule assumes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping

from cloud.cloud_spec import CloudSpec
from cloud.collector import Collector
from fronthaul.message.messages import Registration, place_text

Vector = tuple[float, float, float]

SAME_PLACE_M = 0.01
"""Positions closer together than this count as the same [m]."""


class Admission:
    """Decides on registrations."""

    def __init__(self, parts: CloudSpec, collector: Collector, registered: Iterable[Registration] = ()) -> None:
        """Start with only the base stations `registered` in an earlier incarnation of the cloud admitted.

        Args:
            parts: specification of the cloud.
            collector: knows which base stations take part; each admitted one is registered there.
            registered: registrations that an earlier incarnation accepted; the collector knows them.
        """
        self._parts = parts
        self._collector = collector
        self._places = Places(parts.setup.stations, registered)

    def refusal(self, registration: Registration, owner: int) -> str | None:
        """Admit the base station that registers over the connection of BS `owner`, or return the reason for refusal."""
        if registration.bs != owner:
            return f"BS {registration.bs} does not own this connection"
        refusal = (
            self._parts.refusal(registration)
            or self._places.refusal(registration)
            or self._collector.register(registration)
        )
        if refusal is None:
            self._places.note(registration)
        return refusal


class Places:
    """Planned and registered positions, by base station."""

    def __init__(self, planned: Mapping[int, Vector], registered: Iterable[Registration] = ()) -> None:
        """Store the planned positions [m], and registrations that an earlier incarnation of the cloud accepted."""
        self._planned = planned
        self._place: dict[int, Vector] = {}
        self._cells: dict[tuple[int, ...], set[int]] = {}  # cubes with an edge of `SAME_PLACE_M`
        for registration in registered:
            self.note(registration)

    def refusal(self, registration: Registration) -> str | None:
        """Return why the position in a registration is refused; None if it is accepted."""
        bs, position = registration.bs, registration.position
        for other in sorted(self._near(position) - {bs}):
            if math.dist(self._place[other], position) < SAME_PLACE_M:
                where = f"BS {bs} registers at {place_text(position)}, the place of BS {other}"
                return f"{where}: two base stations must be at least {100 * SAME_PLACE_M:g} cm apart"
        planned = self._planned.get(bs)
        if planned is not None and math.dist(planned, position) >= SAME_PLACE_M:
            return f"BS {bs} registers at {place_text(position)}, but the cloud's plan has it at {place_text(planned)}"
        return None

    def note(self, registration: Registration) -> None:
        """Record the position of an admitted base station."""
        bs = registration.bs
        if bs in self._place:
            self._cells[_cell(self._place[bs])].discard(bs)
        self._place[bs] = registration.position
        self._cells.setdefault(_cell(registration.position), set()).add(bs)

    def _near(self, position: Vector) -> set[int]:
        """Return the base stations in the cell of a position and the cells around it; no others can be too close."""
        x, y, z = _cell(position)
        around = itertools.product((x - 1, x, x + 1), (y - 1, y, y + 1), (z - 1, z, z + 1))
        return {bs for cell in around for bs in self._cells.get(cell, ())}


def _cell(position: Vector) -> tuple[int, ...]:
    return tuple(math.floor(coordinate / SAME_PLACE_M) for coordinate in position)
