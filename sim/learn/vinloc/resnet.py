"""ResNet fingerprinting: one network on the responses of all base stations, as in 3GPP's studies on positioning.

VIn-Loc's baseline (Sec. 4, Table 2; R1-2303450): a residual network over delays, whose input channels are the base
stations side by side. It is not given their positions. When some base stations are left out, its input can be filled in
these ways; the paper does not state which one it used:

- ``rows``: each base station has fixed channels, zero when it is left out. The network sees which ones are present.
- ``packed``: as many slots as responses, filled in the order of the sites. Slot 4 may be site 4, 5, 6 or 7 of 18.
- ``shuffled``: as many slots as responses, filled in a random order drawn anew for each user: an unordered set.

Notation: B users, K base stations, S kept ones, L delays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from sim.learn.vinloc.data import CirSet

Filling = Literal["rows", "packed", "shuffled"]
PER_STATION = 3
"""Input channels of a base station: real part, imaginary part, magnitude."""


class ResNetLocator(nn.Module):
    """Maps the responses in its slots (B, S, L) complex64 to positions (B, 3) [m]."""

    centre: Tensor
    extent: Tensor

    def __init__(
        self,
        slots: int,
        taps: int,
        low: Tensor,
        high: Tensor,
        channels: Sequence[int] = (64, 64, 96, 128, 192),
        hidden: int = 256,
    ) -> None:
        """Make the network for positions between `low` and `high` (3,) [m].

        Args:
            slots: number of input responses, S.
            taps: number of delays, L.
            low: corner of the users' box.
            high: the opposite corner.
            channels: widths of the first layer, then of each pair of residual blocks; every pair but the first halves
                the number of delays.
            hidden: width of the layer before the output.
        """
        super().__init__()
        first, *others = channels
        self.entry = nn.Sequential(
            nn.Conv1d(PER_STATION * slots, first, 7, stride=2, padding=3, bias=False), nn.BatchNorm1d(first), nn.ReLU()
        )
        blocks: list[nn.Module] = []
        for inputs, own in zip(channels, others, strict=False):
            blocks += [_Residual(inputs, own, 1 if inputs == first and not blocks else 2), _Residual(own, own, 1)]
        self.blocks = nn.Sequential(*blocks)
        # Delays carry the position: the output layer takes all of them, instead of an average over delays.
        width = channels[-1] * (taps // 2 ** len(others))
        self.output = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 3))
        self.register_buffer("centre", (low + high) / 2)
        self.register_buffer("extent", ((high - low).max() / 2).expand(3).clone())

    def forward(self, slots: Tensor) -> Tensor:
        """Position users (B, 3) [m]."""
        found = self.blocks(self.entry(features(slots))).flatten(1)
        with torch.autocast("cpu", enabled=False):  # bfloat16 cannot tell positions apart to better than decimetres
            unit: Tensor = self.output(found.float())
        return unit * self.extent + self.centre


class _Residual(nn.Module):
    """Two convolutions of width 3 beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(),
            nn.Conv1d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm1d(outputs),
        )  # fmt: skip
        same = inputs == outputs and stride == 1
        self.shortcut: nn.Module = nn.Identity() if same else nn.Conv1d(inputs, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = torch.relu(self.layers(x) + self.shortcut(x))
        return made


def features(slots: Tensor) -> Tensor:
    """Return {Re, Im, |·|} (B, 3 S, L) of responses (B, S, L) in units of `CirSet.scale`, companded as in VIn-Loc."""
    magnitude = slots.abs()
    root = magnitude.sqrt()
    turned = slots * (root / magnitude.clamp_min(1e-30))
    return torch.stack([turned.real, turned.imag, root], 2).flatten(1, 2)


def filled(made: CirSet, kept: Tensor, filling: Filling, draw: torch.Generator) -> Tensor:
    """Arrange responses (B, S or K, L) complex64 as the network's input.

    Args:
        made: B users with one antenna.
        kept: (B, S) indices of the base stations used, ascending.
        filling: see the module.
        draw: generator of the orders.
    """
    device = made.cir.device
    row, kept = torch.arange(len(made), device=device)[:, None], kept.to(device)
    if filling == "shuffled":
        order = torch.rand(kept.shape, generator=draw, device=draw.device).argsort(1)
        kept = kept.gather(1, order.to(device))
    chosen = torch.view_as_complex(made.cir[row, kept, 0].float())
    if filling != "rows":
        return chosen
    slots = chosen.new_zeros(len(made), made.present.shape[1], chosen.shape[-1])
    slots[row, kept] = chosen
    return slots
