"""What is packed to be shipped or carried: it is small, and what is lost is known."""

import dataclasses
from pathlib import Path

import numpy as np
import straight_world
import torch

from sim.learn.compact import packed_matrices, training_paths
from sim.plan.weights import Weights
from sim.world.channel import PATH_LIMIT, Motion, Synthesizer, pad_paths
from sim.world.paths import load_paths

WORLD = straight_world.scenario()
WALLS: list[straight_world.Wall] = [
    ((np.cos(a), np.sin(a), 0.0), 200.0 + 10 * n) for n, a in enumerate(np.linspace(0, 3, 15))
]
PATHS = straight_world.polarized(straight_world.trace(WORLD, straight_world.positions(WORLD, 40), WALLS))


def test_training_paths_are_small_and_sound_the_same(tmp_path: Path) -> None:
    PATHS.save(tmp_path / "whole.npz", smallest=True)
    training_paths(PATHS).save(tmp_path / "small.npz", smallest=True)
    assert (tmp_path / "small.npz").stat().st_size < 0.5 * (tmp_path / "whole.npz").stat().st_size
    small = load_paths(tmp_path / "small.npz")
    assert small.digest == PATHS.digest and int(small.paths_per_link().max()) == PATH_LIMIT < 1 + len(WALLS)
    assert np.abs(small.position - PATHS.position).max() < 1e-3
    carrier = WORLD.numerology.carrier_hz
    motion = Motion.draw(WORLD, len(PATHS), torch.Generator().manual_seed(0))
    still = dataclasses.replace(motion, velocity=0 * motion.velocity)
    here, there = (
        Synthesizer(WORLD).response(pad_paths(paths, carrier, PATH_LIMIT), still).abs() for paths in (PATHS, small)
    )
    # A carrier's phase turns by up to 8 degrees in the millimetre that lengths are rounded to.
    assert float((here - there).norm() / here.norm()) < 0.1


def test_bits_are_chosen_by_the_first_part_of_a_name_and_sixteen_keeps_half_precision() -> None:
    draw = torch.Generator().manual_seed(0)
    names = ("cloud.fusion.head.0.weight", "cloud.fusion.key.weight", "edge.0.encoder.body.weight", "edge.0.step.4")
    weights = Weights({}, {name: torch.randn(64, 64, generator=draw) for name in names})
    packed = packed_matrices(weights, 8, {"fusion.head": 16, "key": 4})
    assert {name: one.bits for name, one in packed.items()} == {names[1]: 4, names[2]: 8}
