"""Channel-masked attention and frequency evidence accumulation. ECC Sec. III-B, Eq. 23-28 and 32-34.

Notation: B snapshots, K base stations, F tones, C coefficients per token, d model width.

::

    ẑ (B,K,F,C) ─ token projection ───────────────┐
    g (B,K) ─ standardised log-gain ─ softmax ─ w ─ gated attention with query q ─ tokens (B,F,d) ─┐
                                                                       p̂ (B,F,3) ─ head ─ LSTM ────┘

Any subset of the base stations can be fused: absent ones are masked out of the softmax and the attention.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class ChannelMaskedAttention(nn.Module):
    """Fuse the K tokens of each tone into one, by attention of a learned fusion token q. ECC Eq. 23-28.

    Only q's output row is used (Eq. 28), so only q's row of the attention is computed. Scores and values are linear
    in the tokens, and the tokens x_k = ẑ_k P_k + s_k linear in the latents, so the weighted sum is taken over the
    latents (C numbers each) and projected once: this is exact, and the cost does not grow with K·d².
    """

    def __init__(
        self, stations: int, coefficients: int, width: int, temperature: float = 1.0, gain_mask: bool = True
    ) -> None:
        super().__init__()
        self.temperature, self.gain_mask = temperature, gain_mask
        # Each base station has its own encoder and hence its own latent space, so it gets its own token projection;
        # with d >= K·C the sum over base stations can keep them apart.
        self.projection = nn.Parameter(torch.randn(stations, coefficients, width) / math.sqrt(coefficients))
        self.station = nn.Parameter(torch.randn(stations, width) * 0.02)
        self.query = nn.Parameter(torch.randn(width) * 0.02)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)

    def forward(self, latent: Tensor, gain: Tensor, present: Tensor) -> Tensor:
        """Fuse the base stations' tokens of each tone.

        Args:
            latent: ẑ (B, K, F, C).
            gain: (B, K) standardised log-gain γ.
            present: (B, K) bool, False for base stations without a report.

        Returns:
            Fused tokens (B, F, d).
        """
        width = self.query.shape[0]
        gate = present.to(latent.dtype)  # attention alone
        if self.gain_mask:
            gate = (gain / self.temperature).masked_fill(~present, -math.inf).softmax(-1)  # ECC Eq. 23
        probe = (self.query @ self.key.weight) / math.sqrt(width)  # q's query against the key map: (d,)
        direction = self.projection @ probe  # (K, C)
        score = (latent * direction[:, None]).sum(-1) + (self.station @ probe)[:, None]  # ECC Eq. 25: (B, K, F)
        own = (self.query @ probe).expand(len(latent), 1, latent.shape[2])  # q attends to itself too
        seen = torch.cat([present, torch.ones_like(present[:, :1])], 1)[:, :, None]
        attention = torch.cat([score.float(), own.float()], 1).masked_fill(~seen, -math.inf).softmax(1)
        weight = attention[:, :-1] * gate[:, :, None]  # values gated by w_k, q's own by 1  # ECC Eq. 26
        mixed = (weight[..., None] * latent).transpose(1, 2).flatten(2)  # (B, F, K·C)
        fused = mixed @ self.projection.flatten(0, 1) + weight.transpose(1, 2) @ self.station
        fused = fused + attention[:, -1, :, None] * self.query
        out: Tensor = self.value(fused)  # ECC Eq. 27-28
        return out


def read_out(estimate: Tensor, last: int) -> Tensor:
    """Return fixes (B, 3): the mean of the `last` positions of `estimate` (B, F, 3); the last one alone is ECC Eq. 33.

    The last LSTM step alone wastes evidence: neighbouring steps err differently.
    """
    return estimate[:, -last:].mean(1)


class CmaFusionNetwork(nn.Module):
    """Token projection, channel-masked attention, LSTM over tones, regression head. ECC Fig. 4-5."""

    centre: Tensor
    extent: Tensor
    gain_mean: Tensor
    gain_deviation: Tensor

    def __init__(
        self,
        *,
        stations: int = 6,
        coefficients: int = 32,
        width: int = 192,
        hidden: int = 256,
        readout: int = 1,
        temperature: float = 1.0,
        gain_mask: bool = True,
        centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
        extent: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> None:
        """Build the network.

        Args:
            stations: K, number of base stations that the weights cover.
            coefficients: C, latent coefficients per token.
            width: d, model width.
            hidden: LSTM state size.
            readout: number of last intermediate positions whose mean is the fix; 1 is the paper's Eq. 33.
            temperature: of the gain mask's softmax.
            gain_mask: whether base stations are weighted by their gains (Eq. 23), or by attention alone.
            centre: centre of the service area [m]; the head works in units of `extent` around it.
            extent: half size of the service area [m].
        """
        super().__init__()
        self.readout = readout
        self.attention = ChannelMaskedAttention(stations, coefficients, width, temperature, gain_mask)
        self.norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.accumulate = nn.LSTM(width, hidden, batch_first=True)
        self.head = nn.Sequential(nn.Linear(hidden, hidden // 2), nn.GELU(), nn.Linear(hidden // 2, 3))
        self.register_buffer("centre", torch.tensor(centre))
        self.register_buffer("extent", torch.tensor(extent))
        self.register_buffer("gain_mean", torch.zeros(stations))
        self.register_buffer("gain_deviation", torch.ones(stations))

    def forward(self, latent: Tensor, gain: Tensor, present: Tensor) -> Tensor:
        """Return intermediate positions (B, F, 3) [m], of which `read_out` makes the fix. ECC Eq. 32-33.

        Args:
            latent: dequantised ẑ (B, K, F, C).
            gain: side information g (B, K), linear amplitude, > 0.
            present: (B, K) bool.
        """
        fused = self.attention(latent, self.standardised_gain(gain), present)
        fused = fused + self.feed_forward(self.norm(fused))
        evidence, _ = self.accumulate(fused)  # zero initial state  # ECC Eq. 32
        estimate: Tensor = self.head(evidence).float()  # ECC Eq. 33
        return self.centre + self.extent * estimate

    def standardised_gain(self, gain: Tensor) -> Tensor:
        """Return log-gains, standardised per base station over the training set [R]: raw gains span tens of dB."""
        level = 20 * torch.log10(gain.float().clamp_min(1e-12))
        return (level - self.gain_mean) / self.gain_deviation
