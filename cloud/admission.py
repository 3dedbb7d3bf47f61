"""Who is let in: base stations whose reports can be fused, and that stand where they should.

Fusion rules are built from the plan's positions (`CloudSetup.stations`), before anybody registers, and a replay has no
others. So a base station that registers another position is refused: those that take part stand where the rule believes
them.
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
"""Positions closer than this are one place [m]."""


class Admission:
    """Decides on registrations."""

    def __init__(self, parts: CloudSpec, collector: Collector, registered: Iterable[Registration] = ()) -> None:
        """Let nobody in yet but those `registered` in an earlier incarnation of the cloud.

        Args:
            parts: what the cloud is made of.
            collector: is told of those let in, and knows who takes part.
            registered: registrations that an earlier incarnation accepted; the collector knows them.
        """
        self._parts = parts
        self._collector = collector
        self._places = Places(parts.setup.stations, registered)

    def refusal(self, registration: Registration, owner: int) -> str | None:
        """Let in the base station that `owner`'s connection registers, or return the reason not to."""
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
    """Positions by base station: those of the plan, and those registered."""

    def __init__(self, planned: Mapping[int, Vector], registered: Iterable[Registration] = ()) -> None:
        """Take positions [m] of the plan, and registrations that an earlier incarnation of the cloud accepted."""
        self._planned = planned
        self._place: dict[int, Vector] = {}
        self._cells: dict[tuple[int, ...], set[int]] = {}  # cubes with an edge of `SAME_PLACE_M`
        for registration in registered:
            self.note(registration)

    def refusal(self, registration: Registration) -> str | None:
        """Return why a base station cannot stand where it registers; None where it can."""
        bs, position = registration.bs, registration.position
        for other in sorted(self._near(position) - {bs}):
            if math.dist(self._place[other], position) < SAME_PLACE_M:
                where = f"BS {bs} registers at {place_text(position)}, where BS {other} stands already"
                return f"{where}: two base stations must be at least {100 * SAME_PLACE_M:g} cm apart"
        planned = self._planned.get(bs)
        if planned is not None and math.dist(planned, position) >= SAME_PLACE_M:
            return f"BS {bs} registers at {place_text(position)}, but the cloud's plan has it at {place_text(planned)}"
        return None

    def note(self, registration: Registration) -> None:
        """Take down where a base station stands that was let in."""
        bs = registration.bs
        if bs in self._place:
            self._cells[_cell(self._place[bs])].discard(bs)
        self._place[bs] = registration.position
        self._cells.setdefault(_cell(registration.position), set()).add(bs)

    def _near(self, position: Vector) -> set[int]:
        """Base stations in the cell of a position and in those around it: no other is closer than a cell's edge."""
        x, y, z = _cell(position)
        around = itertools.product((x - 1, x, x + 1), (y - 1, y, y + 1), (z - 1, z, z + 1))
        return {bs for cell in around for bs in self._cells.get(cell, ())}


def _cell(position: Vector) -> tuple[int, ...]:
    return tuple(math.floor(coordinate / SAME_PLACE_M) for coordinate in position)
