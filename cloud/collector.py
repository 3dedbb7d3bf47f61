"""Which frames count, and when a round has waited long enough. A pure state machine: time in, events out.

A *gathering* is what the cloud collects of one snapshot in one round. Rules, in the order in which a frame meets them:

1. A frame is *rejected* whose BS is not the owner of its connection, is not expected in this run, has not registered,
   or sends in another epoch than it registered last; before the start; with a snapshot that the run does not have or
   that is not this BS's to measure, or a round that nobody asked for; with a payload or side information of a length
   that it has not registered; or where an earlier epoch of that BS has reported on the snapshot already. Nothing
   changes.
2. A frame is a *duplicate* if its reports were delivered before; one that mixes old and new ones is rejected.
3. Any other frame is *delivered*. A report in it is *late* if it comes at its gathering's deadline or afterwards, or
   when the gathering is closed; else it waits with the others.
4. The gathering of round 0 opens with its first report and waits for every BS that measures this snapshot
   (`CollectorRules.roster`), is present and has more to send. Those of later rounds open when the cloud asks, and wait
   for the BSs asked, but for those that missed the last three rounds of the snapshot: else one dead BS would hold up
   each of two hundred rounds. What it says in time counts all the same, and has it waited for again. A BS is present
   until it is known to be gone, has been silent for too long, or said goodbye.
5. A gathering *closes* as soon as all that it waits for have reported, or at its deadline. With at least `minimum_bs`
   reports it is handed out once, in order of BS. With fewer it comes to nothing: in round 0 the snapshot does, in a
   later round the rounds end with what those before it gave.

The deadline counts from time zero, t0 + snapshot * interval, not from any arrival; every round has `round_ns` of its
own beside that, from its first report in round 0 and from the cloud's asking in later ones. With interval 0 (closed
loop) there is no deadline but `round_ns`. What a report came to (used, unused, late, lost) is derived from what was
written down: see `fronthaul.account.ledger`.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection
from dataclasses import dataclass, field

from cloud.gathering import CollectorRules as CollectorRules
from cloud.gathering import Gathered as Gathered
from cloud.gathering import History as History
from cloud.gathering import Verdict as Verdict
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Frame, Goodbye, Registration

_ON_TIME, _DUPLICATE = Verdict(FrameFate.DELIVERED), Verdict(FrameFate.DUPLICATE)
_MIXED = Verdict(FrameFate.REJECTED, "it bundles reports that came before with new ones")
_REPORTED = Verdict(FrameFate.REJECTED, "an earlier epoch has reported on this snapshot")
MISSES = 3
"""Rounds in a row that a BS may miss of a snapshot and be waited for in the next."""
_Key = tuple[int, int]  # snapshot, round
_Waiting = tuple[Frame, int, int]  # a report: the frame that carries it, its place there, when it came [ns]


@dataclass(slots=True)
class _Gathering:
    deadline_ns: int | None
    asked: frozenset[int] | None  # None in round 0, which waits for whoever has more to send ...
    drawn: frozenset[int] | None = None  # ... of these; None for all
    waiting: dict[int, _Waiting] = field(default_factory=dict)
    sent: tuple[int, ...] = ()  # all that may answer, waited for or not


@dataclass(frozen=True, slots=True)
class _Station:
    """A BS that has registered, and what it has delivered: reports by snapshot and round.

    They are plain tuples, which the garbage collector need not look through: there are many.
    """

    registration: Registration
    delivered: set[_Key]  # in the epoch that it registered
    earlier: tuple[set[_Key], ...]  # in others, as far as there are any
    epoch: int
    min_bits: int  # of a payload of round 0
    max_bits: int
    side_bytes: int


class Collector:
    """Collects reports by snapshot and round; see the module's rules."""

    def __init__(self, rules: CollectorRules, history: History = History()) -> None:  # noqa: B008 - frozen
        """Start waiting for all of `rules.stations`; `history` is what an earlier incarnation knew."""
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
        self._expected = frozenset(self._sending & self._present)
        self._open: dict[_Key, _Gathering] = {}
        self._deadlines: list[tuple[int, _Key]] = []  # heap; those closed early stay until they come up
        # A snapshot that an earlier incarnation had begun is over: what it held is lost with it.
        self._closed: set[int] = set(history.fixed) | {key.snapshot for key in history.delivered}
        self._rounds: dict[int, int] = {}  # rounds asked of snapshots that need more than one
        self._missed: dict[int, dict[int, int]] = {}  # of them: how many in a row, by BS
        self._ready: list[Gathered] = []
        self._failed: list[int] = []

    @property
    def waited_for(self) -> frozenset[int]:
        """BSs that have more to send and have not left."""
        return self._expected

    @property
    def missing(self) -> frozenset[int]:
        """BSs that have more to send and may still come: those waited for, and those silent."""
        return frozenset(self._sending & (self._present | self._silent))

    @property
    def present(self) -> frozenset[int]:
        """BSs that would answer: registered, and neither gone nor silent."""
        return frozenset(self._present & self._stations.keys())

    @property
    def registered(self) -> frozenset[int]:
        """BSs that have registered."""
        return frozenset(self._stations)

    @property
    def finished(self) -> bool:
        """Whether nothing can change any more: nobody has more to send, and nothing is open."""
        return not self._open and not self._rounds and not self.missing

    @property
    def closed_snapshots(self) -> int:
        """Snapshots whose round 0 is closed."""
        return len(self._closed)

    @property
    def delivered_reports(self) -> int:
        """Reports that were delivered, of all incarnations: as many are remembered."""
        return sum(len(reports) for epochs in self._delivered.values() for reports in epochs.values())

    @property
    def next_deadline_ns(self) -> int | None:
        """When the next open gathering closes at the latest [ns]; None without open ones or deadlines."""
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
        """Let a BS in, or return the reason not to. A newer epoch takes the place of an older one."""
        bs, epoch = registration.bs, registration.epoch
        if bs not in self._rules.stations:
            return f"BS {bs} is not part of this run, which has {len(self._rules.stations)} base stations"
        known = self._stations.get(bs)
        if known is not None and epoch < known.epoch:
            return f"BS {bs} has registered in epoch {known.epoch} already, {epoch} is over"
        self._stations[bs] = self._station(registration)
        self.heard(bs)
        if known is None or epoch > known.epoch:  # it is back; the same epoch would undo a goodbye
            self._sending.add(bs)
            self._present.add(bs)
            self._expect()
            self._unask(bs)
        return None

    def goodbye(self, goodbye: Goodbye, now_ns: int) -> None:
        """Stop waiting for reports of a BS that has sent everything; an old epoch's goodbye changes nothing."""
        known = self._stations.get(goodbye.bs)
        if known is not None and known.epoch == goodbye.epoch:
            self.advance(now_ns)  # what is due is closed by its deadline and not by this
            self._sending.discard(goodbye.bs)
            self._expect()
            self._close_complete()

    def leave(self, bs: int, now_ns: int, *, silent: bool = False) -> None:
        """Stop waiting for a BS that is known to be gone, or has been silent for too long and may return."""
        self.advance(now_ns)
        if not silent:
            self._silent.discard(bs)
        elif bs in self._present:  # else it is known to be gone, which silence does not undo
            self._silent.add(bs)
        self._present.discard(bs)
        self._expect()
        self._close_complete()

    def heard(self, bs: int) -> None:
        """Wait for a silent BS again."""
        if bs in self._silent:
            self._silent.discard(bs)
            self._present.add(bs)
            self._expect()

    def ask(self, snapshot: int, stations: Collection[int], now_ns: int) -> int:
        """Open the next round of a snapshot, which waits for answers of `stations`; return its number."""
        round_ = self._rounds.get(snapshot, 0) + 1
        self._rounds[snapshot] = round_
        missed = self._missed.setdefault(snapshot, {})
        asked = frozenset(bs for bs in stations if missed.get(bs, 0) < MISSES)
        gathering = self._opened((snapshot, round_), self._limit_ns(snapshot, now_ns), asked)
        gathering.sent = tuple(stations)
        self._close_if_complete((snapshot, round_), gathering)
        return round_

    def conclude(self, snapshot: int) -> None:
        """End the rounds of a snapshot; a round that is still open comes to nothing."""
        round_ = self._rounds.pop(snapshot, None)
        self._missed.pop(snapshot, None)
        if round_ is not None:
            self._open.pop((snapshot, round_), None)

    def frame(self, frame: Frame, owner: int | None, now_ns: int) -> Verdict:
        """Take one frame that came over a connection of BS `owner` at `now_ns` [ns]."""
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
        enough = 0 if self._roster else len(self._expected)
        for part, key in enumerate(parts):
            gathering = self._open.get(key)
            if gathering is None:
                gathering = self._begun(key, now_ns)
                if gathering is None:
                    late |= 1 << part
                    continue
            waiting = gathering.waiting
            waiting[bs] = frame, part, now_ns
            # The count first: it settles nearly every case of round 0.
            if len(waiting) >= enough or gathering.asked is not None:
                self._close_if_complete(key, gathering)
        return Verdict(FrameFate.DELIVERED, None, late) if late else _ON_TIME

    def advance(self, now_ns: int) -> None:
        """Close all gatherings that are due at `now_ns` [ns]."""
        while (deadline_ns := self.next_deadline_ns) is not None and deadline_ns <= now_ns:
            self._close(heapq.heappop(self._deadlines)[1])

    def close_all(self) -> None:
        """Close all open gatherings and wait for nobody: the run is over, whatever is missing."""
        self._sending.clear()
        self._expect()
        for key in sorted(self._open):
            self._close(key)

    def take_ready(self) -> list[Gathered]:
        """Return the gatherings that closed with enough reports since the last call, in that order."""
        ready, self._ready = self._ready, []
        return ready

    def take_failed(self) -> list[int]:
        """Return the snapshots whose rounds came to nothing since the last call."""
        failed, self._failed = self._failed, []
        return failed

    def _begun(self, key: _Key, now_ns: int) -> _Gathering | None:
        """Open the gathering of a report that finds none; None where there is none for it, or none any more.

        One that is found open is not due: what was due by now is closed.
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
        """Whether rule 1 has nothing against a frame of round 0; where this says no, `_reason_to_reject` decides."""
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
                return f"snapshot {snapshot} is not BS {bs}'s to measure"
            wanted = station.registration.answer if round_ else station.registration.report
            if wanted is None:
                return "the run has one round"
            if round_ and key not in station.delivered and not self._was_asked(key):
                return f"nobody asked for round {round_}"
            if not wanted.admits(bits, side_bytes):
                most = "" if wanted.fixed else "up to "
                return f"registered were {most}{wanted.max_bits} bits of payload and {wanted.side_bytes} B beside it"
        return None

    def _was_asked(self, key: _Key) -> bool:
        """Whether the cloud asked for a round; of a snapshot that is done nobody knows how many there were."""
        snapshot, round_ = key
        return round_ <= self._rounds.get(snapshot, 255 if snapshot in self._closed else 0)

    def _limit_ns(self, snapshot: int, now_ns: int) -> int | None:
        """When a round that opens now closes at the latest [ns]."""
        rules = self._rules
        if not rules.interval_ns:
            return now_ns + rules.round_ns if rules.round_ns else None
        deadline_ns = self._deadline_ns(snapshot)
        return min(deadline_ns, now_ns + rules.round_ns) if rules.round_ns else deadline_ns

    def _deadline_ns(self, snapshot: int) -> int:
        assert self._t0_ns is not None
        return self._t0_ns + snapshot * self._rules.interval_ns + self._rules.deadline_ns

    def _unask(self, bs: int) -> None:
        """Wait for no answer to what an earlier epoch of `bs` was asked."""
        for key, gathering in sorted(self._open.items(), key=lambda item: item[0]):
            if gathering.asked is not None and bs in gathering.asked:
                gathering.asked -= {bs}
                self._close_if_complete(key, gathering)

    def _expect(self) -> None:
        self._expected = frozenset(self._sending & self._present)

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
                frame, part, t_received_ns = waiting[bs]
                held.append((frame, part))
                if t_received_ns >= last_ns:
                    last_ns, last_bs = t_received_ns, bs
            self._ready.append(Gathered(snapshot, round_, tuple(held), last_ns, last_bs))
        elif round_:
            self.conclude(snapshot)
            self._failed.append(snapshot)
