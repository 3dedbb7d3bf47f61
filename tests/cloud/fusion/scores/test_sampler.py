from __future__ import annotations

import inspect

import numpy as np
import pytest
from known_scores import KnownPosteriors

from cloud.fusion.scores.answers import Answers, FloatArray, eps_of
from cloud.fusion.scores.prior import BoxPrior
from cloud.fusion.scores.rule import build_rule
from cloud.fusion.scores.sampler import Sampler
from fronthaul.payload.noise_levels import Level, consistency_schedule, diffusion_schedule

BOX = BoxPrior(np.array([-1.5, -2.0]), np.array([1.5, 2.0]))


class Draws:
    """Standard normals by round, and which rounds were asked for."""

    def __init__(self, states: int = 6, size: int = 2) -> None:
        self.asked: list[int] = []
        self._shape = states, size

    def __call__(self, number: int) -> FloatArray:
        self.asked.append(number)
        return self.of(number)

    def of(self, number: int) -> FloatArray:
        return np.random.default_rng(number).standard_normal(self._shape)


def constant(sampler: Sampler, eps: FloatArray) -> Answers:
    """One base station that says `eps`."""
    covariance = np.tile(0.1 * np.eye(eps.shape[-1]), (1, len(eps), 1, 1))
    return Answers(eps[None], covariance)


def test_diffusion_begins_at_unit_noise_and_steps_by_ddim() -> None:
    schedule, draws = diffusion_schedule(3), Draws()
    sampler = Sampler("diffusion", schedule, build_rule("sum", BOX), draws)
    x = draws.of(1)
    for number, level in enumerate(schedule, 1):
        assert (sampler.round, sampler.level, sampler.done) == (number, level, False)
        np.testing.assert_allclose(sampler.x, x)
        eps = np.random.default_rng(100 + number).standard_normal((6, 2))
        sampler.advance(constant(sampler, eps))
        clean = (x - level.noise * eps) / level.signal
        np.testing.assert_allclose(sampler.position, clean)
        if number < 3:
            x = schedule[number].signal * clean + schedule[number].noise * eps  # DiffLoc Eq. 13
    assert sampler.done and sampler.round == 3 and sampler.level == schedule[-1]
    assert draws.asked == [1]


def test_consistency_begins_at_most_noise_and_adds_fresh_noise() -> None:
    schedule, draws = consistency_schedule(3, 0.002, 80.0), Draws()
    sampler = Sampler("consistency", schedule, build_rule("sum", BOX), draws)
    np.testing.assert_allclose(sampler.x, 80 * draws.of(1))
    for number in (1, 2, 3):
        raw = np.random.default_rng(100 + number).standard_normal((1, 6, 2))
        sampler.advance(constant(sampler, eps_of("consistency", raw, sampler.x, sampler.level)[0]))
        np.testing.assert_allclose(sampler.position, raw[0], atol=1e-12)
        if number < 3:
            np.testing.assert_allclose(sampler.x, raw[0] + schedule[number].noise * draws.of(number + 1), atol=1e-12)
    assert sampler.done
    assert draws.asked == [1, 2, 3]


@pytest.mark.parametrize("size", [2, 3])
def test_before_the_first_step_it_knows_the_prior(size: int) -> None:
    box = BoxPrior(np.full(size, 0.0), np.full(size, 2.0))
    sampler = Sampler("diffusion", diffusion_schedule(2), build_rule("gauss", box), Draws(4, size))
    np.testing.assert_array_equal(sampler.position, np.ones((4, size)))
    np.testing.assert_allclose(sampler.covariance, np.tile(np.eye(size) / 3, (4, 1, 1)))


