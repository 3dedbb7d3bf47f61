"""Taps instead of tones: the Dirichlet kernel against an IFFT of tones, and the noise that arrives in taps."""

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import straight_world
import torch

from sim.world.channel import Motion, PaddedPaths, Synthesizer, pad_paths, receiver_noise, scenario_pilots
from sim.world.radio import Radio
from sim.world.scenario import SPEED_OF_LIGHT, LinkBudget, Numerology, Scenario, load_scenario
from sim.world.taps import dirichlet_taps, white_to_taps

PARIS = load_scenario("paris-7")
SMALL = Numerology(3.6e9, 20e6, 60e3, subcarriers=300, tones=300, tone_stride=1, slots=2, ifft=512, taps=40)


def world(numerology: Numerology = SMALL, **budget: Any) -> Scenario:
    return straight_world.scenario(numerology=numerology, link_budget=LinkBudget(**budget))


def taps_of_tones(tones: npt.NDArray[Any], numerology: Numerology) -> npt.NDArray[np.complex128]:
    """DiffLoc Eq. 2-3 by NumPy's own IFFT: (…, F) to (…, L)."""
    bins = np.zeros((*tones.shape[:-1], numerology.ifft), complex)
    bins[..., (np.arange(numerology.tones) - numerology.tones // 2) % numerology.ifft] = tones
    return np.fft.ifft(bins, norm="ortho")[..., : numerology.taps]


@pytest.mark.parametrize("numerology", [PARIS.numerology, SMALL, dataclasses.replace(SMALL, ifft=300)])
def test_a_paths_taps_are_the_ifft_of_its_tones(numerology: Numerology) -> None:
    sample_s = 1 / (numerology.ifft * numerology.tone_spacing_hz)
    # Anywhere, right on a tap, a hair beside one, beyond the last tap, and a whole symbol late.
    delay = np.concatenate([np.linspace(0, 1.5 * numerology.taps, 29), [0, 7, 7 + 1e-12, 9.5, -3, numerology.ifft + 5]])
    delay *= sample_s
    tone = (np.arange(numerology.tones) - (numerology.tones - 1) / 2) * numerology.tone_spacing_hz
    expected = taps_of_tones(np.exp(-2j * np.pi * np.outer(delay, tone)), numerology)
    made = dirichlet_taps(torch.from_numpy(delay), numerology).numpy()
    peak = np.abs(expected).max(1, keepdims=True).clip(1e-6)
    assert made.shape == (len(delay), numerology.taps)
    assert (np.abs(made - expected) < 1e-5 * peak).all()


def test_a_channels_taps_are_the_ifft_of_its_tones() -> None:
    here = world()
    paths = straight_world.trace(here, straight_world.positions(here, 5), [((1.0, 0.0, 0.0), 170.0)])
    padded = pad_paths(paths, 3.6e9)
    motion = Motion.draw(here, 5, torch.Generator().manual_seed(1))
    made = Synthesizer(here).response(padded, motion).numpy()
    flat = dataclasses.replace(here, numerology=dataclasses.replace(SMALL, taps=0, ifft=0))
    tones = Synthesizer(flat).response(padded, motion).numpy()
    assert made.shape == (5, 3, *here.csi_shape) == (5, 3, 2, 4, 40)
    expected = taps_of_tones(tones, SMALL)
    assert np.abs(made - expected).max() < 1e-5 * np.abs(expected).max()


def test_measured_tones_are_the_channel_they_were_measured_from() -> None:
    here = world()
    flat = dataclasses.replace(here, numerology=dataclasses.replace(SMALL, taps=0, ifft=0))
    paths = straight_world.trace(here, straight_world.positions(here, 5), [((1.0, 0.0, 0.0), 170.0)])
    padded = pad_paths(paths, 3.6e9)
    still = Motion(torch.zeros(5, 3), torch.zeros(5, 3), torch.zeros(5, 3, 2))
    tones = Synthesizer(flat).response(padded, still)
    measured = dataclasses.replace(padded, csi=tones)
    late = dataclasses.replace(still, clock_s=torch.full((5, 3), 2e-8), slot_phase=torch.rand(5, 3, 2))
    for scenario in (flat, here):
        for motion in (still, late):
            expected = Synthesizer(scenario).response(padded, motion)
            made = Synthesizer(scenario).response(measured, motion)
            assert (made - expected).abs().max() < 1e-5 * expected.abs().max()


def test_the_strongest_tap_is_the_line_of_sights() -> None:
    here = world(PARIS.numerology)
    position = straight_world.positions(here, 6)
    padded = pad_paths(straight_world.trace(here, position), 3.6e9)
    made = Synthesizer(here).response(padded, Motion.draw(here, 6, torch.Generator()))
    sample_m = SPEED_OF_LIGHT / (4096 * 30e3)
    expected = (padded.distance[..., 0] / sample_m).round().long()
    assert torch.equal(made[:, :, 0, 0].abs().argmax(-1), expected)


# Noise


def silent(here: Scenario) -> Radio:
    one = torch.ones(1, 1, 1)
    return Radio(here, PaddedPaths(0j * one, 100 * one, torch.zeros(1, 1, 1, 3), torch.zeros(1, 1, 1, 3)), 0, 1)


@pytest.mark.parametrize("numerology", [SMALL, PARIS.numerology])
def test_the_noises_factor_gives_its_covariance(numerology: Numerology) -> None:
    tones, size = numerology.tones, numerology.ifft
    tap, bins = np.arange(numerology.taps), np.arange(tones) - tones / 2
    transform = np.exp(2j * np.pi * np.outer(tap, bins) / size) / math.sqrt(size)  # (L, F): taps of white tones
    factor = white_to_taps(numerology).numpy()
    np.testing.assert_allclose(factor @ factor.conj().T, transform @ transform.conj().T, atol=1e-5)
    np.testing.assert_allclose(factor, factor.conj().T, atol=1e-6)


def test_thermal_noise_of_taps_is_what_the_ifft_makes_of_white_tones() -> None:
    here = world()
    radio = silent(here)
    heard = torch.stack([radio.observe(n) for n in range(600)]).reshape(-1, SMALL.taps).numpy()
    sigma = math.sqrt(here.tone_noise_w)
    draw = np.random.default_rng(0).standard_normal((2, len(heard), SMALL.tones)) / math.sqrt(2)
    wanted = taps_of_tones(draw[0] + 1j * draw[1], SMALL)
    seen, expected = (h.T @ h.conj() / len(h) for h in (heard / sigma, wanted))
    np.testing.assert_allclose(seen, expected, atol=0.06)  # of a variance of F/N = 0.59; 4800 draws
    assert np.trace(seen).real / SMALL.taps == pytest.approx(300 / 512, rel=0.02)
    assert abs((heard**2).mean()) < 0.03 * (abs(heard) ** 2).mean()  # circular


def radios(here: Scenario, users: int = 3) -> list[Radio]:
    paths = straight_world.trace(here, straight_world.positions(here, users))
    return [Radio(here, pad_paths(paths, 3.6e9).site(k), k, 1) for k in range(3)]


@pytest.mark.parametrize("numerology", [SMALL, dataclasses.replace(SMALL, taps=0, ifft=0)], ids=["taps", "tones"])
def test_no_noise_leaves_the_channel_as_it_is(numerology: Numerology) -> None:
    here = world(numerology, noise="none")
    users = dataclasses.replace(here.users, speed_mps=0.0)
    here = dataclasses.replace(here, users=users)
    paths = pad_paths(straight_world.trace(here, straight_world.positions(here, 3)), 3.6e9)
    motion = Motion(torch.zeros(3, 3), torch.zeros(3, 3), torch.zeros(3, 3, 2))
    response = Synthesizer(here).response(paths, motion)
    amplitude = math.sqrt(here.tone_power_w)
    for k, radio in enumerate(radios(here)):
        torch.testing.assert_close(radio.observe(1) / radio.pilots / amplitude, response[1, k], rtol=1e-5, atol=1e-10)
        assert torch.equal(radio.observe(1), radio.observe(4))  # the same user again


@pytest.mark.parametrize("snr_db", [10.0, 30.0])
def test_a_noise_ratio_is_kept_at_every_site_and_snapshot(snr_db: float) -> None:
    loud, clean = world(noise="snr", snr_db=snr_db), world(noise="none")
    for noisy, plain in zip(radios(loud), radios(clean), strict=True):
        for n in range(3):
            signal = plain.observe(n)
            noise = noisy.observe(n) - signal
            ratio = float(signal.abs().square().mean() / noise.abs().square().mean())
            assert 10 * math.log10(ratio) == pytest.approx(snr_db, abs=1.0)  # 320 complex draws
    assert not silent(loud).observe(0).any()


def test_a_batch_has_the_noise_of_its_own_snapshots() -> None:
    here = world(noise="snr", snr_db=20.0)
    amplitude = torch.tensor([1e-6, 1e-3], dtype=torch.complex64)
    signal = amplitude[:, None, None, None, None].expand(2, 3, *here.csi_shape)
    white = torch.randn(*signal.shape, 2, generator=torch.Generator().manual_seed(0))
    power = receiver_noise(here, signal, white).abs().square().mean((-3, -2, -1))
    torch.testing.assert_close(power, torch.tensor([[1e-14], [1e-8]]).expand(2, 3), rtol=0.15, atol=0)
    none = dataclasses.replace(here, link_budget=LinkBudget(noise="none"))
    assert not receiver_noise(none, signal, white).any()


def test_pilots_of_taps_are_ones() -> None:
    assert torch.equal(scenario_pilots(PARIS), torch.ones(150, dtype=torch.complex64))
    assert torch.equal(radios(world())[0].pilots, torch.ones(40, dtype=torch.complex64))
