"""What no order of events can break: the collector beside the plainest reading of its rules."""

import operator
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from collecting import DEADLINE, DUP, INTERVAL, REJ, STATIONS, T0, D, collector, frame, registration, report, single
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cloud.collector import Collector, CollectorRules, Gathered
from fronthaul.message.messages import Goodbye, ReportKey
from fronthaul.message.wire import encode, report_heads
from fronthaul.roster import Roster

arrivals = st.lists(
    st.tuples(
        st.integers(0, 3),  # BS
        st.sampled_from([None, 0]),  # owner: none, or that BS
        st.integers(0, 1),  # epoch
        st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0, 0, 0, 1])), min_size=1, max_size=3, unique=True),
        st.sampled_from([8, 8, 8, 16]),  # payload bits
        st.integers(0, 100),  # time that passes [ns]
    ),
    max_size=20,
)


@pytest.mark.parametrize("started", [False, True])
@given(arrivals=arrivals, interval=st.sampled_from([0, INTERVAL]))
def test_ordinary_frames_fare_as_the_rules_say_that_explain(
    arrivals: list[tuple[int, int | None, int, list[tuple[int, int]], int, int]], interval: int, started: bool
) -> None:
    """The short cut past the reasons to reject never changes what becomes of a frame."""
    rules = CollectorRules(stations=STATIONS, snapshots=4, interval_ns=interval, deadline_ns=DEADLINE)
    short, explaining = (collector(rules, started=started, rounds=True) for _ in range(2))
    explaining._is_ordinary = lambda *_: False  # type: ignore[method-assign]
    now_ns = T0
    for bs, owner, epoch, parts, bits, passed in arrivals:
        now_ns += passed
        sent = frame(*[report(bs, snapshot, epoch=epoch, round=round_, bits=bits) for snapshot, round_ in parts])
        came_by = bs if owner == 0 else None
        assert short.frame(sent, came_by, now_ns) == explaining.frame(sent, came_by, now_ns)
        assert short.take_ready() == explaining.take_ready()


# Nearly all polls bring what is expected, and one a frame more that differs in one thing.
usual = st.fixed_dictionaries({"bs": st.integers(0, 2), "snapshot": st.integers(0, 9), "passed_ns": st.integers(0, 40)})
unusual = st.sampled_from(
    [{"owner": None}, {"epoch": 1}, {"round": 1}, {"bits": 16}, {"side": b"?"}, {"snapshot": 10}, {"bs": 3}]
)
polls = st.lists(
    st.tuples(
        st.lists(usual, min_size=1, max_size=5, unique_by=lambda one: (one["bs"], one["snapshot"])),
        st.none() | st.builds(operator.or_, usual, unusual),
        st.sampled_from(["", "", "silent", "heard", "gone", "goodbye", "restart"]),  # what happens then, to
        st.integers(0, 2),  # BS
    ),
    max_size=8,
)


@pytest.mark.parametrize("roster", [None, Roster(1, 3, 2)])
@given(polls=polls, interval=st.sampled_from([0, INTERVAL]))
def test_new_reports_fare_together_as_one_by_one(
    polls: list[tuple[list[dict[str, Any]], dict[str, Any] | None, str, int]], interval: int, roster: Roster | None
) -> None:
    rules = CollectorRules(stations=STATIONS, snapshots=10, interval_ns=interval, deadline_ns=DEADLINE, roster=roster)
    together, apart = (collector(rules) for _ in range(2))
    now_ns = T0
    for came, last, what, whom in polls:
        owners, sent, t_ns = [], [], []
        for one in [*came, last] if last else came:
            now_ns += one["passed_ns"]
            of = {key: one[key] for key in ("epoch", "round", "bits", "side") if key in one}
            owners.append(one.get("owner", one["bs"]))
            sent.append(frame(report(one["bs"], one["snapshot"], **of)))
            t_ns.append(now_ns)
        verdicts = [apart.frame(each, *how) for each, *how in zip(sent, owners, t_ns, strict=True)]
        data = [encode(each) for each in sent]
        heads = report_heads(data)
        assert heads is not None
        late = together.new_reports(tuple(owners), data, heads, t_ns)
        if late is None:
            assert [together.frame(each, *how) for each, *how in zip(sent, owners, t_ns, strict=True)] == verdicts
        else:
            assert [(D, None, mask) for mask in late] == verdicts
        for made in (together, apart):
            match what:
                case "heard":
                    made.heard(whom)
                case "goodbye":
                    made.goodbye(Goodbye(whom, 0, 1), now_ns)
                case "restart":
                    made.register(registration(whom, 1))
                case "silent" | "gone":
                    made.leave(whom, now_ns, silent=what == "silent")
        assert _closed(together) == _closed(apart)
        assert together.next_deadline_ns == apart.next_deadline_ns
        assert together.delivered_reports == apart.delivered_reports and together.finished == apart.finished


