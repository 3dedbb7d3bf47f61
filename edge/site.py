"""What stands at one site: base station, radio, and what is known of its link. All of it crosses to an actor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from edge.base_station import StationSpec
from fronthaul.link.link_config import LinkConfig
from fronthaul.roster import Roster

Vector = tuple[float, float, float]


class Radio(Protocol):
    """A site's air interface."""

    def observe(self, snapshot: int) -> Tensor:
        """Return received pilots (slot, antenna, tone) complex64 [sqrt(W)] of a snapshot."""


@dataclass(frozen=True)
class SiteSpec:
    """Everything that stands at one site; crosses to the actor that runs it. Holds no position of any user.

    Attributes:
        station: what the base station is made of.
        radio: what its antennas receive.
        position: of the array's centre [m].
        orientation: yaw, pitch, roll [rad].
        up: model of the link from here to the cloud; None is a perfect link.
        seed: of its draws.
        bundle: reports that share a frame.
        ping_ns: between two heartbeats [ns]; 0 gives none.
        capture: whether the link's frames are captured (pcapng).
        roster: draws the base stations that measure a snapshot; None where all do.
    """

    station: StationSpec
    radio: Radio
    position: Vector
    orientation: Vector
    up: LinkConfig | None = None
    seed: int = 0
    bundle: int = 1
    ping_ns: int = 0
    capture: bool = True
    roster: Roster | None = None

    def measures(self, snapshot: int) -> bool:
        """Whether this base station measures a snapshot; it is silent in the others."""
        return self.roster is None or self.station.bs in self.roster.of(snapshot)
