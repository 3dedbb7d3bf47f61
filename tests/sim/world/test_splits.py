"""Splits of positions into training, validation and test."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import straight_world
from straight_world import Array, assert_same

from sim.errors import UserError
from sim.learn.splits import Split, SplitName, split_positions, write_test_set
from sim.world import store
from sim.world.paths import load_paths
from sim.world.scenario import load_scenario
from sim.world.store import load_training_positions

WORLD = straight_world.scenario()


def scattered(count: int = 4000) -> Array:
    return straight_world.positions(WORLD, count, seed=8)


@pytest.mark.parametrize("name", ["random", "block"])
def test_splits_are_disjoint_and_repeatable(name: str) -> None:
    split = split_positions(WORLD, scattered(), name)  # type: ignore[arg-type]
    again = split_positions(WORLD, scattered(), name)  # type: ignore[arg-type]
    parts = [split.train, split.validation, split.test]
    joined = np.concatenate(parts)
    assert len(np.unique(joined)) == len(joined) and all(len(part) for part in parts)
    for one, other in zip(parts, (again.train, again.validation, again.test), strict=True):
        np.testing.assert_array_equal(one, other)


def test_small_data_sets_keep_half_for_training() -> None:
    split = split_positions(WORLD, scattered(400), "random")
    assert (len(split.train), len(split.validation), len(split.test)) == (200, 100, 100)


def test_the_shipped_test_set_is_not_trained_on_whatever_was_traced() -> None:
    scenario = load_scenario("paris-6")
    shipped = load_paths(store.ASSET_FOLDER / "paris-6" / "test.npz").position
    few = np.concatenate([shipped[:200], straight_world.positions(scenario, 1000, seed=8)])
    split = split_positions(scenario, few, "random")
    assert split.train.min() >= 200 and split.validation.min() >= 200
    assert 400 < len(split.train) < 600 and split.test.min() < 200


def test_blocks_keep_their_distance_from_training_positions() -> None:
    position = scattered()
    split = split_positions(WORLD, position, "block")
    held = np.concatenate([split.validation, split.test])
    # A guard band in the maximum norm: the blocks are squares.
    gap = np.abs(position[held, None, :2] - position[None, split.train, :2]).max(2).min(1)
    assert gap.min() >= WORLD.splits.guard_m
    random = split_positions(WORLD, position, "random")
    nearest = np.linalg.norm(position[random.test, None] - position[None, random.train], axis=2).min(1)
    farther = np.linalg.norm(position[split.test, None] - position[None, split.train], axis=2).min(1)
    assert np.median(farther) > 1.5 * np.median(nearest)


def user_split(positions: int, snapshots: int = 10) -> tuple[Split, npt.NDArray[np.int32]]:
    world = load_scenario("paris-7")
    user = (np.arange(positions) // snapshots).astype(np.int32)
    return split_positions(world, np.zeros((positions, 3)), "user", user), user


@pytest.mark.parametrize(("positions", "sizes"), [(2000, (120, 40, 40)), (20_000, (1920, 40, 40)), (100, (6, 2, 2))])
def test_a_user_split_holds_out_whole_walks(positions: int, sizes: tuple[int, int, int]) -> None:
    split, user = user_split(positions)
    parts = [np.unique(user[part]) for part in (split.train, split.validation, split.test)]
    assert tuple(map(len, parts)) == sizes
    assert len(np.unique(np.concatenate(parts))) == sum(sizes)
    joined = np.sort(np.concatenate([split.train, split.validation, split.test]))
    np.testing.assert_array_equal(joined, np.arange(positions))
    again, _ = user_split(positions)
    np.testing.assert_array_equal(again.test, split.test)


def test_a_random_split_of_paris_7_is_three_to_one_to_one() -> None:
    split = split_positions(load_scenario("paris-7"), np.zeros((2000, 3)), "random")
    assert (len(split.train), len(split.validation), len(split.test)) == (1200, 400, 400)


def test_a_user_split_needs_walks() -> None:
    with pytest.raises(UserError, match=r"\[walk\]"):
        split_positions(WORLD, scattered(100), "user")
    with pytest.raises(UserError, match="more walks than 2"):
        user_split(20)


@pytest.mark.parametrize("name", ["random", "user"])
def test_written_test_sets_are_the_splits(tmp_path: Path, name: SplitName) -> None:
    world = straight_world.scenario()
    paths = straight_world.walking(straight_world.trace(world, straight_world.positions(world, 60)), 3)
    write_test_set(world, paths, tmp_path, name)
    suffix = "" if name == "random" else "-user"
    split = split_positions(world, paths.position, name, paths.user)
    held = load_paths(tmp_path / f"test{suffix}.npz")
    assert_same(held, paths.select(split.test))
    known = load_training_positions(world, tmp_path / f"test{suffix}.npz")
    assert known is not None
    np.testing.assert_allclose(known, paths.position[split.train], rtol=1e-6)


def test_validation_and_test_do_not_share_a_block() -> None:
    position = scattered()
    split = split_positions(WORLD, position, "block")
    cells = [
        {tuple(cell) for cell in np.floor((position[part, :2] + 80) / WORLD.splits.block_m).astype(int)}
        for part in (split.validation, split.test)
    ]
    assert not cells[0] & cells[1]
