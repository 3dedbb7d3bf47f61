"""Indoor factory channels of 3GPP TR 38.901 (InF): drawn with Sionna PHY, spatially consistent over all users.

Sionna PHY draws large-scale parameters, clusters and rays; what it lacks or cannot do at this size is added here:

- *Consistency over tens of thousands of users.* Sionna filters every random field with a matrix over the users of one
  call, and draws fresh fields at the next call. In InF all fields of links without line of sight have one correlation
  distance, 10 m (Table 7.5-6), so that one matrix factor L of exp(−d/10 m) serves them all. Fields are drawn here
  for all users at once, F = L W, and handed to Sionna call by call (`_Fields`).
- *Absolute time of arrival* (Sec. 7.6.9): every path is delayed by d/c and, where there is no line of sight, by an
  excess Δτ: lg(Δτ / 1 s) ~ N(−7.5, 0.4) for InF-DH, correlated over 11 m, independent between sites, at most 2L/c
  with L the hall's largest dimension. Without it every link would start at delay 0.

All links are without line of sight, as in the VIn-Loc paper (InF-DH in this hall has line of sight on 1 % of links).
Antennas are isotropic and vertically polarised, so that only gain, phase and delay of a path matter. Sionna's own
fields of angles and cross-polarisation are therefore kept as they are; they do not affect the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

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
_USERS_PER_CALL = 1000
_DELAY_UNIT_S = 2.0**-40  # 0.9 ps, 0.3 mm


def draw_factory(
    scenario: Scenario, folder: Path, on_progress: Callable[[int, int], None] = lambda *_: None
) -> PathSet:
    """Draw the channels of all users to all sites; an interrupted draw resumes from the finished sites in `folder`.

    Args:
        scenario: with `factory`; `tracing.positions` users are drawn in `users`, the seed is `tracing.seed`.
        folder: holds one file per site.
        on_progress: called with the number of finished sites and of all sites.

    Raises:
        UserError: Sionna PHY is missing, or the folder holds another scenario's files.
    """
    digest = scenario.tracing_digest()
    count = scenario.tracing.positions
    users = factory_users(scenario)
    fields: Tensor | None = None
    parts: list[PathSet] = []
    for site in range(len(scenario.sites)):
        path = folder / f"site-{site:02d}-of-{count}.npz"
        if path.is_file():
            part = load_paths(path)
            if part.digest != digest:
                raise UserError(f"{folder} holds channels of another scenario; name another folder or remove it.")
        else:
            if fields is None:
                excess = _excess_delays(scenario, users)
                fields = correlation_factor(users, CORRELATION_M)
            part = replace(_draw_site(scenario, site, users, fields, excess[:, site]), digest=digest)
            part.save(path)
        parts.append(part)
        on_progress(site + 1, len(scenario.sites))
    return join_sites(parts)


def factory_users(scenario: Scenario) -> npt.NDArray[np.float64]:
    """Return positions (N, 3) [m] of the scenario's users, uniform in its box, rounded to single precision."""
    draw = generator(scenario.tracing.seed, "factory users")
    drawn = draw.uniform(scenario.users.low, scenario.users.high, (scenario.tracing.positions, 3))
    return drawn.astype(np.float32).astype(np.float64)


def correlation_factor(users: npt.NDArray[np.float64], distance_m: float) -> Tensor:
    """Return the lower Cholesky factor L (N, N) float32 of the correlation between users (N, 3) [m].

    The correlation is exp(−d/D), TR 38.901 Eq. 7.4-5, with d the horizontal distance. 1e-6 is added to the diagonal,
    since users a millimetre apart make the matrix nearly singular.
    """
    flat = torch.from_numpy(users[:, :2])
    correlation = torch.empty(len(users), len(users))
    for rows in torch.arange(len(users)).split(2000):  # in pieces: double precision for all at once is another 3 GB
        correlation[rows] = torch.exp(-torch.cdist(flat[rows], flat) / distance_m).float()
    correlation.diagonal().add_(1e-6)
    # In place: at 20 000 users the matrix is 1.6 GB.
    torch.linalg.cholesky(correlation, out=correlation)
    return correlation


