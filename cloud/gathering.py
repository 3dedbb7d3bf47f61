"""What goes into the collector and comes out of it, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Frame, Registration, Report, ReportKey
from fronthaul.roster import Roster

Carried = tuple[Frame, int]
"""A report as the frame that carries it and its place there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorRules:
    """What a run fixes about collecting.

    Attributes:
        stations: BSs that take part.
        snapshots: how many there are, numbered from 0.
        interval_ns: between two snapshots [ns]; 0 for closed loop, without deadlines.
        deadline_ns: from a snapshot's time zero [ns].
        round_ns: how long the cloud waits for the other reports of round 0 once the first is there, and for answers to
            a state [ns]; 0 for as long as the deadline allows.
        minimum_bs: minimum number of reports per fix.
        roster: draws the BSs that measure a snapshot; None where all do.
    """

    stations: frozenset[int]
    snapshots: int
    interval_ns: int
    deadline_ns: int
    round_ns: int = 0
    minimum_bs: int = 1
    roster: Roster | None = None

    def drawn(self, snapshot: int) -> frozenset[int]:
        """Return the BSs that measure a snapshot."""
        return self.stations if self.roster is None else self.roster.of(snapshot)


class Verdict(NamedTuple):
    """What becomes of a frame, why it is rejected, and which of its reports are late (bit i: report i)."""

    fate: FrameFate
    reason: str | None = None
    late: int = 0


class Gathered(NamedTuple):
    """A closed gathering that is to be fused.

    Attributes:
        snapshot: which one.
        round: of it.
        held: the reports that came in time, ordered by BS; each itself, or as a frame and its place there.
        t_last_received_ns: when the last of them came [ns].
        last_bs: whose it was.
    """

    snapshot: int
    round: int
    held: tuple[Report | Carried, ...]
    t_last_received_ns: int
    last_bs: int

    @property
    def reports(self) -> tuple[Report, ...]:
        """Reports that came in time, ordered by BS: cut out of their frames here, for whoever fuses them."""
        return tuple([item[0].reports[item[1]] if isinstance(item, tuple) else item for item in self.held])


@dataclass(frozen=True)
class History:
    """What an earlier incarnation of the cloud wrote down; a new one goes on from there.

    Attributes:
        registrations: the last of each BS.
        done: BSs that said goodbye.
        fixed: snapshots with a fix.
        delivered: reports that arrived.
    """

    registrations: tuple[Registration, ...] = ()
    done: frozenset[int] = frozenset()
    fixed: frozenset[int] = frozenset()
    delivered: frozenset[ReportKey] = frozenset()
