"""Anchors of traced paths: they give back every path, and those of a moved user."""

import numpy as np
import pytest
import torch

from sim.world.anchors import find_anchors
from sim.world.channel import move_users, pad_paths
from sim.world.paths import PathSet, load_paths, mirror_matrix, unit_vector
from sim.world.scenario import SPEED_OF_LIGHT, load_scenario
from sim.world.store import ASSET_FOLDER

SCENARIO = load_scenario("paris-6")


@pytest.fixture(scope="module")
def paths() -> PathSet:
    return load_paths(ASSET_FOLDER / "paris-6" / "test.npz")


def images(paths: PathSet, step: np.ndarray) -> np.ndarray:
    """Images of all users, moved by `step` (3,), as the anchors of their paths have them (P, 3)."""
    anchors = find_anchors(paths)
    user = np.repeat(np.arange(len(paths)), anchors.count.sum(1, dtype=np.int64))
    turn = mirror_matrix(anchors.mirror, anchors.bounces)[anchors.anchor]
    moved = (anchors.position[user] + step)[..., None]
    return np.asarray((turn @ moved)[..., 0] + anchors.offset[anchors.anchor])


def test_anchors_give_back_the_paths(paths: PathSet) -> None:
    image = images(paths, np.zeros(3))
    length = paths.delay.astype(np.float64) * SPEED_OF_LIGHT
    apart = np.linalg.norm(image - unit_vector(paths.site_angle) * length[:, None], axis=1)
    assert np.quantile(apart, 0.9) < 0.01
    assert apart.max() < 0.3  # a group of anchors a few millimetres apart each may be as wide


def test_there_are_far_fewer_anchors_than_paths(paths: PathSet) -> None:
    anchors = find_anchors(paths)
    assert len(anchors.site) < len(anchors.anchor) / 20
    assert len(anchors.anchor) == len(paths.delay)
    assert (anchors.site[anchors.anchor] == np.repeat(np.tile(np.arange(6), len(paths)), anchors.count.ravel())).all()


def test_anchors_follow_a_moved_user(paths: PathSet) -> None:
    few, step = paths.select(np.arange(50)), np.array([0.6, -0.4, 0.3])
    padded = pad_paths(few, SCENARIO.numerology.carrier_hz, mirrors=True)
    moved = move_users(padded, torch.tensor(step, dtype=torch.float32).expand(50, 3), SCENARIO.numerology.carrier_hz)
    image = images(few, step)
    begin = few.offset[:-1]
    for link in range(0, 300, 7):
        own = image[begin[link] : few.offset[link + 1]]
        length = np.sort(np.linalg.norm(own, axis=1))
        there = moved.distance[link // 6, link % 6].numpy()
        present = moved.coefficient[link // 6, link % 6].abs().numpy() > 0
        np.testing.assert_allclose(length, np.sort(there[present]), atol=0.02)