@pytest.mark.parametrize("steps", [1, 2, 7, 200])
def test_jac_keeps_the_covariance_of_the_level_at_the_priors_deviation(steps: int) -> None:
    """Of two modes apart, the Jacobian tells of both at much noise and of the sample's own at little."""
    modes = np.array([[-0.4, 0.0], [0.4, 0.0]])[None, None].repeat(6, axis=1)
    posteriors = KnownPosteriors(np.full((1, 6, 2), 0.5), modes, np.tile(1e-4 * np.eye(2), (1, 6, 2, 1, 1)))
    schedule, rule = diffusion_schedule(steps), build_rule("jac", BOX)
    sampler = Sampler("diffusion", schedule, rule, Draws())
    claims: list[FloatArray] = []
    while not sampler.done:
        answers = posteriors.answers(sampler.x, sampler.level)
        claims.append(rule.covariance(sampler.level, answers))
        sampler.advance(answers)
    deviation = np.sqrt(np.diag(BOX.covariance)).mean()
    nearest = min(range(steps), key=lambda i: abs(np.log(schedule[i].ratio / deviation)))
    np.testing.assert_array_equal(sampler.covariance, claims[nearest])
    if steps == 200:
        assert sampler.covariance[:, 0, 0].mean() > 20 * claims[-1][:, 0, 0].mean()


def test_other_rules_claim_by_the_last_answers() -> None:
    sampler = Sampler("diffusion", diffusion_schedule(2), build_rule("mean", BOX), Draws())
    for variance in (0.5, 0.2):
        sampler.advance(Answers(np.zeros((1, 6, 2)), np.tile(variance * np.eye(2), (1, 6, 1, 1))))
    np.testing.assert_allclose(sampler.covariance, np.tile(0.2 * np.eye(2), (6, 1, 1)))


def test_a_base_station_may_come_and_go() -> None:
    sampler = Sampler("diffusion", diffusion_schedule(4), build_rule("gauss", BOX), Draws())
    for stations in (3, 1, 2, 3):
        eps = np.zeros((stations, 6, 2))
        sampler.advance(Answers(eps, np.tile(0.1 * np.eye(2), (stations, 6, 1, 1))))
    assert sampler.done and np.isfinite(sampler.position).all()


def test_what_it_does_not_take() -> None:
    rule, schedule = build_rule("sum", BOX), diffusion_schedule(1)
    sampler = Sampler("diffusion", schedule, rule, Draws())
    good = constant(sampler, np.zeros((6, 2)))
    for answers, sentence in (
        (good.select(np.array([False])), "no base station"),
        (constant(sampler, np.zeros((5, 2))), "asked was"),
        (constant(sampler, np.full((6, 2), np.nan)), "not finite"),
    ):
        with pytest.raises(ValueError, match=sentence):
            sampler.advance(answers)
        assert (sampler.round, sampler.done) == (1, False)
    sampler.advance(good)
    with pytest.raises(ValueError, match="done"):
        sampler.advance(good)


def test_what_it_does_not_begin_with() -> None:
    rule, schedule = build_rule("sum", BOX), diffusion_schedule(1)
    with pytest.raises(ValueError, match="'diffusion' or 'consistency'"):
        Sampler("flow", schedule, rule, Draws())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one level"):
        Sampler("diffusion", (), rule, Draws())
    for draws in (Draws(6, 3), Draws(0, 2)):
        with pytest.raises(ValueError, match="draws must be"):
            Sampler("diffusion", schedule, rule, draws)


def test_nothing_takes_a_position() -> None:
    takes = {
        name
        for method in (Sampler.__init__, Sampler.advance)
        for name in inspect.signature(method).parameters
        if name != "self"
    }
    assert takes == {"kind", "schedule", "rule", "draw", "answers"}


def test_a_level_is_what_it_steps_by() -> None:
    """Levels of any a and s, not only those of the two noise schedules."""
    schedule = [Level(0.5, 2.0, 1.0), Level(0.9, 0.1, 0.0)]
    sampler = Sampler("diffusion", schedule, build_rule("sum", BOX), Draws())
    eps = np.ones((6, 2))
    x = sampler.x
    sampler.advance(constant(sampler, eps))
    np.testing.assert_allclose(sampler.x, 0.9 * (x - 2.0) / 0.5 + 0.1)
