"""Quantisers, held against float64 and against torch."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fronthaul.codec.codebook import MidriseCodebook, OptionalCodebook, UniformCodebook, gaussian_step
from fronthaul.errors import LocalError

steps = st.floats(2**-10, 2**10, width=32)
values = hnp.arrays(np.float32, st.integers(0, 50), elements=st.floats(-1e4, 1e4, width=32))


@given(values, steps, st.integers(1, 8))
def test_midrise_equation_in_float64(z: np.ndarray, step: float, bits: int) -> None:
    """ECC Eq. 19 in float64; the two may differ only where float32 division rounds, or underflows, onto a border."""
    codebook = MidriseCodebook(step, bits)
    index = codebook.index(z)
    ratio = z.astype(np.float64) / np.float64(np.float32(step))
    k = np.clip(np.floor(ratio), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    on_a_border = np.abs(ratio - np.round(ratio)) <= np.maximum(np.abs(ratio) * 2**-23, 2.0**-149)
    assert index.dtype == np.uint32
    assert np.all((index == k + 2 ** (bits - 1)) | on_a_border)

    k_sent = index.astype(np.float64) - 2 ** (bits - 1)
    expected = np.float64(np.float32(step)) * (k_sent + 0.5)
    np.testing.assert_allclose(codebook.reconstruct(index), expected, rtol=2**-23)


@given(values, steps, st.integers(1, 8))
def test_midrise_errs_by_at_most_half_a_step_inside(z: np.ndarray, step: float, bits: int) -> None:
    codebook = MidriseCodebook(step, bits)
    inside = z[np.abs(z) < step * 2 ** (bits - 1)]
    error = np.abs(codebook.reconstruct(codebook.index(inside)) - inside)
    assert np.all(error <= step / 2 * (1 + 1e-5) + np.abs(inside) * 2**-22)


@given(steps, st.integers(1, 8))
def test_midrise_points_are_fixed(step: float, bits: int) -> None:
    codebook = MidriseCodebook(step, bits)
    every_index = np.arange(codebook.levels, dtype=np.uint32)
    points = codebook.reconstruct(every_index)
    np.testing.assert_array_equal(codebook.index(points), every_index)
    np.testing.assert_array_equal(points, -points[::-1])  # symmetric, none at zero


def test_midrise_borders_and_clipping() -> None:
    z = np.array([-np.inf, -9.0, -2.0, -1.0, -0.0, 0.0, 0.99, 1.0, 2.0, np.inf], np.float32)
    np.testing.assert_array_equal(MidriseCodebook(1.0, 2).index(z), [0, 0, 0, 1, 2, 2, 2, 3, 3, 3])


def test_midrise_step_may_differ_along_the_last_axis() -> None:
    z = np.array([[1.5, 1.5], [-1.5, -1.5]], np.float32)
    codebook = MidriseCodebook(np.array([1.0, 2.0]), 3)
    np.testing.assert_array_equal(codebook.index(z), [[5, 4], [2, 3]])
    np.testing.assert_array_equal(codebook.reconstruct(codebook.index(z)), [[1.5, 1.0], [-1.5, -1.0]])


def test_midrise_agrees_with_torch_bit_for_bit() -> None:
    import torch

    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    for bits in range(1, 9):
        step = np.float32(gaussian_step(bits))
        z = generator.normal(size=20_000).astype(np.float32)
        # Values on and next to the borders, where rounding decides.
        borders = (np.arange(-200, 200, dtype=np.float32) * step).astype(np.float32)
        z = np.concatenate([z, borders, np.nextafter(borders, np.float32(9)), np.nextafter(borders, -z[:1])])
        k = torch.clamp(torch.floor(torch.from_numpy(z) / torch.tensor(step)), -(2 ** (bits - 1)),
                        2 ** (bits - 1) - 1)  # fmt: skip
        codebook = MidriseCodebook(step, bits)
        np.testing.assert_array_equal(codebook.index(z), (k + 2 ** (bits - 1)).numpy())
        points = (torch.tensor(step) * (k + 0.5)).numpy()
        np.testing.assert_array_equal(codebook.reconstruct(codebook.index(z)), points)


@pytest.mark.parametrize(("bits", "step"), [(2, 0.996), (3, 0.586), (4, 0.335), (5, 0.188)])
def test_gaussian_steps_of_the_literature(bits: int, step: float) -> None:
    assert gaussian_step(bits) == pytest.approx(step, abs=5e-4)


@pytest.mark.parametrize("bits", range(1, 9))
def test_gaussian_step_minimises_the_integrated_error(bits: int) -> None:
    z = np.linspace(-9, 9, 200_001)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)

    def error(step: float) -> float:
        k = np.clip(np.floor(z / step), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return float(np.sum((z - step * (k + 0.5)) ** 2 * density) * (z[1] - z[0]))

    best = gaussian_step(bits)
    assert error(best) < min(error(best * 0.99), error(best * 1.01))


@given(
    hnp.arrays(np.float32, st.integers(0, 50), elements=st.floats(-200, 200, width=32)),
    st.integers(1, 12),
)
def test_uniform_equation_in_float64(x: np.ndarray, bits: int) -> None:
    codebook = UniformCodebook(-120.0, -20.0, bits)
    width = 100.0 / 2**bits
    index = codebook.index(x)
    ratio = (x.astype(np.float64) + 120.0) / width
    on_a_border = np.abs(ratio - np.round(ratio)) <= 2.0**bits * 2**-20
    assert np.all((index == np.clip(np.floor(ratio), 0, 2**bits - 1)) | on_a_border)
    expected = -120.0 + width * (index + 0.5)
    np.testing.assert_allclose(codebook.reconstruct(index), expected, rtol=2**-22)


@given(st.floats(-1e3, 1e3), st.floats(1e-1, 1e3), st.integers(1, 8))
def test_uniform_points_are_fixed(low: float, span: float, bits: int) -> None:
    codebook = UniformCodebook(low, low + span, bits)
    every_index = np.arange(codebook.levels, dtype=np.uint32)
    np.testing.assert_array_equal(codebook.index(codebook.reconstruct(every_index)), every_index)


@pytest.mark.parametrize("step", [0.0, -1.0, math.nan, math.inf, 1e-40, 3e38, [1.0, 0.0], [[1.0]]], ids=str)
def test_impossible_steps_are_refused(step: object) -> None:
    with pytest.raises(LocalError):
        MidriseCodebook(step, 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [0, 9, 2.0])
def test_impossible_bits_are_refused(bits: int) -> None:
    with pytest.raises(LocalError):
        MidriseCodebook(1.0, bits)
    with pytest.raises(LocalError):
        gaussian_step(bits)


@pytest.mark.parametrize(
    ("low", "high", "bits"),
    [(0, 0, 4), (1, 0, 4), (0, math.inf, 4), (0, 1, 0), (0, 1, 17), (1e6, 1e6 + 1, 8), (-3e38, 3e38, 1)],
)
def test_impossible_intervals_are_refused(low: float, high: float, bits: int) -> None:
    with pytest.raises(LocalError):
        UniformCodebook(low, high, bits)


@pytest.mark.parametrize("codebook", [MidriseCodebook(1.0, 4), UniformCodebook(-1.0, 1.0, 4)])
def test_impossible_values_and_indices_are_refused(codebook: MidriseCodebook | UniformCodebook) -> None:
    with pytest.raises(LocalError):
        codebook.index(np.array([1.0]))
    with pytest.raises(LocalError):
        codebook.index(np.array([np.nan], np.float32))
    with pytest.raises(LocalError):
        codebook.reconstruct(np.array([16], np.uint32))
    with pytest.raises(LocalError):
        codebook.reconstruct(np.array([-1], np.int32))


anything = hnp.arrays(np.float32, st.integers(0, 50), elements=st.floats(width=32))


@given(anything, st.integers(2, 16))
def test_what_is_not_finite_has_the_last_index_and_nothing_else_has(z: np.ndarray, bits: int) -> None:
    codebook = OptionalCodebook(-4.0, 4.0, bits)
    index = codebook.index(z)
    assert index.dtype == np.uint32 and codebook.levels == 2**bits - 1
    np.testing.assert_array_equal(index == codebook.levels, ~np.isfinite(z))
    back = codebook.reconstruct(index)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(np.isfinite(back), np.isfinite(z))
    there = np.isfinite(z)
    error = np.abs(back[there] - np.clip(z[there], -4, 4))
    assert np.all(error <= 4 / codebook.levels + 1e-5)


@given(st.floats(-1, 1, width=32), st.floats(0.5, 100, width=32), st.integers(2, 16))
def test_an_optional_codebook_gives_every_index_back(low: float, width: float, bits: int) -> None:
    codebook = OptionalCodebook(low, low + width, bits)
    every = np.arange(2**bits, dtype=np.uint32)
    points = codebook.reconstruct(every)
    np.testing.assert_array_equal(codebook.index(points), every)
    assert np.isnan(points[-1]) and np.all(np.diff(points[:-1]) > 0)


@pytest.mark.parametrize("bits", [0, 1, 17, 4.0])
def test_an_optional_codebook_needs_an_index_to_spare(bits: object) -> None:
    with pytest.raises(LocalError, match="bits must be an int"):
        OptionalCodebook(0.0, 1.0, bits)  # type: ignore[arg-type]


def test_an_optional_codebook_refuses_what_is_no_interval_and_no_float32() -> None:
    for low, high in ((1.0, 1.0), (0.0, math.inf), (0.0, 1e-45)):
        with pytest.raises(LocalError):
            OptionalCodebook(low, high, 8)
    with pytest.raises(LocalError, match="float32"):
        OptionalCodebook(0.0, 1.0, 8).index(np.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(LocalError, match="below 16"):
        OptionalCodebook(0.0, 1.0, 4).reconstruct(np.array([16], np.uint32))
