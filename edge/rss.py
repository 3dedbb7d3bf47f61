"""Received signal strength: one gain in B bits. The smallest possible scheme, and the floor in every table."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edge.preprocessing import channel_gain
from edge.scheme import EdgeScheme, EdgeSetup, Encoded
from fronthaul.codec.codebook import UniformCodebook


def build(setup: EdgeSetup) -> EdgeScheme:
    """Build the scheme; its finest resolution, 16 bits (below 0.002 dB), stands in for lossless."""
    return RssEdge(setup)


class RssEdge:
    """Quantises the channel gain [dB] on the interval seen in training."""

    name = "rss"
    coefficients = 1
    side_bytes = 0

    def __init__(self, setup: EdgeSetup) -> None:
        self.bits = setup.payload.bits_or(16)
        low, high = setup.config["gain_db"]
        self._codebook = UniformCodebook(low, high, self.bits)

    @torch.inference_mode()
    def encode(self, channel: Tensor) -> Encoded:
        """Encode Ĥ (B, slot, antenna, tone) into one index a snapshot."""
        level = 20 * torch.log10(channel_gain(channel).clamp_min(1e-12))
        index = self._codebook.index(level.float().numpy()[:, None].astype(np.float32))
        return Encoded(index, [b""] * len(channel))
