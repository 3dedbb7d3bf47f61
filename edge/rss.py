"""Received signal strength: one gain in B bits. The simplest scheme, and the baseline in every table."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edge.preprocessing import channel_gain
from edge.scheme import EdgeScheme, EdgeSetup, Encoded, with_hearing
from fronthaul.payload.rss import RssPayload


def build(setup: EdgeSetup) -> EdgeScheme:
    """Build the scheme; lossless uses its finest resolution, 16 bits (below 0.002 dB)."""
    return RssEdge(setup)


class RssEdge:
    """Quantises the channel gain [dB] on the interval seen in training."""

    name = "rss"

    def __init__(self, setup: EdgeSetup) -> None:
        low, high = setup.config["gain_db"]
        self._payload = RssPayload(low, high, setup.bits)
        self.format = self._payload.format

    @torch.inference_mode()
    def encode(self, channel: Tensor) -> Encoded:
        """Encode Ĥ (B, slot, antenna, tone) into one number per snapshot."""
        level = 20 * torch.log10(channel_gain(channel).clamp_min(1e-12))
        return Encoded(self._payload.encode(level.float().numpy()))

    def encode_together(self, schemes: Sequence[RssEdge], channels: Sequence[Tensor]) -> list[Encoded]:
        """Encode the channels of several base stations, whose gains are quantised on the same interval."""
        return self.encode(torch.cat(list(channels))).split([len(channel) for channel in channels])

    def mark(self, encoded: Encoded, heard: Sequence[bool]) -> Encoded:
        """Say in each report whether the user is heard."""
        return with_hearing(encoded, heard)
