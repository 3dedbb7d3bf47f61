"""Splits of traced positions into training, validation and test. Reference: evaluation rules 2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from fronthaul.draws import generator
from sim.errors import UserError
from sim.world import store
from sim.world.arrays import save_arrays
from sim.world.paths import PathSet, load_paths
from sim.world.scenario import Scenario

SplitName = Literal["random", "block", "user"]
_SAME_M = 0.01


@dataclass(frozen=True)
class Split:
    """Indices of positions, disjoint."""

    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]


def split_positions(
    scenario: Scenario,
    position: npt.NDArray[np.float64],
    name: SplitName,
    user: npt.NDArray[np.int32] | None = None,
) -> Split:
    """Split positions (N, 3) [m].

    ``random``: validation and test are uniform draws; training positions lie between them, at the mean spacing. Of a
    data set of another size than that of the shipped test set, its positions are neither trained on nor validated.
    ``block``: square blocks of `block_m` are held out, half for validation and half for test; training positions keep
    `guard_m` away from them, so a test position is up to half a block away from the nearest training position.
    ``user``: whole walks are held out, the same shares of users as ``random`` takes of positions; `user` (N,) is the
    user of each position (`PathSet.user`).

    Raises:
        UserError: there are too few blocks for a block split, or for a user split no walks or too few.
    """
    sizes = scenario.splits
    if name == "random":
        order = generator(sizes.seed, "split").permutation(len(position))
        test, validation = _held_out(scenario, len(position), len(position))
        train, validated = order[test + validation :], order[test : test + validation]
        shipped = _shipped_test(scenario)
        train, validated = (index[~_among(position[index], shipped)] for index in (train, validated))
        if len(position) and not len(train):
            raise UserError("The data set has no position to train on that is not of the shipped test set.")
        return Split(np.sort(train), np.sort(validated), np.sort(order[:test]))
    if name == "user":
        return _split_users(scenario, user)
    low = np.array(scenario.users.low[:2])
    cell = np.floor((position[:, :2] - low) / sizes.block_m).astype(np.int64)
    blocks = np.unique(cell, axis=0)
    if len(blocks) < 3:
        raise UserError(
            f"A block split needs at least three blocks of {sizes.block_m:g} m; the positions lie in {len(blocks)}."
        )
    order = generator(sizes.seed, "blocks").permutation(len(blocks))
    held = blocks[order[: max(2, round(sizes.block_fraction * len(blocks)))]]
    half = len(held) // 2
    validation_mask = _inside(position, low, held[:half], sizes.block_m, 0.0)
    test_mask = _inside(position, low, held[half:], sizes.block_m, 0.0)
    near = _inside(position, low, held, sizes.block_m, sizes.guard_m)
    draw = generator(sizes.seed, "block-samples")

    def sample(mask: npt.NDArray[np.bool_], most: int) -> npt.NDArray[np.int64]:
        index = np.flatnonzero(mask)
        return np.sort(draw.permutation(index)[:most])

    return Split(np.flatnonzero(~near), sample(validation_mask, sizes.validation), sample(test_mask, sizes.test))


def _shipped_test(scenario: Scenario) -> npt.NDArray[np.float64]:
    """Return the positions (N, 3) [m] of the test set that is shipped with a scenario, if any."""
    path = store.ASSET_FOLDER / scenario.data_name / "test.npz"
    return load_paths(path).position if path.is_file() else np.empty((0, 3))


def _among(position: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return for each position (N, 3) whether it is one of the others (M, 3), which a file may have rounded."""
    if not len(others):
        return np.zeros(len(position), bool)
    return np.asarray(cKDTree(others).query(position, distance_upper_bound=_SAME_M)[0] < _SAME_M)


def _held_out(scenario: Scenario, positions: int, things: int) -> tuple[int, int]:
    """Return how many of `things` go into the test and validation sets, in proportion to their shares of positions."""
    sizes = scenario.splits
    scale = min(1.0, positions / (2 * (sizes.test + sizes.validation)))  # small data sets keep half for training
    test, validation = int(sizes.test * scale), int(sizes.validation * scale)
    return round(test * things / positions), round(validation * things / positions)


def _split_users(scenario: Scenario, user: npt.NDArray[np.int32] | None) -> Split:
    if user is None or not len(user):
        raise UserError("A user split needs positions that come as walks; give the scenario a [walk] table.")
    users = np.unique(user)
    test, validation = _held_out(scenario, len(user), len(users))
    if not (test and validation):
        raise UserError(f"A user split needs more walks than {len(users)}, to hold out some for test and validation.")
    order = users[generator(scenario.splits.seed, "walks").permutation(len(users))]
    parts = np.split(order, [test, test + validation])
    of_test, of_validation, of_training = (np.flatnonzero(np.isin(user, part)) for part in parts)
    return Split(of_training, of_validation, of_test)


def write_test_set(scenario: Scenario, paths: PathSet, folder: Path, name: SplitName = "random") -> None:
    """Write the parts of a traced data set that an emulation needs: test paths, and coordinates of training positions.

    Files: ``test.npz`` and ``train-positions.npz``; for the block split ``test-block.npz`` and so on, for the user
    split ``test-user.npz``.
    """
    suffix = "" if name == "random" else f"-{name}"
    split = split_positions(scenario, paths.position, name, paths.user)
    folder.mkdir(parents=True, exist_ok=True)
    paths.select(split.test).save(folder / f"test{suffix}.npz")
    training = paths.position[split.train].astype(np.float32)
    save_arrays(folder / f"train-positions{suffix}.npz", position=training)


def _inside(
    position: npt.NDArray[np.float64],
    low: npt.NDArray[np.float64],
    blocks: npt.NDArray[np.int64],
    edge: float,
    margin: float,
) -> npt.NDArray[np.bool_]:
    """Return whether each position lies in one of the blocks, widened by `margin` on every side."""
    inside = np.zeros(len(position), bool)
    for block in blocks:
        corner = low + block * edge
        inside |= np.all((position[:, :2] >= corner - margin) & (position[:, :2] < corner + edge + margin), axis=1)
    return inside
