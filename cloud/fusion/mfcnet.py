"""MFCNet at the cloud: convolutions over the tones of all base stations' channels, then a position. A baseline of ECC.

ECC Sec. IV-E names MFCNet [52] as "a deep-learning-based positioning baseline designed for OFDM systems" on losslessly
forwarded channels, and says no more of it. What is built here is such a network [R]: residual blocks of one-dimensional
convolutions of several widths side by side, along the subcarriers, over the channels of all base stations at once, and
a fully connected regression. It has no attention, no gain mask and no recurrence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from cloud.fusion.network_fusion import NetworkFusion
from cloud.fusion.regression import PositionRegression
from cloud.fusion.scheme import CloudSetup, OneRoundFusion
from fronthaul.message.messages import Report
from fronthaul.payload.ecc import ChannelPayload, is_heard

_WIDTHS = (1, 3, 5)
"""Tones that the kernels of a block span."""


class SeveralWidths(nn.Module):
    """x + convolutions of `_WIDTHS` tones side by side, rectified and mixed: (B, C, F) → (B, C, F)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        own = channels // len(_WIDTHS)
        self.norm = nn.GroupNorm(1, channels)
        self.branches = nn.ModuleList(nn.Conv1d(channels, own, width, padding=width // 2) for width in _WIDTHS)
        self.mix = nn.Conv1d(own * len(_WIDTHS), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, F) to the same shape; tones beyond the band's edges are zero."""
        y = self.norm(x)
        made: Tensor = x + self.mix(functional.relu(torch.cat([branch(y) for branch in self.branches], 1)))
        return made


class MfcNetwork(nn.Module):
    """Maps preprocessed channels (B, K, F, C), gains and presence (B, K) to a position (B, 1, 3) [m]."""

    readout = 1

    def __init__(
        self,
        *,
        stations: int = 6,
        tones: int = 24,
        coefficients: int = 80,
        width: int = 192,
        blocks: int = 3,
        hidden: int = 256,
        centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
        extent: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> None:
        """Build the network.

        Args:
            stations: K, number of base stations.
            tones: F, number of tones.
            coefficients: C, real numbers of a tone: real and imaginary part of every slot and antenna.
            width: channels of the convolutions.
            blocks: number of residual blocks.
            hidden: width of the regression.
            centre: centre of the service area [m].
            extent: half size of the service area [m].
        """
        super().__init__()
        self.entry = nn.Conv1d(stations * coefficients, width, 1)
        self.blocks = nn.Sequential(*(SeveralWidths(width) for _ in range(blocks)))
        self.regression = PositionRegression(width * tones, stations, hidden, centre, extent)

    def forward(self, channel: Tensor, gain: Tensor, present: Tensor) -> Tensor:
        """Return positions (B, 1, 3) [m]; what absent base stations are given is ignored."""
        heard = torch.where(present[:, :, None, None], channel, 0.0)
        stacked = heard.transpose(2, 3).flatten(1, 2)  # (B, K·C, F)
        position: Tensor = self.regression(self.blocks(self.entry(stacked)).flatten(1), gain, present)
        return position


def build(setup: CloudSetup) -> OneRoundFusion:
    """Build the fusion of forwarded channels."""
    return MfcNetFusion(setup)


class MfcNetFusion(NetworkFusion):
    """Makes a fix from the channels of any subset of the base stations that the weights cover."""

    def __init__(self, setup: CloudSetup) -> None:
        shape = setup.config["network"]
        stations, tones, coefficients = (int(shape[name]) for name in ("stations", "tones", "coefficients"))
        self._payload = ChannelPayload(setup.payload.forward, coefficients // 2, tones)
        super().__init__(setup, MfcNetwork(**shape), "network", (stations, tones, coefficients), self._read, is_heard)

    def _read(self, _: int, reports: Sequence[Report]) -> tuple[npt.NDArray[np.float32], list[float]]:
        return self._payload.decode([report.payload for report in reports], [report.side for report in reports])
