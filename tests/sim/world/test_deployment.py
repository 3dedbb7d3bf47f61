"""Layouts, factories and strips as keys of a scenario: what they make, and what is refused."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sim.errors import UserError
from sim.toml.write import toml_text
from sim.world.bound import covered
from sim.world.deployment import Factory, Strip
from sim.world.scenario import ClockErrors, Scenario, load_scenario, scenario_from_table, scenario_table
from sim.world.walks import area_test

NEW = ("inf-dh-18", "inf-dh-18-phases", "inf-dh-18-initial", "paris-street-12", "paris-block-64")


def variant(folder: Path, more: str, of: str) -> Scenario:
    path = folder / "variant.toml"
    path.write_text(f'extends = "{of}"\n{more}')
    return load_scenario(str(path))


# Strips


ASKEW = Strip((10.0, 10.0), (40.0, 50.0), 20.0)  # 50 m long, along (0.6, 0.8)


def test_a_strip_is_a_rectangle_around_its_middle_line() -> None:
    corner = ASKEW.corners()
    np.testing.assert_allclose(corner, [[18, 4], [48, 44], [32, 56], [2, 16]])
    edge = np.linalg.norm(np.diff(np.vstack([corner, corner[:1]]), axis=0), axis=1)
    np.testing.assert_allclose(edge, [50, 20, 50, 20])


def test_points_drawn_in_a_strip_are_uniform_and_held_by_it() -> None:
    draw = np.random.default_rng(0)
    point = ASKEW.at(draw.random((4000, 2)))
    assert ASKEW.holds(point).all()
    centre, along = np.array([25.0, 30.0]), np.array([0.6, 0.8])
    forth, aside = (point - centre) @ along, (point - centre) @ np.array([-0.8, 0.6])
    for part, length in ((forth, 50), (aside, 20)):
        assert abs(part.mean()) < 0.02 * length and part.std() == pytest.approx(length / 12**0.5, rel=0.03)
    assert abs(np.corrcoef(forth, aside)[0, 1]) < 0.05
    step = np.array([[0, 0, 99], [15.1, 20.1, 0], [-15.1, -20.1, 0], [8.1, -6.1, 0], [-8.1, 6.1, 0]])
    assert ASKEW.holds(np.array([25.0, 30.0, 1.5]) + step).tolist() == [True, False, False, False, False]


def test_users_keep_to_a_strip_of_the_box() -> None:
    world = load_scenario("paris-street-12")
    inside = area_test(world)
    point = np.random.default_rng(1).uniform(world.users.low, world.users.high, (2000, 3))
    assert world.users.strip is not None
    np.testing.assert_array_equal(inside(point), world.users.strip.holds(point))
    assert 0.2 < inside(point).mean() < 0.6
    corner = np.column_stack([world.users.strip.corners(), np.full(4, 1.5)])
    assert (corner >= world.users.low).all() and (corner <= world.users.high).all()  # the box cuts nothing off


# Shipped scenarios


def test_inf_dh_18_is_the_standards_hall() -> None:
    world, drawn, letter = map(load_scenario, ("inf-dh-18", "inf-dh-18-phases", "inf-dh-18-initial"))
    assert world.factory == Factory() and world.layouts is None and world.station_count == 18
    x, y = 10 + 20 * np.arange(6), 10 + 20 * np.arange(3)  # TR 38.901 Table 7.8-7: D = 20 m, D/2 from the walls
    expected = [(float(a), float(b), 8.0) for b in y for a in x]
    assert [site.position for site in world.sites] == expected
    assert [site.name for site in world.sites] == [f"trp-{k}" for k in range(18)]
    assert world.csi_shape == (1, 1, 256) and world.link_budget.noise == "none"
    assert (world.users.low, world.users.high) == ((0, 0, 1.5), (120, 60, 1.5))
    assert (world.phases, drawn.phases, letter.phases) == ("traced", "drawn", "initial")
    for same in (drawn, letter):
        assert same.data_name == "inf-dh-18" and same.tracing_digest() == world.tracing_digest()
        assert replace(same, name="inf-dh-18", phases="traced", data="") == world


@pytest.mark.parametrize("name", ["inf-dh-18", "paris-street-12", "paris-block-64"])
def test_sampling_is_twice_the_band(name: str) -> None:
    n = load_scenario(name).numerology
    assert n.ifft * n.subcarrier_spacing_hz == pytest.approx(2 * n.bandwidth_hz, rel=1e-4)
    assert (n.taps, n.tones, n.slots) == (256, 3276, 1)
    assert n.taps / (n.ifft * n.subcarrier_spacing_hz) * 299_792_458 == pytest.approx(384, abs=1)


def test_the_scenarios_of_paris_are_the_papers() -> None:
    street, block = load_scenario("paris-street-12"), load_scenario("paris-block-64")
    assert (street.station_count, block.station_count) == (12, 64) and not street.sites and not block.sites
    assert street.numerology.carrier_hz == block.numerology.carrier_hz == 40e9
    assert street.csi_shape == (1, 1, 256) and block.csi_shape == (1, 8, 256)
    assert block.layouts is not None and block.users.min_links == 3
    low, high = np.array(block.users.low[:2]), np.array(block.users.high[:2])
    np.testing.assert_allclose(high - low, 280)
    corner = block.layouts.region.corners()
    np.testing.assert_allclose([corner.min(0), corner.max(0)], [low, high])


@pytest.mark.parametrize("name", NEW)
def test_a_record_gives_the_scenario_back(name: str) -> None:
    scenario = load_scenario(name)
    sites = np.random.default_rng(0).uniform(0, 50, (scenario.station_count, 3))
    for made in [scenario, scenario.at_layout(sites)] if scenario.layouts else [scenario]:
        table = scenario_table(made)
        assert scenario_from_table(json.loads(json.dumps(table)), "record") == made
        assert scenario_from_table(tomllib.loads(toml_text(table)), "record") == made


def test_a_layout_is_the_scenario_with_its_sites() -> None:
    street = load_scenario("paris-street-12")
    at = street.at_layout(np.array([[1.0, 2.0, 30.0], [4.0, 5.0, 60.0]]))
    assert [(site.name, site.position) for site in at.sites] == [("trp-0", (1, 2, 30)), ("trp-1", (4, 5, 60))]
    assert at.station_count == 2 and at.tracing_digest() == street.tracing_digest()
    assert replace(at, sites=()) == street


# Digests


@pytest.mark.parametrize(
    ("name", "more", "same"),
    [
        ("paris-street-12", "[layouts]\ntraining = 7\nvalidation = 1\ntest = 3", True),
        ("paris-street-12", "[user_array]\ncolumns = 8", True),
        ("paris-street-12", 'phases = "drawn"', True),
        ("paris-street-12", "[layouts]\nseed = 2", False),
        ("paris-street-12", "[layouts]\nusers = 50", False),
        ("paris-street-12", "[layouts]\nplaces = 40", False),
        ("paris-street-12", "[layouts]\nabove_roof_m = 3.0", False),
        ("paris-street-12", "[users.strip]\nstart = [0.0, 0.0]\nend = [50.0, 0.0]\nwidth_m = 9.0", False),
        ("inf-dh-18", "[clock]\nbs_sigma_ns = 10.0\nbs_limit_sigmas = 2.0", True),
        ("inf-dh-18", "[tracing]\npositions = 100", True),
        ("inf-dh-18", "[factory]\nclutter_density = 0.4", False),
        ("inf-dh-18", "[factory]\nexcess_sigma_log10 = 0.0", False),
    ],
)
def test_what_is_drawn_enters_the_digest_of_paths(tmp_path: Path, name: str, more: str, same: bool) -> None:
    made = variant(tmp_path, more, name)
    assert (made.tracing_digest() == load_scenario(name).tracing_digest()) == same
    assert made.data_name == (name if same else "variant")


# What is refused


BAD = [
    ("paris-street-12", "[layouts]\nplaces = 11", "layouts.places must lie between sites and 1000"),
    ("paris-street-12", "[layouts]\nsites = 0", "layouts.sites must lie between 1 and 1000"),
    ("paris-street-12", "[layouts]\ntest = 0", "layouts: training, validation, test and users must be >= 1"),
    ("paris-street-12", "[layouts]\nleast_roof_m = 0.0", "layouts.least_roof_m must be positive"),
    ("paris-street-12", "[layouts]\nabove_roof_m = 0.0", "layouts.above_roof_m must be positive"),
    ("paris-street-12", "[layouts]\nregion = {start = [0, 0], end = [0, 0], width_m = 9}", "layouts.region: it needs"),
    ("paris-street-12", "[layouts]\nregion = 3", "region must be a table"),
    ("paris-street-12", "[layouts]\nroofs = 3", "Unknown key 'roofs'"),
    ("paris-street-12", "[users]\nmin_links = 13", "users.min_links must lie between 0 and the number of sites"),
    ("paris-street-12", '[users]\narea = "hull"', "a hull needs sites that are listed, not drawn"),
    ("paris-street-12", "[users]\nstrip = {start = [0, 0], end = [1, 0], width_m = 0}", "users.strip: it needs two"),
    ("paris-street-12", "[tracing]\npositions = 5", "tracing.positions: with .layouts., layouts.users says how many"),
    ("paris-street-12", "[walk]\nspeed_mps = [1.0, 2.0]", "positions in layouts are no walks"),
    ("paris-street-12", 'phases = "random"', "phases must be 'traced', 'drawn' or 'initial'"),
    ("paris-6", '[factory]\nkind = "DH"', "the scene of a factory is 'tr38901-inf'"),
    ("paris-6", 'scene = "tr38901-inf"', "scene 'tr38901-inf' needs .factory."),
    ("paris-6", "sites = []", "sites: at least one site is needed"),
    ("paris-6", "[clock]\nbs_limit_sigmas = -1.0", "clock.bs_limit_sigmas must not be negative"),
    ("inf-dh-18", '[factory]\nkind = "XL"', "factory.kind must be one of SL, DL, SH, DH"),
    ("inf-dh-18", "[factory]\nheight_m = 0.0", "length_m, width_m and height_m must be positive"),
    ("inf-dh-18", "[factory]\nclutter_density = 1.0", "clutter_density must lie between 0 and 1"),
    ("inf-dh-18", "[factory]\nclutter_height_m = 11.0", "clutter_height_m must lie between 0 and height_m"),
    ("inf-dh-18", "[factory]\nclutter_size_m = 0.0", "clutter_size_m must be positive"),
    ("inf-dh-18", "[factory]\nexcess_sigma_log10 = -0.1", "excess_sigma_log10 must not be negative"),
    ("inf-dh-18", "[factory]\nexcess_distance_m = 0.0", "excess_distance_m must be positive"),
    ("inf-dh-18", "[factory]\nlength_m = 100.0", "users.low and users.high must lie in the hall"),
    ("inf-dh-18", "sites = [{ position = [1.0, 1.0, 12.0] }]", "all sites must stand in the hall"),
    ("inf-dh-18", '[users]\noutdoor = "sky"', "users.outdoor must be 'any'"),
    ("inf-dh-18", "[walk]\nspeed_mps = [1.0, 2.0]", "positions in a factory are no walks"),
]


@pytest.mark.parametrize(("name", "more", "sentence"), BAD)
def test_bad_values_are_one_sentence(tmp_path: Path, name: str, more: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        variant(tmp_path, more, name)
    assert str(caught.value).endswith((".", "?")) and "\n" not in str(caught.value)


def test_a_factory_has_no_layouts(tmp_path: Path) -> None:
    table = scenario_table(load_scenario("inf-dh-18"))
    layouts = scenario_table(load_scenario("paris-street-12"))["layouts"]
    table["tracing"]["positions"] = 0
    with pytest.raises(UserError, match="the sites of a factory are listed"):
        scenario_from_table(table | {"layouts": layouts}, "record")


def test_a_factory_and_truncated_clocks_have_no_bound() -> None:
    """The bound needs a map, and Gaussian clocks."""
    assert covered(load_scenario("paris-6"))
    hall = load_scenario("inf-dh-18")
    tones = replace(hall, numerology=replace(hall.numerology, ifft=0, taps=0))
    assert not covered(replace(tones, link_budget=replace(hall.link_budget, noise="thermal")))
    assert not covered(replace(load_scenario("paris-6"), clock=ClockErrors(bs_sigma_ns=5.0, bs_limit_sigmas=2.0)))
