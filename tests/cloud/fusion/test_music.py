"""MUSIC and triangulation: angles by geometry, and fixes as good as an angle-only bound computed from the channels."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import straight_world
import torch
from straight_world import Array
from torch import Tensor

from cloud.fusion.music import MusicFusion
from cloud.fusion.scheme import CloudSetup
from edge.estimation import LeastSquaresEstimator
from edge.music import arrivals, build, planar_positions
from edge.scheme import EdgeSetup
from fronthaul.message.messages import Report, ReportKey
from fronthaul.payload.choice import PayloadChoice
from sim.learn.music import write_music
from sim.plan.weights import Weights, load_weights
from sim.world.channel import antenna_positions, pad_paths, scenario_pilots
from sim.world.paths import PathSet
from sim.world.radio import Radio
from sim.world.scenario import Scenario

LOSSLESS = PayloadChoice(None)


def world(tx_power_dbm: float = 23.0) -> Scenario:
    made = straight_world.scenario(6)
    return dataclasses.replace(made, link_budget=dataclasses.replace(made.link_budget, tx_power_dbm=tx_power_dbm))


def weights(scenario: Scenario, folder: Path) -> Weights:
    write_music(scenario, folder / "music.safetensors")
    return load_weights(folder / "music.safetensors")


def heard(scenario: Scenario, paths: PathSet, k: int) -> Tensor:
    """Estimated channels (N, slot, antenna, tone) of one site."""
    padded = pad_paths(paths, scenario.numerology.carrier_hz)
    radio = Radio(scenario, padded.site(k), k, seed=1)
    received = torch.stack([radio.observe(n) for n in range(len(paths))])
    return LeastSquaresEstimator(scenario.tone_power_w, scenario_pilots(scenario)).estimate(received)


def fixes(scenario: Scenario, paths: PathSet, folder: Path, sites: range = range(6)) -> Array:
    """Positions (N, 3) [m] by both halves of the scheme."""
    made = weights(scenario, folder)
    stations = {k: site.position for k, site in enumerate(scenario.sites)}
    columns = []
    for k in sites:
        edge = build(EdgeSetup(k, LOSSLESS, made.config, made.edge(k)))
        assert edge.format.max_bits == 96 and edge.format.side_bytes == 0
        payloads = edge.encode(heard(scenario, paths, k)).payloads
        columns.append([Report(ReportKey(k, 0, n), payload, b"") for n, payload in enumerate(payloads)])
    rule = MusicFusion(CloudSetup(stations, LOSSLESS, made.config, made.cloud()))
    return np.array([fix.position for fix in rule.fuse([list(group) for group in zip(*columns, strict=True)])])


def bound(scenario: Scenario, position: Array) -> Array:
    """Least root mean square error (N,) [m] of any unbiased estimate from angles alone.

    Each tone and slot has an amplitude of its own that nobody knows, so that delays tell nothing: the Fisher
    information of a position is 2 / σ² Σ |α|² Re(Dᴴ P D), D the steering vector's derivative by the position and P the
    projection off it, here from differences of the antennas' distances.
    """
    numerology = scenario.numerology
    samples = numerology.slots * numerology.tones
    found = []
    for user in position:
        information = np.zeros((3, 3))
        for site in scenario.sites:
            antenna = antenna_positions(scenario.array, site, numerology)

            def steering(line: Array, antenna: Array = antenna) -> Array:
                phase = 2 * np.pi / numerology.wavelength_m * antenna @ line / np.linalg.norm(line)
                return np.exp(1j * phase)

            line = user - site.position
            a = steering(line)
            slope = np.stack([(steering(line + s) - steering(line - s)) / 2e-4 for s in 1e-4 * np.eye(3)], 1)
            slope = slope - np.outer(a, a.conj() @ slope) / len(a)
            amplitude = numerology.wavelength_m / (4 * np.pi * np.linalg.norm(user - site.position))
            snr = amplitude**2 * scenario.tone_power_w / scenario.tone_noise_w
            information += 2 * samples * snr * (slope.conj().T @ slope).real
        found.append(np.trace(np.linalg.inv(information)))
    return np.sqrt(found)


def test_line_of_sight_is_located_as_well_as_angles_allow(tmp_path: Path) -> None:
    scenario = world(tx_power_dbm=-8.0)
    position = straight_world.positions(scenario, 150)
    error = np.linalg.norm(fixes(scenario, straight_world.trace(scenario, position), tmp_path) - position, axis=1)
    least = bound(scenario, position)
    assert 0.2 < least.mean() < 5.0  # noise matters, and angles are far from ambiguous
    ratio = np.sqrt(np.square(error / least).mean())
    assert 0.9 < ratio < 1.12


def test_without_noise_to_speak_of_the_fix_is_exact(tmp_path: Path) -> None:
    scenario = world(60.0)
    position = straight_world.positions(scenario, 40)
    paths = straight_world.trace(scenario, position)
    for sites in (range(6), range(2)):
        assert np.abs(fixes(scenario, paths, tmp_path, sites) - position).max() < 0.05


def test_one_reflection_among_lines_of_sight_counts_little(tmp_path: Path) -> None:
    """Site 0 sees every user in a mirror alone; the others see them as they are."""
    scenario = world()
    position = straight_world.positions(scenario, 40)
    image = position * [-1.0, 1.0, 1.0] + [150.0, 0.0, 0.0]
    direct, mirrored = straight_world.trace(scenario, position), straight_world.trace(scenario, image)
    first = np.arange(len(position)) * len(scenario.sites)
    columns = {}
    for name in ("matrix", "delay", "site_angle"):
        column = getattr(direct, name).copy()
        column[first] = getattr(mirrored, name)[first]
        columns[name] = column
    astray = dataclasses.replace(direct, **columns)
    error = np.linalg.norm(fixes(scenario, astray, tmp_path) - position, axis=1)
    assert np.median(error) < 0.2


def test_cosines_are_those_of_the_geometry() -> None:
    scenario = world(60.0)
    position = straight_world.positions(scenario, 50)
    site = scenario.sites[2]
    unit = (position - site.position) / np.linalg.norm(position - site.position, axis=1, keepdims=True)
    array = antenna_positions(dataclasses.replace(scenario.array, rows=3, columns=3), site, scenario.numerology)
    half = scenario.numerology.wavelength_m / 2
    along, down = (array[3] - array[0]) / half, (array[1] - array[0]) / half  # of the next column, of the next row
    cosine, deviation = arrivals(
        heard(scenario, straight_world.trace(scenario, position), 2), planar_positions(2, 2, 0.5)
    )
    np.testing.assert_allclose(cosine[:, 0], unit @ along, atol=2e-4)
    np.testing.assert_allclose(cosine[:, 1], -unit @ down, atol=2e-4)
    assert (deviation < 1e-3).all()


def test_numbers_in_bits_are_refused() -> None:
    config = {"rows": 2, "columns": 2, "spacing": 0.5}
    with pytest.raises(ValueError, match="--bits is lossless"):
        build(EdgeSetup(0, PayloadChoice(4), config, {}))
