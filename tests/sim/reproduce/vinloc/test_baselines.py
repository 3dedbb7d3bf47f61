"""Nearest neighbours and the prior on cases whose answer is known; statistics of errors against NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sim.learn.vinloc.data import CirSet, Users
from sim.learn.vinloc.evaluate import kept, kept_stations
from sim.reproduce.vinloc import paper
from sim.reproduce.vinloc.baselines import (
    Compression,
    fingerprints,
    linear_positions,
    masked_distances,
    nearest,
    neighbour_positions,
    prior_positions,
)
from sim.reproduce.vinloc.measures import position_statistics


def draws(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_users(count: int, seed: int, stations: int = 5, taps: int = 16) -> CirSet:
    """Responses whose energy lies where the user is: neighbours are alike."""
    draw = draws(seed)
    position = torch.rand(count, 3, generator=draw) * torch.tensor([10.0, 10.0, 0.0])
    site = torch.rand(stations, 3, generator=draws(99)) * 10
    delay = (position[:, None] - site).norm(dim=2)[..., None]
    shape = torch.exp(-((torch.arange(taps) - delay) ** 2) / 8)
    phase = torch.rand(count, stations, taps, generator=draw) * 2 * torch.pi
    cir = torch.view_as_real(torch.polar(shape, phase))[:, :, None].half()
    present = torch.rand(count, stations, generator=draw) < 0.9
    return CirSet(cir * present[..., None, None, None], site.expand(count, -1, -1), present, position, 1.0)


def test_distances_are_those_over_what_both_have() -> None:
    draw = draws()
    queried, there = (torch.rand(n, 4, generator=draw) < 0.6 for n in (7, 9))
    query, table = (torch.randn(n, 4, 3, generator=draw) for n in (7, 9))
    found = masked_distances(query * queried[..., None], queried, table * there[..., None], there)
    for q in range(7):
        for t in range(9):
            both = (queried[q] & there[t]).numpy()
            apart = (query[q].double() - table[t].double()).numpy()[both]
            known = np.sqrt(np.square(apart).sum() / both.sum()) if both.any() else np.inf
            assert float(found[q, t]) == pytest.approx(known, abs=1e-4)
    assert found.isinf().any()


def test_neighbours_are_weighted_by_one_over_distance() -> None:
    table = torch.tensor([[[0.0]], [[3.0]], [[100.0]]])
    there = torch.ones(3, 1, dtype=torch.bool)
    position = torch.tensor([[0.0, 0.0, 0.0], [8.0, 4.0, 0.0], [50.0, 50.0, 50.0]])
    found = nearest(torch.tensor([[[1.0]]]), there[:1], table, there, position, [1, 2])
    assert found[1].tolist() == [[0.0, 0.0, 0.0]]
    share = (1 / 2) / (1 / 1 + 1 / 2)
    torch.testing.assert_close(found[2], share * position[1:2])


def test_of_a_user_that_shares_no_base_station_the_mean_is_said() -> None:
    there = torch.tensor([[True, False]]).expand(4, -1)
    position = torch.rand(4, 3, generator=draws())
    found = nearest(torch.zeros(1, 2, 3), torch.tensor([[False, True]]), torch.zeros(4, 2, 3), there, position, [2])
    torch.testing.assert_close(found[2], position.mean(0, keepdim=True))


def test_a_training_user_is_found_again_from_some_of_its_base_stations() -> None:
    training = random_users(120, 1)
    training = replace(training, present=torch.ones_like(training.present), cir=random_full(training))
    known = training[torch.arange(30)]
    found, choice = neighbour_positions(Users(training, known, known), 3)
    assert choice.neighbours == 1
    assert (found - known.position).norm(dim=1).max() < 0.05


def random_full(users: CirSet) -> Tensor:
    return torch.randn(users.cir.shape, generator=draws(5)).half()


def test_neighbours_beat_the_prior_and_what_is_chosen_is_chosen_on_validation_users() -> None:
    users = Users(random_users(400, 1), random_users(60, 2), random_users(60, 3))
    found, choice = neighbour_positions(users, 4)
    error = (found - users.test.position).norm(dim=1).mean()
    prior = (prior_positions(users) - users.test.position).norm(dim=1).mean()
    assert error < 0.4 * prior
    blind = replace(users, test=replace(users.test, position=torch.full_like(users.test.position, torch.nan)))
    again, same = neighbour_positions(blind, 4)
    assert same == choice
    assert torch.equal(again, found)


@pytest.mark.parametrize(
    ("compression", "values"),
    [("square root", [0.5, 2.0, 0.0]), ("fourth root", [0.5**0.5, 2.0**0.5, 0.0]), ("logarithm", [2.3979, 3.602, 0.0])],
)
def test_fingerprints_are_compressed_magnitudes(compression: Compression, values: list[float]) -> None:
    cir = torch.zeros(1, 2, 1, 3, 2, dtype=torch.float16)
    cir[0, :, 0, 0, 0], cir[0, :, 0, 1, 1] = 0.25, -4.0
    present = torch.tensor([[True, False]])
    users = CirSet(cir, torch.zeros(1, 2, 3), present, torch.zeros(1, 3), 1.0)
    found = fingerprints(users, compression)
    torch.testing.assert_close(found[0, 0], torch.tensor(values), atol=2e-3, rtol=0)
    assert not found[0, 1].any()


def test_every_method_has_the_same_base_stations_of_a_user() -> None:
    chosen = kept_stations(50, 18, 15)
    assert torch.equal(chosen, kept_stations(50, 18, 15))
    assert (chosen.diff(dim=1) > 0).all()
    assert len({tuple(row) for row in chosen.tolist()}) > 25
    assert kept_stations(2, 4, 9).tolist() == [[0, 1, 2, 3]] * 2
    users = random_users(50, 1, stations=18)
    some = kept(users, chosen)
    for n in (0, 7, 49):
        assert torch.equal(some.cir[n], users.cir[n, chosen[n]])
        assert torch.equal(some.site[n], users.site[n, chosen[n]])
        assert torch.equal(some.present[n], users.present[n, chosen[n]])


def test_statistics_are_euclidean_and_per_axis_by_name() -> None:
    draw = np.random.default_rng(3)
    truth, error = draw.normal(0, 50, (400, 3)), draw.normal(0, (1.0, 2.0, 0.1), (400, 3))
    found = position_statistics(truth + error, truth)
    distance = np.sqrt((error**2).sum(1))
    assert found["mean"] == pytest.approx(distance.mean())
    assert found["rmse"] == pytest.approx(np.sqrt((distance**2).mean()))
    assert [found[name] for name in ("median", "p90", "p95")] == pytest.approx(np.percentile(distance, [50, 90, 95]))
    assert found["horizontal"]["rmse"] == pytest.approx(np.sqrt((error[:, :2] ** 2).sum(1).mean()))
    for place, axis in enumerate("xyz"):
        assert found["axes"][axis]["rmse"] == pytest.approx(np.sqrt((error[:, place] ** 2).mean()))
        assert found["axes"][axis]["mean"] == pytest.approx(np.abs(error[:, place]).mean())
    half = 1.96 * distance.std() / 20
    assert found["ci95_of_mean"] == pytest.approx([found["mean"] - half, found["mean"] + half], abs=0.03)
    low, high = found["ci95_of_rmse"]
    assert low < found["rmse"] < high < found["rmse"] + 0.3
    assert found["samples"] == 400


def test_the_papers_figures_of_its_resnet_are_of_no_single_error() -> None:
    known = paper.FIXED_RESNET
    variance = known["rmse"] ** 2 - known["mean"] ** 2
    beyond = known["p90"] - known["mean"]
    assert variance / (variance + beyond**2) < 0.1  # Cantelli: fewer than a tenth are as far off as its p90


def test_the_linear_look_up_beats_neighbours_and_uses_no_truth() -> None:
    users = Users(random_users(600, 1), random_users(60, 2), random_users(80, 3))
    found, choice = linear_positions(users, 4)
    error = (found - users.test.position).norm(dim=1)
    nearest_error = (neighbour_positions(users, 4)[0] - users.test.position).norm(dim=1)
    assert error.mean() < 0.9 * nearest_error.mean() and choice.components > 1
    blind = replace(users, test=replace(users.test, position=torch.full_like(users.test.position, torch.nan)))
    assert torch.equal(linear_positions(blind, 4)[0], found)
