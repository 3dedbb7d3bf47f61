"""Indoor factory channels of 3GPP TR 38.901 (InF), drawn spatially consistent over all users, on any device.

Steps 4 to 11 of Sec. 7.5 for links without line of sight, for isotropic, vertically polarised antennas: of a path only
gain, phase and delay matter, so that angles and cross-polarisation are not drawn. With N users, C = 25 clusters and
R = 20 rays, a link's channel is a function of standard normal fields over the users:

    DS, SF          one field each      delay spread, shadowing                       Table 7.5-6
    τ_n             C                   cluster delays −r_τ DS ln U, less the least   Eq. 7.5-1, 7.5-2
    P_n             C                   e^{−τ_n (r_τ − 1)/(r_τ DS)} 10^{−Z_n/10}      Eq. 7.5-5, 7.5-6
    Φ_nm            C·R                 initial phases                                Step 10, Sec. 7.6.3.1

Clusters more than 25 dB below the strongest are dropped; the two strongest are split into three (Table 7.5-5). In InF
all these fields have one correlation distance, 10 m, so that one matrix factor L of exp(−d/10 m) serves them all:
F = L W with white W. U and Φ are the fields' cumulative probabilities.

*Absolute time of arrival* (Sec. 7.6.9): every path is delayed by d/c and by an excess Δτ: lg(Δτ / 1 s) ~ N(−7.5, 0.4)
for InF-DH, correlated over 11 m, independent between sites, at most 2L/c with L the hall's largest dimension. Without
it every link would start at delay 0.

All links are without line of sight, as in the VIn-Loc paper (InF-DH in this hall has line of sight on 1 % of links).
Tests compare with Sionna PHY at equal noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fronthaul.draws import generator
from sim.errors import UserError
from sim.world.deployment import Factory
from sim.world.paths import PathSet, join_sites, load_paths, rounded
from sim.world.scenario import SPEED_OF_LIGHT, Scenario

CORRELATION_M = 10.0
"""Correlation distance of all fields of links without line of sight [m], TR 38.901 Table 7.5-6."""
CLUSTERS, RAYS = 25, 20
_DELAY_SCALING = 3.0  # r_τ, Table 7.5-6, as the following
_DELAY_SPREAD_SIGMA = 0.19  # of lg(DS / 1 s)
_CLUSTER_SHADOWING_DB = 3.0
_CLUSTER_SPREAD_S = 3.91e-9
_WEAKEST = 10**-2.5  # of a cluster, relative to the strongest
_SUBCLUSTERS = ((*range(8), 18, 19), (8, 9, 10, 11, 16, 17), (12, 13, 14, 15))  # rays of each, Table 7.5-5
_SUBCLUSTER_DELAYS = (0.0, 1.28, 2.56)  # in units of the cluster's spread
# Level and slope per decade of the path loss at 1 m and 1 GHz [dB], and its shadowing [dB]. Table 7.4.1-1.
_LINE_OF_SIGHT = (31.84, 21.5, 19.0)
_PATH_LOSS = {"SL": (33.0, 25.5, 5.7), "DL": (18.6, 35.7, 7.2), "SH": (32.4, 23.0, 5.9), "DH": (33.63, 21.9, 4.0)}
# White noise is drawn as Sionna PHY 2.2 does for seven large-scale parameters, delays, powers, four angles and phases,
# so that a hall's channels are those that earlier versions drew with it; angles' noise is dropped.
_DRAWN = (7, CLUSTERS, CLUSTERS, *(4 * [CLUSTERS]), CLUSTERS * RAYS)
_SPREAD, _SHADOWING = 0, 3  # among the large-scale parameters
_FACTOR_BLOCK = 4096
_USERS_AT_ONCE = 5000
_DELAY_UNIT_S = 2.0**-40  # 0.9 ps, 0.3 mm


@dataclass(frozen=True)
class FactoryLinks:
    """Channels of N users to K sites, P paths per link; absent paths have gain 0.

    `gain` (N, K, P) complex64, without the carrier's propagation phase; `delay_s` (N, K, P) float32 [s]; `position`
    (N, 3) [m].
    """

    gain: Tensor
    delay_s: Tensor
    position: npt.NDArray[np.float64]


def draw_factory(
    scenario: Scenario, folder: Path, on_progress: Callable[[int, int], None] = lambda *_: None
) -> PathSet:
    """Draw the channels of all users to all sites; an interrupted draw resumes from the finished sites in `folder`.

    Args:
        scenario: with `factory`; `tracing.positions` users are drawn in `users`, the seed is `tracing.seed`.
        folder: holds one file per site.
        on_progress: called with the number of finished sites and of all sites.

    Raises:
        UserError: the folder holds another scenario's files.
    """
    digest = scenario.tracing_digest()
    count = scenario.tracing.positions
    hall: Hall | None = None
    parts: list[PathSet] = []
    for site in range(len(scenario.sites)):
        path = folder / f"site-{site:02d}-of-{count}.npz"
        if path.is_file():
            part = load_paths(path)
            if part.digest != digest:
                raise UserError(f"{folder} holds channels of another scenario; name another folder or remove it.")
        else:
            hall = hall or Hall(scenario)
            part = replace(as_path_set(hall.users, *hall.links(site)), digest=digest)
            part.save(path)
        parts.append(part)
        on_progress(site + 1, len(scenario.sites))
    return join_sites(parts)


def draw_links(scenario: Scenario, device: torch.device, further: int = 0) -> FactoryLinks:
    """Draw the channels of all users on a device, `further` ones last; the first are those of `draw_factory`.

    Needs memory for a matrix between all users: 14 GB for 60 000.
    """
    hall = Hall(scenario, device, further)
    gain, delay_s = zip(*(hall.links(site) for site in range(len(scenario.sites))), strict=True)
    return FactoryLinks(torch.stack(gain, 1), torch.stack(delay_s, 1), hall.users)


class Hall:
    """The users of an indoor factory and the random fields over them.

    Attributes:
        users: positions (N, 3) [m].
    """

    def __init__(self, scenario: Scenario, device: torch.device | None = None, further: int = 0) -> None:
        """Draw users, `further` ones beyond the scenario's last, and factorise the correlation between all."""
        self._scenario, self._device, self._further = scenario, device or torch.device("cpu"), further
        self.users = factory_users(scenario, further)
        self._excess_s = self._excess_delays()
        self._factor = correlation_factor(self.users, CORRELATION_M, self._device)

    def links(self, site: int) -> tuple[Tensor, Tensor]:
        """Draw the gains (N, P) complex64 and delays (N, P) float32 [s] of all users to a site."""
        kept = [part for n, part in enumerate(self._white("factory fields", site, _DRAWN)) if not 3 <= n < 7]
        fields = (self._factor @ torch.cat(kept, 1)).split([part.shape[1] for part in kept], 1)
        away = self.users - np.array(self._scenario.sites[site].position)
        distance_m = torch.from_numpy(np.linalg.norm(away, axis=1)).to(self._device)
        made = [
            link_channels(self._scenario, distance_m[rows], [field[rows] for field in fields])
            for rows in torch.arange(len(self.users), device=self._device).split(_USERS_AT_ONCE)
        ]
        gain, after_first_s = (torch.cat(parts) for parts in zip(*made, strict=True))
        first_s = distance_m / SPEED_OF_LIGHT + self._excess_s[:, site]
        delay_s = after_first_s.double() + first_s[:, None]
        return gain, (torch.round(delay_s / _DELAY_UNIT_S) * _DELAY_UNIT_S).float()

    def _excess_delays(self) -> Tensor:
        """Draw excess delays Δτ (N, K) float64 [s]."""
        own = self._scenario.factory
        assert own is not None
        (white,) = self._white("factory excess", 0, [len(self._scenario.sites)])
        return excess_delay_s(own, correlation_factor(self.users, own.excess_distance_m, self._device) @ white)

    def _white(self, stream: str, site: int, columns: Sequence[int]) -> list[Tensor]:
        """Draw white noise (N, c) for each c of `columns`; that of further users with the device's own generator."""
        seed, device = self._scenario.tracing.seed, self._device
        draw = torch.Generator().manual_seed(_key(seed, stream, site))
        count = len(self.users) - self._further
        white = [torch.randn(count, width, generator=draw).to(device) for width in columns]
        if self._further:
            draw = torch.Generator(device).manual_seed(_key(seed, f"{stream}, further users", site))
            more = (torch.randn(self._further, width, generator=draw, device=device) for width in columns)
            white = [torch.cat(pair) for pair in zip(white, more, strict=True)]
        return white


