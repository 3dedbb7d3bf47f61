"""Score networks of DiffLoc: residual MLP and UNet on fingerprint, noised position and noise level. DiffLoc Sec. IV.

Every layer holds K networks in parallel, one per base station, so that all are trained at once; a base station runs its
own with K = 1. Shapes: fingerprints h (K, B, F), noised positions x (K, B, D), time t (K, B, 1), result
(K, B, D). Coordinates are normalised (`fronthaul.payload.noise_levels`).

    h ── standardise ── W_h ──> embedding e (E) ─┐
    x ───────────────── W_x ────────────────────+── SiLU ── body ──> output
    t ── sinusoids ── MLP ── W_t ────────────────┘

The input projection of the paper's concatenated input is split into its three summands: e depends on the channel
alone, so it is computed once per snapshot, however many steps the sampler takes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fronthaul.payload.noise_levels import Level

Body = Literal["mlp", "unet"]
MLP_WIDTHS = (512, 256, 128)
UNET_WIDTHS = (64, 128, 256, 512)
TIME_FEATURES = 64
SIGMA_DATA = 0.5
"""Standard deviation of normalised positions in the consistency parameterisation (Song et al. 2023, App. C)."""


@dataclass(frozen=True)
class NetworkShape:
    """Shape of a score network; the ``network`` table of a weights file.

    Attributes:
        body: architecture, one of the paper's two.
        features: F, length of the channel features.
        dimensions: D, 2 or 3.
        dropout: dropout rate of the MLP.
        outputs: output length if it is not D, for baselines with the same body; 0 for D.
    """

    body: Body
    features: int
    dimensions: int = 2
    dropout: float = 0.1
    outputs: int = 0

    @property
    def embedding(self) -> int:
        """E, length of the channel's embedding."""
        return MLP_WIDTHS[0] if self.body == "mlp" else UNET_WIDTHS[0]


