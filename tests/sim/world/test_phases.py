"""Carrier phases of paths: with what the way adds, without it, and drawn."""

from dataclasses import replace

import numpy as np
import straight_world
import torch

from sim.world.channel import pad_paths
from sim.world.phases import phased

WORLD = straight_world.scenario()
CARRIER = WORLD.numerology.carrier_hz


def test_initial_phases_are_those_of_the_coefficients() -> None:
    paths = straight_world.trace(WORLD, straight_world.positions(WORLD, 20))
    draw = np.random.default_rng(1)
    turn = np.exp(1j * draw.uniform(0, 2 * np.pi, len(paths.delay))).astype(np.complex64)
    paths = replace(paths, matrix=paths.matrix * turn[:, None, None])
    made = phased(replace(WORLD, phases="initial"), pad_paths(paths, CARRIER), range(3))
    expected = torch.from_numpy(paths.matrix[:, 0, 0]).reshape(made.coefficient.shape)
    torch.testing.assert_close(made.coefficient, expected, rtol=5e-3, atol=1e-9)  # a way of 100 m in single precision


def test_traced_phases_are_left_and_drawn_ones_are_not() -> None:
    padded = pad_paths(straight_world.trace(WORLD, straight_world.positions(WORLD, 20)), CARRIER)
    assert phased(WORLD, padded, range(3)) is padded
    drawn = phased(replace(WORLD, phases="drawn"), padded, range(3)).coefficient
    assert not torch.allclose(drawn, padded.coefficient)
    torch.testing.assert_close(drawn.abs(), padded.coefficient.abs())
