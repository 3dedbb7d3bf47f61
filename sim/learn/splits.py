"""Splits of traced positions into training, validation and test. Reference: evaluation rules 2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fronthaul.draws import generator
from sim.errors import UserError
from sim.world.paths import PathSet
from sim.world.scenario import Scenario

SplitName = Literal["random", "block"]


@dataclass(frozen=True)
class Split:
    """Indices of positions, disjoint."""

    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]


def split_positions(scenario: Scenario, position: npt.NDArray[np.float64], name: SplitName) -> Split:
    """Split positions (N, 3) [m].

    ``random``: validation and test are uniform draws; training positions lie between them, at the mean spacing.
    ``block``: square blocks of `block_m` are held out, half for validation and half for test; training positions keep
    `guard_m` away from them, so a test position is up to half a block away from the nearest training position.
    """
    sizes = scenario.splits
    if name == "random":
        order = generator(sizes.seed, "split").permutation(len(position))
        wanted = sizes.test + sizes.validation
        scale = min(1.0, len(position) / (2 * wanted))  # small data sets keep half for training
        test, validation = int(sizes.test * scale), int(sizes.validation * scale)
        return Split(
            np.sort(order[test + validation :]), np.sort(order[test : test + validation]), np.sort(order[:test])
        )
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


def write_test_set(scenario: Scenario, paths: PathSet, folder: Path, name: SplitName = "random") -> None:
    """Write what an emulation needs of a traced data set: test paths, and coordinates of training positions.

    Files: ``test.npz`` and ``train-positions.npz``; for the block split ``test-block.npz`` and so on.
    """
    suffix = "" if name == "random" else f"-{name}"
    split = split_positions(scenario, paths.position, name)
    folder.mkdir(parents=True, exist_ok=True)
    paths.select(split.test).save(folder / f"test{suffix}.npz")
    target = folder / f"train-positions{suffix}.npz"
    temporary = target.with_name(f".{target.name}.part")
    with temporary.open("wb") as file:
        np.savez_compressed(file, position=paths.position[split.train].astype(np.float32))
    temporary.replace(target)


def _inside(
    position: npt.NDArray[np.float64],
    low: npt.NDArray[np.float64],
    blocks: npt.NDArray[np.int64],
    edge: float,
    margin: float,
) -> npt.NDArray[np.bool_]:
    """Whether each position lies in one of the blocks, widened by `margin` on every side."""
    inside = np.zeros(len(position), bool)
    for block in blocks:
        corner = low + block * edge
        inside |= np.all(
            (position[:, :2] >= corner - margin) & (position[:, :2] < corner + edge + margin), axis=1
        )
    return inside
