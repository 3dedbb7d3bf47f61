"""VIn-Loc's network at the base station, from an impulse response to 256 numbers. VIn-Loc Sec. 3, Part 1, Table 1.

Notation: B snapshots, A antennas at the user, L = 256 taps, C channels; maps are (B, C, L), for A > 1 (B, C, A, L).

::

    h (A, L) complex ─ 2-D FFT over the user's array (A > 1) ─ companding ─ {Re, Im, |·|}
        ─ UNet: kernel 3 or 3×3, four poolings, 6 channels out ─ flatten ─ MLP ─ tanh ─ 256 values in (−1, 1)

One network serves every base station: its input is the taps, not the site, which makes the scheme view independent.

The paper does not state how amplitudes are scaled. Near and far users differ by orders of magnitude, so magnitudes are
*companded* here, x = h/|h| · √(|h|/s) with one scale s for all base stations; this keeps the received power, which
depends on distance. The final tanh bounds all values, so that one uniform quantiser fits them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fronthaul.payload.vinloc import VALUES as VALUES


class CirEmbedding(nn.Module):
    """Impulse responses (B, A, L) complex64 to values (B, 256) in (−1, 1)."""

    scale: Tensor

    def __init__(
        self,
        antennas: int = 1,
        taps: int = 256,
        channels: Sequence[int] = (16, 32, 48, 64, 64),
        outputs: int = 6,
        hidden: int = 512,
        rows: int = 1,
        bottleneck: int = 0,
    ) -> None:
        """Create the network.

        Args:
            antennas: A, number of user antennas; above 1 the UNet is two-dimensional, angle × delay.
            taps: L, a multiple of 16.
            channels: C on each of the five levels.
            outputs: number of output channels of the UNet.
            hidden: width of the MLP.
            rows: rows of the user's array; antenna j is in column j // rows and row j % rows.
            bottleneck: rank of the MLP's first layer, which is then factorised into two; 0 for full rank.
        """
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self._antennas, self._rows = antennas, rows
        flat = antennas == 1
        self.down = nn.ModuleList(
            _Double(inputs, own, flat) for inputs, own in zip((3, *channels[:-1]), channels, strict=True)
        )
        self.up = nn.ModuleList(
            _Double(below + own, own, flat) for below, own in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        # Pooling halves the delay axis only; the few angles would not survive four halvings.
        self._pool: nn.Module = nn.MaxPool1d(2) if flat else _ROW_POOL
        self._grow = nn.Upsample(scale_factor=2) if flat else _ROW_GROW
        self.last = (nn.Conv1d if flat else nn.Conv2d)(channels[0], outputs, 1)
        size = outputs * antennas * taps
        first: nn.Module = nn.Linear(size, hidden)
        if bottleneck:
            first = nn.Sequential(nn.Linear(size, bottleneck, bias=False), nn.Linear(bottleneck, hidden))
        self.head = nn.Sequential(first, nn.ReLU(), nn.Linear(hidden, VALUES))

    def forward(self, cir: Tensor) -> Tensor:
        """Map impulse responses (B, A, L) to values (B, 256); for A > 1 user antennas are transformed into angles."""
        x = self.features(cir)
        if self.training or x.is_cuda:
            x = channels_last(x)
        values: Tensor = torch.tanh(self.head(self.unet(x).flatten(1)))
        return values

    def unet(self, x: Tensor) -> Tensor:
        """Return the UNet's output for features; the same for `channels_last` of them, which may be a row."""
        row = self._antennas == 1 and x.ndim == 4
        pool, grow = (_ROW_POOL, _ROW_GROW) if row else (self._pool, self._grow)
        kept: list[Tensor] = []
        for level in self.down[:-1]:
            x = level(x)
            kept.append(x)
            x = pool(x)
        x = self.down[-1](x)
        for level in self.up:
            x = level(torch.cat([grow(x), kept.pop()], 1))
        if row:
            return functional.conv2d(x, self.last.weight[:, :, None], self.last.bias)
        made: Tensor = self.last(x)
        return made

    def features(self, cir: Tensor) -> Tensor:
        """Return {Re, Im, |·|} of the companded response: (B, 3, L), or (B, 3, A, L) over angles."""
        if self._antennas == 1:
            cir = cir[:, 0]
        else:
            grid = cir.reshape(len(cir), self._antennas // self._rows, self._rows, -1)
            cir = torch.fft.fft2(grid, dim=(1, 2), norm="ortho").flatten(1, 2)
        magnitude = cir.abs()
        root = torch.sqrt(magnitude / self.scale)
        turned = torch.view_as_real(cir) * (root / magnitude.clamp_min(1e-30))[..., None]
        return torch.cat([turned.movedim(-1, 1), root[:, None]], 1)


_ROW_POOL, _ROW_GROW = nn.MaxPool2d((1, 2)), nn.Upsample(scale_factor=(1, 2))


def channels_last(x: Tensor) -> Tensor:
    """Return maps with the channels last in memory; maps (B, C, L) as images of one row (B, C, 1, L).

    CUDA has fast kernels for those: of (B, C, L) it normalises each channel on one of its many processors. On CPUs
    forward and backward pass take 0.7 of the time.
    """
    return (x[:, :, None] if x.ndim == 3 else x).contiguous(memory_format=torch.channels_last)


class _Double(nn.Module):
    """Convolution of width 3, batch normalisation and ReLU, applied twice."""

    def __init__(self, inputs: int, outputs: int, flat: bool) -> None:
        super().__init__()
        self._flat = flat
        convolution, norm = (nn.Conv1d, nn.BatchNorm1d) if flat else (nn.Conv2d, nn.BatchNorm2d)
        self.layers = nn.Sequential(
            convolution(inputs, outputs, 3, padding=1, bias=False), norm(outputs), nn.ReLU(),
            convolution(outputs, outputs, 3, padding=1, bias=False), norm(outputs), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        if self._flat and x.ndim == 4:
            for convolution, norm in itertools.pairwise(self.layers):
                if isinstance(convolution, nn.Conv1d) and isinstance(norm, nn.BatchNorm1d):
                    x = functional.conv2d(x, convolution.weight[:, :, None], padding=(0, 1))
                    mean, variance, rate = norm.running_mean, norm.running_var, norm.momentum or 0.0
                    x = functional.batch_norm(x, mean, variance, norm.weight, norm.bias, norm.training, rate, norm.eps)
                    x = functional.relu(x)
            return x
        made: Tensor = self.layers(x)
        return made
