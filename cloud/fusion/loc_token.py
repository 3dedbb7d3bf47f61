"""VIn-Loc's network at the cloud, from values and sites of any base stations to a position. VIn-Loc Sec. 3, Table 1.

Notation: B snapshots, K base stations (0 … 1024, in any order), D encoder width (512).

A token concatenates the values of a base station and an embedding of its site; a learned token [LOC], which represents
the user, is appended. In the encoder blocks [LOC] attends to all tokens; absent base stations are masked out as keys.
An MLP maps the final [LOC] token to a position. All coordinates are normalised.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fronthaul.errors import LocalError

MOST_STATIONS = 1024
"""Maximum number of base stations per fix: the cost of attention is quadratic in it."""


class LocTokenNetwork(nn.Module):
    """Maps values (B, K, 256) in (−1, 1) and sites (B, K, 3) to positions (B, 3)."""

    def __init__(
        self,
        values: int = 256,
        token: int = 512,
        width: int = 512,
        blocks: int = 4,
        heads: int = 4,
        feedforward: int = 1024,
        hidden: int = 256,
        positions: bool = True,
    ) -> None:
        """Create the network.

        Args:
            values: number of values that a base station sends.
            token: length of a token; the remainder after the values is the embedding of the site.
            width: encoder width D; tokens are projected to it if their length differs.
            blocks: number of encoder blocks.
            heads: number of attention heads.
            feedforward: hidden width of a block.
            hidden: hidden width of the output MLP.
            positions: whether sites are embedded; if not, tokens hold zeros there (Table 2, "No TRP positions").
        """
        super().__init__()
        self._positions = positions
        own = token - values
        self.site = nn.Sequential(nn.Linear(3, own), nn.ReLU(), nn.Linear(own, own - 3))
        self.entry = nn.Identity() if width == token else nn.Linear(token, width)
        self.loc = nn.Parameter(torch.randn(width) * 0.02)
        self.blocks = nn.ModuleList(EncoderBlock(width, heads, feedforward) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(),
            nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, 3),
        )  # fmt: skip

    def forward(self, values: Tensor, site: Tensor, present: Tensor) -> Tensor:
        """Return positions (B, 3); `present` (B, K) bool is False for base stations without a usable report.

        Raises:
            LocalError: there are more base stations than `MOST_STATIONS`.
        """
        if values.shape[1] > MOST_STATIONS:
            raise LocalError(f"{values.shape[1]} base stations are more than the {MOST_STATIONS} that a fix may use")
        tokens = self.entry(torch.cat([values, self._embedded(site)], -1))
        # The token of an absent base station has zero weight, but it may hold NaN, and NaN times zero is not zero.
        tokens = torch.where(present[..., None], tokens, 0.0)
        loc = self.loc.to(tokens.dtype).expand(len(values), 1, -1)
        keys = torch.cat([present, present.new_ones(len(values), 1)], 1)
        tokens = torch.cat([tokens, loc], 1)
        for block in self.blocks[:-1]:
            tokens = block(tokens, tokens, keys)
        # Only [LOC] of the last block is used, so nothing else is computed.
        position: Tensor = self.output(self.norm(self.blocks[-1](tokens[:, -1:], tokens, keys))[:, 0])
        return position

    def _embedded(self, site: Tensor) -> Tensor:
        """Return embeddings (B, K, token − values) of sites (B, K, 3): an MLP's output, then the coordinates."""
        embedded = torch.cat([self.site(site), site], -1)
        return embedded if self._positions else torch.zeros_like(embedded)


class EncoderBlock(nn.Module):
    """Pre-norm transformer encoder block (Vaswani et al.): attention and a two-layer MLP, each with a residual path."""

    def __init__(self, width: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self._heads = heads
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.gather = (nn.Linear(width, width) for _ in range(4))
        self.first, self.second = nn.Linear(width, feedforward), nn.Linear(feedforward, width)

    def forward(self, tokens: Tensor, context: Tensor, keys: Tensor) -> Tensor:
        """Update `tokens` (B, Q, D) from `context` (B, K, D), where `keys` (B, K) bool marks valid keys."""
        seen = self.attention_norm(context)
        asking = self.attention_norm(tokens)
        query, key, value = (
            made.unflatten(-1, (self._heads, -1)).transpose(1, 2)
            for made in (self.query(asking), self.key(seen), self.value(seen))
        )
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=keys[:, None, None])
        tokens = tokens + self.gather(found.transpose(1, 2).flatten(2))
        grown: Tensor = tokens + self.second(functional.relu(self.first(self.norm(tokens))))
        return grown
