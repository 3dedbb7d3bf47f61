"""Keyed draws for torch."""

from __future__ import annotations

import torch

from fronthaul.draws import generator


def torch_generator(seed: int, stream: str, *key: int) -> torch.Generator:
    """Return a CPU generator whose draws depend on (seed, stream, key) alone."""
    return torch.Generator().manual_seed(int(generator(seed, stream, *key).integers(2**62)))
