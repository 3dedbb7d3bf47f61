"""Clock offsets: the true one within the stated bound, always."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fronthaul.account.clock_offset import MAX_DRIFT_PPM, MIN_DRIFT_SAMPLES, ClockOffset, clock_offset
from fronthaul.errors import LocalError

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


class Ping(NamedTuple):
    t1: int
    t2: int
    t3: int
    t4: int


def ping(at_ns: int, offset_ns: int, up_ns: int, down_ns: int, *, answer_ns: int = 1000, drift_ppm: int = 0) -> Ping:
    """One exchange over a path of known delays, between clocks of known offset and drift since START."""

    def cloud(t_ns: int) -> int:
        return t_ns + offset_ns + (t_ns - START) * drift_ppm // 1_000_000

    arrives_ns, answered_ns = at_ns + up_ns, at_ns + up_ns + answer_ns
    return Ping(at_ns, cloud(arrives_ns), cloud(answered_ns), answered_ns + down_ns)


def test_a_symmetric_path_gives_the_offset() -> None:
    found = clock_offset([ping(START, 5_000_000, 40_000, 40_000)])
    assert found.offset_ns == 5_000_000
    assert 40_000 <= found.uncertainty_ns < 40_030
    assert found.drift_ppm is None and found.samples == 1
    assert found.at(START + 10**12) == (found.offset_ns, found.uncertainty_ns)


def test_an_asymmetric_path_errs_by_half_the_difference() -> None:
    found = clock_offset([ping(START, -700, 90_000, 10_000)])
    assert found.offset_ns == -700 + 40_000
    assert abs(found.offset_ns + 700) <= found.uncertainty_ns


def test_the_ping_with_the_least_delay_counts() -> None:
    pings = [ping(START + at, 300, up, 50_000) for at, up in ((0, 900_000), (1000, 50_000), (2000, 400_000))]
    found = clock_offset(pings)
    assert found.offset_ns == 300 and found.samples == 3


@given(
    st.integers(-(10**18), 10**18),
    st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**9)), min_size=1, max_size=30),
)
def test_the_bound_is_hard_for_a_constant_offset(offset_ns: int, paths: list[tuple[int, int, int]]) -> None:
    pings = [ping(START + 20_000 * at, offset_ns, path[0], path[1], answer_ns=path[2]) for at, path in enumerate(paths)]
    found = clock_offset(pings)
    assert abs(found.offset_ns - offset_ns) <= found.uncertainty_ns


@given(
    st.integers(-(10**15), 10**15),
    st.integers(-MAX_DRIFT_PPM + 10, MAX_DRIFT_PPM - 10),
    st.lists(
        st.tuples(st.integers(0, 60 * SECOND), st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**8)),
        min_size=MIN_DRIFT_SAMPLES,
        max_size=30,
    ),
    st.integers(-100 * SECOND, 200 * SECOND),
)
def test_the_bound_is_hard_for_drifting_clocks(
    offset_ns: int, drift_ppm: int, paths: list[tuple[int, int, int, int]], since_ns: int
) -> None:
    """Between the pings and beyond, however slow the cloud is to answer."""
    pings = [
        ping(START + at, offset_ns, up, down, answer_ns=answer, drift_ppm=drift_ppm) for at, up, down, answer in paths
    ]
    found = clock_offset(pings)
    if found.drift_ppm is None:
        return
    offset, uncertainty = found.at(START + since_ns)
    assert abs(offset - (offset_ns + Fraction(since_ns * drift_ppm, 1_000_000))) <= uncertainty


def test_drift_is_found_over_a_minute_of_jitter() -> None:
    random = np.random.default_rng(7)
    pings = [
        ping(
            START + at * SECOND // 2,
            -40_000_000,
            int(50_000 + random.exponential(200_000)),
            int(50_000 + random.exponential(200_000)),
            drift_ppm=35,
        )
        for at in range(120)
    ]
    random.shuffle(pings)
    found = clock_offset(pings)
    assert found.samples == 120 and found.drift_ppm == pytest.approx(35, abs=5)
    for since_s in (0, 30, 59):
        offset, uncertainty = found.at(START + since_s * SECOND)
        assert abs(offset - (-40_000_000 + 35_000 * since_s)) <= uncertainty < 300_000
    # Far from the pings less is known.
    assert found.at(START + 600 * SECOND)[1] > found.at(START + 60 * SECOND)[1]


def test_the_best_ping_is_one_that_the_drift_rests_on() -> None:
    pings = [ping(START + at * SECOND, 9000, 50_000 + 1000 * abs(at - 5), 50_000) for at in range(11)]
    found = clock_offset(pings)
    best = next(anchor for anchor in found.anchors if anchor.uncertainty_ns == found.uncertainty_ns)
    assert abs(found.at(best.t_ns)[0] - found.offset_ns) <= 1
    first, last = found.anchors
    assert 3 * (last.t_ns - first.t_ns) >= 10 * SECOND - 1000


@pytest.mark.parametrize(("count", "gap_ns"), [(MIN_DRIFT_SAMPLES - 1, SECOND), (50, SECOND // 100)])
def test_few_pings_or_a_short_time_give_no_drift(count: int, gap_ns: int) -> None:
    found = clock_offset([ping(START + at * gap_ns, 0, 50_000, 50_000) for at in range(count)])
    assert found.drift_ppm is None and len(found.anchors) == 1


def test_pings_that_cannot_be_true_are_left_out() -> None:
    good = ping(START, 77, 30_000, 30_000)
    set_back = Ping(START, START + 10_000, START + 9_000, START + 20_000)
    too_long = Ping(START, START, START + 50_000, START + 20_000)
    found = clock_offset([set_back, good, too_long])
    assert (found.offset_ns, found.samples) == (77, 1)
    with pytest.raises(LocalError, match="at least one ping"):
        clock_offset([set_back, too_long])
    with pytest.raises(LocalError, match="at least one ping"):
        clock_offset([])


def test_an_offset_is_frozen() -> None:
    found = clock_offset([ping(START, 0, 1, 1)])
    assert isinstance(found, ClockOffset)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.offset_ns = 1  # type: ignore[misc]
