"""Fingerprints of a path set, compressed by principal components.

A first layer W h learns nothing about directions of h in which no training fingerprint differs from the mean: N
training samples span at most N − 1 of the 38 400 dimensions. Networks are therefore trained on the principal components
of the standardised training fingerprints, z = Pᵀ (h − mean) / deviation, and P is multiplied into the first layer
afterwards, so that a base station runs the paper's network on the whole fingerprint. Keeping d of the N − 1 components
regularises; d is chosen on validation samples. It does lose information: of one base station's fingerprints, 100
components hold 55 % of the training samples' variance and 45 % of the test samples' energy, as each position's phases
are its own.

Shapes: K base stations, N samples, F values of a fingerprint, d components.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge.fingerprint import beam_levels, fingerprint
from fronthaul.draws import generator
from fronthaul.files import whole_file
from sim.errors import UserError
from sim.learn.splits import Split, SplitName, split_positions
from sim.world.arrays import DAMAGED, load_arrays
from sim.world.channel import Motion, Synthesizer, pad_paths, receiver_noise
from sim.world.made_for import GRID, made_for
from sim.world.paths import PathSet
from sim.world.scenario import Scenario

Input = Literal["taps", "beams"]
"""``taps``: magnitudes and phases of delay taps, the paper's fingerprint (DiffLoc Eq. 4); ``beams``: log-levels of
beams and delays, which keep the joint information of the antennas and drop absolute phases."""

SCALE_M = 100.0
"""Length of a normalised unit [m]; users' positions then have a standard deviation of about 0.5 on each axis."""
_TABLES = ("z", "mean", "deviation", "basis")
_FIT_SAMPLES = 3000
_CHUNK = 250
_FLOOR = 0.03
"""Added to each feature's deviation, as a share of the root mean square over its kind: limits the scaling."""


@dataclass(frozen=True)
class FeatureSetting:
    """Settings of the features, beside the scenario and the paths.

    Attributes:
        split: how test samples are held out.
        stations: indices of the base stations, in this order.
        input: kind of fingerprint.
        components: number of components, d.
        snr_db: signal-to-noise ratios of the channel estimates [dB], one copy of all samples for each; None: no noise.
        seed: seed of the noise.
    """

    split: SplitName = "random"
    stations: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    input: Input = "taps"
    components: int = 100
    snr_db: tuple[float | None, ...] = (None,)
    seed: int = 0


@dataclass(frozen=True)
class Features:
    """Compressed fingerprints and the positions of their users.

    Attributes:
        z: (K, C·N, d) float32, unit mean square over all components; C copies of the samples, one for each noise level.
        position: (C·N, D) float32, normalised: (p − centre) / SCALE_M.
        centre: (D,) [m], mean of the training positions.
        height_m: mean height of the users [m], the height of all of them if D is 2.
        split: indices into the C·N samples.
        sample: (C·N,) index of each sample's position in the path set.
        walk: (C·N,) number of each sample's walk; the number of its position where there are no walks.
        mean: (K, F) float32, mean of the training fingerprints.
        deviation: (K, F) float32, standard deviation of the training fingerprints, with a floor.
        basis: (K, F, d) float32: z = ((h − mean) / deviation) @ basis.
    """

    z: Tensor
    position: Tensor
    centre: npt.NDArray[np.float64]
    height_m: float
    split: Split
    sample: npt.NDArray[np.int64]
    walk: npt.NDArray[np.int64]
    mean: Tensor
    deviation: Tensor
    basis: Tensor

    def project(self, k: int, raw: Tensor) -> Tensor:
        """Return z (N, d) of fingerprints (N, F) at the k-th base station."""
        return (((raw - self.mean[k]) / self.deviation[k]).clamp(-10, 10)) @ self.basis[k]

    def index(self, part: str) -> Tensor:
        """Return indices of the "train", "validation" or "test" samples."""
        return torch.from_numpy(getattr(self.split, part))

    def walks(self, part: str) -> npt.NDArray[np.int64]:
        """Return the numbers (N,) of the walks of a part's samples."""
        found: npt.NDArray[np.int64] = self.walk[getattr(self.split, part)]
        return found

    def truth(self, part: str) -> npt.NDArray[np.float64]:
        """Return normalised true positions (N, D) of a part."""
        found: npt.NDArray[np.float64] = self.position[self.index(part)].double().numpy()
        return found


def raw_features(
    scenario: Scenario,
    paths: PathSet,
    station: int,
    setting: FeatureSetting,
    snr_db: float | None,
    device: torch.device | None = None,
) -> Iterator[Tensor]:
    """Yield fingerprints (chunk, F) of all positions at one base station, in order, on `device`.

    Noise draws are keyed by base station, noise level and sample.
    """
    budget = replace(scenario.link_budget, noise="none" if snr_db is None else "snr", snr_db=snr_db or 0.0)
    noisy = replace(scenario, link_budget=budget)
    synthesizer = Synthesizer(scenario, [station])
    padded = pad_paths(
        paths.select(np.arange(len(paths)), [station]), scenario.numerology.carrier_hz, matrices=scenario.polarized
    ).to(device or torch.device("cpu"))
    still = torch.zeros(1, device=device)
    for index in torch.arange(len(paths)).split(_CHUNK):
        part = padded[index]
        velocity = part.velocity if part.velocity is not None else still.expand(len(index), 3)
        motion = Motion(velocity, still.expand(len(index), 1), still.expand(len(index), 1, scenario.numerology.slots))
        taps = synthesizer.response(part, motion)[:, 0]  # (n, slot, pair, tap)
        if snr_db is not None:
            white = torch.stack([_white(setting.seed, station, snr_db, int(n), taps.shape[1:]) for n in index])
            taps = taps + receiver_noise(noisy, taps, white.to(taps.device))
        yield fingerprint(taps) if setting.input == "taps" else beam_levels(taps, *_grid(scenario))


