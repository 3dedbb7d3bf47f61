"""The link model: statistics against theory, the queue against a simulation of its own, and what must never happen."""

from __future__ import annotations

import itertools
import math
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from fronthaul.account.costs import modelled_ethernet_bytes
from fronthaul.draws import generator
from fronthaul.errors import LocalError
from fronthaul.link.impairment import JITTER_SHAPES, JitterShape
from fronthaul.link.link_model import (
    ALWAYS_NOTICED_BITS,
    JITTER_DEVIATIONS,
    GilbertElliott,
    LinkConfig,
    LinkModel,
    Passage,
    unit_jitter,
)
from fronthaul.message.messages import Direction

MS, SECOND = 1_000_000, 1_000_000_000
START = 1_700_000_000 * SECOND  # a wall clock's: times beyond what a float holds to the nanosecond
FRAMES = 6000

SHAPES: list[JitterShape] = ["uniform", "normal", "exponential", "pareto"]
EVERYTHING = LinkConfig(
    rate_bps=20e6,
    delay_s=0.002,
    jitter_s=0.001,
    jitter="exponential",
    loss=0.05,
    burst=GilbertElliott(0.02, 0.3),
    duplicate=0.04,
    reorder=0.1,
    corrupt=0.06,
    outages=((0.5, 0.6),),
    queue_bytes=5000,
)


def changed(config: LinkConfig, change: dict[str, Any]) -> LinkConfig:
    return replace(config, **change)


def model(config: LinkConfig, *, seed: int = 1, bs: int = 3, epoch: int = 0, up: bool = True) -> LinkModel:
    direction = Direction.UP if up else Direction.DOWN
    return LinkModel(config, seed=seed, bs=bs, direction=direction, epoch=epoch, t0_ns=START)


def line_bytes(stream_bytes: int) -> int:
    return modelled_ethernet_bytes(stream_bytes, preamble_fcs_gap=True)


def passages(config: LinkConfig, frames: int = FRAMES, gap_ns: int = 20 * MS, **key: Any) -> list[Passage]:
    """One frame of 400 B every `gap_ns`, none of them a copy."""
    link = model(config, **key)
    return [link.frame(seq, 400, 3000, START + seq * gap_ns) for seq in range(frames)]


def delays_s(config: LinkConfig, frames: int = FRAMES, gap_ns: int = 1000 * SECOND) -> np.ndarray:
    sent = passages(config, frames, gap_ns)
    return np.array([(p.t_release_ns - START - seq * gap_ns) * 1e-9 for seq, p in enumerate(sent)])


def assert_binomial(hits: int, trials: int, probability: float) -> None:
    low, high = stats.binom.interval(0.99, trials, probability)
    assert low <= hits <= high


# ---------------------------------------------------------------------------------------------------- probabilities


@pytest.mark.parametrize("loss", [0.001, 0.01, 0.3, 0.9])
def test_loss_is_binomial(loss: float) -> None:
    sent = passages(LinkConfig(loss=loss))
    assert {p.drop_reason for p in sent} <= {None, "loss"}
    assert_binomial(sum(p.drop_reason == "loss" for p in sent), FRAMES, loss)


@pytest.mark.parametrize("loss", [0.0, 1.0])
def test_certain_loss_and_none(loss: float) -> None:
    assert {p.drop_reason for p in passages(LinkConfig(loss=loss), 300)} == {"loss" if loss else None}


def test_duplicates_and_corruption_are_binomial() -> None:
    sent = passages(LinkConfig(duplicate=0.04, corrupt=0.07))
    assert_binomial(sum(p.duplicate for p in sent), FRAMES, 0.04)
    assert_binomial(sum(p.flipped != () for p in sent), FRAMES, 0.07)


def test_a_copy_has_no_copy() -> None:
    link = model(LinkConfig(duplicate=1.0))
    assert link.frame(0, 400, 3000, START).duplicate
    assert not link.copy(1, 400, 3000, START).duplicate


def test_flips_are_one_to_three_anywhere_in_the_message() -> None:
    flips = [p.flipped for p in passages(LinkConfig(corrupt=1.0))]
    counts = np.bincount([len(flip) for flip in flips], minlength=4)
    assert counts[0] == 0 and len(counts) == 4
    for number in (1, 2, 3):  # two draws may hit the same bit, which is rare among 3000
        assert_binomial(int(counts[number]), FRAMES, 1 / 3)
    assert all(list(flip) == sorted(set(flip)) for flip in flips)
    positions = np.array([position for flip in flips for position in flip])
    assert positions.min() >= 0 and positions.max() < 3000
    assert stats.kstest(positions / 3000, "uniform").pvalue > 0.01


