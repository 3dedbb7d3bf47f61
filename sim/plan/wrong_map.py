"""Wrong maps: the cloud's map of scheme `twin` with the errors that a scenario's mismatch gives it.

The map on disk is right; the cloud gets a wrong one. Schemes without a map are not affected.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fronthaul.draws import generator
from sim.world.mismatch import Mismatch

_NAME = "anchor."


def wrong_map(tensors: Mapping[str, Tensor], mismatch: Mismatch) -> dict[str, Tensor]:
    """Return the cloud's tensors, those of a map with moved images of reflected paths and without some of them.

    Errors are drawn for each anchor, that is for each sequence of surfaces of a site; lines of sight have none.
    """
    found = dict(tensors)
    if f"{_NAME}offset" not in found or not (mismatch.map_image_m or mismatch.map_left_out):
        return found
    reflected = found[f"{_NAME}bounces"].numpy() > 0
    offset = found[f"{_NAME}offset"].numpy()
    step = generator(mismatch.seed, "mismatch map").standard_normal(offset.shape) * reflected[:, None]
    found[f"{_NAME}offset"] = torch.from_numpy(offset + (mismatch.map_image_m * step).astype(np.float32))
    lot = generator(mismatch.seed, "mismatch map left out").random(len(offset))
    path = found[f"{_NAME}path"].numpy().view(np.uint16)
    kept = ~((lot < mismatch.map_left_out) & reflected)[path]
    count = found[f"{_NAME}count"].numpy()
    link = np.repeat(np.arange(count.size), count.ravel())
    left = np.bincount(link[kept], minlength=count.size).reshape(count.shape)
    found[f"{_NAME}count"] = torch.from_numpy(left.astype(count.dtype))
    found[f"{_NAME}path"] = torch.from_numpy(path[kept].view(np.int16))
    found[f"{_NAME}level"] = torch.from_numpy(found[f"{_NAME}level"].numpy()[kept])
    return found
