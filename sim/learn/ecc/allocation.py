"""Allocation of `ecc-total`: which class of which base station gets each bit of a budget, from training snapshots.

    θ_k(x) = Σ_i |J_k S_ki|² / Σ_i worth_ki              J derivative of the fix x, S_ki step of (γ, z) for one of y_i
    v_kciw = E(θ_k | c) worth_ki s_kci² (e_w - e_(w+1))  what bit w + 1 of number i saves [m²], e error of a quantiser

`worth` (`sim.learn.ecc.transform`) compares numbers of one base station only; θ, what a unit of it costs at a snapshot,
compares base stations and classes. Bits are given in the order of what they save. A class is as likely as any other of
its base station, so that none has to be weighted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fronthaul.payload.rate import QUANTISER_ERROR, Transform
from fronthaul.payload.total import CLASSES, LONGEST_BITS, class_bits
from sim.learn.data import SnapshotSource
from sim.learn.ecc.model import EccModel
from sim.learn.ecc.transform import Array, observed_numbers, position_slopes

KNOWN = 32
"""Numbers whose mean and deviation within a class are known; more do not help."""
_LEAST_DEVIATION = 0.02  # of a number whose deviation over all classes is 1


def fit_allocation(
    model: EccModel, source: SnapshotSource, shares: list[dict[str, Tensor]],
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, Tensor]:  # fmt: skip
    """Return tensors ``rate.<k>.…`` of the classes and ``rate.all.order_<C>``, fitted on training snapshots.

    Args:
        model: networks of `ecc-klt`.
        source: of training snapshots.
        shares: tensors of the transforms, without ``rate.<k>.``, of each base station.
        on_progress: called with snapshots seen, of how many.
    """
    gain_db, latent = observed_numbers(model, source, on_progress)
    own = [{name: value.float().numpy() for name, value in share.items()} for share in shares]
    transforms = [Transform(one) for one in own]
    worth = np.stack([one["worth"] for one in own]).astype(np.float64)
    mixed = len(own[0]["mixing"])
    steps = [unit_steps(one, worth.shape[1], mixed) for one in transforms]
    cost = np.concatenate([
        np.stack([np.square(slope[:, :, k] @ step.T).sum((1, 2)) for k, step in enumerate(steps)], 1)
        for slope in position_slopes(model.fusion, model.readout, gain_db, latent)
    ]) / worth[:, :mixed].sum(1)  # (N, K)  # fmt: skip
    gains, count = gain_db.double().numpy(), CLASSES[-1]
    found: dict[str, Tensor] = {}
    value = np.repeat(worth[:, None], count, 1)
    of_class = np.empty((len(own), count))
    for k, transform in enumerate(transforms):
        y = transform.analyse(gain_db[:, k].numpy(), latent[:, k].numpy())
        borders = np.quantile(gains[:, k], np.arange(1, count) / count).astype(np.float32)
        classes = np.searchsorted(borders, gains[:, k])
        parts = [y[classes == c, :KNOWN].astype(np.float64) for c in range(count)]
        deviation = np.maximum([part.std(0) for part in parts], _LEAST_DEVIATION)
        value[k, :, :KNOWN] *= np.square(deviation)
        of_class[k] = [cost[classes == c, k].mean() for c in range(count)]
        made = {"gain_classes": borders, "class_mean": np.stack([part.mean(0) for part in parts]),
                "class_deviation": deviation}  # fmt: skip
        found |= {f"rate.{k}.{name}": torch.from_numpy(np.float32(one)) for name, one in made.items()}
    single = bit_order(cost.mean(0)[:, None, None] * worth[:, None])
    found["rate.all.order_1"] = torch.from_numpy(single)
    found[f"rate.all.order_{count}"] = torch.from_numpy(bit_order(of_class[:, :, None] * value))
    return found


def unit_steps(transform: Transform, numbers: int, count: int) -> Array:
    """Return the steps (count, 1 + L) of gain [dB] and latent for a unit step of each of the first of all numbers y."""
    y = np.eye(count + 1, numbers, -1, np.float32)  # zeros, then the steps
    gain_db, latent = transform.synthesise(y)
    whole = np.column_stack([gain_db, latent.reshape(count + 1, -1)]).astype(np.float64)
    steps: Array = whole[1:] - whole[0]
    return steps


def bit_order(value: Array) -> npt.NDArray[np.uint8]:
    """Return k C + c of the class that gets each bit, up to the largest budget.

    Args:
        value: what the square of a unit error of each number costs (K, C, 1 + L) [m²].
    """
    stations, classes, _ = value.shape
    saved = (value[..., None] * -np.diff(QUANTISER_ERROR)).reshape(stations * classes, -1)
    if classes == 1:  # without the bits of a class, a report of no bits would say that nobody is heard
        saved[np.arange(stations), saved.argmax(1)] = np.inf
    count = classes * (LONGEST_BITS - class_bits(classes)) * stations
    best = np.argsort(-saved, axis=None, kind="stable")[:count]
    return (best // saved.shape[1]).astype(np.uint8)
