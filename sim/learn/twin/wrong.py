"""Wrong maps: a twin with errors of survey, to measure what they cost. The world that makes the channels is right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fronthaul.draws import generator
from sim.plan.weights import Weights


def wrong_map(weights: Weights, seed: int, *, site_m: float = 0.0, wall_m: float = 0.0) -> Weights:
    """Return a twin whose sites and walls are elsewhere.

    Args:
        weights: twin.
        seed: of the draws.
        site_m: deviation of each coordinate of a site's position [m], the same for all its paths.
        wall_m: deviation of each coordinate of the user's image [m], of each sequence of surfaces.
    """
    name = "cloud.anchor."
    offset = weights.tensors[f"{name}offset"].numpy().copy()
    count = weights.tensors[f"{name}count"].numpy().astype(np.int64)
    path = weights.tensors[f"{name}path"].numpy().view(np.uint16)
    site = np.zeros(len(offset), np.int64)
    site[path] = np.repeat(np.tile(np.arange(count.shape[1]), len(count)), count.ravel())
    reflected = weights.tensors[f"{name}bounces"].numpy() > 0
    offset -= site_m * generator(seed, "sites").standard_normal((count.shape[1], 3))[site].astype(np.float32)
    offset += wall_m * (generator(seed, "walls").standard_normal(offset.shape) * reflected[:, None]).astype(np.float32)
    return replace(weights, tensors=weights.tensors | {f"{name}offset": torch.from_numpy(offset)}, digest="")
