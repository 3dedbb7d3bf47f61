"""Worlds that differ from what is known of them: each error against geometry, and draws that depend on the seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sim.errors import UserError
from sim.world.bound import position_error_bound
from sim.world.channel import pad_paths
from sim.world.mismatch import Mismatch
from sim.world.paths import PathSet, mirror_matrix, unit_vector
from sim.world.perturbed import PER_LINK, antenna_errors, perturbed, site_steps
from sim.world.radio import Radio
from sim.world.scenario import SPEED_OF_LIGHT, Scenario, load_scenario, scenario_from_table, scenario_table
from sim.world.store import ASSET_FOLDER, load_test_paths

PARIS = load_scenario("paris-6")


@pytest.fixture(scope="module")
def paths() -> PathSet:
    return load_test_paths(PARIS, ASSET_FOLDER / "paris-6" / "test.npz").select(np.arange(60))


def world(**keys: object) -> Scenario:
    return replace(PARIS, mismatch=Mismatch(**keys))  # type: ignore[arg-type]


def link_sites(paths: PathSet) -> np.ndarray:
    return np.repeat(np.tile(np.arange(paths.sites), len(paths)), paths.paths_per_link().ravel())


def users(paths: PathSet) -> np.ndarray:
    return np.repeat(paths.position, paths.paths_per_link().sum(1), axis=0)


def test_without_mismatch_nothing_changes(paths: PathSet) -> None:
    same = perturbed(PARIS, paths)
    assert same is paths
    assert (antenna_errors(PARIS, 0) == 1).all()
    assert "mismatch" not in scenario_table(PARIS)
    assert PARIS.world_digest() == PARIS.tracing_digest()


def test_lines_of_sight_are_as_long_as_from_the_site_where_it_stands(paths: PathSet) -> None:
    scenario = world(site_m=0.5)
    found = perturbed(scenario, paths)
    direct = paths.bounces == 0
    stands = np.array([site.position for site in PARIS.sites]) + site_steps(scenario.mismatch, 6)
    sight = users(paths) - stands[link_sites(paths)]
    length = np.linalg.norm(sight, axis=1)
    np.testing.assert_allclose(found.delay[direct] * SPEED_OF_LIGHT, length[direct], atol=1e-3)
    np.testing.assert_allclose(unit_vector(found.site_angle)[direct], (sight / length[:, None])[direct], atol=1e-5)
    np.testing.assert_allclose(unit_vector(found.user_angle)[direct], -(sight / length[:, None])[direct], atol=1e-5)
    power = np.abs(found.matrix / paths.matrix)[direct, 0, 0]
    np.testing.assert_allclose(power, (paths.delay / found.delay)[direct], rtol=1e-4)


def test_reflections_are_as_long_as_to_the_user_s_image(paths: PathSet) -> None:
    """One reflection at the plane n·x = c: the image of p is p − 2 (n·p − c) n, wherever the site stands."""
    scenario = world(site_m=0.5)
    found = perturbed(scenario, paths)
    site = np.array([one.position for one in PARIS.sites])[link_sites(paths)]
    moved = site + site_steps(scenario.mismatch, 6)[link_sites(paths)]
    once = paths.bounces == 1
    mirror = mirror_matrix(paths.mirror, paths.bounces)[once]
    values, vectors = np.linalg.eigh(mirror)  # 1 − 2 n nᵀ: n belongs to the eigenvalue −1
    np.testing.assert_allclose(values, np.array([[-1.0, 1, 1]]).repeat(len(values), 0), atol=1e-4)
    normal = vectors[:, :, 0]
    user = users(paths)[once]
    before = site[once] + unit_vector(paths.site_angle)[once] * (paths.delay[once, None] * SPEED_OF_LIGHT)
    offset = (normal * (before + user)).sum(1) / 2  # the plane is halfway between user and image
    image = user - 2 * ((normal * user).sum(1) - offset)[:, None] * normal
    length = np.linalg.norm(image - moved[once], axis=1)
    np.testing.assert_allclose(found.delay[once] * SPEED_OF_LIGHT, length, atol=0.02)
    # Seen from the user, the path comes from the image of the site.
    source = moved[once] - 2 * ((normal * moved[once]).sum(1) - offset)[:, None] * normal
    seen = (source - user) / length[:, None]
    np.testing.assert_allclose(unit_vector(found.user_angle)[once], seen, atol=2e-3)


def test_scattering_has_the_power_it_is_said_to_have(paths: PathSet) -> None:
    scenario = world(scattering_db=-20.0)
    found = perturbed(scenario, paths)
    before, after = paths.paths_per_link(), found.paths_per_link()
    np.testing.assert_array_equal(after, before + PER_LINK * (before > 0))
    link = np.repeat(np.arange(after.size), after.ravel())
    power = np.bincount(link, np.abs(found.matrix[:, 0, 0]) ** 2, after.size)
    known = np.repeat(np.arange(before.size), before.ravel())
    specular = np.bincount(known, np.abs(paths.matrix[:, 0, 0]) ** 2, before.size)
    heard = before.ravel() > 0
    np.testing.assert_allclose(power[heard] / specular[heard], 1.01, rtol=1e-4)
    assert len(found.mirror) == 0  # a scatterer has no mirror


def test_scatterers_stay_where_they_are_when_the_user_moves(paths: PathSet) -> None:
    """The delay of a scattered path is the way from the site to one point and on to the user."""
    scenario = world(scattering_db=-20.0)
    one = paths.select(np.array([0]))
    moved = replace(one, position=one.position + np.array([0.01, 0.0, 0.0]))
    first = perturbed(scenario, one)
    second = perturbed(scenario, moved)
    count = first.paths_per_link()[0, 0]
    for k in range(count - PER_LINK, count):
        direction = unit_vector(first.user_angle[k : k + 1])[0]
        step = (second.delay[k].astype(float) - first.delay[k].astype(float)) * SPEED_OF_LIGHT
        assert step == pytest.approx(-0.01 * direction[0], abs=1e-3)
        np.testing.assert_allclose(second.site_angle[k], first.site_angle[k])


def test_missing_reflections_are_missing_for_everybody(paths: PathSet) -> None:
    from sim.world.anchors import find_anchors

    found = perturbed(world(left_out=0.3), paths)
    anchors = find_anchors(paths)
    assert (found.bounces == 0).sum() == (paths.bounces == 0).sum()
    kept = np.isin(paths.delay, found.delay)
    share = np.array([kept[anchors.anchor == a].mean() for a in range(len(anchors.site))])
    assert set(share) == {0.0, 1.0}
    assert 0.2 < (share[anchors.bounces > 0] == 0).mean() < 0.4


def test_uncalibrated_antennas_scale_what_they_receive(paths: PathSet) -> None:
    quiet = replace(PARIS, link_budget=replace(PARIS.link_budget, noise="none"))
    wrong = replace(quiet, mismatch=Mismatch(antenna_deg=5.0, antenna_db=0.5))
    padded = pad_paths(paths, PARIS.numerology.carrier_hz).site(2)
    exact, found = (Radio(one, padded, 2, 7).observe(3) for one in (quiet, wrong))
    ratio = (found / exact).numpy()
    error = antenna_errors(wrong, 2)
    np.testing.assert_allclose(ratio, np.broadcast_to(error[None, :, None], ratio.shape), rtol=1e-4)
    many = np.concatenate([antenna_errors(wrong, k) for k in range(500)])
    assert np.degrees(np.angle(many)).std() == pytest.approx(5.0, rel=0.05)
    assert (20 * np.log10(np.abs(many))).std() == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("keys", [{"site_m": 0.1}, {"left_out": 0.2}, {"scattering_db": -30.0}])
def test_draws_depend_on_the_seed_alone(paths: PathSet, keys: dict[str, float]) -> None:
    one, same, other = (perturbed(world(**keys, seed=seed), paths).delay for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert one.shape != other.shape or (one != other).any()
    # A user's paths do not depend on who else is in the file, where they follow from a user's paths alone.
    if "left_out" not in keys:
        alone = perturbed(world(**keys), paths.select(np.array([4])))
        whole = perturbed(world(**keys), paths).select(np.array([4]))
        np.testing.assert_array_equal(alone.delay, whole.delay)


def test_a_world_that_needs_a_trace_has_a_digest_of_its_own() -> None:
    digests = {world(**keys).world_digest() for keys in (
        {}, {"wall_m": 0.2}, {"wall_m": 0.3}, {"wall_m": 0.2, "seed": 2}, {"materials": 0.1}, {"diffraction": True},
        {"diffuse": 0.2})}  # fmt: skip
    assert len(digests) == 7
    assert world(site_m=0.1, seed=3).world_digest() == PARIS.tracing_digest()
    assert world(wall_m=0.2, site_m=0.1).world_digest() == world(wall_m=0.2).world_digest()
    with pytest.raises(UserError, match=r"python cli\.py trace"):
        load_test_paths(world(wall_m=0.123))


def test_the_bound_is_left_out_where_the_map_is_wrong(paths: PathSet) -> None:
    assert position_error_bound(PARIS, paths) is not None
    assert position_error_bound(world(site_m=0.1), paths) is None


def test_a_record_gives_the_mismatch_back() -> None:
    scenario = world(site_m=0.1, scattering_db=-30.0, diffraction=True)
    assert scenario_from_table(scenario_table(scenario), "record") == scenario
    assert scenario.mismatch.words() == [
        "sites 0.1 m off on each axis", "unmapped scattering at -30 dB", "diffraction at edges"
    ]  # fmt: skip


BAD = {
    "site_m = -0.1": "mismatch.site_m must not be negative",
    "seed = -1": "mismatch.seed must not be negative",
    "left_out = 1.0": "mismatch.left_out must be at least 0 and below 1",
    "materials = 1.5": "mismatch.materials must be at least 0 and below 1",
    "map_left_out = -0.1": "mismatch.map_left_out must be at least 0 and below 1",
    "diffuse = 1.1": "mismatch.diffuse must lie between 0 and 1",
    "scattering_db = 90.0": "mismatch.scattering_db must lie between -200 and 40",
    'scattering_db = "loud"': "scattering_db must be float",
    "left_out = 0.1\ndiffraction = true": "no path has a known sequence of surfaces",
    "sites_m = 0.1": "Unknown key 'sites_m' .*did you mean 'site_m'",
}


@pytest.mark.parametrize("keys", BAD)
def test_bad_keys_are_one_sentence(tmp_path: Path, keys: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(f'extends = "paris-6"\n[mismatch]\n{keys}\n')
    with pytest.raises(UserError, match=BAD[keys]) as caught:
        load_scenario(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["inf-dh-18", "paris-street-12"])
def test_worlds_without_a_map_of_listed_sites_have_no_mismatch(tmp_path: Path, name: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(f'extends = "{name}"\n[mismatch]\nantenna_deg = 1.0\n')
    with pytest.raises(UserError, match="mismatch: it needs listed sites in a traced scene"):
        load_scenario(str(path))


def test_padded_paths_of_a_world_hold_no_positions(paths: PathSet) -> None:
    padded = pad_paths(perturbed(world(scattering_db=-20.0), paths), PARIS.numerology.carrier_hz)
    for tensor in (padded.distance, padded.site_direction, padded.user_direction):
        assert tensor.shape[0] == len(paths)
        assert not torch.isnan(tensor).any()
