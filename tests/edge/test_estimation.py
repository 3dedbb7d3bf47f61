"""LMMSE estimation against the textbook formula in float64."""

import numpy as np
import pytest
import torch
from torch import Tensor

from edge.estimation import LmmseEstimator, spatial_covariance
from sim.world.channel import pilot_sequence

SLOTS, ANTENNAS, TONES = 3, 4, 5


def complex_normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def correlated(positions: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Channels (N, slot, antenna, tone) whose antennas are strongly correlated, and their exact covariance."""
    factor = complex_normal(TONES, ANTENNAS, 2, seed=7)  # rank 2 of 4
    white = complex_normal(positions, SLOTS, TONES, 2, seed=seed)
    channel = torch.einsum("fmr,ntfr->ntmf", factor, white)
    return channel, factor @ factor.mH


def received(channel: Tensor, pilots: Tensor, noise_w: float, power_w: float) -> Tensor:
    noise = noise_w**0.5 * complex_normal(*channel.shape, seed=2)
    observed: Tensor = power_w**0.5 * channel * pilots + noise
    return observed


def test_an_identity_covariance_scales_the_matched_filter() -> None:
    pilots = pilot_sequence(TONES)
    observed = complex_normal(2, SLOTS, ANTENNAS, TONES)
    identity = torch.eye(ANTENNAS, dtype=torch.complex64).expand(TONES, -1, -1)
    noise_w, power_w = 0.3, 2.0
    estimate = LmmseEstimator(identity, noise_w, power_w, pilots).estimate(observed)
    matched = observed * pilots.conj() / power_w**0.5
    torch.testing.assert_close(estimate, matched / (1 + noise_w / power_w))


def test_equation_four_in_float64() -> None:
    _, covariance = correlated(1)
    pilots = pilot_sequence(TONES)
    noise_w, power_w = 0.2, 3.0
    observed = complex_normal(2, SLOTS, ANTENNAS, TONES)
    estimate = LmmseEstimator(covariance, noise_w, power_w, pilots).estimate(observed).numpy()
    r, s, y = (part.numpy().astype(np.complex128) for part in (covariance, pilots, observed))
    expected = np.empty_like(y)
    for f in range(TONES):
        textbook = r[f] @ np.linalg.inv(r[f] + noise_w / power_w * np.eye(ANTENNAS))  # ECC Eq. 4
        for n, t in np.ndindex(2, SLOTS):
            expected[n, t, :, f] = textbook @ (s[f].conj() * y[n, t, :, f] / np.sqrt(power_w))
    np.testing.assert_allclose(estimate, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("noise_w", [0.5, 5.0])
def test_the_filter_errs_less_than_the_matched_filter(noise_w: float) -> None:
    channel, covariance = correlated(400)
    pilots = pilot_sequence(TONES)
    observed = received(channel, pilots, noise_w, 1.0)
    estimate = LmmseEstimator(covariance, noise_w, 1.0, pilots).estimate(observed)
    error = (estimate - channel).abs().square().mean()
    matched = (observed * pilots.conj() - channel).abs().square().mean()
    assert error < 0.65 * matched  # half of the four dimensions hold noise alone


def test_without_noise_the_channel_comes_back() -> None:
    channel, covariance = correlated(4)
    pilots = pilot_sequence(TONES)
    loaded = covariance + 0.1 * torch.eye(ANTENNAS)
    estimate = LmmseEstimator(loaded, 0.0, 4.0, pilots).estimate(2 * channel * pilots)
    torch.testing.assert_close(estimate, channel, rtol=1e-5, atol=1e-5)


def test_the_covariance_is_hermitian_and_positive_semidefinite() -> None:
    measured = spatial_covariance(correlated(5)[0])
    torch.testing.assert_close(measured, measured.mH)
    values = torch.linalg.eigvalsh(measured.to(torch.complex128))
    assert values.min() > -1e-5 * values.max()


def test_the_covariance_is_the_mean_outer_product() -> None:
    channel = complex_normal(6, SLOTS, ANTENNAS, TONES)
    h = channel.numpy().astype(np.complex128)
    expected = np.einsum("ntif,ntjf->fij", h, h.conj()) / (6 * SLOTS)
    np.testing.assert_allclose(spatial_covariance(channel).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_the_covariance_converges_to_the_truth() -> None:
    channel, exact = correlated(20_000)
    deviation = (spatial_covariance(channel) - exact).norm() / exact.norm()
    assert deviation < 0.03
