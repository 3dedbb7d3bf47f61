"""Evaluation of trained VIn-Loc networks: any number of base stations, any resolution, clock errors.

Estimators are never given true positions: callers replace them by NaN (`hidden`), so that an estimator that used one
would return NaN.

Shapes: N users, K base stations, S kept ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

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

Clock = Literal["stations", "user"]
SEED = 20
"""Seed of the draw of base stations for each test user; the same for all methods."""
_BATCH = 100
_TEST = 2
"""Seed under which `data.load_users` synthesises the test part."""


@dataclass(frozen=True)
class Network:
    """A trained model, and the unit of amplitude gain of the responses that it takes (`CirSet.scale`)."""

    model: VinLocModel
    unit: float


def network_of(weights: Weights, tap_s: float) -> Network:
    """Rebuild a model from a weights file; it takes channels without scaling, so its unit is 1."""
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
    """Return the users with their positions replaced by NaN."""
    return replace(users, position=torch.full_like(users.position, torch.nan))


def kept_stations(users: int, stations: int, size: int, seed: int = SEED) -> Tensor:
    """Draw S = `size` of K base stations (N, S) for each user, ascending; all K if `size` is K or more."""
    return random_stations(users, stations, size, torch_generator(seed, "vinloc kept", size))


def random_stations(users: int, stations: int, size: int, draw: torch.Generator) -> Tensor:
    """Draw as `kept_stations` does, from a given generator."""
    if size >= stations:
        return torch.arange(stations).expand(users, -1)
    return torch.rand(users, stations, generator=draw, device=draw.device).argsort(1)[:, :size].sort(1).values


def kept(users: CirSet, stations: Tensor) -> CirSet:
    """Return the users restricted to the given base stations (N, S)."""
    device = users.cir.device
    row, stations = torch.arange(len(users), device=device)[:, None], stations.to(device)
    chosen = (users.cir[row, stations], users.site[row, stations], users.present[row, stations])
    return CirSet(*chosen, users.position, users.scale)


@torch.inference_mode()
def positions_of(network: Network, users: CirSet, size: int, bits: int = 0) -> Tensor:
    """Return positions (N, 3) [m] from `size` random base stations of each user, with values of `bits` (0: float)."""
    model, found = network.model.eval(), []
    chosen = kept_stations(len(users), users.present.shape[1], size)
    for index in torch.arange(len(users)).split(_BATCH):
        made = kept(users[index], chosen[index])
        response = made.response() * (made.scale / network.unit)
        found.append(model(response, made.site, made.present, torch.full((len(index),), bits)))
    return torch.cat(found)


def shuffled(users: CirSet) -> CirSet:
    """Give every user the responses and base stations of another user of the set, as a control."""
    order = torch.from_numpy(generator(0, "shuffle").permutation(len(users)))
    heard = torch.empty_like(order)
    heard[order] = order.roll(1)  # one cycle: nobody keeps their own
    return replace(users[heard], position=users.position)


def late_clocks(scenario: Scenario, users: CirSet, sigma_ns: float, whose: Clock = "stations") -> CirSet:
    """Synthesise the test users of a factory again, with Gaussian clock errors of standard deviation `sigma_ns` [ns].

    Those of ``stations`` are independent for each user and base station, and truncated at twice the standard deviation
    (TR 38.855); the ``user``'s is one for all base stations. Arguments as of `again`.
    """
    if whose == "user":
        clock = replace(scenario.clock, ue_bias_ns=sigma_ns)
    else:
        clock = replace(scenario.clock, bs_sigma_ns=sigma_ns, bs_limit_sigmas=2.0)
    return again(replace(scenario, clock=clock), users)


def noisy(scenario: Scenario, users: CirSet, snr_db: float) -> CirSet:
    """Synthesise the test users of a factory again, with white noise `snr_db` below the mean power of each link."""
    return again(replace(scenario, link_budget=replace(scenario.link_budget, noise="snr", snr_db=snr_db)), users)


def again(scenario: Scenario, users: CirSet, folder: Path | None = None) -> CirSet:
    """Synthesise the test users of a factory again, for a variant of its scenario.

    Args:
        scenario: scenario of the users with other clocks or noise.
        users: the test users; they define the unit.
        folder: folder of the drawn path data; default ``data/NAME``.
    """
    paths = paths_of_test(scenario, folder or DATA_FOLDER / scenario.data_name)
    if not np.allclose(paths.position, users.position.numpy(), atol=1e-3):
        raise AssertionError("the test users are not those of the path data")
    return synthesise(scenario, paths, users.scale, seed=_TEST)


def paths_of_test(scenario: Scenario, folder: Path) -> PathSet:
    """Load the paths of the test users of the random split."""
    paths = load_paths(folder / "paths.npz")
    return paths.select(split_positions(scenario, paths.position, "random", paths.user).test)
