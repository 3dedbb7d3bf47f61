"""Which frames count, and when a snapshot has waited long enough. A pure state machine: time in, events out.

Rules, in the order in which a frame meets them:

1. A frame is *rejected* whose BS is not the one of its connection, is not expected in this run, has not
   registered, or sends in another epoch than it registered last; before the start; with a snapshot or a round
   that the run does not have; with a payload or side information of another size than registered; or where
   an earlier epoch of that BS has reported on the snapshot already. Nothing changes.
2. A frame is a *duplicate* if its report was delivered before. Nothing changes.
3. Any other frame is *delivered*. Its report is *late* if it comes at the snapshot's deadline or afterwards,
   or when the snapshot is closed already; else it waits with the others of its snapshot.
4. A snapshot *closes* as soon as all BSs that are waited for have reported, or at its deadline. A BS is
   waited for until it says goodbye or is known to be gone.
5. A closed snapshot is *ready* if at least `minimum_bs` reports waited: they are *used*, in one fix, ordered
   by BS. Else they are *unused*. It never opens again, so no snapshot is fused twice.

The deadline counts from time zero, t0 + snapshot * interval, not from any arrival. With interval 0 (closed
loop) there is none. Reports of which nothing arrives are *lost*, which only their sender's journal knows.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from fronthaul.fates import FrameFate, ReportFate
from fronthaul.messages import Frame, Goodbye, Registration, Report, ReportKey


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorRules:
    """What a run fixes about collecting.

    Attributes:
        stations: BSs that take part.
        snapshots: how many there are, numbered from 0.
        interval_ns: between two snapshots [ns]; 0 for closed loop, without deadlines.
        deadline_ns: from a snapshot's time zero [ns].
        minimum_bs: a fix needs so many reports.
    """

    stations: frozenset[int]
    snapshots: int
    interval_ns: int
    deadline_ns: int
    minimum_bs: int = 1


class Verdict(NamedTuple):
    """What becomes of a frame, and why it is rejected."""

    fate: FrameFate
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ReadySnapshot:
    """A closed snapshot that is to be fused.

    Attributes:
        snapshot: which one.
        reports: those used, ordered by BS.
        t_last_received_ns: when the last of them came [ns].
        last_bs: whose it was.
    """

    snapshot: int
    reports: tuple[Report, ...]
    t_last_received_ns: int
    last_bs: int


class _Waiting(NamedTuple):
    report: Report
    t_received_ns: int


class Collector:
    """Collects reports by snapshot; see the module's rules."""

    def __init__(self, rules: CollectorRules) -> None:
        """Start with nobody registered, and waiting for all of `rules.stations`."""
        self._rules = rules
        self._t0_ns: int | None = None
        self._registered: dict[int, Registration] = {}
        self._waited_for: set[int] = set(rules.stations)
        self._open: dict[int, dict[int, _Waiting]] = {}
        self._deadlines: list[int] = []  # heap of snapshots; those closed early stay until they come up
        self._closed: set[int] = set()
        self._reported: set[tuple[int, int]] = set()  # (bs, snapshot)
        self._fates: dict[ReportKey, ReportFate | None] = {}  # None while a report waits
        self._ready: list[ReadySnapshot] = []

    @property
    def waited_for(self) -> frozenset[int]:
        """BSs that have not left yet."""
        return frozenset(self._waited_for)

    @property
    def registered(self) -> frozenset[int]:
        """BSs that have registered."""
        return frozenset(self._registered)

    @property
    def finished(self) -> bool:
        """Whether nothing can change any more: all BSs have left, and no snapshot is open."""
        return not self._waited_for and not self._open

    @property
    def closed_snapshots(self) -> int:
        """Snapshots that are closed, with a fix or without."""
        return len(self._closed)

    @property
    def report_fates(self) -> Mapping[ReportKey, ReportFate]:
        """Fate of each delivered report that does not wait any more."""
        return {key: fate for key, fate in self._fates.items() if fate is not None}

    @property
    def next_deadline_ns(self) -> int | None:
        """When the next open snapshot closes at the latest [ns]; None without open ones or deadlines."""
        while self._deadlines and self._deadlines[0] not in self._open:
            heapq.heappop(self._deadlines)
        return self._deadline_ns(self._deadlines[0]) if self._deadlines else None

    def start(self, t0_ns: int) -> None:
        """Set time zero of snapshot 0 [ns]."""
        self._t0_ns = t0_ns

    def register(self, registration: Registration) -> str | None:
        """Let a BS in, or return the reason not to. A newer epoch takes the place of an older one."""
        bs, epoch = registration.bs, registration.epoch
        if bs not in self._rules.stations:
            return f"BS {bs} is not part of this run"
        known = self._registered.get(bs)
        if known is not None and epoch < known.epoch:
            return f"BS {bs} has registered in epoch {known.epoch} already, {epoch} is over"
        self._registered[bs] = registration
        if known is not None and epoch > known.epoch:  # it is back; the same epoch would undo a goodbye
            self._waited_for.add(bs)
        return None

    def goodbye(self, goodbye: Goodbye, now_ns: int) -> None:
        """Stop waiting for a BS that has sent everything; an old epoch's goodbye changes nothing."""
        known = self._registered.get(goodbye.bs)
        if known is not None and known.epoch == goodbye.epoch:
            self.leave(goodbye.bs, now_ns)

    def leave(self, bs: int, now_ns: int) -> None:
        """Stop waiting for a BS, because it said goodbye or is known to be gone."""
        self.advance(now_ns)  # what is due is closed by its deadline and not by this
        self._waited_for.discard(bs)
        for snapshot in sorted(self._open):
            self._close_if_complete(snapshot)

    def frame(self, frame: Frame, peer_bs: int | None, now_ns: int) -> Verdict:
        """Take one frame that came over the connection of `peer_bs` at `now_ns` [ns]."""
        self.advance(now_ns)
        report = frame.report
        key = report.key
        reason = self._reason_to_reject(report, peer_bs)
        if reason is not None:
            return Verdict(FrameFate.REJECTED, reason)
        if key in self._fates:
            return Verdict(FrameFate.DUPLICATE)
        if (key.bs, key.snapshot) in self._reported:
            return Verdict(FrameFate.REJECTED, "an earlier epoch has reported on this snapshot")
        self._reported.add((key.bs, key.snapshot))
        if key.snapshot in self._closed or self._is_due(key.snapshot, now_ns):
            self._fates[key] = ReportFate.LATE
            return Verdict(FrameFate.DELIVERED)
        self._fates[key] = None
        if key.snapshot not in self._open:
            self._open[key.snapshot] = {}
            if self._rules.interval_ns:
                heapq.heappush(self._deadlines, key.snapshot)  # deadlines grow with the snapshot's number
        self._open[key.snapshot][key.bs] = _Waiting(report, now_ns)
        self._close_if_complete(key.snapshot)
        return Verdict(FrameFate.DELIVERED)

    def advance(self, now_ns: int) -> None:
        """Close all snapshots that are due at `now_ns` [ns]."""
        while (deadline_ns := self.next_deadline_ns) is not None and deadline_ns <= now_ns:
            self._close(heapq.heappop(self._deadlines))

    def close_all(self) -> None:
        """Close all open snapshots and wait for nobody: the run is over, whatever is missing."""
        self._waited_for.clear()
        for snapshot in sorted(self._open):
            self._close(snapshot)

    def take_ready(self) -> list[ReadySnapshot]:
        """Return the snapshots that became ready since the last call, in the order of their closing."""
        ready, self._ready = self._ready, []
        return ready

    def _reason_to_reject(self, report: Report, peer_bs: int | None) -> str | None:
        key = report.key
        if key.bs != peer_bs:
            return f"BS {key.bs} does not own this connection"
        known = self._registered.get(key.bs)
        if known is None:
            return f"BS {key.bs} has not registered"
        if key.epoch != known.epoch:
            return f"epoch {key.epoch} is not the registered {known.epoch}"
        if self._t0_ns is None:
            return "the run has not started"
        if key.snapshot >= self._rules.snapshots:
            return f"the run has {self._rules.snapshots} snapshots"
        if key.round:
            return "the run has one round"
        registered = known.bits * known.coefficients, known.side_bytes
        if (report.payload.bits, len(report.side)) != registered:
            return f"registered were {registered[0]} bits of payload and {registered[1]} B beside it"
        return None

    def _deadline_ns(self, snapshot: int) -> int:
        assert self._t0_ns is not None
        return self._t0_ns + snapshot * self._rules.interval_ns + self._rules.deadline_ns

    def _is_due(self, snapshot: int, now_ns: int) -> bool:
        return bool(self._rules.interval_ns) and now_ns >= self._deadline_ns(snapshot)

    def _close_if_complete(self, snapshot: int) -> None:
        reports = self._open[snapshot]
        # The count first: it settles nearly every case, and a set comparison costs one step a BS.
        if len(reports) >= len(self._waited_for) and self._waited_for <= reports.keys():
            self._close(snapshot)

    def _close(self, snapshot: int) -> None:
        waiting = self._open.pop(snapshot)
        self._closed.add(snapshot)
        enough = len(waiting) >= self._rules.minimum_bs
        for item in waiting.values():
            self._fates[item.report.key] = ReportFate.USED if enough else ReportFate.UNUSED
        if enough:
            last_bs = max(waiting, key=lambda bs: (waiting[bs].t_received_ns, bs))
            reports = tuple(waiting[bs].report for bs in sorted(waiting))
            self._ready.append(ReadySnapshot(snapshot, reports, waiting[last_bs].t_received_ns, last_bs))
