"""Multilateration from received signal strength."""

import numpy as np
import pytest
import straight_world
import torch
from payloads import indices

from cloud.fusion.rss import RssFusion, build
from cloud.fusion.scheme import CloudSetup, load_fusion
from edge import rss
from edge.scheme import EdgeSetup
from fronthaul.codec.bitstream import pack
from fronthaul.codec.codebook import UniformCodebook
from fronthaul.message.messages import PayloadFormat, Report, ReportKey
from fronthaul.payload.choice import PayloadChoice

WORLD = straight_world.scenario(sites=6)
STATIONS = {k: site.position for k, site in enumerate(WORLD.sites)}
CONFIG = {"gain_db": [-120.0, -20.0], "low": WORLD.users.low, "high": WORLD.users.high}
INTERCEPT_DB, EXPONENT = -43.0, 2.1


def fusion(deviation_db: float = 0.7) -> RssFusion:
    model = torch.tensor([[INTERCEPT_DB, EXPONENT, deviation_db]]).expand(len(STATIONS), 3)
    return RssFusion(CloudSetup(STATIONS, PayloadChoice(), CONFIG, {"path_loss": model}))


def reports(position: np.ndarray) -> list[Report]:
    """What the path-loss model itself predicts at `position` [m]."""
    made = []
    for k, site in STATIONS.items():
        distance = np.linalg.norm(position - np.array(site))
        level = np.float32(INTERCEPT_DB - 10 * EXPONENT * np.log10(distance))
        index = UniformCodebook(-120.0, -20.0, 16).index(np.array([level]))
        made.append(Report(ReportKey(k, 0, 0), pack(index, 16)))
    return made


USERS = np.random.default_rng(3).uniform(np.array(WORLD.users.low) * 0.8, np.array(WORLD.users.high) * 0.8, (12, 3))


def test_noiseless_gains_locate_within_a_few_metres() -> None:
    fixes = fusion().fuse([reports(user) for user in USERS])
    error = np.linalg.norm(np.array([fix.position for fix in fixes])[:, :2] - USERS[:, :2], axis=1)
    assert error.max() < 5  # the grid has cells of 5 m


@pytest.mark.parametrize("deviation_db", [0.5, 3.0])
def test_the_covariance_is_positive_definite(deviation_db: float) -> None:
    for fix in fusion(deviation_db).fuse([reports(user) for user in USERS]):
        assert fix.covariance is not None
        np.testing.assert_array_equal(fix.covariance.shape, (3, 3))
        np.testing.assert_allclose(fix.covariance, fix.covariance.T, rtol=1e-9, atol=1e-9)
        assert np.linalg.eigvalsh(fix.covariance).min() > 0


def test_more_noise_means_a_larger_covariance() -> None:
    sizes = []
    for deviation_db in (0.7, 2.0, 6.0):
        (fix,) = fusion(deviation_db).fuse([reports(USERS[0])])
        assert fix.covariance is not None
        sizes.append(np.trace(fix.covariance))
    assert sizes == sorted(sizes)


def test_the_posterior_in_float64() -> None:
    group = reports(USERS[1])[:3]
    axes = [np.linspace(a, b, n) for a, b, n in zip(CONFIG["low"], CONFIG["high"], (33, 33, 5), strict=True)]
    grid = np.array([[x, y, z] for x in axes[0] for y in axes[1] for z in axes[2]])
    density = np.ones(len(grid))
    for k in range(3):
        measured = INTERCEPT_DB - 10 * EXPONENT * np.log10(np.linalg.norm(USERS[1] - STATIONS[k]))
        there = INTERCEPT_DB - 10 * EXPONENT * np.log10(np.linalg.norm(grid - STATIONS[k], axis=1))
        density *= np.exp(-((measured - there) ** 2) / (2 * 2.0**2))
    density /= density.sum()
    mean = (grid * density[:, None]).sum(0)
    (fix,) = fusion(2.0).fuse([group])
    np.testing.assert_allclose(fix.position, mean, atol=0.02)
    assert fix.covariance is not None
    np.testing.assert_allclose(fix.covariance, np.cov(grid.T, aweights=density, bias=True), rtol=2e-3, atol=0.05)


def test_the_order_of_reports_does_not_matter() -> None:
    group = reports(USERS[2])
    (one,), (other,) = fusion().fuse([group]), fusion().fuse([group[::-1]])
    assert one.position == other.position


def test_without_a_report_the_fix_is_the_middle_of_the_area() -> None:
    (fix,) = fusion().fuse([[]])
    np.testing.assert_allclose(fix.position, (np.array(WORLD.users.low) + WORLD.users.high) / 2, atol=1e-9)


@pytest.mark.parametrize("bits", [4, 8, None])
def test_the_edge_sends_the_gain_in_decibels(bits: int | None) -> None:
    scheme = rss.build(EdgeSetup(0, PayloadChoice(bits), CONFIG, {}))
    channel = 1e-5 * torch.randn(3, *WORLD.csi_shape, dtype=torch.complex64)
    encoded = scheme.encode(channel)
    width = bits or 16
    assert not encoded.side and scheme.format == PayloadFormat.uniform(width, 1, 1)
    sent = UniformCodebook(-120.0, -20.0, width).reconstruct(indices(encoded, width))[:, 0]
    energy = (np.abs(channel.numpy().astype(np.complex128)) ** 2).sum((1, 2, 3))
    assert np.abs(sent - 10 * np.log10(energy)).max() <= 50 / 2**width * 1.01


def test_the_rule_is_found_by_name() -> None:
    assert load_fusion("rss") is build
    with pytest.raises(LookupError, match="rss"):
        load_fusion("nowhere")
