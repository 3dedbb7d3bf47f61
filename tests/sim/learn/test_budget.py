"""Lengths of trainings: steps, or time."""

import pytest

from sim.learn import budget
from sim.learn.budget import Length


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(budget, "time", made)
    return made


def test_without_a_budget_it_is_the_number_of_steps(clock: Clock) -> None:
    length = Length(50)
    clock.now += 1e6
    assert [length.steps(step) for step in (0, 49, 50)] == [50, 50, 50]


def test_progress_is_the_share_of_the_budget_spent(clock: Clock) -> None:
    length = Length(7, 60.0)
    length.start()
    assert length.steps(0) == 1  # one at least
    clock.now += 15.0
    assert length.steps(100) == 400
    clock.now += 15.0
    assert length.steps(300) == 600  # twice as fast by now: half of the steps at half of the time
    clock.now += 29.99
    assert length.steps(500) == 501
    clock.now += 0.01
    assert length.steps(500) == 500


def test_time_between_a_stop_and_its_resumption_does_not_count(clock: Clock) -> None:
    first = Length(1, 60.0)
    first.start()
    clock.now += 20.0
    state = first.state_dict()
    clock.now += 1e5
    second = Length(1, 60.0)
    second.load_state_dict(state)
    second.start()
    clock.now += 10.0
    assert second.seconds() == 30.0
    assert second.steps(100) == 200