def _grid(scenario: Scenario) -> tuple[int, int, int, int]:
    array, user = scenario.array, scenario.user_array
    return array.polarizations, array.columns, array.rows, user.antennas


def _white(seed: int, station: int, snr_db: float, sample: int, shape: torch.Size) -> Tensor:
    draw = generator(seed, "fingerprint-noise", station, round(100 * snr_db), sample)
    return torch.from_numpy(draw.standard_normal((*shape, 2), dtype=np.float32))


def make_features(
    scenario: Scenario,
    paths: PathSet,
    setting: FeatureSetting,
    *,
    split: Split | None = None,
    cache: Path | None = None,
    device: torch.device | None = None,
) -> Features:
    """Compute features, or read them from the folder `cache` if present.

    Args:
        scenario: arrays and numerology.
        paths: N positions.
        setting: settings of the features.
        split: indices of positions; by default those of `setting.split`.
        cache: folder of stored features; None disables it.
        device: where they are computed; they are returned on the CPU.

    Raises:
        UserError: a stored file is damaged, or was made for something else.
    """
    parts = split if split is not None else split_positions(scenario, paths.position, setting.split, paths.user)
    dimensions = 2 if np.ptp(paths.position[:, 2]) < 1e-6 else 3
    centre = paths.position[parts.train, :dimensions].mean(0)
    position = torch.from_numpy((paths.position[:, :dimensions] - centre) / SCALE_M).float()
    copies = len(setting.snr_db)
    key = _digest(scenario, paths, setting, parts)
    file = None if cache is None else cache / f"{key}.npz"
    if file is not None and file.is_file():
        tables = _read(file, key)
    else:
        stacked = [_compress(scenario, paths, k, setting, parts.train, device) for k in setting.stations]
        tables = {name: torch.stack([one[i].cpu() for one in stacked]) for i, name in enumerate(_TABLES)}
        if file is not None:
            _write(file, {name: value.numpy() for name, value in tables.items()} | {"made_for": np.array(key)})
    count = len(paths)
    shift = np.arange(copies)[:, None] * count
    return Features(
        position=position.repeat(copies, 1),
        centre=centre,
        height_m=float(paths.position[:, 2].mean()),
        split=Split(*((shift + index).ravel() for index in (parts.train, parts.validation, parts.test))),
        sample=np.tile(np.arange(count), copies),
        walk=np.tile(paths.user.astype(np.int64) if len(paths.user) else np.arange(count), copies),
        **tables,
    )


def _compress(
    scenario: Scenario,
    paths: PathSet,
    station: int,
    setting: FeatureSetting,
    train: npt.NDArray[np.int64],
    device: torch.device | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return z (C·N, d), mean (F,), deviation (F,) and basis (F, d) of one base station."""
    fitted = train
    if len(train) > _FIT_SAMPLES:
        fitted = np.sort(generator(setting.seed, "fit").permutation(train)[:_FIT_SAMPLES])
    shares = [fitted[i :: len(setting.snr_db)] for i in range(len(setting.snr_db))]  # all noise levels take part
    raw = torch.cat(
        [
            chunk
            for level, share in zip(setting.snr_db, shares, strict=True)
            for chunk in raw_features(scenario, paths.select(share), station, setting, level, device)
        ]
    )
    mean, deviation = raw.mean(0), raw.std(0)
    for kind in deviation.split(len(deviation) // 2 if setting.input == "taps" else len(deviation)):
        kind += _FLOOR * kind.square().mean().sqrt() + 1e-30
    standard = ((raw - mean) / deviation).clamp(-10, 10)
    values, vectors = torch.linalg.eigh((standard @ standard.T).double())
    kept = min(setting.components, len(fitted) - 1)
    basis = standard.T @ (vectors[:, -kept:].flip(1) / values[-kept:].flip(0).clamp_min(1e-9).sqrt()).float()
    basis = basis / (standard @ basis).square().mean().sqrt()
    z = torch.cat(
        [
            ((chunk - mean) / deviation).clamp(-10, 10) @ basis
            for snr_db in setting.snr_db
            for chunk in raw_features(scenario, paths, station, setting, snr_db, device)
        ]
    )
    return z, mean, deviation, basis


def _write(file: Path, tables: dict[str, Any]) -> None:
    with whole_file(file) as temporary, temporary.open("wb") as stream:  # several jobs may make the same
        np.savez(stream, **tables)


def _read(file: Path, key: str) -> dict[str, Tensor]:
    try:
        held = load_arrays(file)
        tables, stored = {name: torch.from_numpy(held[name]) for name in _TABLES}, str(held["made_for"])
    except DAMAGED as error:
        raise UserError(f"{file} is damaged ({error}); remove it, it will be made again.") from error
    if stored != key:
        raise UserError(f"{file} was made for another scenario; remove it, it will be made again.")
    return tables


def _digest(scenario: Scenario, paths: PathSet, setting: FeatureSetting, split: Split) -> str:
    """Return a digest of everything that features depend on."""
    grid = {name: part for name, part in made_for(scenario).items() if name in GRID}
    total = hashlib.sha256(json.dumps([asdict(setting), grid], sort_keys=True).encode())
    arrays = (
        paths.position,
        paths.delay,
        paths.matrix,
        paths.site_angle,
        paths.user_angle,
        paths.velocity,
        paths.offset,
    )
    for part in (split.train, *arrays):
        total.update(np.ascontiguousarray(part).tobytes())
    return total.hexdigest()[:16]
