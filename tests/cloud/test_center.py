"""The fusion centre: one round or several, and what it costs."""

from collections.abc import Sequence

import pytest
from tiny_nodes import LAST, FakeFusion, FakeRoundFusion, frame

from cloud.center import FusionCenter, FusionError, replay_exchanges
from cloud.collector import Gathered
from cloud.fusion.scheme import Fix
from fronthaul.message.messages import Payload, Report


def timer() -> FusionCenter:
    return FusionCenter(FakeRoundFusion(), timer_ns=iter(range(0, 1000, 10)).__next__)


def reports(count: int, round_: int = 0) -> tuple[Report, ...]:
    return tuple(frame(bs, 4, round=round_).reports[0] for bs in range(count))


def gathered(count: int, round_: int = 0) -> Gathered:
    return Gathered(4, round_, reports(count, round_), 99, count - 1)


def test_one_round_makes_a_fix_a_group_and_takes_its_time() -> None:
    center = FusionCenter(FakeFusion(), timer_ns=iter([100, 130]).__next__)
    assert not center.asks
    turns = [(center.open(4), gathered(count)) for count in (2, 3)]
    assert center.advance(turns) == [Fix((2.0, 4.0, 0.0)), Fix((3.0, 4.0, 0.0))]
    assert [(state.fuse_ns, len(state.used)) for state, _ in turns] == [(30, 2), (30, 3)]  # the time of all
    assert center.conclude(4, center.open(4)) is None


def test_one_round_is_given_all_snapshots_of_a_batch_at_once() -> None:
    seen: list[int] = []

    class Counting(FakeFusion):
        def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
            seen.append(len(groups))
            return super().fuse(groups)

    center = FusionCenter(Counting())
    assert len(replay_exchanges(center, {n: [reports(2)] for n in range(5)})) == 5 and seen == [5]
    assert center.open(0).exchange.advance(reports(2)) == Fix((2.0, 4.0, 0.0)) and seen == [5, 1]


def test_a_rule_that_makes_another_number_of_fixes_is_told_so() -> None:
    class Forgetful:
        def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
            return []

    forgetful = FusionCenter(Forgetful())
    with pytest.raises(FusionError, match=r"snapshot 4 cannot be fused: .* made 0 fixes from 1 snapshots"):
        forgetful.advance([(forgetful.open(4), gathered(1))])


def test_rounds_add_up_in_reports_and_in_time() -> None:
    center = timer()
    assert center.asks
    state = center.open(4)
    for round_ in range(LAST):
        (answer,) = center.advance([(state, gathered(3 - (round_ == 1), round_))])
        assert answer == Payload(bytes([round_ + 1]), 8)
    assert center.advance([(state, gathered(3, LAST))]) == [Fix((3.0 * (LAST + 1) - 1, LAST + 1.0, 0.0))]
    assert state.fuse_ns == 10 * (LAST + 1) and len(state.used) == 3 * (LAST + 1) - 1
    assert state.last == gathered(3, LAST)


@pytest.mark.parametrize("rounds", range(LAST + 2))
def test_a_replay_comes_to_the_same_end(rounds: int) -> None:
    logged = [reports(2, round_) for round_ in range(rounds)]
    (fix,) = replay_exchanges(timer(), {4: logged})
    if rounds < 2:
        assert fix is None  # the fake exchange knows nothing after round 0
    else:
        assert fix == Fix((2.0 * rounds, float(rounds), 0.0))
