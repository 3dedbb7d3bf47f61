"""Inference with a base station's score network: channel embeddings, answers to states, samples of its own posterior.

The same class runs at the base station or, if only embeddings are sent, at the cloud. Positions are normalised
(`fronthaul.payload.noise_levels`). No call takes a user's position: states are noise, or what a sampler made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge.fingerprint import delay_taps, fingerprint
from edge.mixture_fit import fit_mixture
from edge.score_network import Denoiser, build_network
from fronthaul.draws import generator
from fronthaul.message.messages import Payload
from fronthaul.payload.diffloc import COMPONENTS, EmbeddingPayload, Mixture, ScoreFormat
from fronthaul.payload.noise_levels import Level

STEP = 0.05
"""Step of the central differences for Jacobians, in units of the noise s: scores vary on no finer scale than s."""
EMBEDDING_ONLY = ("network.embed_channel.weight", "network.mean", "network.deviation")
"""Tensors used only to compute embeddings, most of a network; a receiver of embeddings needs none of them."""

Floats = npt.NDArray[np.float64]


class ScoreStation:
    """One base station's network."""

    def __init__(
        self,
        score: ScoreFormat,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        bs: int,
        device: str = "cpu",
    ) -> None:
        """Build the network; without the tensors `EMBEDDING_ONLY` it cannot compute embeddings.

        Args:
            score: sampler, fusion rule and number formats of the run.
            config: the weights file's configuration.
            tensors: this base station's share of its tensors.
            bs: base station; keys the random draws of samples.
            device: compute device.
        """
        self._score = score
        self._embeds = EMBEDDING_ONLY[0] in tensors
        if not self._embeds:
            config = {**config, "network": {**config["network"], "features": 1}}
            width = tensors["network.embed_position.bias"].shape[-1]
            blank = torch.zeros(1, 1, width), torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
            tensors = {**tensors, **dict(zip(EMBEDDING_ONLY, blank, strict=True))}
        self._device = torch.device(device)
        self.network = build_network(config, [tensors]).to(self._device)
        self._denoiser = Denoiser(self.network, config["sampler"])
        self._posterior = tensors["posterior"].double().cpu().numpy()
        self._inflation = float(config.get("one_shot_inflation", 1.0 if score.kind == "consistency" else 0.0))
        self._taps, self._ifft = int(config["taps"]), config.get("ifft")
        self._bs = bs

    @torch.inference_mode()
    def embed(self, channel: Tensor) -> Tensor:
        """Return embeddings (B, E) of channels Ĥ (B, slot, pair, tone), or of delay taps (B, slot, pair, tap).

        Raises:
            RuntimeError: the channels do not have the size that the network was trained on.
        """
        assert self._embeds, "this network has no embedding part"
        if channel.shape[-1] > self._taps:
            if self._ifft is None:
                raise RuntimeError(f"the weights take {self._taps} taps and do not say of which IFFT (key ifft)")
            channel = delay_taps(channel, int(self._ifft), self._taps)
        features = fingerprint(channel.to(self._device))
        expected = self.network.shape.features
        if features.shape[-1] != expected:
            raise RuntimeError(f"the network takes fingerprints of {expected} numbers, not of {features.shape[-1]}")
        return self.network.embed(features[None])[0].cpu()

    @torch.inference_mode()
    def raw(self, embedding: Tensor, x: Floats, level: Level) -> Floats:
        """Return the network's output (N, D) at states x (N, D): ε̂, or the clean position.

        Args:
            embedding: (E,), or (N, E) with one for each state.
            x: noised positions.
            level: their noise level.
        """
        states = torch.from_numpy(x.astype(np.float32)).to(self._device)[None]
        rows = embedding.to(self._device).expand(len(x), -1)[None]
        said: Floats = self._denoiser.raw(rows, states, level)[0].cpu().numpy().astype(np.float64)
        return said

    def jacobian(self, embedding: Tensor, x: Floats, level: Level) -> Floats:
        """Return s ∂ε̂/∂x (N, D, D) at states x (N, D), by central differences: symmetric, eigenvalues in 0 … 1.

        For any log-concave posterior they lie there: I − s ∂ε̂/∂x is a²/s² times the covariance of the clean position
        given x. The result is NaN if an output is not finite.
        """
        size, step = x.shape[1], STEP * level.noise
        moved = x[:, None, None] + step * np.stack([np.eye(size), -np.eye(size)], 1)  # (N, D, 2, D)
        said = self.raw(embedding, moved.reshape(-1, size), level).reshape(moved.shape)
        difference = np.swapaxes((said[:, :, 0] - said[:, :, 1]) / (2 * step), 1, 2)  # row: component of the output
        jacobian = level.noise * difference
        if self._score.kind == "consistency":
            jacobian = np.eye(size) - level.signal * difference
        if not np.isfinite(jacobian).all():
            return np.full_like(jacobian, np.nan)
        value, vector = np.linalg.eigh((jacobian + np.swapaxes(jacobian, 1, 2)) / 2)
        return np.asarray((vector * np.clip(value, 0.0, 1.0)[:, None]) @ np.swapaxes(vector, 1, 2), np.float64)

    def answer(self, embedding: Tensor, x: Floats, level: Level) -> tuple[Floats, Floats | None]:
        """Return the network's output (P, D) at states x (P, D), and Jacobians (P, D, D) if the rule needs them."""
        jacobian = self.jacobian(embedding, x, level) if self._score.has_jacobians else None
        return self.raw(embedding, x, level), jacobian

    def samples(self, embedding: Tensor, count: int) -> Floats:
        """Draw samples (B, count, D) of the own posteriors for embeddings (B, E), with the cloud's noise schedule.

        The draws are keyed by the base station alone and the same for each snapshot (common random numbers): samples
        differ between snapshots only because the channels do.
        """
        levels, kind = self._score.levels, self._score.kind
        batch, size = len(embedding), self._score.dimensions
        draws = generator(0, "local", self._bs)

        def noise() -> Floats:
            return np.tile(draws.standard_normal((count, size)), (batch, 1))

        rows = embedding.repeat_interleave(count, 0)
        x = noise() * (levels[0].noise if kind == "consistency" else 1.0)
        for level, after in zip(levels, (*levels[1:], None), strict=True):
            said = self.raw(rows, x, level)
            clean = said if kind == "consistency" else (x - level.noise * said) / level.signal
            if after is not None:
                fresh = noise() if kind == "consistency" else said
                x = after.signal * clean + after.noise * fresh
        return clean.reshape(batch, count, size)

    def own_mixture(self, samples: Floats) -> Mixture:
        """Fit three Gaussians to samples (P, D) and add the configured multiple of the constant posterior covariance.

        Parameters are NaN if a sample is not finite.
        """
        if not np.isfinite(samples).all():
            none = np.full((COMPONENTS, samples.shape[1]), np.nan)
            return Mixture(none[:, 0], none, np.full((*none.shape, samples.shape[1]), np.nan))
        found = fit_mixture(samples, COMPONENTS)
        return Mixture(found.weight, found.mean, found.covariance + self._inflation * self._posterior)

    def local_covariance(self, samples: Floats) -> Floats:
        """Return the covariance (D, D) of samples (P, D), inflated as in `own_mixture`."""
        return np.asarray(np.cov(samples.T) + self._inflation * self._posterior, np.float64)


