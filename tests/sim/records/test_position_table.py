"""What the world says about links: against channels that are synthesised, and geometry that is known."""

import dataclasses

import numpy as np
import pytest
import tiny_world
import torch

from sim.plan.plan import padded_paths
from sim.records.position_table import dilution, position_table
from sim.world.channel import Motion, Synthesizer
from sim.world.paths import PathSet
from sim.world.scenario import Scenario


@pytest.fixture
def world() -> Scenario:
    return tiny_world.scenario()


@pytest.fixture
def paths(world: Scenario) -> PathSet:
    return tiny_world.paths(world)


def test_rows_are_positions_by_base_stations(world: Scenario, paths: PathSet) -> None:
    table = position_table(world, paths, [2, 0])
    assert table["sample"].to_pylist() == [n for n in range(len(paths)) for _ in range(2)]
    assert table["bs"].to_pylist() == [2, 0] * len(paths)
    assert table["true_y_m"].to_pylist() == [float(y) for y in paths.position[:, 1] for _ in range(2)]
    away = [np.linalg.norm(paths.position[n] - world.sites[bs].position) for n in range(len(paths)) for bs in (2, 0)]
    assert np.allclose(table["distance_m"].to_numpy(), away)
    assert table["line_of_sight"].to_pylist() == [True] * len(away) and table["paths"].to_pylist() == [1] * len(away)


def test_gain_is_that_of_the_synthesised_channel(world: Scenario, paths: PathSet) -> None:
    table = position_table(world, paths, range(3))
    still = Motion(torch.zeros(len(paths), 3), torch.zeros(len(paths), 3), torch.zeros(len(paths), 3, 4))
    response = Synthesizer(world).response(padded_paths(world, paths), still)
    power = response.abs().square().mean((2, 3, 4)).numpy().ravel()
    assert np.allclose(table["gain_db"].to_numpy(), 10 * np.log10(power), atol=1e-4)
    snr = table["snr_db"].to_numpy() - table["gain_db"].to_numpy()
    power_dbm, figure_db = world.link_budget.tx_power_dbm, world.link_budget.noise_figure_db
    numerology = world.numerology
    thermal_dbm = 10 * np.log10(1.380649e-23 * 290 * numerology.subcarrier_spacing_hz) + 30 + figure_db
    assert np.allclose(snr, power_dbm - 10 * np.log10(numerology.subcarriers) - thermal_dbm, atol=0.1)


def test_reflections_and_silence(world: Scenario, paths: PathSet) -> None:
    bounces = paths.bounces.copy()
    bounces[1] = 2
    offset = paths.offset - (np.arange(len(paths.offset)) > 2)  # the link of position 0 and site 2 has no path
    kept = np.arange(len(paths.delay)) != 2
    columns = {name: getattr(paths, name)[kept] for name in ("matrix", "delay", "site_angle", "user_angle")}
    fewer = dataclasses.replace(paths, offset=offset, bounces=bounces[kept], **columns)
    rows = position_table(world, fewer, range(3)).to_pylist()
    assert [row["line_of_sight"] for row in rows[:4]] == [True, False, False, True]
    assert rows[2]["paths"] == 0 and rows[2]["gain_db"] is None and rows[2]["snr_db"] is None
    silent = dataclasses.replace(world, link_budget=dataclasses.replace(world.link_budget, noise="none"))
    assert position_table(silent, fewer, range(3))["snr_db"].null_count == len(rows)


def test_dilution_is_that_of_known_geometries() -> None:
    axes = 100.0 * np.eye(3)
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 50.0
    origin, all_of = np.zeros((1, 3)), np.ones((1, 4), bool)
    assert dilution(axes, origin, all_of[:, :3], clock=False) == pytest.approx(np.sqrt(3))
    assert np.isnan(dilution(axes, origin, all_of[:, :3], clock=True))  # three ranges, four unknowns
    assert dilution(corners, origin, all_of, clock=True) == pytest.approx(np.sqrt(3 * 3 / 4 + 1 / 4))
    without = np.array([[True, True, False, False], [True, True, True, True]])
    found = dilution(corners, np.zeros((2, 3)), without, clock=False)
    assert np.isnan(found[0]) and found[1] == pytest.approx(1.5)
