"""The collector's rules: one table of cases, and what no order of events can break."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cloud.collector import Collector, CollectorRules, History
from fronthaul.fates import FrameFate
from fronthaul.messages import Codec, Frame, Goodbye, Payload, Registration, Report, ReportKey
from fronthaul.wire import decode, encode

INTERVAL, DEADLINE, T0 = 100, 250, 1000
STATIONS = frozenset({0, 1, 2})
RULES = CollectorRules(stations=STATIONS, snapshots=4, interval_ns=INTERVAL, deadline_ns=DEADLINE, minimum_bs=2)
CLOSED_LOOP = CollectorRules(stations=STATIONS, snapshots=4, interval_ns=0, deadline_ns=DEADLINE)
D, DUP, REJ = FrameFate.DELIVERED, FrameFate.DUPLICATE, FrameFate.REJECTED


def report(bs: int, snapshot: int, *, epoch: int = 0, round: int = 0, bits: int = 8, side: bytes = b"") -> Report:
    return Report(ReportKey(bs, epoch, snapshot, round), Payload(bytes(bits // 8), bits), side)


def frame(*reports: Report) -> Frame:
    return Frame(0, reports)


def single(bs: int, snapshot: int, *, epoch: int = 0, round: int = 0) -> Frame:
    return frame(report(bs, snapshot, epoch=epoch, round=round))


def registration(bs: int, epoch: int = 0, *, rounds: bool = False) -> Registration:
    here = (0.0, 0.0, 0.0)
    answer = Codec(8, 1, 0) if rounds else None
    return Registration(bs, epoch, "s", Codec(4, 2, 0), answer, position=here, orientation=here)


def collector(
    rules: CollectorRules = RULES, *, started: bool = True, registered: bool = True, rounds: bool = False
) -> Collector:
    made = Collector(rules)
    for bs in sorted(rules.stations) if registered else ():
        assert made.register(registration(bs, rounds=rounds)) is None
    if started:
        made.start(T0)
    return made


def handed_out(made: Collector) -> list[tuple[int, list[int]]]:
    return [(g.snapshot, [r.key.bs for r in g.reports]) for g in made.take_ready()]


@dataclass
class Case:
    """Frames as (BS, snapshot, time); then what they came to."""

    frames: list[tuple[int, int, int]]
    fates: list[FrameFate]
    ready: list[tuple[int, list[int]]]
    end_ns: int = T0
    gone: list[int] = field(default_factory=list)
    late: tuple[int, ...] = ()


CASES = {
    "complete closes at once": Case([(0, 0, T0), (2, 0, T0), (1, 0, T0)], [D, D, D], [(0, [0, 1, 2])]),
    "one missing waits": Case([(0, 0, T0), (1, 0, T0)], [D, D], [], T0 + DEADLINE - 1),
    "the deadline closes": Case([(0, 0, T0), (1, 0, T0)], [D, D], [(0, [0, 1])], T0 + DEADLINE),
    "below the minimum is not handed out": Case([(0, 0, T0)], [D], [], T0 + DEADLINE),
    "on the last nanosecond": Case([(0, 0, T0), (1, 0, T0 + DEADLINE - 1)], [D, D], [(0, [0, 1])], T0 + DEADLINE),
    "late at the deadline": Case(
        [(0, 0, T0), (1, 0, T0), (2, 0, T0 + DEADLINE)], [D, D, D], [(0, [0, 1])], T0 + DEADLINE, late=(2,)
    ),
    "late without company": Case([(0, 0, T0 + DEADLINE)], [D], [], T0 + 2 * DEADLINE, late=(0,)),
    "duplicate": Case([(0, 0, T0), (0, 0, T0)], [D, DUP], []),
    "duplicate after closing": Case(
        [(0, 0, T0), (1, 0, T0), (2, 0, T0), (1, 0, T0 + 1)], [D, D, D, DUP], [(0, [0, 1, 2])]
    ),
    "duplicate of a late one": Case(
        [(0, 0, T0 + DEADLINE), (0, 0, T0 + DEADLINE)], [D, DUP], [], T0 + DEADLINE, late=(0,)
    ),
    "deadlines by number and not by arrival": Case(
        [(0, 1, T0), (0, 0, T0 + 1), (1, 1, T0 + 2), (1, 0, T0 + 3)], [D, D, D, D], [(0, [0, 1])], T0 + DEADLINE
    ),
    "who is gone is not waited for": Case([(0, 0, T0), (1, 0, T0)], [D, D], [(0, [0, 1])], T0, [2]),
    "gone, and too few are left": Case([(0, 0, T0)], [D], [], T0, [1, 2]),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_rules(case: Case) -> None:
    made = collector()
    verdicts = [made.frame(single(bs, snapshot), bs, t) for bs, snapshot, t in case.frames]
    for bs in case.gone:
        made.leave(bs, T0)
    made.advance(case.end_ns)
    assert [verdict.fate for verdict in verdicts] == case.fates
    assert tuple(index for index, verdict in enumerate(verdicts) if verdict.late) == case.late
    assert handed_out(made) == case.ready
    assert made.take_ready() == []


@pytest.mark.parametrize(
    ("sent", "owner", "reason"),
    [
        (single(0, 0), 1, "does not own"),
        (single(0, 0), None, "does not own"),
        (single(7, 0), 7, "has not registered"),
        (single(0, 0, epoch=1), 0, "epoch 1"),
        (single(0, 4), 0, "4 snapshots"),
        (single(0, 0, round=1), 0, "one round"),
        (frame(report(0, 0, bits=16)), 0, "8 bits"),
        (frame(report(0, 0, side=b"g")), 0, "8 bits"),
        (frame(report(0, 0), report(0, 4)), 0, "4 snapshots"),
    ],
)
def test_rejected_frames_change_nothing(sent: Frame, owner: int | None, reason: str) -> None:
    made = collector()
    fate, why, late = made.frame(sent, owner, T0)
    assert (fate, late) == (REJ, 0) and why is not None and reason in why
    assert made.next_deadline_ns is None and made.frame(single(0, 0), 0, T0).fate is D


def test_before_the_start_and_before_registering_frames_are_rejected() -> None:
    assert collector(started=False).frame(single(0, 0), 0, T0).reason == "the run has not started"
    assert collector(registered=False).frame(single(0, 0), 0, T0).reason == "BS 0 has not registered"


def test_a_bundle_is_judged_as_a_whole_and_its_reports_one_by_one() -> None:
    made = collector()
    now = T0 + DEADLINE  # snapshot 0 is over, 1 and 2 are not
    bundle = frame(report(0, 1), report(0, 0), report(0, 2))
    assert made.frame(bundle, 0, now) == (D, None, 0b010)
    assert made.frame(bundle, 0, now).fate is DUP
    mixed = made.frame(frame(report(0, 2), report(0, 3)), 0, now)
    assert mixed.fate is REJ and "before with new ones" in str(mixed.reason)
    assert made.frame(single(0, 3), 0, now) == (D, None, 0)


def test_a_restarted_station_replaces_its_older_self() -> None:
    made = collector()
    made.frame(single(0, 0), 0, T0)
    made.leave(0, T0)
    assert made.register(registration(0, epoch=1)) is None
    assert made.waited_for == {0, 1, 2}
    assert made.frame(single(0, 1), 0, T0).fate is REJ  # its older self
    again = made.frame(single(0, 0, epoch=1), 0, T0)
    assert again.fate is REJ and again.reason == "an earlier epoch has reported on this snapshot"
    assert made.frame(single(0, 1, epoch=1), 0, T0).fate is D
    assert "epoch 1" in str(made.register(registration(0, epoch=0)))
    made.goodbye(Goodbye(0, 0, 1), T0)  # of the older self
    assert 0 in made.waited_for
    made.goodbye(Goodbye(0, 1, 1), T0)
    assert 0 not in made.waited_for


def test_a_second_registration_in_the_same_epoch_undoes_no_goodbye() -> None:
    made = collector()
    made.goodbye(Goodbye(0, 0, 1), T0)
    assert made.register(registration(0)) is None
    assert made.waited_for == {1, 2}


def test_a_stranger_is_refused() -> None:
    assert collector().register(registration(9)) == "BS 9 is not part of this run"


def test_a_first_registration_after_having_been_given_up_counts() -> None:
    made = collector(registered=False)
    made.leave(0, T0)
    made.register(registration(0, epoch=1))
    assert made.present == {0} and made.waited_for == STATIONS


def test_a_silent_station_is_not_waited_for_until_it_is_heard() -> None:
    made = collector()
    made.frame(single(1, 0), 1, T0)
    made.frame(single(2, 0), 2, T0)
    made.leave(0, T0, silent=True)
    assert handed_out(made) == [(0, [1, 2])]
    assert made.waited_for == {1, 2} and made.missing == STATIONS and made.present == {1, 2}
    assert not made.finished
    made.heard(0)
    assert made.waited_for == made.present == STATIONS


def test_a_silent_station_that_registers_again_is_back() -> None:
    made = collector()
    made.leave(0, T0, silent=True)
    made.register(registration(0))
    assert made.present == made.missing == STATIONS


@pytest.mark.parametrize("order", [(False, True), (True, False)])
def test_silence_and_being_gone_in_either_order_is_being_gone(order: Iterable[bool]) -> None:
    made = collector()
    for silent in order:
        made.leave(0, T0, silent=silent)
    assert made.missing == {1, 2}
    made.heard(0)  # something that was still on its way
    assert made.present == {1, 2}
    for bs in (1, 2):
        made.goodbye(Goodbye(bs, 0, 0), T0)
    assert made.finished


def test_closed_loop_has_no_deadline() -> None:
    made = collector(CLOSED_LOOP)
    made.frame(single(0, 3), 0, T0 + 10**12)
    assert made.next_deadline_ns is None
    for bs in (1, 2):
        made.frame(single(bs, 3), bs, T0 + 2 * 10**12)
    assert handed_out(made) == [(3, [0, 1, 2])]


def test_finished_when_all_have_left_and_all_is_closed() -> None:
    made = collector()
    made.frame(single(0, 0), 0, T0)
    for bs in STATIONS:
        assert not made.finished
        made.goodbye(Goodbye(bs, 0, 1), T0)
    assert made.finished and made.missing == frozenset()


# Rounds


def asked_for_round_1(rules: CollectorRules = RULES) -> Collector:
    made = collector(rules, rounds=True)
    for bs in sorted(STATIONS):
        made.frame(single(bs, 0), bs, T0)
    assert handed_out(made) == [(0, [0, 1, 2])]
    assert made.ask(0, STATIONS, T0) == 1
    return made


def test_a_round_opens_when_asked_and_closes_when_all_asked_have_answered() -> None:
    made = asked_for_round_1()
    for bs in (2, 0, 1):
        assert not made.take_ready()
        assert made.frame(single(bs, 0, round=1), bs, T0 + bs) == (D, None, 0)
    (gathered,) = made.take_ready()
    assert (gathered.snapshot, gathered.round, gathered.last_bs, gathered.t_last_received_ns) == (0, 1, 2, T0 + 2)
    assert not made.finished  # the rounds go on
    assert made.ask(0, [1], T0) == 2
    made.frame(single(1, 0, round=2), 1, T0)
    made.conclude(0)
    for bs in STATIONS:
        made.goodbye(Goodbye(bs, 0, 0), T0)
    assert made.finished


def test_nobody_answers_what_was_not_asked() -> None:
    made = collector(rounds=True)
    assert "nobody asked for round 1" in str(made.frame(single(0, 0, round=1), 0, T0).reason)
    made = asked_for_round_1()
    assert "nobody asked for round 2" in str(made.frame(single(0, 0, round=2), 0, T0).reason)


def test_goodbye_does_not_end_answering_and_being_gone_does() -> None:
    made = asked_for_round_1()
    for bs in sorted(STATIONS):
        made.goodbye(Goodbye(bs, 0, 1), T0)
    made.frame(single(0, 0, round=1), 0, T0)
    made.frame(single(1, 0, round=1), 1, T0)
    assert made.take_ready() == [] and not made.finished
    made.leave(2, T0)
    assert handed_out(made) == [(0, [0, 1])]


def test_a_round_has_its_own_time_and_the_snapshots_deadline() -> None:
    rules = CollectorRules(stations=STATIONS, snapshots=4, interval_ns=INTERVAL, deadline_ns=DEADLINE, round_ns=30)
    made = collector(rules, rounds=True)
    for bs in sorted(STATIONS):
        made.frame(single(bs, 0), bs, T0)
    made.take_ready()
    made.ask(0, STATIONS, T0 + 5)
    assert made.next_deadline_ns == T0 + 35
    made.frame(single(1, 0, round=1), 1, T0 + 6)
    late = made.frame(single(0, 0, round=1), 0, T0 + 35)
    assert late == (D, None, 1) and handed_out(made) == [(0, [1])]
    made.ask(0, STATIONS, T0 + DEADLINE - 1)
    assert made.next_deadline_ns == T0 + DEADLINE


def test_a_round_with_too_few_answers_fails() -> None:
    made = asked_for_round_1()
    made.frame(single(1, 0, round=1), 1, T0)
    made.advance(T0 + DEADLINE)
    assert made.take_ready() == [] and made.take_failed() == [0] and made.take_failed() == []


def test_a_station_that_missed_three_rounds_is_waited_for_again_once_it_answers() -> None:
    rules = CollectorRules(
        stations=STATIONS, snapshots=4, interval_ns=0, deadline_ns=DEADLINE, round_ns=20, minimum_bs=1
    )
    made = collector(rules, rounds=True)
    for bs in STATIONS:
        made.frame(single(bs, 0), bs, T0)
    now_ns = T0
    for round_ in range(1, 4):  # BS 1 is silent: each of three rounds waits for it
        assert made.ask(0, STATIONS, now_ns) == round_
        for bs in (0, 2):
            made.frame(single(bs, 0, round=round_), bs, now_ns)
        made.advance(now_ns + 19)
        assert [gathered.round for gathered in made.take_ready()] == ([0] if round_ == 1 else [])
        now_ns += 20
        made.advance(now_ns)
        assert handed_out(made) == [(0, [0, 2])]
    made.ask(0, STATIONS, now_ns)  # and the fourth does not
    for bs in (0, 2):
        made.frame(single(bs, 0, round=4), bs, now_ns)
    assert handed_out(made) == [(0, [0, 2])]
    made.ask(0, STATIONS, now_ns)  # what it says in time counts
    for bs in (0, 1, 2):
        made.frame(single(bs, 0, round=5), bs, now_ns)
    assert handed_out(made) == [(0, [0, 1, 2])]
    made.ask(0, STATIONS, now_ns)  # and has it waited for again
    for bs in (0, 2):
        made.frame(single(bs, 0, round=6), bs, now_ns)
    assert handed_out(made) == []
    made.conclude(0)
    for bs in STATIONS:
        made.frame(single(bs, 1), bs, now_ns)
    made.take_ready()
    made.ask(1, STATIONS, now_ns)  # another snapshot is another exchange
    made.frame(single(0, 1, round=1), 0, now_ns)
    made.frame(single(2, 1, round=1), 2, now_ns)
    assert handed_out(made) == []


def test_a_restarted_station_is_not_waited_for_in_what_its_older_self_was_asked() -> None:
    made = asked_for_round_1(CLOSED_LOOP)
    made.frame(single(0, 0, round=1), 0, T0)
    made.register(registration(2, epoch=1, rounds=True))
    assert made.take_ready() == []  # BS 1 has still to answer
    made.frame(single(1, 0, round=1), 1, T0)
    assert handed_out(made) == [(0, [0, 1])]


def test_ending_the_rounds_closes_an_open_one_for_good() -> None:
    made = asked_for_round_1()
    made.conclude(0)
    assert made.next_deadline_ns is None
    assert made.frame(single(0, 0, round=1), 0, T0) == (D, None, 1)
    made.close_all()
    assert made.take_ready() == [] and made.finished


# A second life


def test_a_second_life_goes_on_from_its_history() -> None:
    delivered = frozenset({ReportKey(0, 1, 0), ReportKey(1, 0, 0), ReportKey(2, 0, 0), ReportKey(0, 1, 1)})
    registrations = tuple(registration(bs, epoch=int(bs == 0)) for bs in sorted(STATIONS))
    made = Collector(RULES, History(registrations, frozenset({2}), frozenset({0}), delivered))
    made.start(T0)
    assert made.registered == made.present == STATIONS and made.waited_for == {0, 1}
    assert made.closed_snapshots == 2
    assert made.frame(single(1, 0), 1, T0).fate is DUP
    assert made.frame(single(1, 1), 1, T0) == (D, None, 1)  # begun in the first life, so over
    for bs in (0, 1):
        assert made.frame(single(bs, 2, epoch=int(bs == 0)), bs, T0) == (D, None, 0)
    assert handed_out(made) == [(2, [0, 1])]
    assert made.register(registration(0, epoch=2)) is None
    assert made.frame(single(0, 2, epoch=2), 0, T0).fate is REJ  # has reported on it


def test_what_is_remembered_are_the_reports_delivered() -> None:
    made = asked_for_round_1()
    bundle = frame(report(0, 1), report(0, 2))
    for sent in (single(0, 0, round=1), bundle, bundle, single(0, 4)):  # the third a duplicate, the last rejected
        made.frame(sent, 0, T0)
    assert made.delivered_reports == 3 + 1 + 2
    made.register(registration(0, epoch=1, rounds=True))
    assert made.frame(frame(report(0, 2, epoch=1), report(0, 3, epoch=1)), 0, T0).fate is REJ
    made.frame(single(0, 3, epoch=1), 0, T0)
    assert made.delivered_reports == 7


def test_reports_stay_in_their_frames_until_they_are_asked_for() -> None:
    made = collector()
    for bs in sorted(STATIONS):
        sent = decode(encode(frame(report(bs, 1), report(bs, 0))))
        assert isinstance(sent, Frame)
        made.frame(sent, bs, T0)
        assert isinstance(sent._content, bytes)
    for gathered in made.take_ready():
        assert gathered.reports == tuple(report(bs, gathered.snapshot) for bs in sorted(STATIONS))


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


# Any order of events


@dataclass
class OpenModel:
    """A gathering by the rules' text: no heap, no bookkeeping."""

    deadline: int | None
    asked: set[int] | None
    got: dict[int, ReportKey] = field(default_factory=dict)


class AnyOrder(RuleBasedStateMachine):
    """The collector beside the plainest reading of its rules."""

    @initialize(minimum=st.integers(1, 3), interval=st.sampled_from([0, INTERVAL]), round_ns=st.sampled_from([0, 40]))
    def begin(self, minimum: int, interval: int, round_ns: int) -> None:
        self.rules = CollectorRules(
            stations=STATIONS,
            snapshots=4,
            interval_ns=interval,
            deadline_ns=DEADLINE,
            round_ns=round_ns,
            minimum_bs=minimum,
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
            wanted = self.sending if gathering.asked is None else gathering.asked
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
        if keys[0].bs not in STATIONS or any(key.snapshot >= 4 for key in keys):
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
        for bs in sorted(STATIONS):
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
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
