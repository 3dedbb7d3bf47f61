"""VIn-Loc as one trainable model: the base stations' network, quantisers of any resolution, the cloud's network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cloud.fusion.loc_token import LocTokenNetwork
from edge.cir_embedding import VALUES, CirEmbedding


class VinLocModel(nn.Module):
    """Maps impulse responses, sites and resolutions to positions.

    Attributes:
        embedding: the embedding network, shared by all base stations.
        network: the cloud's network.
        alone: reads a displacement from the site, in units of the extent, from one base station's values, for
            `Schedule.alone`; else None.
        centre, extent: positions are normalised as (p − centre) / extent, [m].
    """

    centre: Tensor
    extent: Tensor

    def __init__(
        self,
        embedding: dict[str, Any],
        network: dict[str, Any],
        low: Tensor,
        high: Tensor,
        tap_s: float = 5e-9,
        alone: bool = False,
    ) -> None:
        """Make the model for positions between `low` and `high` (3,) [m] and taps `tap_s` apart [s]."""
        super().__init__()
        self.tap_s = tap_s
        self.shapes = {"embedding": embedding, "network": network}
        self.embedding = CirEmbedding(**embedding)
        self.network = LocTokenNetwork(**network)
        self.alone = nn.Linear(VALUES, 3) if alone else None
        self.register_buffer("centre", (low + high) / 2)
        # One unit for all axes: a metre is a metre in any direction.
        self.register_buffer("extent", ((high - low).max() / 2).expand(3).clone())

    def forward(self, cir: Tensor, site: Tensor, present: Tensor, bits: Tensor) -> Tensor:
        """Position users (B, 3) [m].

        Args:
            cir: (B, K, A, L) complex64.
            site: (B, K, 3) [m].
            present: (B, K) bool.
            bits: (B,) resolution of the values, 0 for float.
        """
        values = self.values(cir, present)
        return self.fused(quantised(values, bits[:, None, None]), site, present)

    def values(self, cir: Tensor, present: Tensor | None) -> Tensor:
        """Return embedding values (B, K, 256) of the links that are present, zero elsewhere; None: all are present."""
        if present is None:
            every: Tensor = self.embedding(cir.flatten(0, 1)).float().unflatten(0, cir.shape[:2])
            return every
        made: Tensor = self.embedding(cir[present]).float()
        return made.new_zeros(*present.shape, VALUES).masked_scatter(present[..., None], made)

    def fused(self, values: Tensor, site: Tensor, present: Tensor) -> Tensor:
        """Return positions (B, 3) [m] from the values that the cloud receives."""
        unit: Tensor = self.network(values, (site - self.centre) / self.extent, present)
        return unit.float() * self.extent + self.centre


def quantised(values: Tensor, bits: Tensor) -> Tensor:
    """Quantise values in (−1, 1) with a midrise quantiser of `bits` (0: unchanged); gradients pass straight through."""
    levels = torch.pow(2.0, bits.float())
    index = ((values.detach() + 1) * levels / 2).floor().clamp_min(0).minimum(levels - 1)
    rounded = torch.where(bits > 0, (index + 0.5) * 2 / levels - 1, values.detach())
    return values + (rounded - values.detach())
