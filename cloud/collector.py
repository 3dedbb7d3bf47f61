"""Which frames count, and when a round closes. A pure state machine: time in, events out.

A *gathering* is the set of reports that the cloud collects for one snapshot in one round. Rules, in the order in which
they apply to a frame:

1. A frame is *rejected* if its BS does not own the connection, has not registered, or sends in another epoch than the
   one it registered last; if the run has not started; if the run does not have the snapshot, this BS does not measure
   it, or the cloud did not ask for the round; if the length of a payload or of the side information does not match the
   registration; or, in round 0, if an earlier epoch of the BS has reported on the snapshot already. A rejected frame
   changes nothing.
2. A frame is a *duplicate* if all its reports were delivered before; one that mixes old and new reports is rejected.
3. Any other frame is *delivered*. A report in it is *late* if it arrives at or after the deadline of its gathering, or
   once the gathering is closed; otherwise it joins the gathering.
4. The gathering of round 0 opens with its first report and waits for every BS that measures this snapshot
   (`CollectorRules.roster`), is present and has more to send. The gathering of a later round opens when the cloud asks
   for the round. It waits for the BSs asked, except those that missed the last three rounds of the snapshot: otherwise
   one dead BS would delay every round. An answer from such a BS still counts if it is in time, and the BS is waited
   for again. A BS is present until it is known to be gone or has been silent for too long; after its goodbye it has
   no more to send.
5. A gathering *closes* as soon as every BS that it waits for has reported, or at its deadline. With at least
   `minimum_bs` reports it is passed on once, ordered by BS. With fewer it is discarded: in round 0 the snapshot has no
   fix; in a later round the rounds end with the result of the rounds before.

The deadline counts from the snapshot's time, t0 + snapshot * interval, not from any arrival. In addition, every round
may take at most `round_ns`, counted from the first report in round 0 and from the cloud's request in later rounds. With
interval 0 (closed loop), `round_ns` is the only limit. The fate of a report (used, unused, late, lost) is derived from
the logs: see `fronthaul.account.ledger`.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from operator import contains

from cloud.gathering import Carried
from cloud.gathering import CollectorRules as CollectorRules
from cloud.gathering import Gathered as Gathered
from cloud.gathering import History as History
from cloud.gathering import Verdict as Verdict
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Frame, Goodbye, Registration
from fronthaul.message.wire import ReportHeads

_ON_TIME, _DUPLICATE = Verdict(FrameFate.DELIVERED), Verdict(FrameFate.DUPLICATE)
_MIXED = Verdict(FrameFate.REJECTED, "it bundles new reports with ones that were delivered before")
_REPORTED = Verdict(FrameFate.REJECTED, "an earlier epoch has reported on this snapshot")
MISSES = 3
"""A BS that missed this many rounds of a snapshot in a row is no longer waited for in that snapshot."""
_Key = tuple[int, int]  # snapshot, round


@dataclass(slots=True)
class _Gathering:
    deadline_ns: int | None
    asked: frozenset[int] | None  # None in round 0, which waits for the BSs that have more to send ...
    drawn: frozenset[int] | None = None  # ... of these; None for all
    waiting: dict[int, Carried] = field(default_factory=dict)
    sent: tuple[int, ...] = ()  # all BSs that may answer, waited for or not


@dataclass(frozen=True, slots=True)
class _Station:
    """A registered BS and the reports it has delivered, by snapshot and round.

    Keys are plain tuples, which the garbage collector need not track: there are many.
    """

    registration: Registration
    delivered: set[_Key]  # in the registered epoch
    earlier: tuple[set[_Key], ...]  # in other epochs, if any
    epoch: int
    min_bits: int  # of a payload of round 0
    max_bits: int
    side_bytes: int


class Collector:
    """Collects reports by snapshot and round; see the module's rules."""

    def __init__(self, rules: CollectorRules, history: History = History()) -> None:  # noqa: B008 - frozen
        """Start waiting for all of `rules.stations`; `history` is what earlier incarnations recorded."""
        self._rules = rules
        self._roster = rules.roster
        self._t0_ns: int | None = None
        self._delivered: dict[int, dict[int, set[_Key]]] = {}  # by BS and epoch
        for key in history.delivered:
            self._delivered_by(key.bs, key.epoch).add((key.snapshot, key.round))
        self._stations = {r.bs: self._station(r) for r in history.registrations}
        self._sending: set[int] = set(rules.stations - history.done)  # have more snapshots to report on
        self._present: set[int] = set(rules.stations)  # would answer
        self._silent: set[int] = set()
        self._expect()
        self._open: dict[_Key, _Gathering] = {}
        self._deadlines: list[tuple[int, _Key]] = []  # heap; gatherings closed early stay until they reach the top
        # Snapshots begun by an earlier incarnation are closed: their reports were lost with that process.
        self._closed: set[int] = set(history.fixed) | {key.snapshot for key in history.delivered}
        self._rounds: dict[int, int] = {}  # last round asked for, by snapshot with more than one round
        self._missed: dict[int, dict[int, int]] = {}  # of these snapshots: rounds missed in a row, by BS
        self._ready: list[Gathered] = []
        self._failed: list[int] = []

    @property
    def waited_for(self) -> frozenset[int]:
        """BSs that have more to send and are neither gone nor silent."""
        return self._expected

    @property
    def missing(self) -> frozenset[int]:
        """BSs that have more to send and may still do so: those waited for, and silent ones."""
        return frozenset(self._sending & (self._present | self._silent))

    @property
    def present(self) -> frozenset[int]:
        """BSs that can answer: registered, and neither gone nor silent."""
        return frozenset(self._present & self._stations.keys())

    @property
    def registered(self) -> frozenset[int]:
        """BSs that have registered."""
        return frozenset(self._stations)

    @property
    def finished(self) -> bool:
        """Whether collecting is over: no BS has more to send, and no gathering or exchange is open."""
        return not self._open and not self._rounds and not self.missing

    @property
    def closed_snapshots(self) -> int:
        """Number of snapshots whose round 0 is closed."""
        return len(self._closed)

    @property
    def open_gatherings(self) -> int:
        """Number of rounds that wait for reports."""
        return len(self._open)

    @property
    def delivered_reports(self) -> int:
        """Number of reports delivered in all incarnations; the keys of all of them are kept in memory."""
        return sum(len(reports) for epochs in self._delivered.values() for reports in epochs.values())

    @property
    def next_deadline_ns(self) -> int | None:
        """Earliest deadline of the open gatherings [ns]; None if there is none."""
        while self._deadlines:
            deadline_ns, key = self._deadlines[0]
            gathering = self._open.get(key)
            if gathering is not None and gathering.deadline_ns == deadline_ns:
                return deadline_ns
            heapq.heappop(self._deadlines)
        return None

    def start(self, t0_ns: int) -> None:
        """Set time zero of snapshot 0 [ns]."""
        self._t0_ns = t0_ns

    def register(self, registration: Registration) -> str | None:
        """Register a BS, or return the reason for refusal. A newer epoch replaces an older one."""
        bs, epoch = registration.bs, registration.epoch
        if bs not in self._rules.stations:
            return f"BS {bs} is not part of this run, which has {len(self._rules.stations)} base stations"
        known = self._stations.get(bs)
        if known is not None and epoch < known.epoch:
            return f"BS {bs} has registered in epoch {known.epoch} already, {epoch} is over"
        self._stations[bs] = self._station(registration)
        self.heard(bs)
        if known is None or epoch > known.epoch:  # restarted; the same epoch again must not undo a goodbye
            self._sending.add(bs)
            self._present.add(bs)
            self._expect()
            self._unask(bs)
        return None

    def goodbye(self, goodbye: Goodbye, now_ns: int) -> None:
        """Stop waiting for reports of a BS that has sent everything; a goodbye of an older epoch is ignored."""
        known = self._stations.get(goodbye.bs)
        if known is not None and known.epoch == goodbye.epoch:
            self.advance(now_ns)  # due gatherings close by their deadline, not by this
            self._sending.discard(goodbye.bs)
            self._expect()
            self._close_complete()

    def leave(self, bs: int, now_ns: int, *, silent: bool = False) -> None:
        """Stop waiting for a BS that is known to be gone or, if `silent`, was silent for too long and may return."""
        self.advance(now_ns)
        if not silent:
            self._silent.discard(bs)
        elif bs in self._present:  # otherwise it is known to be gone, which silence does not change
            self._silent.add(bs)
        self._present.discard(bs)
        self._expect()
        self._close_complete()

    def heard(self, bs: int) -> None:
        """Wait again for a silent BS, which has just sent something."""
        if bs in self._silent:
            self._silent.discard(bs)
            self._present.add(bs)
            self._expect()

    def ask(self, snapshot: int, stations: Collection[int], now_ns: int) -> int:
        """Open the next round of a snapshot, which waits for the answers of `stations`; return its number."""
        round_ = self._rounds.get(snapshot, 0) + 1
        self._rounds[snapshot] = round_
        missed = self._missed.setdefault(snapshot, {})
        asked = frozenset(bs for bs in stations if missed.get(bs, 0) < MISSES)
        gathering = self._opened((snapshot, round_), self._limit_ns(snapshot, now_ns), asked)
        gathering.sent = tuple(stations)
        self._close_if_complete((snapshot, round_), gathering)
        return round_

    def conclude(self, snapshot: int) -> None:
        """End the rounds of a snapshot; a round that is still open is discarded."""
        round_ = self._rounds.pop(snapshot, None)
        self._missed.pop(snapshot, None)
        if round_ is not None:
            self._open.pop((snapshot, round_), None)

    def frame(self, frame: Frame, owner: int | None, now_ns: int) -> Verdict:
        """Process a frame that arrived over a connection of BS `owner` at `now_ns` [ns]; return what becomes of it."""
        if self._deadlines and self._deadlines[0][0] <= now_ns:
            self.advance(now_ns)
        bs, _, _, parts, _, _ = frame.head
        station = self._stations.get(bs)
        if station is None or not self._is_ordinary(frame, owner, station):
            reason = self._reason_to_reject(frame, owner)
            if reason is not None:
                return Verdict(FrameFate.REJECTED, reason)
            station = self._stations[bs]
        delivered = station.delivered
        if not delivered.isdisjoint(parts):
            return _DUPLICATE if delivered.issuperset(parts) else _MIXED
        for earlier in station.earlier:
            if any(not round_ and (snapshot, 0) in earlier for snapshot, round_ in parts):
                return _REPORTED
        delivered.update(parts)
        late = 0
        for part, key in enumerate(parts):
            late |= self._late(key, bs, (frame, part, now_ns)) << part
        return Verdict(FrameFate.DELIVERED, None, late) if late else _ON_TIME

    def new_reports(
        self, owners: tuple[int | None, ...], sent: Sequence[bytes], heads: ReportHeads, t_ns: Sequence[int]
    ) -> list[int] | None:
        """Process frames of one report each as `frame` would one after the other, if it would deliver all of them.

        Args:
            owners: base stations of the connections over which they arrived.
            sent: the frames.
            heads: their headers.
            t_ns: times of arrival [ns].

        Returns:
            1 for each that is late, else 0. None if `frame` has to decide; then nothing has changed.
        """
        stations, snapshots = heads.stations, heads.snapshots
        if owners != stations or not self._silent.isdisjoint(stations) or not self._are_ordinary(heads):
            return None
        keys = list(zip(snapshots, repeat(0)))
        delivered = [self._stations[bs].delivered for bs in stations]
        if any(map(contains, delivered, keys)) or len(set(zip(stations, snapshots, strict=True))) < len(keys):
            return None
        late = []
        for bs, key, known, data, now_ns in zip(stations, keys, delivered, sent, t_ns, strict=True):
            if self._deadlines and self._deadlines[0][0] <= now_ns:
                self.advance(now_ns)
            known.add(key)
            late.append(self._late(key, bs, (data, 0, now_ns)))
        return late

    def _late(self, key: _Key, bs: int, report: Carried) -> int:
        """Return 1 if a new report is late, else 0: then it joins its gathering, which closes if it is complete."""
        gathering = self._open.get(key)
        if gathering is None:
            gathering = self._begun(key, report[2])
            if gathering is None:
                return 1
        waiting = gathering.waiting
        waiting[bs] = report
        # The count first: it decides nearly every case of round 0.
        if len(waiting) >= self._enough or gathering.asked is not None:
            self._close_if_complete(key, gathering)
        return 0

    def advance(self, now_ns: int) -> None:
        """Close all gatherings that are due at `now_ns` [ns]."""
        while (deadline_ns := self.next_deadline_ns) is not None and deadline_ns <= now_ns:
            self._close(heapq.heappop(self._deadlines)[1])

    def close_all(self) -> None:
        """Close all open gatherings and stop waiting: the run is over, even if reports are missing."""
        self._sending.clear()
        self._expect()
        for key in sorted(self._open):
            self._close(key)

    def take_ready(self) -> list[Gathered]:
        """Return the gatherings that closed with enough reports since the last call, in order of closing."""
        ready, self._ready = self._ready, []
        return ready

    def take_failed(self) -> list[int]:
        """Return the snapshots whose latest round closed with too few reports since the last call (not round 0)."""
        failed, self._failed = self._failed, []
        return failed

    def _begun(self, key: _Key, now_ns: int) -> _Gathering | None:
        """Open the gathering of round 0 for its first report; None if it is closed or due, or in a later round.

        Called where no gathering is open; an open one is never due, because due ones are closed first.
        """
        snapshot, round_ = key
        if round_ or snapshot in self._closed or (self._rules.interval_ns and now_ns >= self._deadline_ns(snapshot)):
            return None
        gathering = self._opened(key, self._limit_ns(snapshot, now_ns), None)
        gathering.drawn = None if self._roster is None else self._roster.of(snapshot)
        return gathering

    def _opened(self, key: _Key, deadline_ns: int | None, asked: frozenset[int] | None) -> _Gathering:
        gathering = self._open[key] = _Gathering(deadline_ns, asked)
        if deadline_ns is not None:
            heapq.heappush(self._deadlines, (deadline_ns, key))
        return gathering

    def _delivered_by(self, bs: int, epoch: int) -> set[_Key]:
        return self._delivered.setdefault(bs, {}).setdefault(epoch, set())

    def _station(self, registration: Registration) -> _Station:
        bs, epoch, report = registration.bs, registration.epoch, registration.report
        delivered = self._delivered_by(bs, epoch)
        earlier = tuple(reports for reports in self._delivered[bs].values() if reports and reports is not delivered)
        return _Station(registration, delivered, earlier, epoch, report.min_bits, report.max_bits, report.side_bytes)

    def _is_ordinary(self, frame: Frame, owner: int | None, station: _Station) -> bool:
        """Return whether a frame of round 0 surely passes rule 1; if not, `_reason_to_reject` decides."""
        bs, epoch, _, parts, payload_bits, side_bytes = frame.head
        if (
            bs != owner
            or epoch != station.epoch
            or side_bytes != station.side_bytes
            or self._t0_ns is None
            or self._roster is not None
        ):
            return False
        snapshots, min_bits, max_bits = self._rules.snapshots, station.min_bits, station.max_bits
        for (snapshot, round_), bits in zip(parts, payload_bits):  # noqa: B905 - as long; generators are slow
            if round_ or snapshot >= snapshots or not min_bits <= bits <= max_bits:
                return False
        return True

    def _are_ordinary(self, heads: ReportHeads) -> bool:
        """As `_is_ordinary`, for frames of one report each that arrived over connections of their base stations."""
        if self._t0_ns is None or self._roster is not None or max(heads.snapshots) >= self._rules.snapshots:
            return False
        for bs, epoch, round_, bits, side_bytes in heads.kinds:
            station = self._stations.get(bs)
            if (
                station is None
                or epoch != station.epoch
                or station.earlier
                or round_
                or side_bytes != station.side_bytes
                or not station.min_bits <= bits <= station.max_bits
            ):
                return False
        return True

    def _reason_to_reject(self, frame: Frame, owner: int | None) -> str | None:
        bs, epoch, _, parts, payload_bits, side_bytes = frame.head
        if bs != owner:
            return f"BS {bs} does not own this connection"
        station = self._stations.get(bs)
        if station is None:
            return f"BS {bs} has not registered"
        if epoch != station.epoch:
            return f"epoch {epoch} is not the registered {station.epoch}"
        if self._t0_ns is None:
            return "the run has not started"
        for key, bits in zip(parts, payload_bits, strict=True):
            snapshot, round_ = key
            if snapshot >= self._rules.snapshots:
                return f"the run has {self._rules.snapshots} snapshots"
            if bs not in self._rules.drawn(snapshot):
                return f"snapshot {snapshot} is not measured by BS {bs}"
            wanted = station.registration.answer if round_ else station.registration.report
            if wanted is None:
                return "the run has one round"
            if round_ and key not in station.delivered and not self._was_asked(key):
                return f"round {round_} was not requested"
            if not wanted.admits(bits, side_bytes):
                most = "" if wanted.fixed else "up to "
                return (
                    f"registered: {most}{wanted.max_bits} bits of payload and {wanted.side_bytes} B of side information"
                )
        return None

    def _was_asked(self, key: _Key) -> bool:
        """Return whether the cloud asked for a round; True for any round of a finished snapshot (count not kept)."""
        snapshot, round_ = key
        return round_ <= self._rounds.get(snapshot, 255 if snapshot in self._closed else 0)

    def _limit_ns(self, snapshot: int, now_ns: int) -> int | None:
        """Return the deadline of a round that opens now [ns]; None for no limit."""
        rules = self._rules
        if not rules.interval_ns:
            return now_ns + rules.round_ns if rules.round_ns else None
        deadline_ns = self._deadline_ns(snapshot)
        return min(deadline_ns, now_ns + rules.round_ns) if rules.round_ns else deadline_ns

    def _deadline_ns(self, snapshot: int) -> int:
        assert self._t0_ns is not None
        return self._t0_ns + snapshot * self._rules.interval_ns + self._rules.deadline_ns

    def _unask(self, bs: int) -> None:
        """Stop waiting for answers that an earlier epoch of `bs` was asked for."""
        for key, gathering in sorted(self._open.items(), key=lambda item: item[0]):
            if gathering.asked is not None and bs in gathering.asked:
                gathering.asked -= {bs}
                self._close_if_complete(key, gathering)

    def _expect(self) -> None:
        self._expected = frozenset(self._sending & self._present)
        self._enough = 0 if self._roster else len(self._expected)  # a gathering of round 0 with fewer is incomplete

    def _close_complete(self) -> None:
        for key in sorted(self._open):
            self._close_if_complete(key, self._open[key])

    def _close_if_complete(self, key: _Key, gathering: _Gathering) -> None:
        expected = self._expected if gathering.asked is None else gathering.asked & self._present
        if gathering.drawn is not None:
            expected &= gathering.drawn
        if gathering.waiting.keys() >= expected:
            self._close(key)

    def _close(self, key: _Key) -> None:
        snapshot, round_ = key
        gathering = self._open.pop(key)
        waiting = gathering.waiting
        self._closed.add(snapshot)
        for bs in gathering.sent:
            missed = self._missed[snapshot]
            missed[bs] = 0 if bs in waiting else missed.get(bs, 0) + 1
        if len(waiting) >= self._rules.minimum_bs:
            held = []
            last_ns, last_bs = -1, -1
            for bs in sorted(waiting):
                report = waiting[bs]
                held.append(report)
                if report[2] >= last_ns:
                    last_ns, last_bs = report[2], bs
            self._ready.append(Gathered(snapshot, round_, tuple(held), last_ns, last_bs))
        elif round_:
            self.conclude(snapshot)
            self._failed.append(snapshot)