def test_a_single_bit_may_flip() -> None:
    assert model(LinkConfig(corrupt=1.0)).frame(0, 1, 1, START).flipped == (0,)


@settings(max_examples=50)
@given(st.integers(1, 20_000), st.integers(0, 1000))
def test_crc32_notices_every_flip(size: int, seq: int) -> None:
    """Otherwise a frame with flips could be delivered, and the books would not balance."""
    body = bytes(generator(5, "body", size).bytes(size))
    message = body + zlib.crc32(body).to_bytes(4, "big")
    flipped = model(LinkConfig(corrupt=1.0)).frame(seq, len(message) + 2, 8 * len(message), START).flipped
    assert 1 <= len(flipped) <= (3 if 8 * len(message) <= ALWAYS_NOTICED_BITS else 2)
    damaged = bytearray(message)
    for position in flipped:
        damaged[position // 8] ^= 0x80 >> position % 8
    assert zlib.crc32(damaged[:-4]) != int.from_bytes(damaged[-4:], "big")


# ------------------------------------------------------------------------------------------------------------ bursts


@pytest.mark.parametrize(
    "burst",
    [GilbertElliott(0.01, 0.25), GilbertElliott(0.05, 0.5), GilbertElliott(0.02, 0.2, loss_bad=0.6, loss_good=0.01)],
)
def test_gilbert_elliott_has_its_stationary_loss(burst: GilbertElliott) -> None:
    """Over many short links, which also shows that the chain starts in its stationary distribution."""
    links, length = 500, 8
    config = LinkConfig(burst=burst)
    lost = [
        sum(p.drop_reason == "loss" for p in passages(config, length, bs=bs)) for bs in range(links)
    ]  # independent between links, so their mean has a normal interval
    error = 2.58 * np.std(lost) / math.sqrt(links)
    assert abs(float(np.mean(lost)) - length * burst.mean_loss) < error


@pytest.mark.parametrize("to_good", [0.25, 0.5])
def test_gilbert_elliott_has_its_mean_burst(to_good: float) -> None:
    burst = GilbertElliott(0.05, to_good)
    lost = [p.drop_reason == "loss" for p in passages(LinkConfig(burst=burst), 20_000)]
    runs = [sum(1 for _ in run) for bad, run in itertools.groupby(lost) if bad]
    # Geometric: variance (1 - p) / p^2.
    error = 2.58 * math.sqrt(1 - to_good) / to_good / math.sqrt(len(runs))
    assert abs(np.mean(runs) - 1 / to_good) < error
    gaps = [sum(1 for _ in run) for bad, run in itertools.groupby(lost) if not bad]
    assert abs(np.mean(gaps) - 20) < 2.58 * math.sqrt(0.95) * 20 / math.sqrt(len(gaps))


def test_independent_loss_and_bursts_add_up() -> None:
    config = LinkConfig(loss=0.1, burst=GilbertElliott(0.5, 0.5))
    assert config.mean_loss == pytest.approx(1 - 0.9 * 0.5)
    alone = {seq for seq, p in enumerate(passages(replace(config, burst=None), 500)) if p.drop_reason}
    bursts = {seq for seq, p in enumerate(passages(replace(config, loss=0.0), 500)) if p.drop_reason}
    assert {seq for seq, p in enumerate(passages(config, 500)) if p.drop_reason} == alone | bursts


@given(st.permutations(range(12)))
def test_bursts_depend_on_seq_alone(order: list[int]) -> None:
    config = LinkConfig(burst=GilbertElliott(0.4, 0.4, loss_bad=0.8))
    link = model(config)
    found = {seq: link.frame(seq, 400, 3000, START).drop_reason for seq in order}
    assert [found[seq] for seq in range(12)] == [p.drop_reason for p in passages(config, 12)]


def test_bursts_reach_over_frames_that_were_never_passed() -> None:
    config = LinkConfig(burst=GilbertElliott(0.4, 0.4))
    link = model(config)
    every_third = [link.frame(seq, 400, 3000, START).drop_reason for seq in range(0, 90, 3)]
    assert every_third == [p.drop_reason for p in passages(config, 90)][::3]


# ------------------------------------------------------------------------------------------------------------- draws


def test_draws_are_keyed_by_seed_bs_direction_epoch_and_seq() -> None:
    config = LinkConfig(loss=0.5)
    base = [p.drop_reason for p in passages(config, 64)]
    assert base == [p.drop_reason for p in passages(config, 64)]
    for other in ({"seed": 2}, {"bs": 4}, {"epoch": 1}, {"up": False}):
        assert [p.drop_reason for p in passages(config, 64, **other)] != base


def test_draws_are_golden() -> None:
    """First draw of frame 7: loss. Any change of the order of draws changes every recorded run."""
    draws = generator(1, "link", 3, 0, 0, 7).random(11)
    for index, option in enumerate(("loss", "", "", "duplicate", "reorder", "corrupt")):
        if not option:
            continue
        for chance, happens in ((draws[index] + 1e-9, True), (draws[index] - 1e-9, False)):
            config = changed(LinkConfig(delay_s=1.0), {option: float(chance)})
            found = model(config).frame(7, 400, 3000, START)
            outcomes = {
                "loss": found.drop_reason == "loss",
                "duplicate": found.duplicate,
                "reorder": found.t_release_ns == START,
                "corrupt": found.flipped != (),
            }
            assert outcomes[option] is happens
    jittered = model(LinkConfig(jitter_s=1.0)).frame(7, 400, 3000, START)
    assert jittered.t_release_ns - START == round(2e9 * draws[6])


OPTIONS: list[LinkConfig] = [
    replace(EVERYTHING, jitter_s=0.0),
    replace(EVERYTHING, jitter="pareto"),
    replace(EVERYTHING, rate_bps=None, queue_bytes=None),
    replace(EVERYTHING, reorder=0.0),
    replace(EVERYTHING, delay_s=0.1),
    replace(EVERYTHING, outages=()),
]


@pytest.mark.parametrize("other", OPTIONS)
def test_options_do_not_shift_each_others_draws(other: LinkConfig) -> None:
    """Whatever else is set: the same frames are lost, corrupt, copied, unless they were dropped before that."""
    for one, two in zip(passages(EVERYTHING, 1000), passages(other, 1000), strict=True):
        assert one.duplicate == two.duplicate
        if {one.drop_reason, two.drop_reason} <= {None, "loss"}:
            assert (one.drop_reason, one.flipped) == (two.drop_reason, two.flipped)


@pytest.mark.parametrize("option", ["loss", "duplicate", "corrupt"])
def test_one_chance_leaves_the_others_alone(option: str) -> None:
    without = passages(changed(EVERYTHING, {option: 0.0}), 1000)
    for one, two in zip(passages(EVERYTHING, 1000), without, strict=True):
        assert option == "duplicate" or one.duplicate == two.duplicate
        if one.drop_reason is None and two.drop_reason is None:
            assert option == "corrupt" or one.flipped == two.flipped
            assert option == "loss" or one.t_release_ns == two.t_release_ns


@given(st.lists(st.integers(0, SECOND), min_size=40, max_size=40))
def test_chances_do_not_depend_on_when_frames_are_sent(times: list[int]) -> None:
    """Loss, corruption and copies are the same in both drivers; the numbering of frames is, too."""
    timeless = replace(EVERYTHING, outages=(), queue_bytes=None)
    link = model(timeless)
    found = [link.frame(seq, 400, 3000, START + at) for seq, at in enumerate(times)]
    assert [p[1:] for p in found] == [p[1:] for p in passages(timeless, 40)]
    link = model(EVERYTHING)
    found = [link.frame(seq, 400, 3000, START + at) for seq, at in enumerate(times)]
    assert [p.duplicate for p in found] == [p.duplicate for p in passages(EVERYTHING, 40)]


# ------------------------------------------------------------------------------------------------- delay and jitter


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("delay_s", [0.0, 0.004])
def test_mean_delay_is_delay_and_jitter(shape: JitterShape, delay_s: float) -> None:
    config = LinkConfig(delay_s=delay_s, jitter_s=0.002, jitter=shape)
    found = delays_s(config, 20_000)
    assert found.min() >= delay_s
    assert found.mean() == pytest.approx(config.mean_delay_s, rel=0.05)


@pytest.mark.parametrize(
    ("shape", "law"),
    [
        ("uniform", stats.uniform(0, 2)),
        ("normal", stats.truncnorm(-3, 3, loc=1, scale=1 / 3)),
        ("exponential", stats.expon()),
        ("pareto", stats.lomax(3, scale=2)),
    ],
)
def test_jitter_has_its_law(shape: JitterShape, law: stats.rv_continuous) -> None:
    assert law.mean() == pytest.approx(1.0)
    assert law.std() == pytest.approx(JITTER_DEVIATIONS[shape])
    assert integrate.quad(lambda draw: unit_jitter(shape, draw), 0, 1, limit=200)[0] == pytest.approx(1.0, rel=1e-4)
    assert stats.kstest(delays_s(LinkConfig(jitter_s=1.0, jitter=shape), 4000), law.cdf).pvalue > 0.01


@pytest.mark.parametrize("shape", SHAPES)
def test_jitter_is_finite_and_never_negative(shape: JitterShape) -> None:
    assert set(SHAPES) == set(JITTER_SHAPES)
    for draw in (0.0, 2.0**-53, 0.5, 1 - 2.0**-53):
        assert -1e-9 <= unit_jitter(shape, draw) < 1e6


def test_nothing_overtakes_without_reordering() -> None:
    config = replace(EVERYTHING, reorder=0.0, jitter_s=0.05, jitter="pareto")
    arrived = [p.t_release_ns for p in passages(config, gap_ns=MS) if p.drop_reason is None]
    assert len(arrived) > FRAMES / 3 and arrived == sorted(arrived)


def test_lost_frames_hold_nobody_back() -> None:
    config = LinkConfig(jitter_s=1.0, jitter="pareto", loss=0.5)
    free = delays_s(config)
    dense = passages(config, gap_ns=0)
    latest = 0.0
    for passage, delay in zip(dense, free, strict=True):
        if passage.drop_reason is None:
            latest = max(latest, float(delay))
            assert passage.t_release_ns - START == pytest.approx(latest * 1e9, abs=1)
        else:
            assert passage.t_release_ns == START


def test_reordered_frames_skip_delay_and_jitter() -> None:
    config = LinkConfig(rate_bps=8e6, delay_s=0.05, jitter_s=0.01, reorder=0.2)
    serial_ns = line_bytes(400) * 1000
    sent = passages(config, gap_ns=MS)
    skipped = [seq for seq, p in enumerate(sent) if p.t_release_ns == START + seq * MS + serial_ns]
    assert_binomial(len(skipped), FRAMES, 0.2)
    others = [p.t_release_ns for seq, p in enumerate(sent) if seq not in set(skipped)]
    assert others == sorted(others)
    order = sorted(range(FRAMES), key=lambda seq: (sent[seq].t_release_ns, seq))
    assert order != list(range(FRAMES))


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rate_bps": 0.0}, "rate_bps must be a finite number above 0 bit/s, not 0.0"),
        ({"rate_bps": math.inf}, "rate_bps"),
        ({"delay_s": -0.1}, "delay_s must be 0 to 3600 s, not -0.1"),
        ({"jitter_s": math.nan}, "jitter_s"),
        ({"jitter": "gaussian"}, "jitter must be one of uniform, normal, exponential, pareto, not 'gaussian'"),
        ({"loss": 1.5}, "loss must be a probability from 0 to 1, not 1.5"),
        ({"loss": True}, "loss"),
        ({"duplicate": -0.1}, "duplicate"),
        ({"reorder": math.nan}, "reorder"),
        ({"corrupt": "1%"}, "corrupt"),
        ({"outages": ((3.0, 2.0),)}, "unlike 3.0 s to 2.0 s"),
        ({"outages": ((-1.0, 2.0),)}, "starts at 0 s or later"),
        ({"outages": ((1.0, 3.0), (2.0, 4.0))}, "without overlap: one starts at 2.0 s, before 3.0 s"),
        ({"outages": (1.0, 2.0)}, "pair of finite numbers"),
        ({"outages": ((1.0, math.inf),)}, "pair of finite numbers"),
        ({"queue_bytes": 0}, "queue_bytes must be a whole number of bytes above 0, not 0"),
        ({"queue_bytes": 1.5}, "queue_bytes"),
    ],
)
def test_impossible_values_are_one_sentence(change: dict[str, object], words: str) -> None:
    with pytest.raises(LocalError) as caught:
        changed(LinkConfig(), change)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [((0.1, 0.0), "never ends"), ((1.1, 0.5), "burst.to_bad"), ((0.1, 0.5, 2.0), "burst.loss_bad")],
)
def test_impossible_bursts_are_one_sentence(values: tuple[float, ...], words: str) -> None:
    with pytest.raises(LocalError, match=words):
        GilbertElliott(*values)


@pytest.mark.parametrize("frame", [(-1, 1, 1), (0, 0, 1), (0, 1, 0)])
def test_impossible_frames_are_errors(frame: tuple[int, int, int]) -> None:
    with pytest.raises(LocalError):
        model(LinkConfig()).frame(*frame, START)
    with pytest.raises(LocalError):
        model(LinkConfig()).control(0, START)
