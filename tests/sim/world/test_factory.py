"""Indoor factory channels: Sionna's own where fields are given, and what the standard says where they are not."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sim.errors import UserError
from sim.world import factory
from sim.world.paths import PathSet
from sim.world.scenario import SPEED_OF_LIGHT, Scenario, load_scenario

SCENARIO = load_scenario("inf-dh-18")


def small(users: int, sites: int = 2) -> Scenario:
    return replace(SCENARIO, sites=SCENARIO.sites[:sites], tracing=replace(SCENARIO.tracing, positions=users))


class Recorded(factory._Fields):
    """Fields from white noise that somebody else has drawn."""

    def __init__(self, factor: torch.Tensor, whites: Iterable[torch.Tensor]) -> None:
        super().__init__(factor, torch.Generator())
        self._whites = iter(whites)

    def white(self, columns: int) -> torch.Tensor:
        white = next(self._whites)
        assert white.shape[1] == columns
        return white


def test_given_the_same_noise_gains_and_delays_are_those_of_sionna_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from sionna.phy import config
    from sionna.phy.channel.tr38901 import lsp as module

    scenario = small(40)
    users = factory.factory_users(scenario)
    model = factory.sionna_model(scenario)
    whites: list[torch.Tensor] = []
    drawn, filtered = module.normal, model._ray_sampler._apply_spatial_consistency

    def record_parameters(shape: tuple[int, ...], **settings: Any) -> torch.Tensor:
        white = drawn(shape, **settings)
        whites.append(white[0, 0].clone())
        return white

    def record_rays(samples: torch.Tensor, use_sign_matrix: bool = False) -> torch.Tensor:
        if not use_sign_matrix and samples.dim() != 5:  # signs, couplings, cross-polarisation: of no effect here
            kept = samples[0, 0] if samples.dim() == 4 else samples[0, 0, ..., 0]  # of phases vertical to vertical
            whites.append(kept.flatten(1).clone())
        return filtered(samples, use_sign_matrix)

    monkeypatch.setattr(module, "normal", record_parameters)
    monkeypatch.setattr(model._ray_sampler, "_apply_spatial_consistency", record_rays)
    config.seed = 3
    factory._set_topology(model, scenario.sites[0].position, users)
    gain, delay = (part.reshape(40, -1) for part in model(1, 1.0))
    monkeypatch.setattr(module, "normal", drawn)

    fields = Recorded(factory.correlation_factor(users, factory.CORRELATION_M), whites)
    fields.begin(torch.arange(40))
    own_gain, own_delay = factory.FactoryChannel(scenario, fields).paths(0, users)
    assert gain.abs().max() > 0
    torch.testing.assert_close(own_gain, gain, rtol=0.02, atol=0.01 * float(gain.abs().max()))
    heard = gain != 0
    torch.testing.assert_close(own_delay[heard], delay[heard], rtol=0.01, atol=1e-10)


def test_fields_do_not_depend_on_how_users_are_parted_into_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = small(60)
    users = factory.factory_users(scenario)
    factor = factory.correlation_factor(users, factory.CORRELATION_M)
    whole = factory._draw_site(scenario, 0, users, factor, np.zeros(60))
    monkeypatch.setattr(factory, "_USERS_PER_CALL", 17)
    parted = factory._draw_site(scenario, 0, users, factor, np.zeros(60))
    np.testing.assert_array_equal(whole.offset, parted.offset)
    np.testing.assert_allclose(whole.matrix, parted.matrix, rtol=1e-3, atol=1e-9)


def test_excess_delays_have_the_standards_mean_deviation_and_bound() -> None:
    own = SCENARIO.factory
    assert own is not None
    field = torch.randn(200_000, generator=torch.Generator().manual_seed(1))
    excess_s = factory.excess_delay_s(own, field)
    bound_s = 2 * 120.0 / SPEED_OF_LIGHT
    assert float(excess_s.max()) <= bound_s
    free = torch.log10(excess_s[excess_s < bound_s])
    assert float(free.mean()) == pytest.approx(-7.5, abs=0.01)  # the bound is 3.5 deviations away
    assert float(free.std()) == pytest.approx(0.4, abs=0.01)
    assert float(factory.excess_delay_s(own, torch.tensor([9.0]))) == pytest.approx(bound_s)


@pytest.mark.parametrize("distance_m", [5.5, 11.0, 22.0])
def test_excess_delays_of_two_users_are_correlated_over_their_distance(distance_m: float) -> None:
    assert SCENARIO.factory is not None
    pair = np.array([[0.0, 0.0, 1.5], [distance_m, 0.0, 1.5]])
    factor = factory.correlation_factor(pair, SCENARIO.factory.excess_distance_m)
    fields = factor @ torch.randn(2, 40_000, generator=torch.Generator().manual_seed(2))
    measured = float(np.corrcoef(fields.numpy())[0, 1])
    assert measured == pytest.approx(np.exp(-distance_m / 11.0), abs=0.02)


def test_the_first_path_comes_after_distance_and_excess_delay(tmp_path: Path) -> None:
    scenario = small(50)
    paths = factory.draw_factory(scenario, tmp_path)
    users = factory.factory_users(scenario)
    excess_s = factory._excess_delays(scenario, users)
    for k, site in enumerate(scenario.sites):
        own = paths.select(np.arange(50), [k])
        first_s = np.minimum.reduceat(own.delay, own.offset[:-1])
        distance_m = np.linalg.norm(users - np.array(site.position), axis=1)
        np.testing.assert_allclose(first_s, distance_m / SPEED_OF_LIGHT + excess_s[:, k], atol=2e-12)
    log = np.log10(excess_s)
    assert abs(log.mean() + 7.5) < 0.3
    assert not np.allclose(excess_s[:, 0], excess_s[:, 1])


def test_power_falls_with_distance_as_the_path_loss_says(tmp_path: Path) -> None:
    scenario = small(300, sites=1)
    paths = factory.draw_factory(scenario, tmp_path)
    power = np.add.reduceat(np.abs(paths.matrix[:, 0, 0]) ** 2, paths.offset[:-1])
    distance_m = np.linalg.norm(paths.position - np.array(scenario.sites[0].position), axis=1)
    slope, level = np.polyfit(np.log10(distance_m), 10 * np.log10(power), 1)
    # InF-DH without line of sight, Table 7.4.1-1: 33.63 + 21.9 lg d + 20 lg f_GHz, shadowing 4 dB over 10 m.
    assert -slope == pytest.approx(21.9, abs=8.0)
    expected_db = -(33.63 + 21.9 * np.log10(60.0) + 20 * np.log10(3.5))
    assert level + slope * np.log10(60.0) == pytest.approx(expected_db, abs=3.0)


def test_a_stopped_draw_goes_on_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = small(30)
    whole = factory.draw_factory(scenario, tmp_path / "whole")
    drawn = factory._draw_site

    def stop_at_the_second(scenario: Scenario, site: int, *rest: Any) -> PathSet:
        if site == 1:
            raise KeyboardInterrupt
        return drawn(scenario, site, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(factory, "_draw_site", stop_at_the_second)
        factory.draw_factory(scenario, tmp_path / "cut")
    assert len(list((tmp_path / "cut").iterdir())) == 1
    resumed = factory.draw_factory(scenario, tmp_path / "cut")
    np.testing.assert_array_equal(whole.matrix, resumed.matrix)
    np.testing.assert_array_equal(whole.delay, resumed.delay)


def test_channels_of_another_scenario_are_refused(tmp_path: Path) -> None:
    factory.draw_factory(small(20, sites=1), tmp_path)
    other = replace(small(20, sites=1), tracing=replace(SCENARIO.tracing, positions=20, seed=2))
    with pytest.raises(UserError, match="another scenario"):
        factory.draw_factory(other, tmp_path)
