from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_scores import KnownPosteriors, NormalPrior
from numpy.random import Generator
from scipy.stats import chi2

from cloud.fusion.scores.answers import Answers, FloatArray, eps_of
from cloud.fusion.scores.precisions import FLOOR
from cloud.fusion.scores.prior import BoxPrior, Prior
from cloud.fusion.scores.rule import RULES, build_rule
from cloud.fusion.scores.sampler import Sampler
from fronthaul.payload.noise_levels import Level, consistency_schedule, diffusion_schedule

LEVELS = [*diffusion_schedule(6), *consistency_schedule(4, 0.002, 80.0)]
EXACT = ("gauss", "jac")


def spread(random: Generator, *shape: int, size: int) -> FloatArray:
    """Symmetric positive definite matrices (…, D, D)."""
    root = random.standard_normal((*shape, size, size))
    return np.asarray(root @ np.swapaxes(root, -1, -2) + 0.1 * np.eye(size))


def gaussian_problem(
    seed: int, stations: int, states: int, size: int, noise: float = 0.3
) -> tuple[NormalPrior, KnownPosteriors, KnownPosteriors, FloatArray]:
    """Prior, the base stations' posteriors, the true product (K = 1), and the truths (N, D) that were measured."""
    random = np.random.default_rng(seed)
    prior = NormalPrior(0.3 * random.standard_normal(size), spread(random, size=size))
    truth = random.multivariate_normal(prior.mean, prior.covariance, states)
    errors = noise**2 * spread(random, stations, states, size=size)
    seen = truth + np.einsum(
        "knij,knj->kni", np.linalg.cholesky(errors), random.standard_normal((stations, states, size))
    )
    information, inverse = np.linalg.inv(errors), np.linalg.inv(prior.covariance)
    pulls = np.einsum("knij,knj->kni", information, seen)
    covariance = np.linalg.inv(inverse + information)
    mean = np.einsum("knij,knj->kni", covariance, pulls + inverse @ prior.mean)
    whole = np.linalg.inv(inverse + information.sum(axis=0))
    centre = np.einsum("nij,nj->ni", whole, pulls.sum(axis=0) + inverse @ prior.mean)
    return prior, posterior(mean, covariance), posterior(centre[None], whole[None]), truth


def posterior(mean: FloatArray, covariance: FloatArray) -> KnownPosteriors:
    return KnownPosteriors(np.ones((*mean.shape[:2], 1)), mean[:, :, None], covariance[:, :, None])


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("stations", [2, 7])
def test_gauss_and_jac_are_exact_for_gaussians_at_every_level(size: int, name: str, stations: int) -> None:
    prior, each, whole, _ = gaussian_problem(size, stations, 40, size)
    rule = build_rule(name, prior)
    for level in LEVELS:
        x = level.signal * each.mean[0, :, 0] + level.noise * np.random.default_rng(1).standard_normal((40, size))
        answers = each.answers(x, level)
        wanted = whole.answers(x, level)
        np.testing.assert_allclose(rule.eps(x, level, answers), wanted.eps[0], rtol=1e-6, atol=1e-9)
        loss = 1e-6 + 1e-13 / min(1, level.ratio**2) + 1e-12 * level.ratio**2  # digits of I − s ∂ε̂/∂x
        np.testing.assert_allclose(
            rule.covariance(level, answers),
            wanted.covariance[0],
            rtol=1e-5,
            atol=loss * np.abs(wanted.covariance).max(),
        )


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("steps", [1, 2, 10, 200])
def test_fused_samples_are_those_of_the_true_product_whatever_the_steps(size: int, name: str, steps: int) -> None:
    prior, each, whole, _ = gaussian_problem(size, 5, 30, size)

    def run(rule: str, posteriors: KnownPosteriors) -> Sampler:
        noise = np.random.default_rng(7).standard_normal((30, size))
        sampler = Sampler("diffusion", diffusion_schedule(steps), build_rule(rule, prior), lambda _: noise)
        while not sampler.done:
            sampler.advance(posteriors.answers(sampler.x, sampler.level))
        return sampler

    fused, alone = run(name, each), run("sum", whole)
    np.testing.assert_allclose(fused.position, alone.position, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fused.covariance, whole.covariance[0, :, 0], rtol=1e-4, atol=1e-6)
    if steps == 200:
        half = run(name, each)
        deviation = np.sqrt(np.einsum("nii->ni", half.covariance))
        assert (np.abs(half.position - whole.mean[0, :, 0]) / deviation).mean() < 1.2  # as samples of it are


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", RULES)
def test_one_base_station_has_its_own_way(name: str, level: Level, size: int) -> None:
    prior, each, _, _ = gaussian_problem(3, 1, 25, size)
    x = np.random.default_rng(2).standard_normal((25, size))
    answers = each.answers(x, level)
    for under in (prior, BoxPrior(np.full(size, -3.0), np.full(size, 3.0))):
        np.testing.assert_allclose(
            build_rule(name, under).eps(x, level, answers), answers.eps[0], rtol=1e-9, atol=1e-12
        )
    loss = 1e-6 + 1e-13 / min(1, level.ratio**2) + 1e-12 * level.ratio**2
    np.testing.assert_allclose(
        build_rule(name, prior).covariance(level, answers), each.covariance[0, :, 0], rtol=1e-5, atol=10 * loss
    )