class StackedLinear(nn.Module):
    """K linear layers in parallel: (K, B, in) to (K, B, out)."""

    def __init__(self, stations: int, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(stations, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(stations, 1, outputs).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply layer k to x[k]."""
        return torch.bmm(x, self.weight) if self.bias is None else torch.baddbmm(self.bias, x, self.weight)


class StackedNorm(nn.BatchNorm1d):
    """K batch norms in parallel, over (K, B, width)."""

    def __init__(self, stations: int, width: int) -> None:
        super().__init__(stations * width)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each feature of each network over its own batch."""
        stations, batch, width = x.shape
        flat = x.transpose(0, 1).reshape(batch, stations * width)
        return super().forward(flat).reshape(batch, stations, width).transpose(0, 1)


class MlpBody(nn.Module):
    """Residual MLP with widths [512, 256, 128], SiLU, batch norm and dropout. DiffLoc Sec. IV-A."""

    def __init__(self, stations: int, outputs: int, dropout: float) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(MLP_WIDTHS))
        self.norm_in = StackedNorm(stations, MLP_WIDTHS[0])
        self.layers = nn.ModuleList(StackedLinear(stations, a, b) for a, b in pairs)
        self.skips = nn.ModuleList(StackedLinear(stations, a, b, bias=False) for a, b in pairs)
        self.norms = nn.ModuleList(StackedNorm(stations, b) for _, b in pairs)
        self.head = StackedLinear(stations, MLP_WIDTHS[-1], outputs)
        self._dropout = dropout

    def forward(self, y: Tensor) -> Tensor:
        """Map (K, B, 512) to (K, B, D)."""
        y = self._drop(functional.silu(self.norm_in(y)))
        for layer, skip, norm in zip(self.layers, self.skips, self.norms, strict=True):
            y = self._drop(functional.silu(norm(layer(y)))) + skip(y)
        out: Tensor = self.head(y)
        return out

    def _drop(self, y: Tensor) -> Tensor:
        return functional.dropout(y, self._dropout, self.training)


class UnetBody(nn.Module):
    """Encoder 64→128→256→512, bottleneck 512², decoder with concatenated skips. DiffLoc Sec. IV-C [R]."""

    def __init__(self, stations: int, outputs: int) -> None:
        super().__init__()
        w0, w1, w2, w3 = UNET_WIDTHS
        self.down = nn.ModuleList(StackedLinear(stations, a, b) for a, b in ((w0, w1), (w1, w2), (w2, w3)))
        self.bottleneck = StackedLinear(stations, w3, w3)
        self.up = nn.ModuleList(StackedLinear(stations, a, b) for a, b in ((w3, w2), (2 * w2, w1), (2 * w1, w0)))
        self.head = StackedLinear(stations, 2 * w0, outputs)

    def forward(self, y: Tensor) -> Tensor:
        """Map (K, B, 64) to (K, B, D)."""
        y = functional.silu(y)
        skips = [y]
        for layer in self.down:
            y = functional.silu(layer(y))
            skips.append(y)
        skips.pop()
        y = functional.silu(self.bottleneck(y))
        for layer in self.up:
            y = torch.cat([functional.silu(layer(y)), skips.pop()], -1)
        out: Tensor = self.head(y)
        return out


class ScoreNetwork(nn.Module):
    """K score networks; see the module's diagram."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: NetworkShape, stations: int = 1) -> None:
        """Create networks with random weights.

        Args:
            shape: shape of each network.
            stations: K, number of networks.
        """
        super().__init__()
        self.shape = shape
        width = shape.embedding
        self.register_buffer("mean", torch.zeros(stations, 1, shape.features))
        self.register_buffer("deviation", torch.ones(stations, 1, shape.features))
        self.embed_channel = StackedLinear(stations, shape.features, width, bias=False)
        self.embed_position = StackedLinear(stations, shape.dimensions, width)
        self.time_in = StackedLinear(stations, TIME_FEATURES, TIME_FEATURES)
        self.time_out = StackedLinear(stations, TIME_FEATURES, width, bias=False)
        outputs = shape.outputs or shape.dimensions
        self.body: MlpBody | UnetBody = (
            MlpBody(stations, outputs, shape.dropout) if shape.body == "mlp" else UnetBody(stations, outputs)
        )

    def embed(self, features: Tensor) -> Tensor:
        """Return embeddings e (K, B, E) of channel features (K, B, F), computed once for all sampler steps."""
        standard = ((features - self.mean) / self.deviation).clamp(-10, 10)
        out: Tensor = self.embed_channel(standard)
        return out

    def forward(self, embedding: Tensor, x: Tensor, time: Tensor) -> Tensor:
        """Return the raw output (K, B, D) for inputs x (K, B, D) and times (K, B, 1)."""
        moment = functional.silu(self.time_in(time_features(time)))
        out: Tensor = self.body(embedding + self.embed_position(x) + self.time_out(moment))
        return out


def time_features(time: Tensor) -> Tensor:
    """Return sinusoidal features (…, 64) of times (…, 1) in 0 … 1."""
    half = TIME_FEATURES // 2
    frequency = torch.exp(torch.linspace(0, math.log(1000.0), half, device=time.device, dtype=time.dtype))
    angle = time * frequency
    return torch.cat([angle.sin(), angle.cos()], -1)


class Denoiser:
    """Output of K trained networks at a noise level; `kind` determines its meaning.

    ``diffusion``: the output is ε̂ (DiffLoc Eq. 11). ``consistency``: the output is the clean position
    f(x) = c_skip x + c_out F(c_in x) with f(x) = x at σ_min (Song et al. 2023, App. C; DiffLoc Sec. IV-D).

    No call takes a user's position: x is noise, or what the sampler made of it.
    """

    def __init__(self, network: ScoreNetwork, sampler: Mapping[str, Any]) -> None:
        """Read a weights file's ``sampler`` table."""
        self.network = network
        self.kind: str = sampler["kind"]
        self.sigma_min = float(sampler["sigma"][0]) if self.kind == "consistency" else 0.0

    def raw(self, embedding: Tensor, x: Tensor, level: Level) -> Tensor:
        """Return the networks' output (K, B, D) at x (K, B, D): ε̂ or the clean position, depending on `kind`."""
        time = torch.full((*x.shape[:2], 1), level.time, device=x.device)
        if self.kind == "diffusion":
            out: Tensor = self.network(embedding, x, time)
            return out
        return consistency_output(self.network, embedding, x, torch.full_like(time, level.noise), time, self.sigma_min)


def consistency_output(
    network: ScoreNetwork, embedding: Tensor, x: Tensor, sigma: Tensor, time: Tensor, sigma_min: float
) -> Tensor:
    """Return f (K, B, D) at noise levels σ (K, B, 1), with f(x) = x at σ_min. DiffLoc Sec. IV-D [R]."""
    skip = SIGMA_DATA**2 / ((sigma - sigma_min) ** 2 + SIGMA_DATA**2)
    out = SIGMA_DATA * (sigma - sigma_min) / (sigma**2 + SIGMA_DATA**2).sqrt()
    scaled = x / (sigma**2 + SIGMA_DATA**2).sqrt()
    raw: Tensor = network(embedding, scaled, time)
    return skip * x + out * raw


def build_network(config: Mapping[str, Any], tensors: Sequence[Mapping[str, Tensor]]) -> ScoreNetwork:
    """Stack the networks of several base stations, each from its own share of the weights (``network.…``).

    Raises:
        RuntimeError: the tensors do not fit the shape.
    """
    network = ScoreNetwork(NetworkShape(**config["network"]), len(tensors))
    names = network.state_dict()
    state = {
        name: value if value.ndim == 0 else torch.cat([share[f"network.{name}"].float() for share in tensors])
        for name, value in names.items()
    }
    network.load_state_dict(state)
    return network.eval()
