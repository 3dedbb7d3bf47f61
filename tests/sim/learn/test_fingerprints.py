"""Look-ups of positions by fingerprints, against computations of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sim.learn.fingerprints import linear_fit, local_linear, weighted_neighbours

DRAW = np.random.default_rng(0)


def by_ridge(query: np.ndarray, table: np.ndarray, position: np.ndarray, neighbours: int, ridge: float) -> np.ndarray:
    """LOESS with ridge, one query at a time: minimise Σ w (p − a − B (x − q))² + λ |B|² by an augmented system."""
    found = []
    for one in query:
        apart = np.linalg.norm(table - one, axis=1)
        near = np.argsort(apart)[:neighbours]
        weight = np.maximum(1 - (apart[near] / apart[near].max()) ** 3, 1e-9) ** 3
        weight = weight / weight.sum()
        middle = weight @ table[near]
        spread = weight @ ((table[near] - middle) ** 2)
        design = np.column_stack([np.ones(neighbours), table[near] - one]) * np.sqrt(weight)[:, None]
        penalty = np.column_stack([np.zeros(table.shape[1]), np.sqrt(ridge * spread.mean()) * np.eye(table.shape[1])])
        right = np.vstack([np.sqrt(weight)[:, None] * position[near], np.zeros((table.shape[1], position.shape[1]))])
        found.append(np.linalg.lstsq(np.vstack([design, penalty]), right, rcond=None)[0][0])  # a: the value at q
    return np.array(found)


@pytest.mark.parametrize(("features", "neighbours"), [(4, 30), (4, 6), (30, 12)], ids=str)
@pytest.mark.parametrize("ridge", [1e-3, 0.3])
def test_the_linear_look_up_against_least_squares(features: int, neighbours: int, ridge: float) -> None:
    table, query = DRAW.standard_normal((200, features)), DRAW.standard_normal((9, features))
    position = 50 * DRAW.standard_normal((200, 3))
    found = local_linear(*map(torch.from_numpy, (query, table, position)), neighbours, ridge)
    np.testing.assert_allclose(found, by_ridge(query, table, position, neighbours, ridge), rtol=1e-6, atol=1e-6)


def test_positions_that_are_linear_in_the_fingerprint_are_found_where_an_average_is_pulled_inwards() -> None:
    table = torch.from_numpy(DRAW.uniform(-1, 1, (500, 3)))
    slope = torch.from_numpy(DRAW.standard_normal((3, 2)))
    query = torch.full((1, 3), 1.05, dtype=torch.float64)  # beyond the corner of the table
    exact = query @ slope + 7
    linear = local_linear(query, table, table @ slope + 7, 50, 1e-9)
    weighted = weighted_neighbours(query, table, table @ slope + 7, 50)
    np.testing.assert_allclose(linear, exact, atol=1e-5)
    assert (weighted - exact).norm() > 0.1


def test_weighted_neighbours_are_means_by_inverse_square() -> None:
    table = torch.tensor([[0.0], [3.0], [100.0]])
    found = weighted_neighbours(torch.tensor([[1.0]]), table, torch.tensor([[10.0], [20.0], [99.0]]), 2)
    assert found.tolist() == [[pytest.approx((10 / 1 + 20 / 4) / (1 + 1 / 4))]]
    assert weighted_neighbours(torch.tensor([[3.0]]), table, table, 1).tolist() == [[3.0]]


def test_a_table_of_equal_fingerprints_gives_the_mean_position() -> None:
    position = torch.tensor([[0.0, 2.0], [4.0, 6.0]])
    same = linear_fit(torch.zeros(1, 5), torch.zeros(1, 2, 5), torch.zeros(1, 2), position[None], 0.01)
    np.testing.assert_allclose(same, [[2.0, 4.0]])


def test_more_neighbours_than_the_table_has_are_all_of_it() -> None:
    table, position = torch.from_numpy(DRAW.standard_normal((8, 2))), torch.from_numpy(DRAW.standard_normal((8, 3)))
    query = table[:3] + 0.1
    for lookup in (weighted_neighbours, local_linear):
        assert torch.equal(lookup(query, table, position, 100), lookup(query, table, position, 8))
