"""ADCPM at the cloud: a SegNet encoder over the angle-delay power maps of all base stations, then a perceptron.

A baseline of ECC (Sec. IV-E, [38]). The maps of the base stations are the channels of one image of beams × delays,
which convolutions and pooling along the delays reduce. Both axes are those of a discrete Fourier transform, so the
convolutions are circular.
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
from fronthaul.payload.floats import FloatPayload

_RANGE_DB = 40.0
"""Powers below the strongest of a map that the network tells apart."""


class ConvolutionBlock(nn.Module):
    """x + two circular 3×3 convolutions, then the maximum of pairs of delays: (B, C, M, F) → (B, C, M, ⌈F/2⌉)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.first, self.second = (_circular(channels, channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Halve the delays."""
        grown = x + self.second(functional.relu(self.first(self.norm(x))))
        pooled: Tensor = functional.max_pool2d(grown, (1, 2), ceil_mode=True)
        return pooled


class AdcpmNetwork(nn.Module):
    """Maps power maps (B, K, M, F) of unit sum, gains and presence (B, K) to a position (B, 1, 3) [m]."""

    readout = 1

    def __init__(
        self,
        *,
        stations: int = 6,
        antennas: int = 4,
        tones: int = 24,
        width: int = 64,
        blocks: int = 3,
        hidden: int = 256,
        centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
        extent: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> None:
        """Build the network.

        Args:
            stations: K, number of base stations.
            antennas: M, number of beams of a map.
            tones: F, number of its delays.
            width: channels of the convolutions.
            blocks: number of times that the delays are halved.
            hidden: width of the perceptron.
            centre: centre of the service area [m].
            extent: half size of the service area [m].
        """
        super().__init__()
        self.entry = _circular(stations, width)
        self.blocks = nn.Sequential(*(ConvolutionBlock(width) for _ in range(blocks)))
        left = -(-tones // 2**blocks)
        self.regression = PositionRegression(width * antennas * left, stations, hidden, centre, extent)

    def forward(self, power: Tensor, gain: Tensor, present: Tensor) -> Tensor:
        """Return positions (B, 1, 3) [m]; what absent base stations are given is ignored."""
        strongest = power.amax((2, 3), keepdim=True).clamp_min(1e-30)
        level = 1 + 10 / _RANGE_DB * (power / strongest).clamp_min(10 ** (-_RANGE_DB / 10)).log10()  # in 0..1
        image = torch.where(present[:, :, None, None], level, 0.0)
        position: Tensor = self.regression(self.blocks(self.entry(image)).flatten(1), gain, present)
        return position


def build(setup: CloudSetup) -> OneRoundFusion:
    """Build the fusion of angle-delay power maps."""
    return AdcpmFusion(setup)


class AdcpmFusion(NetworkFusion):
    """Makes a fix from the maps of any subset of the base stations that the weights cover."""

    def __init__(self, setup: CloudSetup) -> None:
        shape = setup.config["network"]
        self._map = int(shape["antennas"]), int(shape["tones"])
        self._slots = int(setup.config["slots"])
        self._payload = FloatPayload(self._map[0] * self._map[1])
        super().__init__(setup, AdcpmNetwork(**shape), "network", (int(shape["stations"]), *self._map), self._read)

    def _read(self, _: int, reports: Sequence[Report]) -> tuple[npt.NDArray[np.float32], list[float]]:
        powers = [self._payload.decode(report.payload) for report in reports]
        totals = [float(power.sum()) for power in powers]
        maps = [power / np.float32(max(total, 1e-30)) for power, total in zip(powers, totals, strict=True)]
        gains = [(self._slots * max(total, 0.0)) ** 0.5 for total in totals]
        return np.stack(maps).reshape(-1, *self._map), gains


def _circular(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="circular")
