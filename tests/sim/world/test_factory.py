"""Indoor factory channels: Sionna's own where fields are given, and what the standard says where they are not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sim.errors import UserError
from sim.world import factory
from sim.world.deployment import FACTORY_KINDS
from sim.world.scenario import SPEED_OF_LIGHT, Scenario, load_scenario

SCENARIO = load_scenario("inf-dh-18")


def small(users: int, sites: int = 2) -> Scenario:
    return replace(SCENARIO, sites=SCENARIO.sites[:sites], tracing=replace(SCENARIO.tracing, positions=users))


def sionna_model(scenario: Scenario) -> Any:
    """Sionna PHY's InF channel with the scenario's hall, vertical isotropic antennas, uplink."""
    from sionna.phy.channel.tr38901 import InF, PanelArray

    own, carrier_hz = scenario.factory, scenario.numerology.carrier_hz
    assert own is not None
    antennas = (
        PanelArray(
            num_rows_per_panel=1, num_cols_per_panel=1, polarization="single", polarization_type="V",
            antenna_pattern="omni", carrier_frequency=carrier_hz, device="cpu",
        )
        for _ in range(2)
    )  # fmt: skip
    return InF(
        carrier_hz, *antennas, "uplink",
        factory_scenario=own.kind,
        hall_dimensions=(own.length_m, own.width_m, own.height_m),
        clutter_density=own.clutter_density,
        clutter_size=own.clutter_size_m,
        clutter_height=own.clutter_height_m,
        enable_spatial_consistency=True,
        precision="single",
        device="cpu",
    )  # fmt: skip


@pytest.mark.parametrize("kind", FACTORY_KINDS)
def test_given_the_same_noise_gains_and_delays_are_those_of_sionna_phy(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from sionna.phy import config
    from sionna.phy.channel.tr38901 import lsp as module

    assert SCENARIO.factory is not None
    scenario = replace(small(40), factory=replace(SCENARIO.factory, kind=kind))
    users = factory.factory_users(scenario)
    model = sionna_model(scenario)
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
    site = scenario.sites[0].position
    still = torch.zeros(1, 40, 3)
    model.set_topology(
        torch.from_numpy(users).float()[None], torch.tensor([[site]]), still, torch.zeros(1, 1, 3), still,
        torch.ones(1, 40, dtype=torch.bool), False,
    )  # fmt: skip
    gain, delay = (part.reshape(40, -1) for part in model(1, 1.0))

    factor = factory.correlation_factor(users, factory.CORRELATION_M)
    fields = [factor @ white for n, white in enumerate(whites) if not 3 <= n < 7]  # four are of angles
    distance_m = torch.from_numpy(np.linalg.norm(users - np.array(site), axis=1))
    own_gain, own_delay = factory.link_channels(scenario, distance_m, fields)
    for n in range(40):
        heard, own_heard = gain[n] != 0, own_gain[n] != 0
        assert int(heard.sum()) > 5
        torch.testing.assert_close(own_delay[n, own_heard], delay[n, heard], rtol=0.01, atol=1e-10)
        most = float(gain[n].abs().max())
        torch.testing.assert_close(own_gain[n, own_heard], gain[n, heard], rtol=0.02, atol=0.01 * most)


def test_channels_do_not_depend_on_how_users_are_parted(monkeypatch: pytest.MonkeyPatch) -> None:
    hall = factory.Hall(small(60))
    whole = hall.links(0)
    monkeypatch.setattr(factory, "_USERS_AT_ONCE", 17)
    for parted, expected in zip(hall.links(0), whole, strict=True):
        torch.testing.assert_close(parted, expected, rtol=1e-6, atol=0.0)


def test_a_factor_made_by_blocks_is_the_correlations(monkeypatch: pytest.MonkeyPatch) -> None:
    users = factory.factory_users(small(90))
    monkeypatch.setattr(factory, "_FACTOR_BLOCK", 32)
    factor = factory.correlation_factor(users, 10.0)
    assert torch.equal(factor, factor.tril())
    apart = np.linalg.norm(users[:, None, :2] - users[None, :, :2], axis=-1)
    np.testing.assert_allclose((factor @ factor.mT).numpy(), np.exp(-apart / 10), atol=1e-5)


def test_further_users_change_none_of_the_first_and_share_their_fields() -> None:
    scenario = small(300)
    first, more = (factory.draw_links(scenario, torch.device("cpu"), further) for further in (0, 200))
    torch.testing.assert_close(more.delay_s[:300], first.delay_s, rtol=0, atol=2e-11)
    torch.testing.assert_close(more.gain[:300], first.gain, rtol=0, atol=1e-3 * float(first.gain.abs().max()))
    np.testing.assert_array_equal(more.position[:300], first.position)
    power_db = 10 * more.gain.abs().square().sum(-1).log10()
    new = torch.from_numpy(more.position)
    # The shadowing of a further user is that of the user next to it, but for what the ten metres leave open.
    away = torch.cdist(new[300:], new[:300])
    near, nearest = away.min(1)
    sites = torch.tensor([site.position for site in scenario.sites], dtype=torch.float64)
    shadow_db = power_db + torch.stack([factory.path_loss_db(scenario, d) for d in torch.cdist(new, sites).T], 1)
    close = near < 1.0
    assert int(close.sum()) > 20
    apart_db = (shadow_db[300:] - shadow_db[nearest])[close]
    assert float(apart_db.std()) < 0.7 * float((shadow_db[300:] - shadow_db[:200]).std())


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
    excess_s = factory.Hall(scenario)._excess_s.numpy()
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
    drawn = factory.Hall.links

    def stop_at_the_second(hall: factory.Hall, site: int) -> tuple[torch.Tensor, torch.Tensor]:
        if site == 1:
            raise KeyboardInterrupt
        return drawn(hall, site)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(factory.Hall, "links", stop_at_the_second)
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
