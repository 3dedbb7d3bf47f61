"""Look-up of positions by fingerprints: the classical controls. The stronger of the two is a local linear regression.

Both take the k training fingerprints nearest to a query. *Weighted neighbours* (WKNN) average their positions.
*Local linear regression* (LOESS; Cleveland, J. Am. Stat. Assoc. 74, 1979) fits position = a + B fingerprint to them and
evaluates it at the query, so that it follows the slope of positions between fingerprints, where an average of
neighbours is pulled towards wherever more of them stand.

A fingerprint of `FingerprintTable` holds, for each site, the magnitude of the channel over beams and delays (2-D DFT
over the array, inverse DFT over the tones, averaged over slots) and the log-gain. It is projected onto the first
`dimensions` principal components of the training set, 8 bits each, so that a table of 10⁵ positions takes a few
megabytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fronthaul.documents import parse_json
from fronthaul.errors import LocalError
from sim.errors import UserError
from sim.learn.data import SnapshotSource
from sim.world.arrays import DAMAGED, load_arrays, save_arrays
from sim.world.made_for import made_for

_POSITIONS = "train-positions.npz"
_GAIN_WEIGHT = 0.02  # per dB, against magnitudes of unit norm per site
WEIGHTED, LINEAR, RIDGE = 5, 100, 0.03
"""Numbers of neighbours of either look-up on `FingerprintTable`, and the ridge of the linear one: the best on
validation positions, ``python -m sim.reproduce.ecc.neighbours``."""
_CHUNK_VALUES = 16_000_000
"""Values of neighbours' fingerprints that are gathered at once."""


def raw_fingerprint(channel: Tensor, rows: int, columns: int) -> Tensor:
    """Return angle-delay magnitudes and log-gains (B, D) of channels (B, K, slot, antenna, tone)."""
    b, k, t, _, f = channel.shape
    grid = channel.reshape(b, k, t, columns, rows, f)
    spectrum = torch.fft.ifft(torch.fft.fft2(grid, dim=(3, 4)), dim=5).abs().mean(2).flatten(2)  # (B, K, M·F)
    unit = spectrum / spectrum.norm(dim=2, keepdim=True).clamp_min(1e-20)
    level = 20 * torch.log10(channel.abs().square().sum((2, 3, 4)).sqrt().clamp_min(1e-12))
    return torch.cat([unit.flatten(1), _GAIN_WEIGHT * level], 1).float()


