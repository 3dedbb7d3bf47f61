"""Positions from features of all base stations at once: what the networks of ECC's baselines end in."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PositionRegression(nn.Module):
    """Multilayer perceptron from features (B, D), gains and presence (B, K) to one position (B, 1, 3) [m].

    Gains enter as log-gains, standardised per base station over the training set; those of absent base stations as 0.
    The output is in units of `extent` around `centre` [m].
    """

    centre: Tensor
    extent: Tensor
    gain_mean: Tensor
    gain_deviation: Tensor

    def __init__(
        self,
        features: int,
        stations: int,
        hidden: int,
        centre: tuple[float, float, float],
        extent: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features + 2 * stations, hidden), nn.ReLU(),
            nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, 3),
        )  # fmt: skip
        self.register_buffer("centre", torch.tensor(centre))
        self.register_buffer("extent", torch.tensor(extent))
        self.register_buffer("gain_mean", torch.zeros(stations))
        self.register_buffer("gain_deviation", torch.ones(stations))

    def forward(self, features: Tensor, gain: Tensor, present: Tensor) -> Tensor:
        """Return positions (B, 1, 3) [m]."""
        level = (20 * torch.log10(gain.float().clamp_min(1e-12)) - self.gain_mean) / self.gain_deviation
        given = torch.cat([features, torch.where(present, level, 0.0), present.float()], 1)
        estimate: Tensor = self.layers(given).float()
        return (self.centre + self.extent * estimate)[:, None]
