"""Positions of users by trained VIn-Loc networks: any number of base stations, any resolution, late clocks.

Nothing here is told a position: what comes in has them blotted out (`hidden`), so that an estimator that used one
would answer with not-a-number.

Shapes: N users, K base stations, S kept ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fronthaul.draws import generator
from sim.learn.draws import torch_generator
from sim.learn.splits import split_positions
from sim.learn.vinloc.data import CirSet, synthesise
from sim.learn.vinloc.model import VinLocModel
from sim.plan.weights import Weights
from sim.world.paths import PathSet, load_paths
from sim.world.scenario import Scenario
from sim.world.store import DATA_FOLDER

SEED = 20
"""Of which base stations are kept of each test user: the same for all methods."""
_BATCH = 100
_TEST = 2
"""Seed under which `data.load_users` synthesises the test part."""


@dataclass(frozen=True)
class Network:
    """A trained model, and the unit of amplitude gain that its responses have (`CirSet.scale`)."""

    model: VinLocModel
    unit: float


def network_of(weights: Weights, tap_s: float) -> Network:
    """Rebuild a model from a weights file, which takes plain channels: its unit is 1."""
    tensors = weights.edge(0)
    cloud = weights.cloud()
    model = VinLocModel(weights.config["embedding"], weights.config["network"], torch.zeros(3), torch.ones(3), tap_s)
    named = {"embedding": tensors, "network": cloud}
    for part, found in named.items():
        own = {name.removeprefix(f"{part}."): value.float() for name, value in found.items() if name.startswith(part)}
        missing, unknown = getattr(model, part).load_state_dict(own, strict=False)
        counters = [name for name in missing if name.endswith("num_batches_tracked")]  # of no use in evaluation
        assert counters == missing and not unknown, f"weights of another kind: {missing}, {unknown}"
    model.centre.copy_(cloud["centre"])
    model.extent.copy_(cloud["extent"])
    return Network(model.eval(), 1.0)


def hidden(users: CirSet) -> CirSet:
    """The users with their positions blotted out."""
    return replace(users, position=torch.full_like(users.position, torch.nan))


def kept_stations(users: int, stations: int, size: int, seed: int = SEED) -> Tensor:
    """Draw which base stations (N, S) of K are kept of each user, ascending; all where there are no more."""
    return random_stations(users, stations, size, torch_generator(seed, "vinloc kept", size))


def random_stations(users: int, stations: int, size: int, draw: torch.Generator) -> Tensor:
    """As `kept_stations`, from a generator."""
    if size >= stations:
        return torch.arange(stations).expand(users, -1)
    return torch.rand(users, stations, generator=draw).argsort(1)[:, :size].sort(1).values


def kept(users: CirSet, stations: Tensor) -> CirSet:
    """The users with these of their base stations (N, S) alone."""
    row = torch.arange(len(users))[:, None]
    chosen = (users.cir[row, stations], users.site[row, stations], users.present[row, stations])
    return CirSet(*chosen, users.position, users.scale)


@torch.inference_mode()
def positions_of(network: Network, users: CirSet, size: int, bits: int = 0) -> Tensor:
    """Position users (N, 3) [m] from `size` base stations each, at random, with values of `bits` (0: float)."""
    model, found = network.model.eval(), []
    chosen = kept_stations(len(users), users.present.shape[1], size)
    for index in torch.arange(len(users)).split(_BATCH):
        made = kept(users[index], chosen[index])
        response = made.response() * (made.scale / network.unit)
        found.append(model(response, made.site, made.present, torch.full((len(index),), bits)))
    return torch.cat(found)


def shuffled(users: CirSet) -> CirSet:
    """Control: everybody has the responses, and the base stations, of another user of the set."""
    order = torch.from_numpy(generator(0, "shuffle").permutation(len(users)))
    heard = torch.empty_like(order)
    heard[order] = order.roll(1)  # one cycle: nobody keeps their own
    return replace(users[heard], position=users.position)


def late_clocks(scenario: Scenario, users: CirSet, sigma_ns: float, folder: Path | None = None) -> CirSet:
    """Test users of a factory, synthesised again with base stations' clocks off.

    Each has an error of its own for each user: Gaussian of deviation `sigma_ns`, truncated at twice that (TR 38.855).

    Args:
        scenario: of the users; its clocks are replaced.
        users: the test part; gives the unit.
        sigma_ns: deviation [ns].
        folder: of the drawn data; default ``data/NAME``.
    """
    clock = replace(scenario.clock, bs_sigma_ns=sigma_ns, bs_limit_sigmas=2.0)
    paths = paths_of_test(scenario, folder or DATA_FOLDER / scenario.data_name)
    if not np.allclose(paths.position, users.position.numpy(), atol=1e-3):
        raise AssertionError("the test users are not those of the path data")
    return synthesise(replace(scenario, clock=clock), paths, users.scale, seed=_TEST)


def paths_of_test(scenario: Scenario, folder: Path) -> PathSet:
    """Paths of the test users of the random split."""
    paths = load_paths(folder / "paths.npz")
    return paths.select(split_positions(scenario, paths.position, "random", paths.user).test)
