"""Position from received signal strength in several rounds: damped Gauss-Newton steps, no path-loss model at the cloud.

The cloud broadcasts an estimate x, three coordinates of 16 bits over the service area, starting at its centre c. Base
station k at p_k answers (`edge.rss_rounds`) with its residual z_k there, in standard deviations, and with
s_k = ∂z_k/∂d_k [1/m]. With u_k = (x − p_k) / ‖x − p_k‖ the next estimate x' minimises, within the service area,

    Σ_k (z_k + s_k u_kᵀ (x' − x))² + Σ_i (x'_i − c_i)² / v_i + λ Σ_i (x'_i − x_i)² / v_i,        v_i = extent_i² / 12

The second term is a normal prior with the service area's mean and variance, the third is Levenberg's damping: λ starts
at 0.1 and grows fourfold whenever a step reverses direction. For a base station that does not answer, its last answer
is used. Residuals are clipped and slopes are not, so the steps are those of Huber's method of modified residuals: an
outlying base station pulls no more than one at two standard deviations. The rounds end after `rounds` of the
configuration (default 8), or with a step below half a metre. The covariance is the inverse of Fisher
information plus prior precision, (Σ_k s_k² u_k u_kᵀ + diag(1/v))⁻¹, at the last estimate that was broadcast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import lsq_linear

from cloud.fusion.scheme import CloudSetup, Fix, unheard_fix
from fronthaul.message.messages import Payload, Report
from fronthaul.payload.rss_rounds import AnswerPayload, StatePayload

DAMPING = 0.1
TOLERANCE_M = 0.5

_Vector = npt.NDArray[np.float64]


class RssRoundsFusion:
    """Opens one exchange per snapshot; holds what all exchanges share."""

    def __init__(self, setup: CloudSetup) -> None:
        """Build from the registered positions and the service area."""
        self.rounds = int(setup.config.get("rounds", 8))
        self.answer = AnswerPayload(setup.payload.bits)
        self.state = StatePayload(setup.config["low"], setup.config["high"])
        self.stations = {bs: np.array(position) for bs, position in setup.stations.items()}
        self.low, self.high = np.array(setup.config["low"], float), np.array(setup.config["high"], float)

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
        """Take a step with a round's answers; those of round 0 say whether the user is heard."""
        rule = self._rule
        if self._round == 0 and (unheard := unheard_fix(reports)) is not None:
            return unheard
        if self._round:
            self._take(reports)
            step = self._next_step()
            self._damping *= 4 if step @ self._step < 0 else 1
            self._step = step
            self._estimate = self._broadcast + step
            if self._round >= rule.rounds or np.linalg.norm(step) < TOLERANCE_M:
                return self._fix()
        self._round += 1
        state = rule.state.encode(self._estimate)
        self._broadcast = rule.state.decode(state)
        return state

    def conclude(self) -> Fix | None:
        """Return the last estimate; None before the first answer."""
        return self._fix() if self._rows else None

    def _take(self, reports: Sequence[Report]) -> None:
        for report in reports:
            residual, slope = self._rule.answer.decode(report.payload)
            line = self._broadcast - self._rule.stations[report.key.bs]
            row = slope * line / max(1.0, float(np.linalg.norm(line)))
            self._rows[report.key.bs] = row, row @ self._broadcast - residual

    def _next_step(self) -> _Vector:
        """Solve the bounded least-squares problem; base stations are in fixed order, whatever the order of arrival."""
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