def factory_users(scenario: Scenario, further: int = 0) -> npt.NDArray[np.float64]:
    """Return positions (N, 3) [m] of users, uniform in the scenario's box, rounded to single precision.

    The scenario's `tracing.positions` come first, then `further` ones, which are no part of its data set.
    """
    box = scenario.users
    drawn = [
        generator(scenario.tracing.seed, stream).uniform(box.low, box.high, (count, 3))
        for stream, count in (("factory users", scenario.tracing.positions), ("further factory users", further))
    ]
    return np.concatenate(drawn).astype(np.float32).astype(np.float64)


def correlation_factor(users: npt.NDArray[np.float64], distance_m: float, device: torch.device | None = None) -> Tensor:
    """Return the lower Cholesky factor L (N, N) float32 of the correlation between users (N, 3) [m].

    The correlation is exp(−d/D), TR 38.901 Eq. 7.4-5, with d the horizontal distance. 1e-6 is added to the diagonal,
    since users a millimetre apart make the matrix nearly singular.
    """
    flat = torch.from_numpy(users[:, :2]).to(device)
    factor = torch.empty(len(users), len(users), device=device)
    blocks = [slice(first, first + _FACTOR_BLOCK) for first in range(0, len(users), _FACTOR_BLOCK)]
    for rows in blocks:  # in pieces: double precision for all at once is another 3 GB for 20 000 users
        factor[rows] = torch.exp(-torch.cdist(flat[rows], flat) / distance_m).float()
    factor.diagonal().add_(1e-6)
    # In place, by blocks: at 20 000 users the matrix is 1.6 GB, and libraries' own factorisations work on copies.
    for n, block in enumerate(blocks):
        own = factor[block, block] = torch.linalg.cholesky(factor[block, block])
        for rows in blocks[n + 1 :]:
            factor[rows, block] = torch.linalg.solve_triangular(own.mT, factor[rows, block], upper=True, left=False)
            factor[block, rows] = 0.0
        for number, rows in enumerate(blocks[n + 1 :], n + 1):
            for columns in blocks[n + 1 : number + 1]:
                factor[rows, columns].addmm_(factor[rows, block], factor[columns, block].mT, alpha=-1.0)
    return factor


