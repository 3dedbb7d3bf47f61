"""Features that were stored for something else, or damaged, are not used."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import straight_world

from sim.errors import UserError
from sim.learn.diffloc.features import FeatureSetting, make_features
from sim.world.scenario import Scenario, load_scenario

SETTING = FeatureSetting(stations=(0, 1), components=8)


def scenario() -> Scenario:
    """paris-7 with two sites, a few taps, and users in a box."""
    paris = load_scenario("paris-7")
    numerology = replace(paris.numerology, ifft=64, taps=8, tones=64, subcarriers=64)
    splits = replace(paris.splits, test=10, validation=10)
    return replace(paris, sites=paris.sites[:2], numerology=numerology, splits=splits)


def test_stored_features_are_those_of_the_same_sites_and_paths(tmp_path: Path) -> None:
    world = scenario()
    paths = straight_world.trace(world, straight_world.positions(world, 60))
    turned = replace(world, sites=(replace(world.sites[0], yaw_deg=10.0), world.sites[1]))
    weaker = replace(paths, matrix=paths.matrix * np.linspace(0.5, 1.0, len(paths.matrix))[:, None, None].astype("f4"))
    stored = make_features(world, paths, SETTING, cache=tmp_path)
    for other, traced in ((turned, paths), (world, weaker)):
        found = make_features(other, traced, SETTING, cache=tmp_path)
        np.testing.assert_array_equal(found.mean, make_features(other, traced, SETTING).mean)
        assert not np.array_equal(found.mean, stored.mean)
    assert len(list(tmp_path.iterdir())) == 3


def test_features_under_anothers_name_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    world = scenario()
    paths = straight_world.trace(world, straight_world.positions(world, 60))
    make_features(world, paths, SETTING, cache=tmp_path)
    (own,) = tmp_path.iterdir()
    make_features(world, paths, replace(SETTING, components=6), cache=tmp_path)
    (other,) = {*tmp_path.iterdir()} - {own}
    shutil.copy(other, own)
    with pytest.raises(UserError, match=r"made for another scenario; remove it, it will be made again\.$"):
        make_features(world, paths, SETTING, cache=tmp_path)
    own.write_bytes(own.read_bytes()[:100])
    with pytest.raises(UserError, match=r"is damaged .*; remove it, it will be made again\.$"):
        make_features(world, paths, SETTING, cache=tmp_path)
