"""Random parts of all base stations: the same for whoever asks, of the size asked for, and none preferred."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import chisquare

from fronthaul.draws import generator
from fronthaul.errors import LocalError
from fronthaul.roster import Roster


def test_a_draw_is_a_pure_function_of_seed_and_snapshot() -> None:
    first, again = Roster(7, 18, 15), Roster(7, 18, 15)
    drawn = [first.of(snapshot) for snapshot in range(300)]
    assert [again.of(snapshot) for snapshot in reversed(range(300))] == drawn[::-1]
    assert {len(members) for members in drawn} == {15} and set().union(*drawn) == set(range(18))
    assert len(set(drawn)) > 100  # of 816
    assert [Roster(8, 18, 15).of(snapshot) for snapshot in range(300)] != drawn


def test_the_draw_is_the_one_that_is_documented() -> None:
    numbers = generator(3, "subset", 41).random(6)
    assert Roster(3, 6, 2).of(41) == set(np.argsort(numbers)[:2].tolist())


def test_all_sets_are_equally_likely() -> None:
    counts = Counter(Roster(1, 5, 2).of(snapshot) for snapshot in range(4000))
    sets = [frozenset(pair) for pair in combinations(range(5), 2)]
    assert set(counts) == set(sets)
    assert chisquare([counts[members] for members in sets]).pvalue > 1e-3


def test_everybody_is_a_set_too() -> None:
    assert Roster(1, 4, 4).of(9) == {0, 1, 2, 3}


@pytest.mark.parametrize("members", [0, 19])
def test_more_than_there_are_or_nobody_is_no_roster(members: int) -> None:
    with pytest.raises(LocalError, match="members"):
        Roster(1, 18, members)
