"""The whole ECC network as one module for training (encoders, quantiser, fusion), and its export to a weights file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from cloud.fusion.cma import CmaFusionNetwork
from edge.encoder import SegNetDecoder, SegNetEncoder
from edge.preprocessing import Phase
from edge.quantizer import quantise_straight_through
from fronthaul.codec.codebook import gaussian_step
from sim.plan.weights import Weights
from sim.world.made_for import made_for
from sim.world.scenario import Scenario


@dataclass(frozen=True)
class EccShape:
    """Sizes of the network; `coefficients` per token set the payload, the others only the computing cost.

    `readout`: number of last intermediate positions whose mean is the fix; 1 is the paper's. `tone_mixing`: whether
    encoders have blocks over all tones, which the paper's do not. `gain_mask`: whether base stations are weighted by
    their gains (Eq. 23). `temperature`: of that weight's softmax.
    """

    coefficients: int = 32
    encoder_width: int = 64
    encoder_depth: int = 2
    fusion_width: int = 192
    hidden: int = 256
    readout: int = 12
    tone_mixing: bool = True
    gain_mask: bool = True
    temperature: float = 1.0


class EccModel(nn.Module):
    """Encoders of K base stations and the cloud's network, with the quantiser between them.

    `bits`: bits per coefficient B, or None for the lossless reference, which has no encoders.
    """

    step: Tensor

    def __init__(self, scenario: Scenario, phase: Phase, bits: int | None, shape: EccShape) -> None:
        super().__init__()
        self._frozen = False
        slots, antennas, tones = scenario.csi_shape
        stations = len(scenario.sites)
        self.scenario, self.phase, self.bits, self.readout = scenario, phase, bits, shape.readout
        self.fusion_in_single = False  # keep the cloud's network in float32 even under autocast
        self.encoder_shape: dict[str, Any] = {
            "tones": tones,
            "slots": slots,
            "antennas": antennas,
            "coefficients": shape.coefficients,
            "width": shape.encoder_width,
            "depth": shape.encoder_depth,
            "tone_mixing": shape.tone_mixing,
        }
        low, high = torch.tensor(scenario.users.low), torch.tensor(scenario.users.high)
        self.fusion_shape: dict[str, Any] = {
            "stations": stations,
            "coefficients": 2 * slots * antennas if bits is None else shape.coefficients,
            "width": shape.fusion_width,
            "hidden": shape.hidden,
            "readout": shape.readout,
            "temperature": shape.temperature,
            "gain_mask": shape.gain_mask,
            "centre": ((low + high) / 2).tolist(),
            "extent": ((high - low) / 2).clamp_min(1.0).tolist(),
        }
        self.encoders = nn.ModuleList()
        if bits is not None:
            self.encoders.extend(SegNetEncoder(**self.encoder_shape) for _ in range(stations))
            step = torch.full((stations, shape.coefficients), gaussian_step(bits))
            self.register_buffer("step", step)
        self.fusion = CmaFusionNetwork(**self.fusion_shape)

    def freeze_encoders(self) -> None:
        """Keep the encoders as they are from now on, their normalisation included (the paper's split training)."""
        self._frozen = True
        self.encoders.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation; frozen encoders stay in evaluation."""
        super().train(mode)
        if self._frozen:
            self.encoders.eval()
        return self

    def decoders(self) -> nn.ModuleList:
        """Make new decoders for Stage I."""
        shape = {k: v for k, v in self.encoder_shape.items() if k != "depth"}
        return nn.ModuleList(SegNetDecoder(**shape) for _ in self.encoders)

    def latent(self, x: Tensor) -> Tensor:
        """Return unquantised latents (B, K, F, C) of inputs x (B, K, 2, F, T·M)."""
        if self.bits is None:
            return x.permute(0, 1, 3, 4, 2).flatten(3)
        return torch.stack([encoder(x[:, k]) for k, encoder in enumerate(self.encoders)], 1)

    def forward(self, x: Tensor, gain: Tensor, present: Tensor) -> Tensor:
        """Return positions (B, F, 3) [m] from inputs (B, K, 2, F, T·M), gains (B, K) and presence (B, K)."""
        latent = self.latent(x)
        if self.bits is not None:
            latent = quantise_straight_through(latent.float(), self.step[:, None], self.bits)
        single = self.fusion_in_single or not torch.is_autocast_enabled(x.device.type)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=not single):
            estimate: Tensor = self.fusion(latent.float() if single else latent, gain, present)
        return estimate

    def weights(self, covariance: Tensor, steps: dict[int, Tensor], record: dict[str, Any]) -> Weights:
        """Return the weights that an emulation needs.

        Args:
            covariance: (K, tone, antenna, antenna) complex64.
            steps: calibrated quantiser steps (K, C) for each B.
            record: how the weights were trained; kept in the configuration.
        """
        slots, antennas, tones = self.scenario.csi_shape
        config = {
            "scheme": "ecc",
            "scenario": self.scenario.name,
            "made_for": made_for(self.scenario),
            "phase": self.phase,
            "bits": self.bits,
            "slots": slots,
            "antennas": antennas,
            "tones": tones,
            "encoder": self.encoder_shape,
            "fusion": self.fusion_shape,
            "record": record,
        }
        tensors: dict[str, Tensor] = {}
        for k in range(len(covariance)):
            tensors[f"edge.{k}.covariance"] = torch.view_as_real(covariance[k]).clone()
        for k, encoder in enumerate(self.encoders):
            for name, value in encoder.state_dict().items():
                if not name.endswith("num_batches_tracked"):
                    tensors[f"edge.{k}.encoder.{name}"] = value.cpu()
            for bits, step in steps.items():
                tensors[f"edge.{k}.step.{bits}"] = step[k].cpu().clone()
                tensors[f"cloud.step.{k}.{bits}"] = step[k].cpu().clone()
        for name, value in self.fusion.state_dict().items():
            tensors[f"cloud.fusion.{name}"] = value.cpu()
        return Weights(config, tensors)


def calibrated_steps(latent: Tensor, all_bits: Sequence[int]) -> dict[int, Tensor]:
    """Return, for each B, the steps (K, C) with least mean squared error on training latents (N, K, F, C)."""
    samples = latent.permute(1, 3, 0, 2).flatten(2)  # (K, C, N·F)
    deviation = samples.std(-1)
    steps: dict[int, Tensor] = {}
    for bits in all_bits:
        best = torch.full_like(deviation, torch.inf)
        chosen = deviation * gaussian_step(bits)
        for factor in torch.linspace(0.5, 1.6, 23):
            step = deviation * gaussian_step(bits) * factor
            error = (quantise_straight_through(samples, step[..., None], bits) - samples).square().mean(-1)
            chosen = torch.where(error < best, step, chosen)
            best = torch.minimum(error, best)
        steps[bits] = chosen
    return steps
