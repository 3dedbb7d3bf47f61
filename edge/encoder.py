"""Residual SegNet encoder and its mirrored decoder. ECC Fig. 3, Eq. 16.

Notation: B snapshots, F tones, W positions along the slot·antenna axis, C channels; maps are (B, F, W, C).

::

    X (2, F, T·M) ─ down 1×(5·M) ─ residual ─ down 1×2 ─ [tone mixing, residual] × depth ─ linear ─ latent (F, 32)
                    5 slots and               2 halves    all tones   3 tones                      unit variance
                    all antennas

Down-sampling runs along the slot·antenna axis only, so that latent row f stays the token of tone f (Eq. 16).
Two things go beyond the paper's figure (docs/ecc.md lists them): the blocks mix all tones at once
(`ToneMixing`), because a path's delay is a phase ramp over the whole band, which a 3-tone kernel sees only a few
layers deep; and the latent is normalised to unit variance per coefficient, so that one quantiser step fits.

The strided convolutions have strides equal to their width, so each is written as a matrix product over gathered
neighbours, which CPUs train faster than the general convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Down(nn.Module):
    """Convolution 1×stride with stride `stride` along W: (B, F, W, C) → (B, F, W/stride, outputs)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Linear(inputs * stride, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Merge `stride` neighbours along W."""
        b, f, w, c = x.shape
        out: Tensor = self.weight(x.reshape(b, f, w // self.stride, self.stride * c))
        return out


class Up(nn.Module):
    """Transposed convolution 1×stride along W: (B, F, W, C) → (B, F, W·stride, outputs)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Linear(inputs, outputs * stride)

    def forward(self, x: Tensor) -> Tensor:
        """Spread each position over `stride` neighbours along W."""
        b, f, w, _ = x.shape
        out: Tensor = self.weight(x).reshape(b, f, w * self.stride, -1)
        return out


class Residual(nn.Module):
    """x + 3×1 convolution (rectified, normalised) over the tones."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.first = nn.Linear(3 * channels, channels)
        self.second = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, F, W, C) to the same shape; tones beyond the band's edges are zero."""
        y = functional.pad(self.norm(x), (0, 0, 0, 0, 1, 1))
        neighbours = torch.cat([y[:, :-2], y[:, 1:-1], y[:, 2:]], -1)
        out: Tensor = x + self.second(functional.relu(self.first(neighbours)))
        return out


class ToneMixing(nn.Module):
    """x + a two-layer map over all tones, the same for every channel: a learned delay transform and back."""

    def __init__(self, tones: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.spread = nn.Linear(tones, hidden)
        self.gather = nn.Linear(hidden, tones)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, F, W, C) to the same shape."""
        y = self.norm(x).transpose(1, 3)  # (B, C, W, F)
        out: Tensor = x + self.gather(functional.relu(self.spread(y))).transpose(1, 3)
        return out


class SegNetEncoder(nn.Module):
    """X (B, 2, F, T·M) → latent (B, F, coefficients), float32."""

    def __init__(
        self,
        *,
        tones: int = 24,
        slots: int = 10,
        antennas: int = 4,
        coefficients: int = 32,
        width: int = 96,
        depth: int = 2,
        tone_mixing: bool = True,
    ) -> None:
        super().__init__()
        near = _largest_proper_divisor(slots)
        blocks: list[nn.Module] = []
        for _ in range(depth):
            blocks += [ToneMixing(tones, width, 4 * tones)] * tone_mixing + [Residual(width)]
        self.body = nn.Sequential(
            Down(2, width // 2, near * antennas),
            Residual(width // 2),
            Down(width // 2, width, slots // near),
            *blocks,
            nn.LayerNorm(width),
            nn.Linear(width, coefficients),
        )
        self.scale = nn.BatchNorm1d(coefficients, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 2, F, T·M) to (B, F, coefficients). ECC Eq. 16."""
        latent = self.body(x.permute(0, 2, 3, 1))[:, :, 0]  # (B, F, coefficients)
        return self._scaled(latent.float())

    def _scaled(self, latent: Tensor) -> Tensor:
        """Normalise each coefficient of latents (B, F, coefficients) to unit variance."""
        own = self.scale
        if latent.is_cuda and self.training:  # cuDNN's kernel; the one without factors takes a fifth of a step
            one = torch.ones_like(own.running_mean)  # type: ignore[arg-type]
            share = float(own.momentum or 0.0)
            x = latent.transpose(1, 2).contiguous()
            made = functional.batch_norm(x, own.running_mean, own.running_var, one, 0 * one, True, share, own.eps)
            return made.transpose(1, 2)
        scaled: Tensor = own(latent.flatten(0, 1)).reshape(latent.shape)
        return scaled


class SegNetDecoder(nn.Module):
    """Latent (B, F, coefficients) → reconstructed X (B, 2, F, T·M); Stage I only, then dropped."""

    def __init__(
        self,
        *,
        tones: int = 24,
        slots: int = 10,
        antennas: int = 4,
        coefficients: int = 32,
        width: int = 96,
        tone_mixing: bool = True,
    ) -> None:
        super().__init__()
        near = _largest_proper_divisor(slots)
        self.body = nn.Sequential(
            nn.Linear(coefficients, width),
            Residual(width),
            ToneMixing(tones, width, 4 * tones) if tone_mixing else nn.Identity(),
            Up(width, width // 2, slots // near),
            Residual(width // 2),
            Up(width // 2, 2, near * antennas),
        )

    def forward(self, latent: Tensor) -> Tensor:
        """Map (B, F, coefficients) to (B, 2, F, T·M)."""
        out: Tensor = self.body(latent[:, :, None]).permute(0, 3, 1, 2)
        return out


def cosine_loss(x: Tensor, reconstruction: Tensor) -> Tensor:
    """Return the Stage I loss −|⟨h, ĥ⟩| / (‖h‖ ‖ĥ‖ + ε), averaged over the batch. ECC Eq. 22.

    Both arguments (B, 2, F, T·M) hold real and imaginary parts. The inner product is complex and its modulus is taken,
    since the paper reports a range [−1, 0] [R].
    """
    h = torch.complex(x[:, 0].float(), x[:, 1].float()).flatten(1)
    g = torch.complex(reconstruction[:, 0].float(), reconstruction[:, 1].float()).flatten(1)
    product = (h.conj() * g).sum(1).abs()
    norms = torch.linalg.vector_norm(h, dim=1) * torch.linalg.vector_norm(g, dim=1)
    loss: Tensor = -(product / (norms + 1e-8)).mean()
    return loss


def _largest_proper_divisor(count: int) -> int:
    """Return the largest divisor of `count` below itself: 5 for 10, 1 for a prime."""
    return next((d for d in range(count // 2, 0, -1) if count % d == 0), 1)