def test_what_frames_of_the_same_poll_change_counts_at_once() -> None:
    def together(*frames: tuple[int, int, int, int]) -> list[int] | None:
        data = [encode(single(bs, snapshot, epoch=epoch)) for bs, snapshot, epoch, _ in frames]
        heads = report_heads(data)
        assert heads is not None
        return made.new_reports(heads.stations, data, heads, [T0 + after_ns for *_, after_ns in frames])

    made = collector()
    assert together((0, 0, 0, 1), (1, 0, 0, DEADLINE), (1, 1, 0, DEADLINE)) == [0, 1, 0]  # a deadline passes
    assert together((0, 1, 0, DEADLINE), (0, 1, 0, DEADLINE)) is None  # a copy, which is a duplicate
    assert together((2, 1, 0, DEADLINE)) == [0]
    made.register(registration(0, 1))
    assert together((0, 0, 1, DEADLINE)) is None  # its earlier epoch has reported on this
    assert together((1, 2, 0, DEADLINE)) == [0]
    made.leave(2, T0 + DEADLINE, silent=True)
    assert together((1, 3, 0, DEADLINE), (2, 3, 0, DEADLINE)) is None  # it is waited for again before its own frame


def _closed(made: Collector) -> list[Gathered]:
    return [gathered._replace(held=gathered.reports) for gathered in made.take_ready()]


# Any order of events


@dataclass
class OpenModel:
    """A gathering by the rules' text: no heap, no bookkeeping."""

    deadline: int | None
    asked: set[int] | None
    got: dict[int, ReportKey] = field(default_factory=dict)