def excess_delay_s(factory: Factory, field: Tensor) -> Tensor:
    """Return excess delays Δτ [s] of links without line of sight from standard normal fields. TR 38.901 Sec. 7.6.9.

    Log-normal, and bounded by 2L/c with L the hall's largest dimension.
    """
    log = factory.excess_mean_log10_s + factory.excess_sigma_log10 * field
    longest_m = max(factory.length_m, factory.width_m, factory.height_m)
    return torch.pow(10.0, log.double()).clamp_max(2 * longest_m / SPEED_OF_LIGHT)


def link_channels(scenario: Scenario, distance_m: Tensor, fields: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return a site's channels to users without line of sight, in order of delay. TR 38.901 Sec. 7.5, steps 4 to 11.

    Args:
        scenario: hall and carrier.
        distance_m: (N,) distances [m].
        fields: standard normal fields over the users: seven large-scale parameters (N, 7), of which the first is the
            delay spread's and the fourth the shadowing's; delays (N, C); powers (N, C); phases (N, C·R).

    Returns:
        Gains (N, P) complex64 and delays (N, P) [s] after the first path. Dropped clusters have gain 0.
    """
    own = scenario.factory
    assert own is not None
    large, delays, powers, phases = fields
    length, width, height = own.length_m, own.width_m, own.height_m
    ratio_m = length * width * height / (2 * (length * width + length * height + width * height))
    spread_s = 10 ** (math.log10(30 * ratio_m + 32) - 9.44 + _DELAY_SPREAD_SIGMA * large[:, _SPREAD, None])
    chance = _probability(delays) * (1 - 1e-6) + 1e-6
    delay_s = -_DELAY_SCALING * spread_s * torch.log(chance)  # Eq. 7.5-1
    delay_s = delay_s - delay_s.amin(1, keepdim=True)  # Eq. 7.5-2
    falling = torch.exp(-delay_s * (_DELAY_SCALING - 1) / (_DELAY_SCALING * spread_s))
    power = falling * 10 ** (-_CLUSTER_SHADOWING_DB * powers / 10)  # Eq. 7.5-5
    power = power / power.sum(1, keepdim=True)  # Eq. 7.5-6
    power = torch.where(power >= _WEAKEST * power.amax(1, keepdim=True), power, 0.0)
    phase = 2 * math.pi * _probability(phases).unflatten(1, (CLUSTERS, RAYS)) - math.pi
    ray = torch.polar((power[..., None] / RAYS).sqrt().expand_as(phase), phase)  # Eq. 7.5-22
    strongest = power.topk(2).indices
    apart = ray.gather(1, strongest[..., None].expand(-1, -1, RAYS))
    split = torch.stack([apart[..., list(rays)].sum(-1) for rays in _SUBCLUSTERS], -1)  # Eq. 7.5-28
    after_s = torch.tensor(_SUBCLUSTER_DELAYS, device=power.device) * _CLUSTER_SPREAD_S
    whole = torch.ones_like(power).scatter(1, strongest, 0.0)
    gain = torch.cat([ray.sum(-1) * whole, split.flatten(1)], 1)
    delay_s = torch.cat([delay_s, (delay_s.gather(1, strongest)[..., None] + after_s).flatten(1)], 1)
    shadowing_db = _PATH_LOSS[own.kind][2] * large[:, _SHADOWING]
    gain = gain * (10 ** ((shadowing_db - path_loss_db(scenario, distance_m).float()) / 20))[:, None]
    order = delay_s.argsort(dim=1, stable=True)  # a split cluster's place and its first part have the same delay
    return gain.gather(1, order), delay_s.gather(1, order)


def path_loss_db(scenario: Scenario, distance_m: Tensor) -> Tensor:
    """Return the path loss [dB] without line of sight at distances (N,) [m]. TR 38.901 Table 7.4.1-1."""
    assert scenario.factory is not None
    decades, carrier = distance_m.log10(), math.log10(scenario.numerology.carrier_hz / 1e9)
    level, slope, of_carrier = _LINE_OF_SIGHT
    loss_db = level + slope * decades + of_carrier * carrier
    # Never below that with line of sight; "DL" never below "SL" either.
    for kind in {"SL", scenario.factory.kind} if scenario.factory.kind == "DL" else {scenario.factory.kind}:
        level, slope, _ = _PATH_LOSS[kind]
        loss_db = torch.maximum(loss_db, level + slope * decades + 20 * carrier)
    return loss_db


def _probability(field: Tensor) -> Tensor:
    """Return the cumulative probabilities of standard normal fields, strictly between 0 and 1."""
    least = torch.finfo(field.dtype).eps
    return (0.5 * torch.erfc(-field / math.sqrt(2))).clamp(least, 1 - least)


def as_path_set(users: npt.NDArray[np.float64], gain: Tensor, delay_s: Tensor) -> PathSet:
    """Return one site's channels as paths."""
    valid = (gain != 0).numpy()
    matrix = np.zeros((int(valid.sum()), 2, 2), np.complex64)
    matrix[:, 0, 0] = rounded(gain.numpy()[valid])
    paths = len(matrix)
    return PathSet(
        position=users,
        offset=np.concatenate([[0], np.cumsum(valid.sum(1))]).astype(np.int64),
        matrix=matrix,
        delay=delay_s.numpy()[valid],
        site_angle=np.zeros((paths, 2), np.float32),
        user_angle=np.zeros((paths, 2), np.float32),
        bounces=np.ones(paths, np.uint8),
        mirror=np.zeros((0, 4), np.float32),
    )


def _key(seed: int, stream: str, site: int) -> int:
    return int(generator(seed, stream, site).integers(2**62))
