"""Description of one site: base station, radio and link model. It is serialised and sent to an actor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from edge.base_station import StationSpec
from fronthaul.link.link_config import LinkConfig
from fronthaul.roster import Roster

Vector = tuple[float, float, float]


class Radio(Protocol):
    """A site's air interface."""

    def observe(self, snapshot: int) -> Tensor:
        """Return received pilots (slot, antenna, tone) complex64 [sqrt(W)] of a snapshot."""

    @staticmethod
    def observe_together(asked: Sequence[tuple[Any, Sequence[int]]]) -> list[Tensor]:
        """Return the pilots (B, slot, antenna, tone) of each radio in its own B snapshots, the same as alone.

        Args:
            asked: radios of this kind in one run, each with its snapshots.
        """


@dataclass(frozen=True)
class SiteSpec:
    """Full description of one site, sent to the actor that runs it. Holds no position of any user.

    Attributes:
        station: specification of the base station.
        radio: source of what its antennas receive.
        position: array centre [m].
        orientation: yaw, pitch, roll of the array [rad].
        up: model of the uplink to the cloud; None is a perfect link.
        seed: seed of the link model's draws.
        bundle: number of reports per frame.
        ping_ns: heartbeat interval [ns]; 0 disables heartbeats.
        capture: whether the link's frames are captured (pcapng).
        closed_loop: whether it sends as fast as its link takes reports: a full queue holds it up, and loses none.
        compact: whether frames go in their compact form (`fronthaul.message.compact`).
        roster: draws the base stations that measure each snapshot; None if all of them measure every snapshot.
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
    closed_loop: bool = False
    compact: bool = False
    roster: Roster | None = None

    def measures(self, snapshot: int) -> bool:
        """Return whether this base station measures a snapshot; it sends no report for the others."""
        return self.roster is None or self.station.bs in self.roster.of(snapshot)