@dataclass(frozen=True)
class FingerprintTable:
    """Compressed fingerprints of training positions; `(raw − mean) @ components` maps to the table's space.

    `made_for`: see `sim.world.made_for`; empty in files older than that.
    """

    mean: npt.NDArray[np.float32]  # (D,)
    components: npt.NDArray[np.float32]  # (D, d)
    scale: npt.NDArray[np.float32]  # (d,)
    codes: npt.NDArray[np.int8]  # (N, d)
    position: npt.NDArray[np.float32]  # (N, 3) [m]
    made_for: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def build(cls, source: SnapshotSource, dimensions: int = 32, limit: int = 100_000) -> FingerprintTable:
        """Fingerprint up to `limit` of the source's positions."""
        array = source.scenario.array
        source.reseed(0, 0)

        def raw(index: Tensor) -> tuple[Tensor, Tensor]:
            made = source.batch(index)
            return raw_fingerprint(made.channel, array.rows, array.columns), made.position

        sample = torch.cat([raw(chunk)[0] for chunk in source.permutation()[:8000].split(1000)])
        mean = sample.mean(0)
        centred = (sample - mean).double()
        _, directions = torch.linalg.eigh(centred.T @ centred)  # ascending
        components = directions[:, -dimensions:].flip(1).float()
        projected, position = [], []
        for chunk in torch.arange(min(limit, len(source))).split(1000):
            fingerprint, place = raw(chunk)
            projected.append((fingerprint - mean) @ components)
            position.append(place)
        table = torch.cat(projected)
        scale = table.std(0).max().expand(dimensions) / 32  # one scale for all: distances keep their meaning
        codes = (table / scale).round().clamp(-127, 127).to(torch.int8)
        return cls(
            mean.numpy(),
            components.numpy(),
            scale.contiguous().numpy(),
            codes.numpy(),
            torch.cat(position).numpy(),
            made_for(source.scenario),
        )

    def save(self, path: Path, *, positions: bool = True) -> None:
        """Write an NPZ file (temporary name, then rename); without `positions`, `load` reads those stored beside it."""
        held: dict[str, npt.NDArray[Any]] = {"position": self.position} if positions else {}
        if self.made_for:
            held["made_for"] = np.array(json.dumps(self.made_for))
        components = self.components.astype(np.float16)
        save_arrays(
            path, smallest=True, mean=self.mean, components=components, scale=self.scale, codes=self.codes, **held
        )

    @classmethod
    def load(cls, path: Path) -> FingerprintTable:
        """Read a table; if it has no positions, read them from ``train-positions.npz`` beside it.

        Raises:
            UserError: missing or damaged.
        """
        try:
            held = load_arrays(path)
            position = held["position"] if "position" in held else load_arrays(path.with_name(_POSITIONS))["position"]
            known = parse_json(str(held["made_for"])) if "made_for" in held else {}
            components = held["components"].astype(np.float32)
            table = cls(held["mean"], components, held["scale"], held["codes"], position, known)
        except (*DAMAGED, LocalError) as error:
            raise UserError(f"The fingerprint table {path} is missing or damaged ({error}).") from error
        if len(table.position) != len(table.codes):
            raise UserError(f"The fingerprint table {path} and the training positions are of different data.")
        return table

    def locate(self, channel: Tensor, rows: int, columns: int, neighbours: int = WEIGHTED) -> npt.NDArray[np.float64]:
        """Return positions (B, 3) [m] of channels (B, K, slot, antenna, tone) by weighted neighbours."""
        return weighted_neighbours(*self._looked_up(channel, rows, columns), neighbours).numpy()

    def locate_linear(
        self, channel: Tensor, rows: int, columns: int, neighbours: int = LINEAR, ridge: float = RIDGE
    ) -> npt.NDArray[np.float64]:
        """Return positions (B, 3) [m] of channels (B, K, slot, antenna, tone) by local linear regression."""
        return local_linear(*self._looked_up(channel, rows, columns), neighbours, ridge).numpy()

    def _looked_up(self, channel: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return fingerprints (B, d) of channels, those of the table (N, d), and its positions (N, 3)."""
        raw = raw_fingerprint(channel, rows, columns).numpy()
        query = torch.from_numpy((raw - self.mean) @ self.components / self.scale).float()
        return query, torch.from_numpy(self.codes).float(), torch.from_numpy(self.position)


def weighted_neighbours(query: Tensor, table: Tensor, position: Tensor, neighbours: int) -> Tensor:
    """Return means (Q, D) of the nearest neighbours' positions, weighted by inverse squared distance; float64.

    Args:
        query: fingerprints (Q, d).
        table: training fingerprints (N, d).
        position: their positions (N, D).
        neighbours: number of neighbours, k.
    """
    # All pairs at once: in 32 dimensions a tree visits most of the table anyway.
    distance, index = torch.cdist(query, table).topk(min(neighbours, len(table)), largest=False)
    weight = 1 / distance.double().clamp_min(1e-6) ** 2
    weight = weight / weight.sum(1, keepdim=True)
    return (weight[..., None] * position.double()[index]).sum(1)


def local_linear(
    query: Tensor, table: Tensor, position: Tensor, neighbours: int = LINEAR, ridge: float = RIDGE
) -> Tensor:
    """Return positions (Q, D) by local linear regression; float64. Arguments as of `weighted_neighbours`."""
    distance, index = torch.cdist(query, table).topk(min(neighbours, len(table)), largest=False)
    parts = torch.arange(len(query)).split(max(1, _CHUNK_VALUES // (index.shape[1] * query.shape[1])))
    return torch.cat(
        [linear_fit(query[some], table[index[some]], distance[some], position[index[some]], ridge) for some in parts]
    )


def linear_fit(query: Tensor, table: Tensor, distance: Tensor, position: Tensor, ridge: float) -> Tensor:
    """Fit position = a + B fingerprint to each query's own neighbours, and return its value (Q, D) there; float64.

    Neighbours have Cleveland's tricube weights (1 − (distance / farthest)³)³. The slope B is shrunk by `ridge` times
    the mean variance of a feature, as there may be fewer neighbours than features.

    Args:
        query: fingerprints (Q, d).
        table: fingerprints (Q, k, d) of the neighbours.
        distance: their distances (Q, k), ascending; what they are of need not be all of the fingerprint.
        position: their positions (Q, k, D).
        ridge: see above.
    """
    query, table, distance, position = (values.double() for values in (query, table, distance, position))
    weight = (1 - (distance / distance[:, -1:].clamp_min(1e-9)) ** 3).clamp_min(1e-9) ** 3
    weight = (weight / weight.sum(1, keepdim=True))[..., None]
    centre, mean = (weight * table).sum(1, keepdim=True), (weight * position).sum(1, keepdim=True)
    root = weight.sqrt()
    x, y = root * (table - centre), root * (position - mean)
    features = x.shape[2]
    shrink = (ridge * x.square().sum((1, 2)) / features).clamp_min(1e-12)[:, None, None]
    # Of the two forms of ridge regression, the one whose system is smaller: d × d, or k × k.
    if features <= x.shape[1]:
        slope = torch.linalg.solve(x.mT @ x + shrink * torch.eye(features, dtype=x.dtype), x.mT @ y)
    else:
        slope = x.mT @ torch.linalg.solve(x @ x.mT + shrink * torch.eye(x.shape[1], dtype=x.dtype), y)
    found: Tensor = (mean + (query[:, None] - centre) @ slope)[:, 0]
    return found
