"""ECC Eq. 7-15, each against float64 NumPy, and what the phase stabilisation keeps and removes."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edge.preprocessing import PHASES, Phase, channel_gain, normalise, phase_stabilise, preprocess, stack

BATCH, SLOTS, ANTENNAS, TONES = 3, 4, 3, 6
Complex = npt.NDArray[np.complex128]


def channels(seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, SLOTS, ANTENNAS, TONES, dtype=torch.complex64, generator=draw)


def double(channel: Tensor) -> Complex:
    return channel.numpy().astype(np.complex128)


def test_the_gain_is_the_frobenius_norm() -> None:  # ECC Eq. 7
    expected = np.sqrt((np.abs(double(channels())) ** 2).sum((1, 2, 3)))
    np.testing.assert_allclose(channel_gain(channels()).numpy(), expected, rtol=1e-6)


@given(st.floats(1e-7, 1e3))
def test_normalised_channels_have_unit_norm_and_keep_their_direction(scale: float) -> None:  # ECC Eq. 8
    channel = scale * channels()
    gain = channel_gain(channel)
    h = double(channel)
    norm = np.sqrt((np.abs(h) ** 2).sum((1, 2, 3), keepdims=True))
    np.testing.assert_allclose(normalise(channel, gain).numpy(), h / (norm + 1e-12), rtol=2e-5, atol=1e-7)


def stabilised_in_numpy(h: Complex, phase: str, floor: float = 1e-6) -> Complex:
    out = h.copy()
    for n in range(len(h)):
        strongest = int(np.argmax((np.abs(h[n]) ** 2).sum((0, 2))))  # ECC Eq. 9
        for t, f in np.ndindex(h.shape[1], h.shape[3]):
            reference = h[n, t, strongest, h.shape[3] // 2 if phase == "slot" else f]
            if abs(reference) >= floor:
                out[n, t, :, f] = h[n, t, :, f] * np.exp(-1j * np.angle(reference))  # ECC Eq. 10-11
    return out


@pytest.mark.parametrize("phase", ["tone", "slot"])
def test_stabilisation_rotates_by_the_reference_antennas_phase(phase: Phase) -> None:
    expected = stabilised_in_numpy(double(channels()), phase)
    np.testing.assert_allclose(phase_stabilise(channels(), phase).numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("phase", PHASES)
def test_relative_phases_and_moduli_are_preserved(phase: Phase) -> None:  # ECC Eq. 12
    before, after = double(channels()), double(phase_stabilise(channels(), phase))
    relative = before * before[:, :, :1].conj()
    np.testing.assert_allclose(after * after[:, :, :1].conj(), relative, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.abs(after), np.abs(before), rtol=1e-5)


def test_the_reference_antenna_becomes_real_and_positive() -> None:
    channel = channels()
    strongest = channel.abs().square().sum((1, 3)).argmax(1)
    after = phase_stabilise(channel, "tone")
    reference = after[torch.arange(BATCH), :, strongest]
    assert (reference.real > 0).all() and reference.imag.abs().max() < 1e-6


@pytest.mark.parametrize("first", [0, 1])
def test_a_tie_picks_the_antenna_of_smallest_index(first: int) -> None:
    bits = torch.randint(0, 2, (2, BATCH, SLOTS, ANTENNAS, TONES), generator=torch.Generator().manual_seed(4))
    channel = torch.complex(2.0 * bits[0] - 1, 2.0 * bits[1] - 1)  # ±1 ± j: all energies exactly equal
    channel[:, :, :first] *= 0.5
    after = phase_stabilise(channel, "tone")
    for antenna in range(ANTENNAS):
        is_real = bool(after[:, :, antenna].imag.abs().max() < 1e-6)
        assert is_real == (antenna == first)


@pytest.mark.parametrize("phase", ["tone", "slot"])
def test_entries_below_the_threshold_are_left_as_they_are(phase: Phase) -> None:
    channel = channels()
    strongest = 1
    channel[:, :, strongest] *= 3
    middle = TONES // 2
    channel[:, 2, strongest, middle] *= 1e-7
    after = phase_stabilise(channel, phase)
    left = after[:, 2] if phase == "slot" else after[:, 2, :, middle]
    before = channel[:, 2] if phase == "slot" else channel[:, 2, :, middle]
    torch.testing.assert_close(left, before, rtol=0, atol=0)
    assert not torch.allclose(after[:, 1], channel[:, 1])


def delay_ramp(tones: int = TONES, turns: float = 0.31) -> Tensor:
    return torch.polar(torch.ones(tones), -2 * math.pi * turns * torch.arange(tones))


def test_tone_removes_a_common_delay() -> None:
    one, other = phase_stabilise(channels(), "tone"), phase_stabilise(channels() * delay_ramp(), "tone")
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_slot_keeps_the_delay_and_removes_a_phase_of_each_slot() -> None:
    channel = channels()
    one = phase_stabilise(channel, "slot")
    assert (phase_stabilise(channel * delay_ramp(), "slot") - one).abs().max() > 0.5
    turn = torch.polar(torch.ones(SLOTS), torch.tensor([0.3, 2.0, -1.0, 3.0]))[:, None, None]
    torch.testing.assert_close(phase_stabilise(channel * turn, "slot"), one, rtol=1e-5, atol=1e-5)
    # The ramp survives up to its value at the middle tone.
    ramp = delay_ramp() / delay_ramp()[TONES // 2]
    torch.testing.assert_close(phase_stabilise(channel * delay_ramp(), "slot"), one * ramp, rtol=1e-5, atol=1e-5)


def test_none_is_the_identity() -> None:
    channel = channels()
    assert phase_stabilise(channel, "none") is channel


def test_stacking_is_real_and_imaginary_part_with_slots_outside() -> None:  # ECC Eq. 13-15
    h = double(channels())
    stacked = stack(channels()).numpy()
    assert stacked.shape == (BATCH, 2, TONES, SLOTS * ANTENNAS)
    scale = np.sqrt(SLOTS * ANTENNAS * TONES)
    for t, m in np.ndindex(SLOTS, ANTENNAS):
        column = stacked[..., t * ANTENNAS + m]
        np.testing.assert_allclose(column[:, 0] + 1j * column[:, 1], scale * h[:, t, m], rtol=1e-5)


@pytest.mark.parametrize("phase", PHASES)
def test_a_preprocessed_snapshot_has_unit_mean_square_per_complex_entry(phase: Phase) -> None:
    x, gain = preprocess(1e-6 * channels(), phase)
    assert x.dtype == gain.dtype == torch.float32
    torch.testing.assert_close(x.square().sum(1).mean((1, 2)), torch.ones(BATCH), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gain, 1e-6 * channel_gain(channels()), rtol=1e-5, atol=0)


@pytest.mark.parametrize("phase", PHASES)
def test_the_input_does_not_depend_on_the_gain(phase: Phase) -> None:
    torch.testing.assert_close(preprocess(channels(), phase)[0], preprocess(1e-5 * channels(), phase)[0])


@pytest.mark.parametrize("phase", PHASES)
def test_a_channel_of_zeros_stays_finite(phase: Phase) -> None:
    x, gain = preprocess(torch.zeros(1, SLOTS, ANTENNAS, TONES, dtype=torch.complex64), phase)
    assert not x.any() and not gain.any()
