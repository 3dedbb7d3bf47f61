"""Baselines of VIn-Loc beside ResNet fingerprinting: look-ups of fingerprints, and the prior mean.

Neighbours are found by magnitudes of impulse responses, over the base stations that the test user (15 of 18 kept, for
example) and the training user have in common. Phases do not identify neighbours: they turn within a wavelength.

Shapes: Q query users, T training users, K base stations, L delays.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from sim.learn.fingerprints import linear_fit
from sim.learn.vinloc.data import CirSet, Users
from sim.learn.vinloc.evaluate import hidden, kept_stations

Compression = Literal["square root", "fourth root", "logarithm"]
NEIGHBOURS = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30)
LINEAR_NEIGHBOURS = (8, 12, 18, 30, 60, 120)
COMPONENTS = (2, 4, 8, 16)
"""Principal components of a base station's fingerprints, for the local linear regression."""
RIDGES = (0.1, 1.0, 3.0, 10.0, 30.0)
_FLOOR = 1e-3
"""Floor of the logarithm, relative to the root mean square of a tap: −60 dB."""
_CHUNK = 250


@dataclass(frozen=True)
class Choice:
    """Choices made on validation users: how magnitudes are compressed, and the number of neighbours."""

    compression: Compression
    neighbours: int


@dataclass(frozen=True)
class LinearChoice(Choice):
    """As `Choice`, and the number of components of a base station, and the ridge (`sim.learn.fingerprints`)."""

    components: int
    ridge: float


