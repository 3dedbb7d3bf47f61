"""Weighted k-nearest neighbours on angle-delay fingerprints: the classical control.

A fingerprint holds, for each site, the magnitude of the channel over beams and delays (2-D DFT over the array, inverse
DFT over the tones, averaged over slots) and the log-gain. It is projected onto the first `dimensions` principal
components of the training set, 8 bits each, so that a table of 10⁵ positions takes a few megabytes.
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

    def locate(self, channel: Tensor, rows: int, columns: int, neighbours: int = 5) -> npt.NDArray[np.float64]:
        """Return positions (B, 3) [m], means of neighbours weighted by inverse squared fingerprint distance."""
        raw = raw_fingerprint(channel, rows, columns).numpy()
        query = (raw - self.mean) @ self.components / self.scale
        table = torch.from_numpy(self.codes).float()
        # All pairs at once: in 32 dimensions a tree visits most of the table anyway.
        found_distance, nearest = torch.cdist(torch.from_numpy(query).float(), table).topk(neighbours, largest=False)
        distance, index = found_distance.double().numpy(), nearest.numpy()
        weight = 1 / np.maximum(distance, 1e-6) ** 2
        weight /= weight.sum(1, keepdims=True)
        found: npt.NDArray[np.float64] = (weight[..., None] * self.position[index].astype(np.float64)).sum(1)
        return found
