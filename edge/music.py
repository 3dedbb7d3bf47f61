"""MUSIC at a base station: azimuth, elevation and their precision, from the channel's spatial covariance.

A baseline of ECC (Sec. IV-E); MUSIC is [11] there. Notation: a direction has the cosines v, w along the columns (y) and
rows (z) of the array's own frame, antenna m lies at (y_m, z_m) wavelengths around the array's centre:

    a_m(v, w) = e^{j2π (y_m v + z_m w)},   R = mean over slots and tones of h hᴴ
    (v, w) = argmin ‖Eᴴ a(v, w)‖²,         E the M − 1 eigenvectors of R outside the strongest

One source is assumed: the strongest path. Its spectrum has one minimum, which a grid finds and Gauss-Newton steps
refine. With N = slots × tones samples, P the source's power per antenna and σ² the mean of the other eigenvalues, which
hold noise and all other paths, the cosines have standard deviations s / √Σy², s / √Σz² with

    s = √(σ² / (2 N P)) / 2π

for a single path the Cramér-Rao bound. A report holds azimuth and elevation in the array's frame [rad] and s, 3 × 32
bit as float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edge.scheme import EdgeBuilder, EdgeScheme, EdgeSetup, Encoded, SchemeSpec
from fronthaul.payload.floats import FloatPayload

NUMBERS = 3
_GRID, _STEPS = 33, 8
_LARGEST = 0.9999
"""Bound of √(v² + w²) in the search."""


def planar_positions(rows: int, columns: int, spacing: float) -> Tensor:
    """Return antenna positions (y, z) (M, 2) [wavelengths] about the centre, column by column, each from the top."""
    column, row = torch.meshgrid(torch.arange(columns).double(), torch.arange(rows).double(), indexing="ij")
    y, z = column.flatten() - (columns - 1) / 2, (rows - 1) / 2 - row.flatten()
    return spacing * torch.stack([y, z], 1)


def require_plane(config: Mapping[str, Any]) -> None:
    """Check that the array measures two angles.

    Raises:
        ValueError: its antennas stand in one line, or there is just one.
    """
    if 1 in (config["rows"], config["columns"]):
        raise ValueError(
            f"it sends azimuth and zenith, for which the array needs two rows and two columns, "
            f"not {config['rows']} × {config['columns']}"
        )


def arrivals(channel: Tensor, antenna: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines (v, w) (B, 2) and s (B,), float64, of channels (B, slot, antenna, tone); `antenna` (M, 2)."""
    samples = channel.movedim(2, 1).flatten(2).to(torch.complex128)  # (B, M, N)
    count = samples.shape[2]
    level, vector = torch.linalg.eigh(samples @ samples.mH / count)  # ascending
    outside = vector[..., :-1].mH  # Eᴴ (B, M − 1, M)
    place = _refined(_coarse(outside, antenna), outside, antenna)
    rest = level[:, :-1].mean(1).clamp_min(1e-300)
    power = ((level[:, -1] - rest) / len(antenna)).clamp_min(1e-3 * rest)
    return place, (rest / (2 * count * power)).sqrt() / (2 * math.pi)


def azimuth_elevation(cosine: Tensor) -> Tensor:
    """Return azimuth and elevation (…, 2) [rad] of cosines (v, w) (…, 2), in front of the array."""
    v, w = cosine.unbind(-1)
    ahead = (1 - v**2 - w**2).clamp_min(0).sqrt()
    return torch.stack([torch.atan2(v, ahead), torch.asin(w)], -1)


class MusicEdge:
    """Measures the direction of the strongest path."""

    name = "music"

    def __init__(self, setup: EdgeSetup) -> None:
        config = setup.config
        self._antenna = planar_positions(int(config["rows"]), int(config["columns"]), float(config["spacing"]))
        self._payload = FloatPayload(NUMBERS)
        self.format = self._payload.format

    @torch.inference_mode()
    def encode(self, channel: Tensor) -> Encoded:
        """Encode Ĥ (B, slot, antenna, tone) as azimuth, elevation and s."""
        cosine, deviation = arrivals(channel, self._antenna)
        numbers = torch.cat([azimuth_elevation(cosine), deviation[:, None]], 1).float().numpy()
        return Encoded([self._payload.encode(one) for one in numbers])


def make(setup: EdgeSetup) -> EdgeScheme:
    """Make the scheme.

    Raises:
        ValueError: `setup.payload` asks for quantised numbers, or the array does not measure two angles.
    """
    if setup.payload.bits is not None:
        raise ValueError("it sends angles as float32: --bits is lossless")
    require_plane(setup.config)
    return MusicEdge(setup)


build = EdgeBuilder(SchemeSpec(options={}, resolution="lossless"), make)


def _steering(cosine: Tensor, antenna: Tensor) -> Tensor:
    """Return a (…, M) complex128 of cosines (…, 2)."""
    phase = 2 * math.pi * (cosine @ antenna.T)
    return torch.polar(torch.ones_like(phase), phase)


def _coarse(outside: Tensor, antenna: Tensor) -> Tensor:
    """Return the best cosines (B, 2) of a grid."""
    axis = torch.linspace(-1, 1, _GRID, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    grid = grid[grid.norm(dim=1) <= _LARGEST]
    spectrum = (outside @ _steering(grid, antenna).T).abs().square().sum(1)  # (B, G)
    return grid[spectrum.argmin(1)]


def _refined(cosine: Tensor, outside: Tensor, antenna: Tensor) -> Tensor:
    """Return cosines (B, 2) after Gauss-Newton steps on ‖Eᴴ a‖²."""
    for _ in range(_STEPS):
        steering = _steering(cosine, antenna)
        residual = outside @ steering[..., None]  # (B, M − 1, 1)
        slope = outside @ (2j * math.pi * antenna * steering[..., None])  # (B, M − 1, 2)
        normal = (slope.mH @ slope).real + 1e-9 * torch.eye(2, dtype=torch.float64)
        step = torch.linalg.solve(normal, (slope.mH @ residual).real)[..., 0]
        cosine = cosine - step
        cosine = cosine * (_LARGEST / cosine.norm(dim=1, keepdim=True)).clamp_max(1.0)
    return cosine
