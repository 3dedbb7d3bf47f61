"""Target: any order of events at `cloud.collector`, which must agree with `model` after each of them.

An input is a header (stations, snapshots, rules) and events of an operation and its arguments, a byte each. What a
peer can send comes as it likes; what the cloud itself calls keeps to its contract: it asks only about a snapshot
whose gathering was handed out. The cloud may die at any time, and goes on from what it wrote down.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator

from cloud.collector import Collector, CollectorRules, Gathered, History
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Frame, Goodbye, Payload, PayloadFormat, Registration, Report, ReportKey
from tests.fuzz.model import REASONS, Closed, Model

INSTRUMENTED = ["cloud.collector"]
MAX_BYTES = 400
"""Longest input [B]: about a hundred events."""
WORDS: list[bytes] = []

DEADLINE_NS, INTERVAL_NS, ROUND_NS, T0_NS = 250, 100, 70, 1000
HEADER_BYTES = 6
"""Stations, snapshots, three rules, and who is there at the start."""
EPOCHS, ROUNDS = 4, 4
"""So many different ones are tried."""
FORMATS = PayloadFormat.uniform(8, 1), PayloadFormat.uniform(4, 2, 1)
"""Of round 0 and of later ones; stations may register the same lengths as the most they send."""
HERE = (0.0, 0.0, 0.0)


def check(data: bytes, tally: Counter[str]) -> int:
    """Play the events of `data`; count fates and reasons in `tally`; return how many events there were.

    Raises:
        AssertionError: a rule is broken; any other exception is a finding as well.
    """
    if len(data) < HEADER_BYTES:
        return 0
    play = _Play(iter(data), tally)
    try:
        while True:
            play.event()
    except StopIteration:
        play.end()
    return play.events


class _Play:
    """One run: the collector, the model, and the cloud's loop around them."""

    def __init__(self, source: Iterator[int], tally: Counter[str]) -> None:
        self._source = source
        self._tally = tally
        stations, snapshots = self._below(3) + 1, self._below(4) + 1
        self._rules = CollectorRules(
            stations=frozenset(range(stations)),
            snapshots=snapshots,
            interval_ns=(0, INTERVAL_NS)[self._below(2)],
            deadline_ns=DEADLINE_NS,
            round_ns=(0, ROUND_NS)[self._below(2)],
            minimum_bs=self._below(stations) + 1,
        )
        self._now_ns = T0_NS
        self._model = Model(self._rules)
        self._collector = Collector(self._rules)
        self._pending: set[int] = set()  # snapshots whose gathering was handed out, for the cloud to go on with
        self._handed_out: set[tuple[int, int]] = set()
        self._used: set[ReportKey] = set()
        self.events = 0
        self._ready_at_once(self._below(8))
        self._kinds: tuple[Callable[[], None], ...] = (
            *(self._frame,) * 6,
            *(self._register,) * 2,
            *(self._take_ready,) * 2,
            *(self._ask,) * 2,
            *(self._goodbye, self._leave, self._heard, self._conclude, self._advance, self._start),
            *(self._close_all, self._new_incarnation),
        )

    def _ready_at_once(self, choice: int) -> None:
        """Start and let all register, as most runs do, or leave it to the events."""
        if choice & 1:
            return
        self._start()
        for bs in sorted(self._rules.stations) if not choice & 2 else ():
            self._register_as(bs, 0, rounds=not choice & 4)

    def event(self) -> None:
        """Play one event and compare; StopIteration at the end of the input."""
        self._kinds[self._below(len(self._kinds))]()
        self.events += 1
        self._compare()

    def end(self) -> None:
        """Close everything: nothing may be left."""
        self._collector.close_all()
        self._model.close_all()
        self._hand_out()
        for snapshot in sorted(self._pending):
            self._collector.conclude(snapshot)
            self._model.conclude(snapshot)
        self._compare()
        assert self._collector.finished and self._collector.next_deadline_ns is None
        assert not self._collector.take_ready() and not self._collector.take_failed()

    def _below(self, count: int) -> int:
        return next(self._source) % count

    # -- what peers do

    def _register(self) -> None:
        bs, choice = self._below(4), self._below(4 * EPOCHS)
        rounds, varies = choice // EPOCHS & 1 > 0, choice >= 2 * EPOCHS
        self._register_as(bs, choice % EPOCHS, rounds=rounds, varies=varies)

    def _register_as(self, bs: int, epoch: int, *, rounds: bool, varies: bool = False) -> None:
        report, answer = FORMATS
        if varies:
            report, answer = (PayloadFormat(one.max_bits, one.side_bytes, fixed=False) for one in FORMATS)
        registration = Registration(bs, epoch, "s", report, answer if rounds else None, HERE, HERE)
        refusal = self._collector.register(registration)
        assert (refusal is None) == self._model.register(registration)
        assert refusal is None or refusal
        self._tally["registered" if refusal is None else "refused"] += 1

    def _frame(self) -> None:
        bs, place, odd = self._below(4), next(self._source), next(self._source)
        self._pass_time()
        known = self._model.registered.get(bs)
        epoch = (known.epoch if known is not None else 0) + (odd & 15 == 1)
        owner = {2: None, 3: bs + 1}.get(odd & 15, bs)
        snapshot, round_ = place % (self._rules.snapshots + 1), (place >> 3) % (ROUNDS + 1)
        count = (1, 1, 1, 1, 2, 2, 3, 5)[odd >> 5]
        declared = FORMATS[round_ > 0]
        # As long as declared, too long, or shorter from report to report.
        bits, shorter = declared.max_bits + 8 * (odd & 31 == 20), odd & 31 == 21
        # A bundle is of one length of side information, so of rounds 0 or of later ones.
        names = [
            ((snapshot + part) % (self._rules.snapshots + 1), round_ + part // 2 * bool(round_))
            for part in range(count)
        ]
        frame = Frame(
            seq=0,
            reports=tuple(
                Report(ReportKey(bs, epoch, *name), _zeros(bits - shorter * part), bytes(declared.side_bytes))
                for part, name in enumerate(dict.fromkeys(names), 1)
            ),
        )
        self._judge(frame, owner)

    def _judge(self, frame: Frame, owner: int | None) -> None:
        """Exactly one fate; a reason if it is rejected, and one that holds; late bits as the model has them."""
        model, keys = self._model, [report.key for report in frame.reports]
        model.advance(self._now_ns)
        broken = model.broken(frame, owner)
        verdict = self._collector.frame(frame, owner, self._now_ns)
        if broken:
            assert verdict.fate is FrameFate.REJECTED and verdict.late == 0
            rules = {rule for rule, sentence in REASONS.items() if re.fullmatch(sentence, verdict.reason or "")}
            assert len(rules) == 1 and rules <= broken, f"rejected for {verdict.reason!r}, but broken are {broken}"
            self._tally[f"rejected: {rules.pop()}"] += 1
            return
        assert verdict.reason is None, verdict
        if all(key in model.delivered for key in keys):
            assert verdict.fate is FrameFate.DUPLICATE and verdict.late == 0, verdict
            self._tally["duplicate"] += 1
            return
        assert verdict.fate is FrameFate.DELIVERED, verdict
        late = [model.take(key, self._now_ns) for key in keys]
        assert verdict.late == sum(bit << part for part, bit in enumerate(late)), (verdict, late)
        self._tally["delivered"] += 1
        self._tally["late reports"] += sum(late)

    def _goodbye(self) -> None:
        bs, epoch = self._below(4), self._below(EPOCHS)
        self._pass_time()
        self._collector.goodbye(Goodbye(bs, epoch, 0), self._now_ns)
        self._model.goodbye(bs, epoch, self._now_ns)

    def _leave(self) -> None:
        bs, silent = self._below(4), bool(self._below(2))
        self._pass_time()
        self._collector.leave(bs, self._now_ns, silent=silent)
        self._model.leave(bs, self._now_ns, silent=silent)

    def _heard(self) -> None:
        bs = self._below(4)
        self._collector.heard(bs)
        self._model.heard(bs)

    # -- what the cloud does

    def _start(self) -> None:
        self._collector.start(T0_NS)
        self._model.t0_ns = T0_NS

    def _advance(self) -> None:
        self._pass_time()
        self._collector.advance(self._now_ns)
        self._model.advance(self._now_ns)
        deadline_ns = self._collector.next_deadline_ns
        assert deadline_ns is None or deadline_ns > self._now_ns

    def _ask(self) -> None:
        if not self._pending:
            return
        self._pass_time()
        snapshot = sorted(self._pending)[self._below(len(self._pending))]
        left_out = self._below(8)
        if self._model.rounds.get(snapshot, 0) >= ROUNDS:
            return
        self._pending.discard(snapshot)
        stations = sorted(bs for bs in self._collector.present if left_out != bs)
        asked = self._collector.ask(snapshot, stations, self._now_ns)
        assert asked == self._model.ask(snapshot, stations, self._now_ns)

    def _conclude(self) -> None:
        known = sorted(self._pending | self._model.rounds.keys())
        if known:
            snapshot = known[self._below(len(known))]
            self._pending.discard(snapshot)
            self._collector.conclude(snapshot)
            self._model.conclude(snapshot)

    def _take_ready(self) -> None:
        self._hand_out()

    def _close_all(self) -> None:
        if self._below(4):
            return
        self._collector.close_all()
        self._model.close_all()
        assert self._collector.next_deadline_ns is None

    def _new_incarnation(self) -> None:
        """The cloud dies, and comes back with what it wrote down."""
        start = self._below(4)
        self._hand_out()
        self._pending.clear()
        model = self._model
        history = History(
            registrations=tuple(model.registered.values()),
            done=frozenset(model.done),
            fixed=frozenset(snapshot for snapshot, _ in self._handed_out),
            delivered=frozenset(model.delivered),
        )
        self._collector = Collector(self._rules, history)
        model.new_incarnation()
        if start:
            self._start()

    # -- what must hold

    def _pass_time(self) -> None:
        """A byte of time: mostly on, at times a little back, as frames are stamped before they are judged."""
        step = next(self._source)
        deadline_ns = self._model.next_deadline_ns
        if step >= 248 and deadline_ns is not None:  # to the nanosecond where rules change
            self._now_ns = deadline_ns - (step & 1)
        elif step >= 240:
            self._now_ns = T0_NS + DEADLINE_NS + (step - 240 >> 1) * INTERVAL_NS - (step & 1)
        else:
            self._now_ns = max(T0_NS, self._now_ns + step - 64)

    def _hand_out(self) -> None:
        ready, failed = self._collector.take_ready(), self._collector.take_failed()
        assert [_closed(gathered) for gathered in ready] == self._model.ready
        assert failed == self._model.failed
        self._model.ready, self._model.failed = [], []
        for gathered in ready:
            self._check_gathered(gathered)
            self._pending.add(gathered.snapshot)
        self._tally["gatherings"] += len(ready)
        self._tally["failed rounds"] += len(failed)
        for snapshot in failed:
            self._pending.discard(snapshot)

    def _check_gathered(self, gathered: Gathered) -> None:
        """Handed out once, of reports that were delivered once and in time, one a BS and in their order."""
        place = gathered.snapshot, gathered.round
        assert place not in self._handed_out, f"{place} is handed out twice"
        self._handed_out.add(place)
        keys = [report.key for report in gathered.reports]
        stations = [key.bs for key in keys]
        assert stations == sorted(set(stations)) and len(stations) >= self._rules.minimum_bs
        assert all((key.snapshot, key.round) == place for key in keys)
        assert self._model.on_time.issuperset(keys) and self._used.isdisjoint(keys)
        assert gathered.last_bs in stations
        self._used.update(keys)

    def _compare(self) -> None:
        collector, model = self._collector, self._model
        assert collector.waited_for == model.waited_for
        assert collector.missing == model.missing
        assert collector.present == model.present & model.registered.keys()
        assert collector.registered == model.registered.keys()
        assert collector.finished == model.finished
        assert collector.closed_snapshots == len(model.closed) <= self._rules.snapshots
        assert collector.next_deadline_ns == model.next_deadline_ns
        assert collector.finished <= (not model.open)
        # Memory: what is kept is bounded by stations, snapshots and rounds, never by how many frames came.
        assert len(collector._open) == len(model.open)
        assert collector.delivered_reports == len(model.delivered)
        assert len(collector._deadlines) <= model.opened <= self._rules.snapshots * (1 + ROUNDS)
        assert len(collector._ready) + len(collector._failed) <= model.opened


def _zeros(bits: int) -> Payload:
    return Payload(bytes((bits + 7) // 8), bits)


def _closed(gathered: Gathered) -> Closed:
    keys = tuple(report.key for report in gathered.reports)
    return Closed(gathered.snapshot, gathered.round, keys, gathered.t_last_received_ns, gathered.last_bs)
