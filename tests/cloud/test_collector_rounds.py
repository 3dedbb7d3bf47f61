"""The collector's rules where a fix takes several rounds."""

from collecting import (
    CLOSED_LOOP,
    DEADLINE,
    INTERVAL,
    REJ,
    RULES,
    STATIONS,
    T0,
    D,
    collector,
    frame,
    handed_out,
    registration,
    report,
    single,
)

from cloud.collector import Collector, CollectorRules
from fronthaul.message.messages import Goodbye


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
    assert "round 1 was not requested" in str(made.frame(single(0, 0, round=1), 0, T0).reason)
    made = asked_for_round_1()
    assert "round 2 was not requested" in str(made.frame(single(0, 0, round=2), 0, T0).reason)


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
