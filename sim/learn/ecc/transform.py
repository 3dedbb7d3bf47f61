"""Transforms of `ecc-klt`: fitted to a network's latents and gains, and to what their errors cost in position.

A latent's error does not count by its size, but by how far it moves the fix. To first order that is a quadratic form of
the latent and the gain [dB], W = E[Jᵀ J], with J the derivative of the fix, from training snapshots. In the metric W,
the Karhunen–Loève transform of the numbers that matter most is what `fronthaul.payload.rate` calls A.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cloud.fusion.cma import CmaFusionNetwork, read_out
from edge.preprocessing import preprocess
from fronthaul.payload.rate import Transform, cell_counts
from sim.learn.data import SnapshotSource
from sim.learn.ecc.model import EccModel

Array = npt.NDArray[np.float64]

MIXED = 128
"""Latent numbers that are mixed with the gain."""
_SNAPSHOTS, _DERIVED = 6000, 1500  # for covariances, and for derivatives
_EVEN = 0.3  # share of an even metric: derivatives alone would neglect what moves no fix a little, but does so a lot
_SEED = 50_000
_AT_ONCE = 250


def fit_transforms(
    model: EccModel, source: SnapshotSource, on_progress: Callable[[int, int], None] = lambda *_: None
) -> dict[str, Tensor]:
    """Return tensors ``rate.<k>.…`` of a transform for each base station, fitted on training snapshots."""
    gain_db, latent = observed_numbers(model, source, on_progress)
    metric = position_metric(model.fusion, model.readout, gain_db[:_DERIVED], latent[:_DERIVED])
    found: dict[str, Tensor] = {}
    for k in range(gain_db.shape[1]):
        made = fit_transform(gain_db[:, k].double().numpy(), latent[:, k].double().numpy(), metric[k])
        found |= {f"rate.{k}.{name}": torch.from_numpy(np.ascontiguousarray(value)) for name, value in made.items()}
    return found


def count_symbols(model: EccModel, source: SnapshotSource, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors ``rate.<k>.counts`` for entropy coding: how often training snapshots fall into each cell.

    Args:
        model: the network whose numbers are sent.
        source: of training snapshots.
        tensors: ``rate.<k>.…`` of the transforms, as they will be read.
    """
    gain_db, latent = observed_numbers(model, source)
    found: dict[str, Tensor] = {}
    for k in range(gain_db.shape[1]):
        prefix = f"rate.{k}."
        own = {n.removeprefix(prefix): v.float().numpy() for n, v in tensors.items() if n.startswith(prefix)}
        y = Transform(own).analyse(gain_db[:, k].numpy(), latent[:, k].numpy())[:, : len(own["mixing"])]
        counts = cell_counts(y) * (own["worth"][: y.shape[1], None] > 0)
        found[f"{prefix}counts"] = torch.from_numpy(counts.astype(np.uint8))
    return found


@torch.no_grad()
def observed_numbers(
    model: EccModel, source: SnapshotSource, on_progress: Callable[[int, int], None] = lambda *_: None
) -> tuple[Tensor, Tensor]:
    """Return gains (N, K) [dB] and latents (N, K, F, C) of training snapshots."""
    model.eval()
    source.reseed(_SEED)
    gains, latents = [], []
    for index in torch.arange(min(_SNAPSHOTS, len(source))).split(_AT_ONCE):
        x, gain = preprocess(source.batch(index).channel, model.phase)
        gains.append(20 * torch.log10(gain.clamp_min(1e-12)))
        latents.append(model.latent(x).float())
        on_progress(int(index[-1]) + 1, min(_SNAPSHOTS, len(source)))
    return torch.cat(gains).float(), torch.cat(latents)


def position_metric(fusion: CmaFusionNetwork, readout: int, gain_db: Tensor, latent: Tensor) -> list[Array]:
    """Return W (1 + L, 1 + L) of each base station, from gains (N, K) [dB] and latents (N, K, F, C)."""
    stations = gain_db.shape[1]
    total = [np.zeros((1 + latent[0, 0].numel(),) * 2) for _ in range(stations)]
    for slope in position_slopes(fusion, readout, gain_db, latent):
        for k in range(stations):
            total[k] += np.einsum("nav,naw->vw", slope[:, :, k], slope[:, :, k], optimize=True)
    return [one / len(latent) for one in total]