def embedding_payload(tensors: Mapping[str, Tensor], bits: int) -> EmbeddingPayload:
    """Return the codec of a base station's embeddings, with `bits` bits per number."""
    centre, scale = (tensors[f"embedding.{name}"].float().numpy() for name in ("centre", "scale"))
    return EmbeddingPayload(centre, scale, bits)


class StationAtCloud:
    """The part of a base station that runs at the cloud: it decodes reports and answers like the base station."""

    def __init__(
        self, score: ScoreFormat, config: Mapping[str, Any], tensors: Mapping[str, Tensor], bs: int, device: str = "cpu"
    ) -> None:
        """Build the network and the codec; arguments as for `ScoreStation`."""
        self._score = score
        self._station = ScoreStation(score, config, tensors, bs, device)
        self._code = embedding_payload(tensors, score.bits)

    def read(self, payload: Payload) -> Tensor | None:
        """Decode the embedding of a report, for `answer` and `own_mixture`; None if it is not finite."""
        embedding = self._code.decode(payload)
        return None if embedding is None else torch.from_numpy(embedding)

    def answer(self, embedding: Tensor, x: Floats, level: Level) -> tuple[Floats, Floats | None]:
        """Answer states x (P, D): return the network's output (P, D), and Jacobians (P, D, D) or None."""
        return self._station.answer(embedding, x, level)

    def own_mixture(self, embedding: Tensor) -> Mixture:
        """Return the mixture of the base station's own posterior; its parameters are NaN if a sample is not finite."""
        return self._station.own_mixture(self._station.samples(embedding[None], self._score.particles)[0])