def test_a_wide_box_is_a_flat_prior() -> None:
    """GAUSS under a box far wider than all posteriors: precisions add up, and so do information vectors."""
    _, each, _, _ = gaussian_problem(0, 4, 20, 2)
    precision = np.linalg.inv(each.covariance[:, :, 0])
    whole = np.linalg.inv(precision.sum(axis=0))
    centre = np.einsum("nij,nj->ni", whole, np.einsum("knij,knj->ni", precision, each.mean[:, :, 0]))
    rule = build_rule("gauss", BoxPrior(np.full(2, -600.0), np.full(2, 600.0)))
    for level in consistency_schedule(4, 0.01, 80.0):
        x = np.random.default_rng(1).standard_normal((20, 2))
        wanted = posterior(centre[None], whole[None]).answers(x, level)
        np.testing.assert_allclose(rule.eps(x, level, each.answers(x, level)), wanted.eps[0], rtol=1e-3, atol=1e-4)


def covered(error: FloatArray, covariance: FloatArray) -> float:
    """Share of errors (N, D) within the 90 % region."""
    square = np.einsum("ni,nij,nj->n", error, np.linalg.inv(covariance), error)
    return float(np.mean(square < chi2.ppf(0.9, error.shape[1])))


def centres(rule: str, prior: Prior, each: KnownPosteriors, size: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Means of a sample and its mirror image, which cancels what x_T adds; their covariances; and single samples."""
    noise = np.random.default_rng(5).standard_normal((each.mean.shape[1], size))
    ends = []
    for sign in (1, -1):
        sampler = Sampler("diffusion", diffusion_schedule(25), build_rule(rule, prior), lambda _, z=sign * noise: z)
        while not sampler.done:
            sampler.advance(each.answers(sampler.x, sampler.level))
        ends.append(sampler)
    return (ends[0].position + ends[1].position) / 2, ends[0].covariance, ends[0].position


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", EXACT)
def test_claimed_regions_cover_what_they_claim(size: int, name: str) -> None:
    prior, each, _, truth = gaussian_problem(11, 5, 4000, size)
    mean, covariance, alone = centres(name, prior, each, size)
    assert 0.88 < covered(mean - truth, covariance) < 0.92
    assert covered(alone - truth, covariance) < 0.85  # one sample errs by the posterior's deviation twice


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_the_sum_is_overconfident_under_a_narrow_prior(size: int) -> None:
    """Base stations that add little to a narrow prior: K times the prior makes a region far too small."""
    prior, each, _, truth = gaussian_problem(12, 7, 4000, size, noise=3.0)
    mean, covariance, _ = centres("sum", prior, each, size)
    assert covered(mean - truth, covariance) < 0.6
    good, fair, _ = centres("gauss", prior, each, size)
    assert 0.88 < covered(good - truth, fair) < 0.92


def test_fnpe_under_a_box_is_the_sum_and_under_a_slope_is_not() -> None:
    prior, each, _, _ = gaussian_problem(1, 3, 10, 2)
    level = diffusion_schedule(200)[120]
    x = np.random.default_rng(0).standard_normal((10, 2))
    answers = each.answers(x, level)
    total = build_rule("sum", prior).eps(x, level, answers)
    box = BoxPrior(np.full(2, -1.0), np.full(2, 1.0))
    np.testing.assert_array_equal(build_rule("fnpe", box).eps(x, level, answers), total)
    score = total / -level.noise + (1 - 3) * (1 - level.time) * prior.score(x)
    np.testing.assert_allclose(build_rule("fnpe", prior).eps(x, level, answers), -level.noise * score)


def test_covariances_by_hand() -> None:
    """Two base stations of variances 1 and ½ under a prior of variance 4."""
    prior = NormalPrior(np.zeros(2), 4 * np.eye(2))
    variances = np.array([1.0, 0.5])[:, None, None, None] * np.eye(2)
    answers = posterior(np.zeros((2, 1, 2)), variances).answers(np.ones((1, 2)), LEVELS[2])
    wanted = {"sum": 1 / 3, "precision": 1 / 3, "mean": 2 / 3, "fnpe": 4 / 11, "gauss": 4 / 11, "jac": 4 / 11}
    assert set(wanted) == set(RULES)
    for name, variance in wanted.items():
        found = build_rule(name, prior).covariance(LEVELS[2], answers)
        np.testing.assert_allclose(found, variance * np.eye(2)[None], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("level", LEVELS)
def test_precision_weighs_clean_positions(level: Level) -> None:
    prior, each, _, _ = gaussian_problem(1, 4, 10, 3)
    x = np.random.default_rng(0).standard_normal((10, 3))
    raw = np.random.default_rng(1).standard_normal((4, 10, 3))
    answers = Answers(eps_of("consistency", raw, x, level), each.covariance[:, :, 0])
    eps = build_rule("precision", prior).eps(x, level, answers)
    weight = np.linalg.inv(answers.covariance)
    wanted = np.linalg.solve(weight.sum(axis=0), np.einsum("knij,knj->ni", weight, raw)[..., None])[..., 0]
    np.testing.assert_allclose((x - level.noise * eps) / level.signal, wanted, atol=1e-9 / level.signal)


@given(
    seed=st.integers(0, 2**32 - 1),
    name=st.sampled_from(list(RULES)),
    size=st.sampled_from([2, 3]),
    level=st.sampled_from(LEVELS),
    stations=st.integers(1, 7),
    scale=st.sampled_from([1e-12, 1e-3, 1.0, 1e3, 1e12]),
)
def test_whatever_is_finite_makes_a_finite_fix(
    seed: int, name: str, size: int, level: Level, stations: int, scale: float
) -> None:
    """Covariances and Jacobians that no posterior has: lopsided, indefinite, singular, huge."""
    random = np.random.default_rng(seed)
    box = BoxPrior(np.full(size, -2.0), np.full(size, 2.0))
    shape = stations, 6, size
    answers = Answers(
        random.standard_normal(shape),
        scale * random.standard_normal((*shape, size)),
        scale * random.standard_normal((*shape, size)),
    )
    rule = build_rule(name, box)
    x = random.standard_normal((6, size))
    eps, covariance = rule.eps(x, level, answers), rule.covariance(level, answers)
    assert np.isfinite(eps).all() and np.isfinite(covariance).all()
    np.testing.assert_array_equal(covariance, np.swapaxes(covariance, 1, 2))
    value = np.linalg.eigvalsh(covariance)
    assert (value > -1e-9 * value.max()).all() and value.max() > 0
    if name in ("fnpe", "gauss", "jac"):
        assert value.max() <= (16 / 12) * (1 + 1e-6)  # no less sure than the prior
    turn = random.permutation(stations)
    turned = Answers(answers.eps[turn], answers.covariance[turn], np.asarray(answers.jacobian)[turn])
    np.testing.assert_allclose(rule.eps(x, level, turned), eps, rtol=1e-6, atol=1e-6)


def test_a_base_station_of_no_spread_is_believed_to_the_floor() -> None:
    box = BoxPrior(np.full(2, -np.sqrt(3)), np.full(2, np.sqrt(3)))
    answers = Answers(np.zeros((1, 1, 2)), np.zeros((1, 1, 2, 2)))
    np.testing.assert_allclose(build_rule("gauss", box).covariance(LEVELS[0], answers), FLOOR**2 * np.eye(2)[None])


def test_rules_by_name() -> None:
    box = BoxPrior(np.zeros(2), np.ones(2))
    for name in RULES:
        assert build_rule(name, box).name == name
        assert build_rule(name, box).needs_jacobian == (name == "jac")
        assert build_rule(name, box).prior is box
    with pytest.raises(ValueError, match=r"'product'.*sum, mean, precision, fnpe, gauss, jac"):
        build_rule("product", box)


def test_jac_says_what_it_lacks() -> None:
    rule = build_rule("jac", BoxPrior(np.zeros(2), np.ones(2)))
    answers = Answers(np.zeros((1, 1, 2)), np.eye(2)[None, None])
    for ask in (lambda: rule.eps(np.zeros((1, 2)), LEVELS[0], answers), lambda: rule.covariance(LEVELS[0], answers)):
        with pytest.raises(ValueError, match="Jacobian"):
            ask()
