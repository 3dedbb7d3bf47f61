"""The collector's rules once more, written for clearness alone: what `cloud.collector` must agree with.

Nothing is cached and nothing is ordered by cost: every question is answered from what was noted, and every gathering
is looked at after every event. Where several rules forbid a frame, any of them may be its reason.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from cloud.collector import MISSES, CollectorRules
from fronthaul.message.messages import Frame, PayloadFormat, Registration, Report, ReportKey

REASONS = {
    "owner": r"BS \d+ does not own this connection",
    "unregistered": r"BS \d+ has not registered",
    "epoch": r"epoch \d+ is not the registered \d+",
    "start": r"the run has not started",
    "snapshot": r"the run has \d+ snapshots",
    "one round": r"the run has one round",
    "not asked": r"round \d+ was not requested",
    "size": r"registered: (up to )?\d+ bits of payload and \d+ B of side information",
    "mixed": r"it bundles new reports with ones that were delivered before",
    "earlier epoch": r"an earlier epoch has reported on this snapshot",
}
"""Why a frame may be rejected: rule, and the sentence that says so."""

Place = tuple[int, int]  # snapshot, round


@dataclass
class Open:
    """An open gathering: until when, whom it asked (None: round 0), and (report, time) by BS."""

    deadline_ns: int | None
    asked: set[int] | None
    waiting: dict[int, tuple[ReportKey, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Closed:
    """A gathering that was handed out."""

    snapshot: int
    round: int
    keys: tuple[ReportKey, ...]
    t_last_received_ns: int
    last_bs: int


def _fits(declared: PayloadFormat, report: Report) -> bool:
    """Whether a report is as long as its station said: exactly, or at most."""
    if len(report.side) != declared.side_bytes:
        return False
    bits, most = report.payload.bits, declared.max_bits
    return bits == most if declared.fixed else bits <= most


class Model:
    """What the collector should be doing; the methods are its own."""

    def __init__(self, rules: CollectorRules) -> None:
        self.rules = rules
        self.registered: dict[int, Registration] = {}
        self.done: set[int] = set()
        self.delivered: set[ReportKey] = set()
        self.on_time: set[ReportKey] = set()
        self.handed_out: list[Closed] = []
        self.new_incarnation()

    def new_incarnation(self) -> None:
        """Forget what a cloud that dies forgets."""
        self.t0_ns: int | None = None
        self.sending = set(self.rules.stations) - self.done
        self.present = set(self.rules.stations)
        self.silent: set[int] = set()
        self.open: dict[Place, Open] = {}
        self.opened = 0
        self.rounds: dict[int, int] = {}
        self.history: dict[int, list[tuple[set[int], set[int]]]] = {}  # by round: who was sent it, who answered
        self.closed = {key.snapshot for key in self.delivered}
        self.ready: list[Closed] = []
        self.failed: list[int] = []

    # -- questions

    @property
    def waited_for(self) -> set[int]:
        return self.sending & self.present

    @property
    def missing(self) -> set[int]:
        return self.sending & (self.present | self.silent)

    @property
    def finished(self) -> bool:
        return not self.open and not self.rounds and not self.missing

    @property
    def next_deadline_ns(self) -> int | None:
        deadlines = [gathering.deadline_ns for gathering in self.open.values()]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def deadline_ns(self, snapshot: int) -> int | None:
        if not self.rules.interval_ns:
            return None
        assert self.t0_ns is not None
        return self.t0_ns + snapshot * self.rules.interval_ns + self.rules.deadline_ns

    def limit_ns(self, snapshot: int, now_ns: int) -> int | None:
        """Return when a gathering that opens now closes at the latest."""
        limits = [self.deadline_ns(snapshot), now_ns + self.rules.round_ns if self.rules.round_ns else None]
        return min((limit for limit in limits if limit is not None), default=None)

    def broken(self, frame: Frame, owner: int | None) -> set[str]:
        """Return the rules that forbid a frame."""
        broken: set[str] = set()
        keys = [report.key for report in frame.reports]
        if frame.bs != owner:
            broken.add("owner")
        known = self.registered.get(frame.bs)
        if known is None:
            return broken | {"unregistered"}
        if frame.epoch != known.epoch:
            broken.add("epoch")
        if self.t0_ns is None:
            broken.add("start")
        for key, report in zip(keys, frame.reports, strict=True):
            if key.snapshot >= self.rules.snapshots:
                broken.add("snapshot")
            declared = known.answer if key.round else known.report
            if declared is None:
                broken.add("one round")
            elif not _fits(declared, report):
                broken.add("size")
            if key.round and key not in self.delivered and not self._was_asked(key):
                broken.add("not asked")
            if key not in self.delivered and any(
                (other.bs, other.snapshot, other.round, key.round) == (key.bs, key.snapshot, 0, 0)
                for other in self.delivered
            ):
                broken.add("earlier epoch")
        if 0 < sum(key in self.delivered for key in keys) < len(keys):
            broken.add("mixed")
        return broken

    def _was_asked(self, key: ReportKey) -> bool:
        if key.snapshot in self.rounds:
            return key.round <= self.rounds[key.snapshot]
        return key.snapshot in self.closed

    # -- events

    def register(self, registration: Registration) -> bool:
        bs, epoch = registration.bs, registration.epoch
        known = self.registered.get(bs)
        if bs not in self.rules.stations or (known is not None and epoch < known.epoch):
            return False
        self.registered[bs] = registration
        if bs in self.silent:
            self.silent.remove(bs)
            self.present.add(bs)
        if known is None or epoch > known.epoch:
            self.sending.add(bs)
            self.present.add(bs)
            self.done.discard(bs)
            for gathering in self.open.values():  # its older self was asked
                if gathering.asked is not None:
                    gathering.asked.discard(bs)
            self.close_complete()
        return True

    def goodbye(self, bs: int, epoch: int, now_ns: int) -> None:
        known = self.registered.get(bs)
        if known is not None and known.epoch == epoch:
            self.advance(now_ns)
            self.sending.discard(bs)
            self.done.add(bs)
            self.close_complete()

    def leave(self, bs: int, now_ns: int, *, silent: bool) -> None:
        self.advance(now_ns)
        if silent and bs in self.present:
            self.silent.add(bs)
        if not silent:
            self.silent.discard(bs)
        self.present.discard(bs)
        self.close_complete()

    def heard(self, bs: int) -> None:
        if bs in self.silent:
            self.silent.remove(bs)
            self.present.add(bs)

    def ask(self, snapshot: int, stations: Iterable[int], now_ns: int) -> int:
        round_ = self.rounds[snapshot] = self.rounds.get(snapshot, 0) + 1
        asked = {bs for bs in stations if not self.fell_silent(bs, snapshot)}
        self.history.setdefault(snapshot, []).append((set(stations), set()))
        self.open[snapshot, round_] = Open(self.limit_ns(snapshot, now_ns), asked)
        self.opened += 1
        self.close_complete()
        return round_

    def fell_silent(self, bs: int, snapshot: int) -> bool:
        """Whether a BS has answered none of the last three rounds that it was sent."""
        answered = [bs in heard for sent, heard in self.history.get(snapshot, ()) if bs in sent]
        return len(answered) >= MISSES and not any(answered[-MISSES:])

    def conclude(self, snapshot: int) -> None:
        self.history.pop(snapshot, None)
        if snapshot in self.rounds:
            self.open.pop((snapshot, self.rounds.pop(snapshot)), None)

    def take(self, key: ReportKey, now_ns: int) -> bool:
        """Note a new report; return whether it is late."""
        self.delivered.add(key)
        place = key.snapshot, key.round
        if key.round == 0 and place not in self.open:
            deadline_ns = self.deadline_ns(key.snapshot)
            if key.snapshot in self.closed or (deadline_ns is not None and now_ns >= deadline_ns):
                return True
            self.open[place] = Open(self.limit_ns(key.snapshot, now_ns), None)
            self.opened += 1
        gathering = self.open.get(place)
        if gathering is None or (gathering.deadline_ns is not None and now_ns >= gathering.deadline_ns):
            return True
        self.on_time.add(key)
        gathering.waiting[key.bs] = key, now_ns
        self.close_complete()
        return False

    def advance(self, now_ns: int) -> None:
        due = [(g.deadline_ns, place) for place, g in self.open.items() if g.deadline_ns is not None]
        for deadline_ns, place in sorted(due):
            if deadline_ns <= now_ns:
                self.close(place)

    def close_all(self) -> None:
        self.sending.clear()
        for place in sorted(self.open):
            self.close(place)

    def close_complete(self) -> None:
        for place, gathering in sorted(self.open.items(), key=lambda item: item[0]):
            expected = self.waited_for if gathering.asked is None else gathering.asked & self.present
            if expected <= gathering.waiting.keys():
                self.close(place)

    def close(self, place: Place) -> None:
        snapshot, round_ = place
        waiting = self.open.pop(place).waiting
        self.closed.add(snapshot)
        if round_:
            self.history[snapshot][-1][1].update(waiting)
        if len(waiting) >= self.rules.minimum_bs:
            keys = tuple(key for _, (key, _) in sorted(waiting.items()))
            t_last_ns, last_bs = max((t_ns, bs) for bs, (_, t_ns) in waiting.items())
            self.ready.append(Closed(snapshot, round_, keys, t_last_ns, last_bs))
        elif round_:
            self.rounds.pop(snapshot, None)
            self.history.pop(snapshot, None)
            self.failed.append(snapshot)
