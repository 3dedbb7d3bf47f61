"""What DiffLoc's halves say to each other: every number back within its cell, and none where there is none."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.fusion.scores import rule
from cloud.fusion.scores.prior import BoxPrior
from fronthaul.codec.bitstream import unpack
from fronthaul.payload import diffloc as scoreformat
from fronthaul.payload.diffloc import COMPONENTS, DEVIATION, SIGMA_DATA, Mixture, ScoreFormat, score_format
from fronthaul.payload.noise_levels import Level

CONFIG: dict[str, Any] = {
    "sampler": {"kind": "diffusion", "timesteps": 200, "beta": [5e-4, 0.1]},
    "low": [-1.0, -0.5], "high": [1.0, 0.5], "fusion": "gauss", "steps": 20,
}  # fmt: skip
CONSISTENCY = CONFIG | {"sampler": {"kind": "consistency", "sigma": [0.01, 5.0]}}
SOLID = CONFIG | {"low": [-1.0, -1.0, -0.1], "high": [1.0, 1.0, 0.1]}

some_bits = st.integers(2, 8) | st.none()
seeds = st.integers(0, 2**32 - 1)


def cell(score: ScoreFormat) -> float:
    """Half a cell of the unit interval, with float32's rounding."""
    return 0.5 / (2**score.bits - 1) + 1e-6


@given(some_bits, seeds, st.integers(1, 64))
def test_states_come_back_within_half_a_cell_at_any_level(bits: int | None, seed: int, particles: int) -> None:
    score = score_format(CONSISTENCY, {"particles": particles}, bits)
    draw = np.random.default_rng(seed)
    for level in score.levels:
        size = math.hypot(level.signal, level.noise)
        x = size * draw.uniform(-3.9, 3.9, (particles, 2))
        payload = score.encode_state(x, level)
        assert payload.bits == score.bits * score.state_size == score.bits * 2 * particles
        assert np.abs(score.decode_state(payload, level) - x).max() <= size * 4 / 2**score.bits + 1e-5
    beyond = score.encode_state(np.full((particles, 2), 1e300), Level(1.0, 1.0, 1.0))
    assert (unpack(beyond, score.bits, 2 * particles) == 2**score.bits - 1).all()


