"""Rounds up to a fix: the cloud broadcasts a state, base stations answer. Many fusion rules need only round 0.

    round 0 closed -> advance -> state -> broadcast -> answers -> round closed -> advance -> ... -> fix

The rounds of a snapshot end with the fix, with the last round number, at the snapshot's deadline, with a round that
has too few reports, or at the end of the run; in all but the first case with the best fix so far, if there is one.
States go to the base stations that measure the snapshot and are present.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cloud.center import LAST_ROUND, FusionCenter, OpenExchange
from cloud.collector import Collector, CollectorRules, Gathered
from cloud.downlink import Downlink
from cloud.fixlog import FixRecord
from cloud.fusion.scheme import Fix
from fronthaul.clock import Clock
from fronthaul.message.messages import Payload


class Rounds:
    """The open exchanges, by snapshot.

    Attributes:
        t0_ns: time zero of snapshot 0 [ns]; None before the start.
    """

    def __init__(
        self, center: FusionCenter, collector: Collector, rules: CollectorRules, downlink: Downlink, clock: Clock
    ) -> None:
        """Start without exchanges.

        Args:
            center: runs the fusion rule.
            collector: opens the gathering of each round, and is told when the rounds of a snapshot are over.
            rules: the collector's settings.
            downlink: sends the states.
            clock: decides when a snapshot's deadline is over.
        """
        self._center = center
        self._collector = collector
        self._rules = rules
        self._downlink = downlink
        self._clock = clock
        self._exchanges: dict[int, OpenExchange] = {}
        self._over = False
        self.t0_ns: int | None = None

    @property
    def snapshots(self) -> list[int]:
        """Snapshots with an open exchange."""
        return list(self._exchanges)

    def advance(self, closed: Sequence[Gathered]) -> list[FixRecord | None]:
        """Fuse closed rounds, one per snapshot; broadcast the next state (None), or return the fix.

        Raises:
            FusionError: the fusion rule failed.
        """
        for gathered in closed:
            if gathered.snapshot not in self._exchanges:
                self._exchanges[gathered.snapshot] = self._center.open(gathered.snapshot)
        t_fuse_ns = self._clock.now_ns()
        with torch.inference_mode():
            answers = self._center.advance([(self._exchanges[gathered.snapshot], gathered) for gathered in closed])
        t_fix_ns = self._clock.now_ns()
        return [
            self._next(gathered, answer, t_fuse_ns, t_fix_ns) for gathered, answer in zip(closed, answers, strict=True)
        ]

    def conclude(self, snapshot: int) -> FixRecord | None:
        """End the rounds of a snapshot; return the best fix so far, or None if there is none or the rounds are over.

        Raises:
            FusionError: the fusion rule failed.
        """
        state = self._exchanges.get(snapshot)
        if state is None:
            return None
        fix = self._center.conclude(snapshot, state)
        if fix is not None:
            now_ns = self._clock.now_ns()
            return self._end(snapshot, fix, now_ns, now_ns)
        self._collector.conclude(snapshot)
        del self._exchanges[snapshot]
        return None

    def end(self) -> None:
        """Broadcast no more states: from now on, `advance` concludes every snapshot."""
        self._over = True

    def _next(self, gathered: Gathered, answer: Payload | Fix, t_fuse_ns: int, t_fix_ns: int) -> FixRecord | None:
        snapshot = gathered.snapshot
        if isinstance(answer, Fix):
            return self._end(snapshot, answer, t_fuse_ns, t_fix_ns)
        if gathered.round >= LAST_ROUND or self._over or self._is_due(snapshot):
            return self.conclude(snapshot)
        self._broadcast(snapshot, answer)
        return None

    def _is_due(self, snapshot: int) -> bool:
        rules = self._rules
        if not rules.interval_ns or self.t0_ns is None:
            return False
        return self._clock.now_ns() >= self.t0_ns + snapshot * rules.interval_ns + rules.deadline_ns

    def _broadcast(self, snapshot: int, state: Payload) -> None:
        stations = sorted(self._collector.present & self._rules.drawn(snapshot))
        now_ns = self._clock.now_ns()
        round_ = self._collector.ask(snapshot, stations, now_ns)
        self._downlink.broadcast(stations, snapshot, round_, state, now_ns)

    def _end(self, snapshot: int, fix: Fix, t_fuse_ns: int, t_fix_ns: int) -> FixRecord:
        state = self._exchanges.pop(snapshot)
        last = state.last
        assert last is not None, "there is no fix before the first report"
        self._collector.conclude(snapshot)
        return FixRecord(
            snapshot=snapshot,
            used=tuple(key for key in state.used if fix.uses(key)),
            position=fix.position,
            covariance=fix.covariance,
            last_bs=last.last_bs,
            t_last_received_ns=last.t_last_received_ns,
            t_fuse_ns=t_fuse_ns,
            t_fix_ns=t_fix_ns,
            fuse_ns=state.fuse_ns,
            rounds=last.round + 1,
            excluded=fix.excluded,
            note=fix.note,
        )
