"""From traced and trained files to those that are shipped, which have to be small: fewer bits, nothing twice.

    python -m sim.learn.compact weights SOURCE TARGET --bits 8 --also embed_channel=4 --also cloud.fusion.head=16
    python -m sim.learn.compact paths SOURCE TARGET --users 1000
    python -m sim.learn.compact training data/paris-6/shards/*.npz TARGET
    python -m sim.learn.compact positions SOURCE TARGET
    python -m sim.learn.compact fingerprints SOURCE TARGET

What is lost is measured by emulating with both files (``emulate --weights``); docs/scenarios.md has the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from torch import Tensor

from sim.errors import UserError
from sim.learn.fingerprints import FingerprintTable
from sim.plan.weights import EXACT, Packed, Weights, load_weights, save_weights
from sim.world.arrays import load_arrays, save_arrays
from sim.world.channel import PATH_LIMIT
from sim.world.paths import PathSet, concatenate, load_paths, rounded

LEAST_ELEMENTS = 4096
"""Minimum number of elements of a packed tensor, by default: biases and norms keep half precision."""
_KEPT_BITS = 16
_CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6)
"""Candidate clipping levels, relative to a row's largest magnitude; the one with least squared error is used."""
_GRID_M = 1 / 256
"""Grid [m] of shipped training positions, which serve to measure distances to them."""

app = typer.Typer(add_completion=False, help=__doc__)


def packed_matrices(
    weights: Weights, bits: int, also: Mapping[str, int], least: int = LEAST_ELEMENTS
) -> dict[str, Packed]:
    """Pack every large matrix of a network with `bits` per element, by name.

    Args:
        weights: weights as trained.
        bits: bits per element, 2 to 8.
        also: other bits per element, for tensors whose name contains the key; 16 keeps half precision.
        least: minimum number of elements of a packed matrix.
    """
    large = {
        name: value
        for name, value in weights.tensors.items()
        if value.is_floating_point() and value.ndim > 1 and value.numel() >= least and not EXACT.search(name)
    }
    chosen = {name: next((own for part, own in also.items() if part in name), bits) for name in large}
    return {name: pack_rows(large[name], own) for name, own in chosen.items() if own < _KEPT_BITS}


def pack_rows(value: Tensor, bits: int) -> Packed:
    """Return codes of `bits` per element and a scale for each row, along the first axis that is longer than 1."""
    first = next(n for n, size in enumerate(value.shape) if size > 1)
    rows = value.float().reshape(value.shape[first], -1)
    top = 2 ** (bits - 1) - 1
    largest = rows.abs().amax(1, keepdim=True).clamp_min(1e-30)
    scales = [(largest * clip / top).bfloat16().float() for clip in _CLIPS]
    codes = [(rows / scale).round().clamp(-top - 1, top) for scale in scales]
    error = torch.stack([(code * scale - rows).square().sum(1) for code, scale in zip(codes, scales, strict=True)])
    best = error.argmin(0)
    row = torch.arange(len(rows))
    return Packed(torch.stack(codes)[best, row].to(torch.int8), torch.stack(scales)[best, row, 0], bits, value.shape)


@app.command("weights")
def _weights(
    source: Path,
    target: Path,
    bits: Annotated[int, typer.Option(min=2, max=8, help="Of an element of a large matrix [bit].")] = 8,
    also: Annotated[
        list[str], typer.Option(help="PART=BITS for tensors whose name has PART in it; 16 keeps them.")
    ] = [],  # noqa: B006
    least: Annotated[int, typer.Option(min=1, help="Elements of a packed matrix, at least.")] = LEAST_ELEMENTS,
) -> None:
    """Pack a weights file."""
    others = {part: int(own) for part, own in (word.split("=") for word in also)}
    weights = load_weights(source, alone=True)
    for path in save_weights(target, weights, packed=packed_matrices(weights, bits, others, least)):
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


@app.command("paths")
def _paths(
    source: Path, target: Path, users: Annotated[int, typer.Option(help="How many, from the first on.")] = 10**9
) -> None:
    """Compress a path data set as far as NPZ files can be."""
    paths = load_paths(source)
    paths.select(np.arange(min(users, len(paths)))).save(target, smallest=True)
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


def training_paths(paths: PathSet) -> PathSet:
    """Return what training on vertically polarised arrays needs, rounded: a tenth of the size when compressed.

    Kept are the `PATH_LIMIT` strongest paths of each link and their V-to-V coefficients. Lengths are rounded to 2 mm,
    directions at the site to 2.4e-4 rad, and what moves a user (`move_users`) to 2e-3: far below what noise and motion
    change. Positions are rounded to 1 mm.
    """
    strength = np.abs(paths.matrix[:, 0, 0])
    link = np.repeat(np.arange(len(paths.offset) - 1), np.diff(paths.offset))
    order = np.lexsort((-strength, link))
    kept = order[np.arange(len(link)) - paths.offset[:-1][link] < PATH_LIMIT]
    offset = np.concatenate([[0], np.cumsum(np.minimum(np.diff(paths.offset), PATH_LIMIT))])
    matrix = np.zeros((len(kept), 2, 2), np.complex64)
    matrix[:, 0, 0] = rounded(paths.matrix[kept, 0, 0], mantissa_bits=7)

    def grid(values: npt.NDArray[Any], bits: int) -> npt.NDArray[np.float32]:
        return np.ldexp(np.rint(np.ldexp(values.astype(np.float64), bits)), -bits).astype(np.float32)

    return replace(
        paths,
        position=grid(paths.position, 10).astype(np.float64),
        offset=offset,
        matrix=matrix,
        delay=grid(paths.delay[kept], 37),
        site_angle=grid(paths.site_angle[kept], 12),
        user_angle=grid(paths.user_angle[kept], 7),
        bounces=paths.bounces[kept],
        mirror=grid(paths.mirror[kept], 9),
    )


@app.command("training")
def _training(sources: list[Path], target: Path) -> None:
    """Join traced path data and keep what a training needs, to carry it to a machine with a GPU."""
    training_paths(concatenate([load_paths(source) for source in sources])).save(target, smallest=True)
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


@app.command("positions")
def _positions(source: Path, target: Path) -> None:
    """Round training positions to 1/256 m, and compress them."""
    position = load_arrays(source)["position"]
    save_arrays(target, smallest=True, position=(np.round(position / _GRID_M) * _GRID_M).astype(np.float32))
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


@app.command("fingerprints")
def _fingerprints(source: Path, target: Path) -> None:
    """Compress a fingerprint table; its positions are those of ``train-positions.npz`` beside it."""
    FingerprintTable.load(source).save(target, positions=False)
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    try:
        app()
    except UserError as error:
        raise SystemExit(str(error)) from error
