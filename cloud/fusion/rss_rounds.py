"""Position from received signal strength in several rounds: damped Gauss-Newton steps, no path-loss model at the cloud.

The cloud broadcasts an estimate x, three coordinates of 16 bit on the service area, at first its centre c. Base
station k at p_k answers (edge.rss_rounds) with its residual z_k there, in standard deviations, and with s_k = ∂z_k/∂d_k
[1/m]. With u_k = (x − p_k) / ‖x − p_k‖ the next estimate x' is, within the service area, the minimum of

    Σ_k (z_k + s_k u_kᵀ (x' − x))² + Σ_i (x'_i − c_i)² / v_i + λ Σ_i (x'_i − x_i)² / v_i,        v_i = extent_i² / 12

The second term is a normal prior of the service area's mean and variance, the third Levenberg's damping: λ is 0.1, and
grows fourfold whenever a step turns back. A base station that is silent counts with what it said last. Residuals come
clipped and slopes do not, which makes the steps those of Huber's method of modified residuals: a base station that
hears next to nothing pulls no more than one at two standard deviations. The rounds end after `rounds` of the
configuration (8 where it has none), or with a step below half a metre. The covariance is the inverse of Fisher
information and prior, (Σ_k s_k² u_k u_kᵀ + diag(1/v))⁻¹, at the last estimate that was broadcast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import lsq_linear

from cloud.fusion.scheme import CloudSetup, Fix
from fronthaul.codec.bitstream import pack, unpack
from fronthaul.codec.codebook import UniformCodebook
from fronthaul.message.messages import Payload, Report

# What both ends must agree on; edge.rss_rounds has them too.
COORDINATE_BITS = 16
RESIDUAL = 2.0
SLOPE_PER_M = (1e-3, 1.0)

DAMPING = 0.1
TOLERANCE_M = 0.5

_Vector = npt.NDArray[np.float64]


class RssRoundsFusion:
    """Opens an exchange a snapshot; holds what is the same for all."""

    def __init__(self, setup: CloudSetup) -> None:
        """Build from the registered positions and the service area."""
        self.rounds = int(setup.config.get("rounds", 8))
        self.bits = setup.payload.bits_or(16)
        self.residual = UniformCodebook(-RESIDUAL, RESIDUAL, self.bits)
        self.log_slope = UniformCodebook(math.log(SLOPE_PER_M[0]), math.log(SLOPE_PER_M[1]), self.bits)
        self.stations = {bs: np.array(position) for bs, position in setup.stations.items()}
        self.low, self.high = np.array(setup.config["low"], float), np.array(setup.config["high"], float)
        self.axes = [UniformCodebook(*ends, COORDINATE_BITS) for ends in zip(self.low, self.high, strict=True)]

    def open(self, snapshot: int) -> RssExchange:
        """Begin at the centre of the service area, whatever the snapshot."""
        return RssExchange(self)


class RssExchange:
    """The rounds of one snapshot."""

    def __init__(self, rule: RssRoundsFusion) -> None:
        """Begin at the centre of the service area."""
        self._rule = rule
        self._estimate: _Vector = self._centre()
        self._broadcast = self._estimate
        self._round = 0
        self._damping = DAMPING
        self._step: _Vector = np.zeros(3)
        self._rows: dict[int, tuple[_Vector, float]] = {}  # j_k = s_k u_k and j_kᵀ x − z_k of the last answer

    def advance(self, reports: Sequence[Report]) -> Payload | Fix:
        """Take a step by a round's answers; those of round 0 are empty."""
        rule = self._rule
        if self._round:
            self._take(reports)
            step = self._next_step()
            self._damping *= 4 if step @ self._step < 0 else 1
            self._step = step
            self._estimate = self._broadcast + step
            if self._round >= rule.rounds or np.linalg.norm(step) < TOLERANCE_M:
                return self._fix()
        self._round += 1
        index = [axis.index(np.array(x, np.float32)) for axis, x in zip(rule.axes, self._estimate, strict=True)]
        self._broadcast = np.array([axis.reconstruct(i) for axis, i in zip(rule.axes, index, strict=True)], float)
        return pack(np.array(index, np.uint32), COORDINATE_BITS)

    def conclude(self) -> Fix | None:
        """Return the last estimate; before the first answer there is none."""
        return self._fix() if self._rows else None

    def _take(self, reports: Sequence[Report]) -> None:
        for report in reports:
            index = unpack(report.payload, self._rule.bits, 2)
            residual = float(self._rule.residual.reconstruct(index[0]))
            slope = math.exp(float(self._rule.log_slope.reconstruct(index[1])))
            line = self._broadcast - self._rule.stations[report.key.bs]
            row = slope * line / max(1.0, float(np.linalg.norm(line)))
            self._rows[report.key.bs] = row, row @ self._broadcast - residual

    def _next_step(self) -> _Vector:
        """Solve the bounded least squares; base stations in a fixed order, whenever they answered."""
        rule, held = self._rule, [self._rows[bs] for bs in sorted(self._rows)]
        prior = np.sqrt(self._precision())
        rows = np.vstack([*(row for row, _ in held), np.diag(prior), math.sqrt(self._damping) * np.diag(prior)])
        answers = [value - row @ self._broadcast for row, value in held]
        right = np.concatenate([answers, prior * (self._centre() - self._broadcast), np.zeros(3)])
        bounds = rule.low - self._broadcast, rule.high - self._broadcast
        step: _Vector = lsq_linear(rows, right, bounds, method="bvls", max_iter=30).x
        return step

    def _centre(self) -> _Vector:
        return np.asarray((self._rule.low + self._rule.high) / 2, np.float64)

    def _precision(self) -> _Vector:
        return np.asarray(12 / (self._rule.high - self._rule.low) ** 2, np.float64)

    def _fix(self) -> Fix:
        x, y, z = self._estimate.tolist()
        information = sum((np.outer(row, row) for row, _ in self._rows.values()), np.diag(self._precision()))
        return Fix((x, y, z), np.asarray(np.linalg.inv(information), np.float64))
