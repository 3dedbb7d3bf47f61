"""Inputs and outputs of the collector, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Frame, Registration, Report, ReportKey
from fronthaul.message.wire import only_report
from fronthaul.roster import Roster

Carried = tuple[Frame | bytes, int, int]
"""A report: its frame, its index in the frame, and its time of arrival [ns]. Bytes are a frame of one report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorRules:
    """A run's settings of the collector.

    Attributes:
        stations: BSs that take part.
        snapshots: number of snapshots, numbered from 0.
        interval_ns: between two snapshots [ns]; 0 for closed loop, without deadlines.
        deadline_ns: counted from a snapshot's time [ns].
        round_ns: how long the cloud waits for further reports of round 0 after the first one, and for answers to a
            broadcast state [ns]; 0 for no limit but the deadline.
        minimum_bs: minimum number of reports per fix.
        roster: draws the BSs that measure a snapshot; None if all do.
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
    """Fate of a frame, the reason if it is rejected, and which of its reports are late (bit i: report i)."""

    fate: FrameFate
    reason: str | None = None
    late: int = 0


class Gathered(NamedTuple):
    """A closed gathering that is to be fused.

    Attributes:
        snapshot: number of the snapshot.
        round: number of the round.
        held: the reports that arrived in time, ordered by BS; each as a `Report`, or as it was carried.
        t_last_received_ns: when the last of them arrived [ns].
        last_bs: BS that sent the last one.
    """

    snapshot: int
    round: int
    held: tuple[Report | Carried, ...]
    t_last_received_ns: int
    last_bs: int

    @property
    def reports(self) -> tuple[Report, ...]:
        """Reports that arrived in time, ordered by BS; extracted from their frames on each access."""
        return tuple([_extracted(*item) if isinstance(item, tuple) else item for item in self.held])


def _extracted(frame: Frame | bytes, part: int, _: int) -> Report:
    return only_report(frame) if isinstance(frame, bytes) else frame.reports[part]


@dataclass(frozen=True)
class History:
    """What earlier incarnations of the cloud logged; a new one continues from there.

    Attributes:
        registrations: latest registration of each BS.
        done: BSs that said goodbye.
        fixed: snapshots with a fix.
        delivered: reports that arrived.
    """

    registrations: tuple[Registration, ...] = ()
    done: frozenset[int] = frozenset()
    fixed: frozenset[int] = frozenset()
    delivered: frozenset[ReportKey] = frozenset()
