from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.fusion.scores.answers import Answers, eps_of
from cloud.fusion.scores.prior import BoxPrior
from cloud.fusion.scores.rule import RULES, build_rule
from fronthaul.payload.noise_levels import Level, consistency_schedule, diffusion_schedule


def any_answers(stations: int = 4, states: int = 3, size: int = 2) -> Answers:
    random = np.random.default_rng(0)
    covariance = np.broadcast_to(0.1 * np.eye(size), (stations, states, size, size)).copy()
    eps = random.standard_normal((stations, states, size))
    return Answers(eps, covariance, np.zeros_like(covariance))


@given(
    part=st.sampled_from(["eps", "covariance", "jacobian"]),
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    bad=st.sets(st.integers(0, 3)),
    place=st.integers(0, 2),
)
def test_base_stations_that_are_not_finite_are_found_and_left_out(
    part: str, value: float, bad: set[int], place: int
) -> None:
    answers = any_answers()
    for k in bad:
        getattr(answers, part)[k, place, -1] = value
    found = answers.finite()
    assert {k for k in range(4) if not found[k]} == bad
    left = answers.select(found)
    assert left.stations == 4 - len(bad)
    assert left.finite().all()
    kept = [k for k in range(4) if k not in bad]
    np.testing.assert_array_equal(left.eps, answers.eps[kept])
    if kept:
        box, level = BoxPrior(-np.ones(2), np.ones(2)), diffusion_schedule(3)[1]
        for name in RULES:
            assert np.isfinite(build_rule(name, box).eps(np.zeros((3, 2)), level, left)).all()


def test_answers_without_jacobians_are_chosen_from_too() -> None:
    answers = Answers(any_answers().eps, any_answers().covariance)
    assert answers.finite().tolist() == [True] * 4
    assert answers.select(np.array([True, False, True, False])).jacobian is None


@pytest.mark.parametrize("level", [*diffusion_schedule(3), *consistency_schedule(2, 0.002, 80.0)])
def test_raw_outputs_are_read_by_kind(level: Level) -> None:
    random = np.random.default_rng(1)
    position, noise = random.standard_normal((2, 4, 5, 3))
    x = level.signal * position[0] + level.noise * noise[0]
    np.testing.assert_allclose(eps_of("consistency", position, x, level)[0], noise[0], atol=1e-9)
    np.testing.assert_array_equal(eps_of("diffusion", noise, x, level), noise)
    with pytest.raises(ValueError, match="'diffusion' or 'consistency'"):
        eps_of("flow", noise, x, level)  # type: ignore[arg-type]


def test_shapes_that_do_not_fit() -> None:
    eps, covariance = any_answers().eps, any_answers().covariance
    with pytest.raises(ValueError, match=r"\(K, N, D\)"):
        Answers(eps[0], covariance[0])
    with pytest.raises(ValueError, match="covariance must be"):
        Answers(eps, covariance[:1])
    with pytest.raises(ValueError, match="jacobian must be"):
        Answers(eps, covariance, covariance[..., :1])