def excess_delay_s(factory: Factory, field: Tensor) -> Tensor:
    """Return excess delays Δτ [s] of links without line of sight from standard normal fields. TR 38.901 Sec. 7.6.9.

    Log-normal, and bounded by 2L/c with L the hall's largest dimension.
    """
    log = factory.excess_mean_log10_s + factory.excess_sigma_log10 * field
    longest_m = max(factory.length_m, factory.width_m, factory.height_m)
    return torch.pow(10.0, log.double()).clamp_max(2 * longest_m / SPEED_OF_LIGHT)


def _excess_delays(scenario: Scenario, users: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Draw excess delays Δτ (N, K) [s]."""
    assert scenario.factory is not None
    draw = _torch_draw(scenario.tracing.seed, "factory excess", 0)
    white = torch.randn(len(users), len(scenario.sites), generator=draw)
    field = correlation_factor(users, scenario.factory.excess_distance_m) @ white
    found: npt.NDArray[np.float64] = excess_delay_s(scenario.factory, field).numpy()
    return found


class _Fields:
    """Correlated standard normal fields over all users, in the order in which Sionna requests them.

    All calls share the same fields; each call gets the rows of its users.
    """

    def __init__(self, factor: Tensor, draw: torch.Generator) -> None:
        self._factor = factor
        self._draw = draw
        self._fields: list[Tensor] = []
        self._users = torch.zeros(0, dtype=torch.long)
        self._next = 0

    def begin(self, users: Tensor) -> None:
        """Begin a call for these users."""
        self._users, self._next = users, 0

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """Return the next field (users of this call, *shape)."""
        if self._next == len(self._fields):
            white = self.white(math.prod(shape))
            self._fields.append((self._factor @ white).reshape(-1, *shape))
        self._next += 1
        return self._fields[self._next - 1][self._users]

    def white(self, columns: int) -> Tensor:
        """Return independent standard normal draws (N, columns)."""
        return torch.randn(len(self._factor), columns, generator=self._draw)


class _SpatialFilter:
    """Replacement for Sionna's correlation factors of large-scale parameters: s @ filter returns the next field."""

    def __init__(self, fields: _Fields) -> None:
        self._fields = fields

    def transpose(self, *_: int) -> _SpatialFilter:
        return self

    @classmethod
    def __torch_function__(cls, function: Any, _: Any, args: tuple[Any, ...], __: Any = None) -> Tensor:
        white, own = args
        if function is not torch.matmul:
            raise TypeError(f"Sionna applies {function} to its spatial filter; this version is not known here")
        assert white.shape[:2] == (1, 1) and white.shape[3] == 1  # (batch, site, parameter, 1, user)
        field: Tensor = own._fields.take((white.shape[2],))
        return field.T[None, None, :, None, :]


class FactoryChannel:
    """Sionna's InF channel of one site, with its random fields replaced by those of `_Fields`."""

    def __init__(self, scenario: Scenario, fields: _Fields) -> None:
        self._scenario, self._fields = scenario, fields
        self._model = model = sionna_model(scenario)
        lsp, rays = model._lsp_sampler, model._ray_sampler
        own = _SpatialFilter(fields)
        lsp._compute_lsp_spatial_correlation_sqrt = lambda: setattr(lsp, "_spatial_lsp_correlation_matrix_sqrt", own)
        rays._compute_spatial_consistency_matrix_sqrt = lambda: None
        rays._compute_spatial_sign_consistency_matrix_sqrt = lambda: None
        rays._apply_spatial_consistency = self._filtered

    def _filtered(self, samples: Tensor, use_sign_matrix: bool = False) -> Tensor:
        """Replace Sionna's white samples (1, 1, user, cluster, …) by a field where they affect the result."""
        shape = tuple(samples.shape[3:])
        if use_sign_matrix or len(shape) == 2:  # signs and coupling of angles, cross-polarisation: see the module
            return samples
        if len(shape) == 3:  # initial phases (cluster, ray, polarisations): vertical to vertical is the first
            samples[..., 0] = self._fields.take(shape[:2])[None, None]
            return samples
        return self._fields.take(shape)[None, None]

    def paths(self, site: int, users: npt.NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """Return gains (users, P) complex64 and delays (users, P) [s] after the first path; absent paths: gain 0."""
        _set_topology(self._model, self._scenario.sites[site].position, users)
        gain, delay = self._model(1, 1.0)
        return gain.reshape(len(users), -1), delay.reshape(len(users), -1)


def sionna_model(scenario: Scenario) -> Any:
    """Return Sionna PHY's InF channel with the scenario's hall, vertical isotropic antennas, uplink.

    Raises:
        UserError: Sionna PHY is not installed.
    """
    try:
        from sionna.phy.channel.tr38901 import InF, PanelArray
    except ImportError as error:
        raise UserError("Indoor factory channels need Sionna PHY: `pip install -e '.[trace]'`.") from error
    factory, carrier_hz = scenario.factory, scenario.numerology.carrier_hz
    assert factory is not None

    def antenna() -> Any:
        return PanelArray(
            num_rows_per_panel=1, num_cols_per_panel=1, polarization="single", polarization_type="V",
            antenna_pattern="omni", carrier_frequency=carrier_hz, device="cpu",
        )  # fmt: skip

    return InF(
        carrier_hz, antenna(), antenna(), "uplink",
        factory_scenario=factory.kind,
        hall_dimensions=(factory.length_m, factory.width_m, factory.height_m),
        clutter_density=factory.clutter_density,
        clutter_size=factory.clutter_size_m,
        clutter_height=factory.clutter_height_m,
        enable_spatial_consistency=True,
        precision="single",
        device="cpu",
    )  # fmt: skip


def _set_topology(model: Any, site: tuple[float, float, float], users: npt.NDArray[np.float64]) -> None:
    place = torch.from_numpy(users).float()[None]
    still = torch.zeros(1, len(users), 3)
    model.reset_topology()
    model.set_topology(
        place, torch.tensor([[site]]), still, torch.zeros(1, 1, 3), still,
        torch.ones(1, len(users), dtype=torch.bool), False,
    )  # fmt: skip


def _draw_site(
    scenario: Scenario, site: int, users: npt.NDArray[np.float64], factor: Tensor, excess_s: npt.NDArray[np.float64]
) -> PathSet:
    """Draw one site's paths to all users (N, 3), with the excess delays (N,) [s]."""
    fields = _Fields(factor, _torch_draw(scenario.tracing.seed, "factory fields", site))
    channel = FactoryChannel(scenario, fields)
    made = []
    for rows in torch.arange(len(users)).split(_USERS_PER_CALL):
        fields.begin(rows)
        made.append(channel.paths(site, users[rows.numpy()]))
    gain, delay = (torch.cat(parts).numpy() for parts in zip(*made, strict=True))
    distance_m = np.linalg.norm(users - np.array(scenario.sites[site].position), axis=1)
    delay_s = delay.astype(np.float64) + (distance_m / SPEED_OF_LIGHT + excess_s)[:, None]
    valid = gain != 0  # absent clusters stand near 1 s
    matrix = np.zeros((int(valid.sum()), 2, 2), np.complex64)
    matrix[:, 0, 0] = rounded(gain[valid])
    paths = len(matrix)
    return PathSet(
        position=users,
        offset=np.concatenate([[0], np.cumsum(valid.sum(1))]).astype(np.int64),
        matrix=matrix,
        delay=(np.rint(delay_s[valid] / _DELAY_UNIT_S) * _DELAY_UNIT_S).astype(np.float32),
        site_angle=np.zeros((paths, 2), np.float32),
        user_angle=np.zeros((paths, 2), np.float32),
        bounces=np.ones(paths, np.uint8),
        mirror=np.zeros((0, 4), np.float32),
    )


def _torch_draw(seed: int, stream: str, site: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(generator(seed, stream, site).integers(2**62)))
