"""Received signal strength in several rounds: neither the gain nor the path-loss model leaves the base station.

Base station k at p_k models its gain g_k [dB] as a_k − 10 n_k log10 ‖x − p_k‖ + e, e ~ N(0, σ_k²), like scheme `rss`.
The report of round 0 says whether the user is heard, in a byte of side information. To every estimate x that the cloud
broadcasts, base station k answers two numbers of B bits each, with d_k = ‖x − p_k‖:

    z_k = (g_k − a_k + 10 n_k log10 d_k) / σ_k            residual in standard deviations, clipped to ±2
    s_k = ∂z_k/∂d_k = (10 n_k / ln 10) / (σ_k d_k)        its slope over distance [1/m], coded on a log scale

The gradient of its log-likelihood is −z_k s_k along the line from p_k to x, which the cloud knows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from edge.preprocessing import channel_gain
from edge.scheme import EdgeSetup, Encoded, SchemeSpec, with_hearing
from fronthaul.message.messages import Payload
from fronthaul.payload.rss_rounds import NOTHING, AnswerPayload, StatePayload


class RssRoundsEdge:
    """Keeps the gain at full precision and answers with residual and slope."""

    name = "rss-rounds"
    spec = SchemeSpec(weights="rss")

    def __init__(self, setup: EdgeSetup) -> None:
        """Build from this base station's row of `path_loss`; lossless uses 16 bits per number."""
        self._state = StatePayload(setup.config["low"], setup.config["high"])
        self._answer = AnswerPayload(setup.bits)
        self.format, self.answer_format = self._answer.report_format, self._answer.format
        self._site = np.array(setup.site)
        self._a, self._n, self._sigma = (float(value) for value in setup.tensors["path_loss"])

    @torch.inference_mode()
    def encode(self, channel: Tensor) -> Encoded:
        """Measure the gains [dB] of Ĥ (B, slot, antenna, tone) and keep them as context; payloads are empty."""
        level = 20 * torch.log10(channel_gain(channel).double().clamp_min(1e-12))
        return Encoded(len(channel) * [NOTHING], context=level.tolist())

    def mark(self, encoded: Encoded, heard: Sequence[bool]) -> Encoded:
        """Say in each report of round 0 whether the user is heard."""
        return with_hearing(encoded, heard)

    def answer(self, context: float, snapshot: int, round_: int, state: Payload) -> tuple[Payload, bytes]:
        """Return z_k and s_k at the estimate `state`, for the gain `context` [dB]."""
        distance = max(1.0, float(np.linalg.norm(self._state.decode(state) - self._site)))
        residual = (context - self._a + 10 * self._n * math.log10(distance)) / self._sigma
        slope = 10 * self._n / math.log(10) / (self._sigma * distance)
        return self._answer.encode(residual, slope), b""