def fingerprints(users: CirSet, compression: Compression) -> Tensor:
    """Return compressed magnitudes (N, K, A L); zero where a link has no path."""
    made = torch.empty(*users.cir.shape[:2], users.cir[0, 0].numel() // 2)
    for index in torch.arange(len(users)).split(1000):
        magnitude = torch.view_as_complex(users.cir[index].float()).abs().flatten(2)
        if compression == "logarithm":
            made[index] = torch.log10(magnitude.clamp_min(_FLOOR) / _FLOOR)
        else:
            made[index] = magnitude.pow(0.5 if compression == "square root" else 0.25)
    return made * users.present[..., None]


def masked_distances(query: Tensor, queried: Tensor, table: Tensor, there: Tensor) -> Tensor:
    """Return root mean square distances (Q, T) over the base stations that both have; infinite if there are none.

    Args:
        query: fingerprints (Q, K, D), zero where `queried` is False.
        queried: (Q, K) bool.
        table: fingerprints (T, K, D), zero where `there` is False.
        there: (T, K) bool.
    """
    shared = queried.float() @ there.float().T
    square = query.square().sum(2) @ there.float().T + queried.float() @ table.square().sum(2).T
    square -= 2 * query.flatten(1) @ table.flatten(1).T
    return torch.where(shared > 0, square.clamp_min(0) / shared.clamp_min(1), torch.inf).sqrt()


@torch.inference_mode()
def nearest(
    query: Tensor, queried: Tensor, table: Tensor, there: Tensor, position: Tensor, counts: list[int]
) -> dict[int, Tensor]:
    """Return positions (Q, 3) [m] for each number of neighbours in `counts`, weighted by 1 / distance.

    Args:
        query: see `masked_distances`, as for the next three.
        queried: see `masked_distances`.
        table: see `masked_distances`.
        there: see `masked_distances`.
        position: positions (T, 3) [m] of the table's users.
        counts: numbers of neighbours.
    """
    found: dict[int, list[Tensor]] = {k: [] for k in counts}
    for index in torch.arange(len(query)).split(_CHUNK):
        apart = masked_distances(query[index], queried[index], table, there)
        distance, place = apart.topk(max(counts), largest=False)
        weight = torch.where(distance.isfinite(), 1 / distance.clamp_min(1e-6), 0.0)
        for k in counts:
            total = weight[:, :k].sum(1, keepdim=True)
            mean = (position[place[:, :k]] * weight[:, :k, None]).sum(1) / total
            found[k].append(torch.where(total > 0, mean, position.mean(0)))  # no common base station: the mean
    return {k: torch.cat(parts) for k, parts in found.items()}


def neighbour_positions(users: Users, size: int) -> tuple[Tensor, Choice]:
    """Return positions (N, 3) [m] of the test users from `size` random base stations each, and the choices made."""
    best, chosen = float("inf"), Choice("square root", 1)
    counts = [k for k in NEIGHBOURS if k <= len(users.train)]
    for compression in get_args(Compression):
        table = fingerprints(users.train, compression)
        query, queried = _kept(users.validation, size, compression)
        tried = nearest(query, queried, table, users.train.present, users.train.position, counts)
        for k, estimate in tried.items():
            error = float((estimate - users.validation.position).norm(dim=1).mean())
            if error < best:
                best, chosen = error, Choice(compression, k)
    table = fingerprints(users.train, chosen.compression)
    query, queried = _kept(hidden(users.test), size, chosen.compression)
    found = nearest(query, queried, table, users.train.present, users.train.position, [chosen.neighbours])
    return found[chosen.neighbours], chosen


@torch.inference_mode()
def linear_positions(users: Users, size: int) -> tuple[Tensor, LinearChoice]:
    """Return positions (N, 3) [m] of the test users by local linear regression, and the choices made.

    Neighbours and compression are those of `neighbour_positions`; the regression is on the leading principal components
    of each base station's fingerprints, over the base stations that the user has.
    """
    compression = neighbour_positions(users, size)[1].compression
    table = fingerprints(users.train, compression)
    centre, axes = _principal(table, max(COMPONENTS))
    counts = [k for k in LINEAR_NEIGHBOURS if k <= len(users.train)] or [len(users.train)]
    leading = torch.einsum("nkd,kdc->nkc", table - centre, axes)

    def looked_up(some: CirSet) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        query, queried = _kept(some, size, compression)
        near = [
            masked_distances(query[index], queried[index], table, users.train.present).topk(max(counts), largest=False)
            for index in torch.arange(len(query)).split(_CHUNK)
        ]
        own = torch.einsum("nkd,kdc->nkc", query - centre, axes) * queried[..., None]
        return own, queried, torch.cat([one.values for one in near]), torch.cat([one.indices for one in near])

    def fitted(found: tuple[Tensor, Tensor, Tensor, Tensor], components: int, k: int, ridge: float) -> Tensor:
        parts = []
        for index in torch.arange(len(found[0])).split(max(1, _CHUNK * 100 // k)):
            own, queried, distance, place = (one[index] for one in found)
            near = leading[place[:, :k], :, :components] * queried[:, None, :, None]
            apart = distance[:, :k].nan_to_num(posinf=1e9)
            position = users.train.position[place[:, :k]]
            parts.append(linear_fit(own[..., :components].flatten(1), near.flatten(2), apart, position, ridge))
        return torch.cat(parts)

    seen, best, chosen = looked_up(users.validation), float("inf"), LinearChoice(compression, 1, 1, 0.0)
    for components, k, ridge in itertools.product(COMPONENTS, counts, RIDGES):
        error = float((fitted(seen, components, k, ridge) - users.validation.position).norm(dim=1).mean())
        if error < best:
            best, chosen = error, LinearChoice(compression, k, components, ridge)
    found = fitted(looked_up(hidden(users.test)), chosen.components, chosen.neighbours, chosen.ridge)
    return found.float(), chosen


def _principal(table: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the mean (K, D) of fingerprints (N, K, D) and each base station's leading directions (K, D, count)."""
    some = table[:: max(1, len(table) // 4000)]
    centre = some.mean(0)
    spread = torch.einsum("nkd,nke->kde", some - centre, some - centre)
    return centre, torch.linalg.eigh(spread).eigenvectors[..., -count:].flip(-1)  # ascending


def _kept(users: CirSet, size: int, compression: Compression) -> tuple[Tensor, Tensor]:
    """Return fingerprints with random base stations kept, and which base stations have one."""
    stations = users.present.shape[1]
    keep = torch.zeros(len(users), stations, dtype=torch.bool)
    keep.scatter_(1, kept_stations(len(users), stations, size), True)
    queried = keep & users.present
    return fingerprints(users, compression) * queried[..., None], queried


def prior_positions(users: Users) -> Tensor:
    """Return the mean training position (N, 3) [m] for every test user: an estimate without information."""
    return users.train.position.mean(0).expand(len(users.test), 3)
