"""Received signal strength in several rounds: neither the gain nor the path-loss model leaves the base station.

Base station k at p_k models its gain g_k [dB] as a_k − 10 n_k log10 ‖x − p_k‖ + e, e ~ N(0, σ_k²), like scheme `rss`.
Round 0 is empty. Of every estimate x that the cloud broadcasts it says, at d_k = ‖x − p_k‖, in B bits each:

    z_k = (g_k − a_k + 10 n_k log10 d_k) / σ_k            residual in standard deviations, clipped to ±2
    s_k = ∂z_k/∂d_k = (10 n_k / ln 10) / (σ_k d_k)        what it changes over the distance [1/m], on a log scale

The gradient of its log-likelihood is −z_k s_k along the line from p_k to x, which the cloud knows.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge.preprocessing import channel_gain
from edge.scheme import EdgeSetup, Encoded, SchemeSpec
from fronthaul.codec.bitstream import unpack
from fronthaul.codec.codebook import UniformCodebook
from fronthaul.message.messages import Codec, Payload

# What both ends must agree on; cloud.fusion.rss_rounds has them too.
COORDINATE_BITS = 16
RESIDUAL = 2.0
SLOPE_PER_M = (1e-3, 1.0)


class RssRoundsEdge:
    """Keeps the gain at full precision, and answers with residual and slope."""

    name = "rss-rounds"
    spec = SchemeSpec(weights="rss")
    coefficients = 0
    side_bytes = 0

    def __init__(self, setup: EdgeSetup) -> None:
        """Build from this base station's row of `path_loss`; 16 bit a number stand in for lossless."""
        self.bits = setup.payload.bits_or(16)
        self.answer_codec = Codec(self.bits, 2, 0)
        self._site = np.array(setup.site)
        area = zip(setup.config["low"], setup.config["high"], strict=True)
        self._axes = [UniformCodebook(low, high, COORDINATE_BITS) for low, high in area]
        self._residual = UniformCodebook(-RESIDUAL, RESIDUAL, self.bits)
        self._log_slope = UniformCodebook(math.log(SLOPE_PER_M[0]), math.log(SLOPE_PER_M[1]), self.bits)
        self._a, self._n, self._sigma = (float(value) for value in setup.tensors["path_loss"])

    @torch.inference_mode()
    def encode(self, channel: Tensor) -> Encoded:
        """Measure the gains [dB] of Ĥ (B, slot, antenna, tone), and keep them; nothing is sent."""
        level = 20 * torch.log10(channel_gain(channel).double().clamp_min(1e-12))
        return Encoded(np.empty((len(channel), 0), np.uint32), len(channel) * [b""], level.tolist())

    def answer(
        self, context: float, snapshot: int, round_: int, state: Payload
    ) -> tuple[npt.NDArray[np.uint32], bytes]:
        """Return the indices of z_k and log s_k at the estimate `state`, for the gain `context` [dB]."""
        index = unpack(state, COORDINATE_BITS, len(self._axes))
        estimate = np.array([axis.reconstruct(i) for axis, i in zip(self._axes, index, strict=True)], float)
        distance = max(1.0, float(np.linalg.norm(estimate - self._site)))
        residual = (context - self._a + 10 * self._n * math.log10(distance)) / self._sigma
        slope = 10 * self._n / math.log(10) / (self._sigma * distance)
        log_slope = math.log(max(slope, SLOPE_PER_M[0]))  # a fitted exponent may be negative: it tells nothing
        found = zip((self._residual, self._log_slope), (residual, log_slope), strict=True)
        return np.array([book.index(np.array(value, np.float32)) for book, value in found], np.uint32), b""