class AnyOrder(RuleBasedStateMachine):
    """The collector beside the plainest reading of its rules."""

    @initialize(
        minimum=st.integers(1, 3),
        interval=st.sampled_from([0, INTERVAL]),
        round_ns=st.sampled_from([0, 40]),
        members=st.sampled_from([None, None, 1, 2, 3]),
    )
    def begin(self, minimum: int, interval: int, round_ns: int, members: int | None) -> None:
        self.rules = CollectorRules(
            stations=STATIONS,
            snapshots=4,
            interval_ns=interval,
            deadline_ns=DEADLINE,
            round_ns=round_ns,
            minimum_bs=minimum,
            roster=None if members is None else Roster(5, len(STATIONS), members),
        )
        self.made = collector(self.rules, rounds=True)
        self.now = T0
        self.epoch = dict.fromkeys(range(4), 0)
        self.sending, self.present, self.silent = set(STATIONS), set(STATIONS), set[int]()
        self.open: dict[tuple[int, int], OpenModel] = {}
        self.begun: set[int] = set()  # snapshots whose round 0 is closed
        self.rounds: dict[int, int] = {}
        self.undecided: list[int] = []
        self.expected_ready: list[tuple[int, int, tuple[ReportKey, ...]]] = []
        self.expected_failed: list[int] = []
        self.delivered: set[ReportKey] = set()
        self.handed: Counter[tuple[int, int]] = Counter()
        self.used: Counter[ReportKey] = Counter()

    # the model

    def limit(self, snapshot: int) -> int | None:
        limits = [self.now + self.rules.round_ns] if self.rules.round_ns else []
        if self.rules.interval_ns:
            limits.append(T0 + snapshot * self.rules.interval_ns + DEADLINE)
        return min(limits) if limits else None

    def measures(self, snapshot: int) -> frozenset[int]:
        return STATIONS if self.rules.roster is None else self.rules.roster.of(snapshot)

    def close(self, key: tuple[int, int]) -> None:
        got = self.open.pop(key).got
        self.begun.add(key[0])
        if len(got) >= self.rules.minimum_bs:
            self.expected_ready.append((*key, tuple(got[bs] for bs in sorted(got))))
        elif key[1]:
            self.rounds.pop(key[0], None)
            self.expected_failed.append(key[0])

    def close_due(self) -> None:
        for key in [key for key, g in self.open.items() if g.deadline is not None and g.deadline <= self.now]:
            self.close(key)

    def close_complete(self) -> None:
        for key, gathering in list(self.open.items()):
            wanted = self.sending & self.measures(key[0]) if gathering.asked is None else gathering.asked
            if wanted & self.present <= gathering.got.keys():
                self.close(key)

    def takes(self, key: ReportKey) -> bool:
        """Whether a new report comes in time."""
        if key.round == 0:
            over = self.rules.interval_ns and self.now >= T0 + key.snapshot * self.rules.interval_ns + DEADLINE
            if key.snapshot in self.begun or over:
                return False
            self.open.setdefault((key.snapshot, 0), OpenModel(self.limit(key.snapshot), None))
        if (key.snapshot, key.round) not in self.open:
            return False
        self.open[key.snapshot, key.round].got[key.bs] = key
        self.close_complete()
        return True

    def rejects(self, keys: list[ReportKey]) -> bool:
        if any(key.snapshot >= 4 or key.bs not in self.measures(key.snapshot) for key in keys):
            return True
        if all(key in self.delivered for key in keys):
            return False
        for key in keys:
            most = self.rounds.get(key.snapshot, 255 if key.snapshot in self.begun else 0)
            if key.round > most and key not in self.delivered:
                return True
        if any(key in self.delivered for key in keys):
            return True
        earlier = {(key.bs, key.snapshot) for key in self.delivered if key.round == 0}
        return any(key.round == 0 and (key.bs, key.snapshot) in earlier for key in keys)

    # events

    @rule(
        bs=st.integers(0, 3),
        named=st.lists(
            st.tuples(st.integers(0, 4), st.sampled_from([0, 0, 0, 1, 2])), min_size=1, max_size=3, unique=True
        ),
        passed=st.integers(0, 60),
    )
    def arrives(self, bs: int, named: list[tuple[int, int]], passed: int) -> None:
        self.now += passed
        self.close_due()
        sent = frame(*(report(bs, snapshot, epoch=self.epoch[bs], round=round_) for snapshot, round_ in named))
        keys = [r.key for r in sent.reports]
        verdict = self.made.frame(sent, bs, self.now)
        if self.rejects(keys):
            assert verdict.fate is REJ and verdict.reason and not verdict.late
        elif all(key in self.delivered for key in keys):
            assert verdict == (DUP, None, 0)
        else:
            self.delivered.update(keys)
            late = sum((not self.takes(key)) << part for part, key in enumerate(keys))
            assert verdict == (D, None, late)

    @rule(snapshot=st.integers(0, 3))
    def everybody_answers(self, snapshot: int) -> None:
        round_ = self.rounds.get(snapshot, 0)
        for bs in sorted(self.measures(snapshot)):
            self.arrives(bs, [(snapshot, round_)], 0)

    @rule(bs=st.integers(0, 3), older=st.booleans())
    def says_goodbye(self, bs: int, older: bool) -> None:
        epoch = self.epoch[bs] - older
        if epoch < 0:
            return
        self.made.goodbye(Goodbye(bs, epoch, 0), self.now)
        if bs in STATIONS and not older:
            self.close_due()
            self.sending.discard(bs)
            self.close_complete()

    @rule(bs=st.sampled_from(sorted(STATIONS)))
    def restarts(self, bs: int) -> None:
        self.epoch[bs] += 1
        assert self.made.register(registration(bs, self.epoch[bs], rounds=True)) is None
        self.silent.discard(bs)
        self.sending.add(bs)
        self.present.add(bs)
        for gathering in self.open.values():
            if gathering.asked is not None:
                gathering.asked.discard(bs)
        self.close_complete()

    @rule(bs=st.sampled_from(sorted(STATIONS)), silent=st.booleans())
    def leaves(self, bs: int, silent: bool) -> None:
        self.made.leave(bs, self.now, silent=silent)
        self.close_due()
        if silent and bs in self.present:
            self.silent.add(bs)
        if not silent:
            self.silent.discard(bs)
        self.present.discard(bs)
        self.close_complete()

    @rule(bs=st.sampled_from(sorted(STATIONS)), registers=st.booleans())
    def is_heard(self, bs: int, registers: bool) -> None:
        if registers:
            self.made.register(registration(bs, self.epoch[bs], rounds=True))
        else:
            self.made.heard(bs)
        if bs in self.silent:
            self.silent.discard(bs)
            self.present.add(bs)

    @rule(passed=st.integers(0, 200))
    def time_passes(self, passed: int) -> None:
        self.now += passed
        self.made.advance(self.now)
        self.close_due()

    @precondition(lambda self: self.undecided)
    @rule(asks=st.booleans(), asked=st.sets(st.sampled_from(sorted(STATIONS)), min_size=1))
    def cloud_decides(self, asks: bool, asked: set[int]) -> None:
        snapshot = self.undecided.pop(0)
        if not asks or self.rounds.get(snapshot, 0) == 3:
            self.made.conclude(snapshot)
            self.rounds.pop(snapshot, None)
            return
        round_ = self.rounds[snapshot] = self.rounds.get(snapshot, 0) + 1
        self.open[snapshot, round_] = OpenModel(self.limit(snapshot), set(asked))
        self.close_complete()
        assert self.made.ask(snapshot, asked, self.now) == round_

    @rule()
    def a_round_is_cut_short(self) -> None:
        for snapshot, round_ in [key for key in self.open if key[1]]:
            self.made.conclude(snapshot)
            del self.open[snapshot, round_], self.rounds[snapshot]

    # what always holds

    @invariant()
    def is_the_model(self) -> None:
        ready = self.made.take_ready()
        found = [(g.snapshot, g.round, tuple(r.key for r in g.reports)) for g in ready]
        assert sorted(found) == sorted(self.expected_ready)
        assert sorted(self.made.take_failed()) == sorted(self.expected_failed)
        self.undecided += [g.snapshot for g in ready]
        self.handed.update((g.snapshot, g.round) for g in ready)
        self.used.update(r.key for g in ready for r in g.reports)
        self.expected_ready, self.expected_failed = [], []
        for g in ready:
            assert len(g.reports) >= self.rules.minimum_bs and g.last_bs in {r.key.bs for r in g.reports}
            assert g.t_last_received_ns <= self.now
        assert max(self.handed.values(), default=1) == 1  # no gathering is handed out twice
        assert max(self.used.values(), default=1) == 1  # nor any report
        assert self.used.keys() <= self.delivered
        assert all(key.bs in self.measures(key.snapshot) for key in self.delivered)
        assert self.made.waited_for == self.sending & self.present
        assert self.made.missing == self.sending & (self.present | self.silent)
        assert self.made.finished == (not self.open and not self.rounds and not self.made.missing)

    @invariant()
    def deadlines_lie_ahead(self) -> None:
        self.made.advance(self.now)
        self.close_due()
        deadlines = [g.deadline for g in self.open.values() if g.deadline is not None]
        assert self.made.next_deadline_ns == min(deadlines, default=None)
        assert self.made.next_deadline_ns is None or self.made.next_deadline_ns > self.now

    def teardown(self) -> None:
        if not hasattr(self, "made"):
            return
        self.made.close_all()
        for key in list(self.open):
            self.sending.clear()
            self.close(key)
        self.sending.clear()
        self.is_the_model()
        assert self.made.next_deadline_ns is None and self.made.missing == frozenset()
        for snapshot in list(self.rounds):
            self.made.conclude(snapshot)
        assert self.made.finished


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40)
