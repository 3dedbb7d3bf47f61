"""The quantiser that training uses is the one that transmission uses, bit for bit."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge.quantizer import quantise_straight_through
from fronthaul.codec.codebook import MidriseCodebook

Float32 = npt.NDArray[np.float32]
steps = st.floats(2**-10, 2**10, width=32)
all_bits = st.integers(1, 8)


def both(latent: Float32, step: Float32 | np.float32, bits: int) -> tuple[Float32, Float32]:
    codebook = MidriseCodebook(step, bits)
    sent = codebook.reconstruct(codebook.index(latent))
    trained = quantise_straight_through(torch.from_numpy(latent), torch.from_numpy(np.array(step)), bits)
    return sent, trained.numpy()


@given(hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e4, 1e4, width=32)), steps, all_bits)
def test_any_value_is_quantised_to_the_same_bits(latent: Float32, step: float, bits: int) -> None:
    sent, trained = both(latent, np.float32(step), bits)
    np.testing.assert_array_equal(sent.view(np.uint32), trained.view(np.uint32))


@given(steps, all_bits, st.sampled_from([-1, 0, 1]))
def test_cell_borders_and_their_neighbours_are_too(step: float, bits: int, side: int) -> None:
    border = np.arange(-(2 ** (bits - 1)) - 1, 2 ** (bits - 1) + 2).astype(np.float32) * np.float32(step)
    latent = np.nextafter(border, np.float32(side * np.inf)) if side else border
    sent, trained = both(latent.astype(np.float32), np.float32(step), bits)
    np.testing.assert_array_equal(sent.view(np.uint32), trained.view(np.uint32))


@given(all_bits, st.integers(0, 10))
def test_so_they_are_with_a_step_for_each_coefficient(bits: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    step = draw.uniform(0.1, 2, 5).astype(np.float32)
    latent = draw.standard_normal((3, 4, 5)).astype(np.float32)
    sent, trained = both(latent, step, bits)
    np.testing.assert_array_equal(sent.view(np.uint32), trained.view(np.uint32))


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_gradient_is_one_inside_the_clip_range_and_zero_outside(bits: int) -> None:  # ECC Eq. 35
    step = 0.25
    edge = step * 2 ** (bits - 1)
    inside = [-edge, -edge / 3, 0.0, edge / 2, float(np.nextafter(np.float32(edge), np.float32(0)))]
    outside = [-2 * edge, float(np.nextafter(np.float32(-edge), np.float32(-np.inf))), edge, 7 * edge]
    latent = torch.tensor(inside + outside, requires_grad=True)
    weight = torch.arange(1.0, len(latent) + 1)
    (quantise_straight_through(latent, torch.tensor(step), bits) * weight).sum().backward()
    assert latent.grad is not None
    expected = torch.cat([weight[: len(inside)], torch.zeros(len(outside))])
    assert torch.equal(latent.grad, expected)


def test_steps_learn_nothing() -> None:
    step = torch.tensor(0.5, requires_grad=True)
    latent = torch.randn(4, requires_grad=True)
    quantise_straight_through(latent, step, 3).sum().backward()
    assert step.grad is None