def position_slopes(fusion: CmaFusionNetwork, readout: int, gain_db: Tensor, latent: Tensor) -> Iterator[Array]:
    """Yield J (n, 3, K, 1 + L) [m], the derivatives of fixes in the gain [dB] and the latent, batch by batch."""
    for index in torch.arange(len(latent)).split(_AT_ONCE):
        g, z = gain_db[index].requires_grad_(), latent[index].requires_grad_()
        fix = read_out(fusion(z, 10 ** (g / 20), torch.ones(g.shape, dtype=torch.bool)), readout)
        slopes = []
        for axis in range(3):
            parts = torch.autograd.grad(fix[:, axis].sum(), (g, z), retain_graph=axis < 2)
            slopes.append(torch.cat([parts[0][..., None], parts[1].flatten(2)], 2).double().numpy())
        yield np.stack(slopes, 1)


def fit_transform(gain_db: Array, latent: Array, metric: Array, mixed: int = MIXED) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of one base station's `fronthaul.payload.rate.Transform`, and ``worth``.

    Args:
        gain_db: (N,).
        latent: (N, F, C).
        metric: W (1 + L, 1 + L).
        mixed: latent numbers that are mixed with the gain, at most.
    """
    count, tones, coefficients = latent.shape
    numbers = tones * coefficients
    centre = np.concatenate([[gain_db.mean()], latent.reshape(count, -1).mean(0)])
    gain = gain_db - centre[0]
    z = latent - centre[1:].reshape(tones, coefficients)
    u = _principal(np.einsum("nfc,ngc->fg", z, z))
    modes = np.einsum("nfc,fg->gnc", z, u)
    q = np.stack([_principal(one.T @ one) for one in modes])  # (F, C, C)
    basis = np.einsum("fg,gcd->fcgd", u, q).reshape(numbers, numbers)  # z = basis @ t
    t = z.reshape(count, -1) @ basis
    weight = metric / (np.trace(metric[1:, 1:]) / numbers)
    inner = basis.T @ weight[1:, 1:] @ basis
    worth = t.var(0) * (np.diag(inner) + _EVEN)
    order = np.argsort(-worth, kind="stable")
    scale = np.concatenate([[gain.std()], t.std(0)[order]])
    scale = np.maximum(scale, 1e-4 * scale.max())  # of what hardly varies
    m = 1 + min(mixed, numbers)
    # The metric of the first m numbers, of unit variance; the even share does not favour the gain by its unit.
    top = np.eye(m)
    top[1:, 1:] = inner[np.ix_(order[: m - 1], order[: m - 1])] + _EVEN * np.eye(m - 1)
    top[0, 0] = weight[0, 0] + _EVEN / scale[0] ** 2
    top[0, 1:] = top[1:, 0] = weight[0, 1:] @ basis[:, order[: m - 1]]
    top *= np.outer(scale[:m], scale[:m])
    value, vector = np.linalg.eigh(top)
    root = (vector * np.sqrt(np.maximum(value, 1e-12))) @ vector.T
    unit = np.column_stack([gain, t[:, order[: m - 1]]]) / scale[:m]
    spread, turn = np.linalg.eigh(root @ (unit.T @ unit / count) @ root)
    spread, turn = np.maximum(spread[::-1], 1e-9 * spread[-1]), turn[:, ::-1]
    return {
        "centre": centre.astype(np.float32),
        "scale": scale.astype(np.float32),
        "order": order.astype(np.int16),
        "tones": u.astype(np.float32),
        "modes": q.reshape(numbers, coefficients).astype(np.float32),
        "mixing": ((turn.T @ root) / np.sqrt(spread)[:, None]).astype(np.float32),
        "worth": np.concatenate([spread, worth[order[m - 1 :]]]).astype(np.float32),
    }


def _principal(covariance: Array) -> Array:
    """Return eigenvectors as columns, the largest eigenvalue first."""
    vectors: Array = np.linalg.eigh(covariance)[1][:, ::-1]
    return vectors