@given(some_bits, seeds, st.sampled_from([CONFIG, CONSISTENCY, SOLID]), st.sampled_from(["gauss", "jac"]))
def test_answers_come_back_within_half_a_cell(bits: int | None, seed: int, config: dict[str, Any], fusion: str) -> None:
    score = score_format(config, {"particles": 3, "fusion": fusion}, bits)
    draw, size = np.random.default_rng(seed), score.dimensions
    level = score.levels[0]
    x = draw.normal(size=(3, size)) * level.noise
    skip, half = 0.0, np.full(size, 4.0)
    if score.kind == "consistency":
        skip = SIGMA_DATA**2 / ((level.noise - score.sigma_min) ** 2 + SIGMA_DATA**2)
        half = (1 - skip) * 1.25 * (score.high - score.low) / 2 + 4 * skip * level.noise
        middle = (1 - skip) * (score.high + score.low) / 2
    else:
        middle = np.zeros(size)
    raw = skip * x + middle + draw.uniform(-half, half, (3, size))
    turned = np.linalg.qr(draw.normal(size=(3, size, size)))[0]
    jacobian = np.einsum("nij,nj,nkj->nik", turned, draw.uniform(0, 1, (3, size)), turned) if fusion == "jac" else None
    payload = score.encode_answer(raw, x, level, jacobian)
    assert payload.bits == score.answer_format.max_bits
    assert score.answer_size == 3 * (size + (size * (size + 1) // 2 if fusion == "jac" else 0))
    back, with_jacobian = score.decode_answer(payload, x, level)
    assert (np.abs(back - raw) <= 2 * half * cell(score)).all()
    if jacobian is None:
        assert with_jacobian is None
    else:
        assert with_jacobian is not None and np.abs(with_jacobian - jacobian).max() <= cell(score)
        np.testing.assert_array_equal(with_jacobian, np.swapaxes(with_jacobian, 1, 2))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_said_to_be_none(value: float) -> None:
    score = score_format(CONFIG, {"particles": 2}, 4)
    x, level = np.zeros((2, 2)), score.levels[0]
    raw, _ = score.decode_answer(score.encode_answer(np.array([[0.1, value], [0.2, 0.3]]), x, level), x, level)
    np.testing.assert_array_equal(np.isfinite(raw), [[True, False], [True, True]])
    assert not np.isfinite(score.decode_covariance(score.encode_covariance(np.array([[value, 0], [0, 1]])))).any()
    none = Mixture(np.full(3, value), np.full((3, 2), value), np.full((3, 2, 2), value))
    assert score.decode_mixture(score.encode_mixture(none)) is None


@given(st.sampled_from([4, 6, 8, None]), seeds, st.sampled_from([CONFIG, SOLID]))
def test_spreads_come_back_within_the_stated_bound(bits: int | None, seed: int, config: dict[str, Any]) -> None:
    score = score_format(config, {"local": 8}, bits)
    draw, size = np.random.default_rng(seed), score.dimensions
    root = draw.normal(size=(size, size))
    covariance = root @ root.T + 0.05 * np.eye(size)
    wanted = np.exp(draw.uniform(*np.log(np.array(DEVIATION) * [1.01, 0.99]), size)) / np.sqrt(np.diag(covariance))
    covariance = covariance * np.outer(wanted, wanted)
    payload = score.encode_covariance(covariance)
    assert payload.bits == score.report_format.max_bits == score.bits * score.pairs
    back = score.decode_covariance(payload)
    assert np.linalg.eigvalsh(back).min() > 0
    deviation, found = np.sqrt(np.diag(covariance)), np.sqrt(np.diag(back))
    if size == 2:  # of three axes the correlations may have to be made whole
        assert (np.abs(np.log(found / deviation)) <= 3.81 / (2**score.bits - 1) + 1e-5).all()
        correlation = covariance[0, 1] / deviation.prod() - back[0, 1] / found.prod()
        assert abs(correlation) <= 1 / (2**score.bits - 1) + 2e-3


def test_mixtures_come_back_with_weights_that_sum_to_one() -> None:
    score = score_format(CONFIG, {"where": "one-shot"}, 8)
    sent = Mixture(
        np.array([0.7, 0.2, 0.1]),
        np.array([[0.5, 0.1], [-0.9, 0.4], [1.2, -0.6]]),
        np.array([np.diag([0.01, 0.04]), np.diag([0.09, 0.01]), np.array([[0.04, 0.03], [0.03, 0.04]])]),
    )
    payload = score.encode_mixture(sent)
    assert payload.bits == score.report_format.max_bits == 8 * COMPONENTS * 6  # 180 bit at 10 bit a number
    back = score.decode_mixture(payload)
    assert back is not None and back.weight.sum() == pytest.approx(1)
    np.testing.assert_allclose(back.weight, sent.weight, atol=0.01)
    np.testing.assert_allclose(back.mean, sent.mean, atol=0.01)
    np.testing.assert_allclose(back.covariance, sent.covariance, rtol=0.1, atol=1e-3)


def test_options_take_the_place_of_the_configuration() -> None:
    plain = score_format(CONFIG, {}, None)
    assert plain.chosen == {"steps": 20, "fusion": "gauss", "where": "edge", "particles": 1} and plain.bits == 16
    options: dict[str, str | int] = {"steps": 3, "fusion": "jac", "where": "central", "particles": 4}
    assert score_format(CONFIG, options, 5).chosen == options
    shot = score_format(CONFIG, {"where": "one-shot"}, 5)
    assert (shot.fusion, shot.particles) == ("exact", 64)


@pytest.mark.parametrize(
    ("options", "bits", "sentence"),
    [
        ({"steps": 0}, 8, "sampled in 1 to 200 steps, not 0"),
        ({"steps": 201}, 8, "sampled in 1 to 200 steps, not 201"),
        ({"fusion": "best"}, 8, "--fusion must be one of sum, mean, precision, fnpe, gauss, jac, exact, it is 'best'"),
        ({"where": "here"}, 8, "--where must be one of edge, central, one-shot, it is 'here'"),
        ({"fusion": "exact"}, 8, "which --where edge does not provide: use --where central or one-shot"),
        ({"fusion": "gauss", "where": "one-shot"}, 8, "--where one-shot sends posteriors"),
        ({"particles": 65}, 8, r"particles must lie in 1\.\.64, it is 65"),
        ({"local": 20, "where": "central"}, 8, "local is for --where edge"),
        ({"local": 1}, 8, "local must be 0, or 2 or more"),
        ({}, 1, "--bits 1 is too few"),
    ],
)
def test_impossible_options_are_one_sentence(options: dict[str, Any], bits: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        score_format(CONFIG, options, bits)


def test_the_rules_are_those_of_the_cloud() -> None:
    assert scoreformat.RULES == rule.RULES
    for name in rule.RULES:
        needs = rule.build_rule(name, BoxPrior(np.array([-1.0, -1.0]), np.array([1.0, 1.0]))).needs_jacobian
        assert score_format(CONFIG, {"fusion": name}, 8).has_jacobians == needs
