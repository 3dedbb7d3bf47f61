"""Classical positioning at the cloud: the position that times and angles of paths point to, robustly.

Notation: base station k at p_k reports one path or several, j, each with a range ρ (its time of arrival times c), an
azimuth φ and a zenith θ, or some of them. For a user at x whose clock is behind by b/c, a line of sight has residuals

    ρ − |x − p_k| − b,     φ − atan2(y − y_k, x − x_k),     θ − arccos((z − z_k) / |x − p_k|)

b is 0 for users that are synchronised to the base stations (times of arrival), and estimated otherwise, which is what
differences of times of arrival would tell. Errors of each kind have Student's t distribution, whose freedom ν and scale
s were fitted on training positions (`train toa`); s² is increased by the variance that the report gives. A base station
is as likely as the likeliest of its paths, the line of sight being the first with the probability P = 9/10, otherwise
any of the further ones alike:

    C(x, b) = Σ_k min_j (−log P_j + Σ (ν + 1)/2 · log(1 + r² / (ν s²)))

Paths off the line of sight, whose residuals are large, count little in it. It has many minima. The start is found on a
grid of the service area: where the clock is unknown, each base station's first path in turn is trusted to give b, as a
random sample of the least size would (RANSAC), but all of them are tried. The best few places are refined by reweighted
least squares, at first with scales widened by a tenth of the grid's step, and the best result is the fix. Positions
stay within the service area.

Least squares have a normal prior, with mean and variance V of a uniform distribution over the service area. The
covariance is (Σ ν/(ν + 3) · w ∇r ∇rᵀ + V⁻¹)⁻¹ with their weights w = (ν + 1) / (ν s² + r²): for small residuals that is
the distribution's Fisher information, and large ones, which tell nothing, fade out. A fix is undetermined if there are
fewer measurements than unknowns, or if they leave more than half of V's variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.fusion.scheme import NOTHING_HEARD, CloudSetup, Fix, OneRoundFusion
from fronthaul.message.messages import Payload, Report
from fronthaul.payload.first_path import DEFAULT_K, FirstPathPayload
from fronthaul.payload.measurements import SPEED_OF_LIGHT, Path

Real = npt.NDArray[np.float64]

KINDS = ("range_m", "azimuth", "zenith")
"""Kinds of measurements, in this order everywhere."""
_GRID = (33, 33, 5)
_STARTS, _WIDENED, _STEPS = 8, 0.1, 20
_LEAST_KNOWN = 0.5
_LATER = 0.1  # probability that the line of sight is one of the further paths
_CLOSE_M = 1e-4  # step that ends the refinement
_LARGEST_STEP_M = 20.0


@dataclass(frozen=True)
class Errors:
    """Error model of reports.

    Attributes:
        freedom: ν of each kind (3,).
        scale: s of each kind (3,) [m, rad, rad].
    """

    freedom: Real
    scale: Real

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Errors:
        """Read the error model of a weights file's configuration."""
        table = config["errors"]
        return cls(*np.array([table[kind] for kind in KINDS], np.float64).T)


@dataclass(frozen=True)
class Seen:
    """What K base stations report of up to J paths, in the C kinds of measurements that there are.

    Attributes:
        kinds: their places in `KINDS` (C,).
        value: NaN where there is none (K, J, C).
        scale: s of each, with the report's own deviation (K, J, C).
        odds: −log P of each path, infinite where there is none (K, J).
        freedom: ν of each kind (C,).
    """

    kinds: npt.NDArray[np.intp]
    value: Real
    scale: Real
    odds: Real
    freedom: Real

    @classmethod
    def of(cls, paths: Sequence[Sequence[Path]], errors: Errors) -> Seen:
        """Arrange the paths of base stations under an error model."""
        shape = len(paths), max(map(len, paths))
        value, deviation = np.full((*shape, 3), math.nan), np.zeros((*shape, 3))
        odds = np.full(shape, math.inf)
        for k, own in enumerate(paths):
            for j, path in enumerate(own):
                value[k, j] = path.delay_s * SPEED_OF_LIGHT, path.azimuth, path.zenith
                deviation[k, j] = path.delay_sd_s * SPEED_OF_LIGHT, path.azimuth_sd, path.zenith_sd
                odds[k, j] = -math.log(1 - _LATER if j == 0 else _LATER / (len(own) - 1)) if len(own) > 1 else 0.0
        kinds = np.flatnonzero(np.isfinite(value).any((0, 1)))
        scale = np.sqrt(np.square(deviation) + np.square(errors.scale))
        return cls(kinds, value[..., kinds], scale[..., kinds], odds, errors.freedom[kinds])

    def residuals(self, modelled: Real, offset: Real) -> Real:
        """Return residuals (…, K, J, C) of models (…, K, 3) and b (…)."""
        residual = self.value - modelled[..., None, self.kinds]
        for column, kind in enumerate(self.kinds):
            if KINDS[kind] == "range_m":
                residual[..., column] -= offset[..., None, None]
            else:
                residual[..., column] -= 2 * math.pi * np.rint(residual[..., column] / (2 * math.pi))
        return residual

    def widened(self, distance: Real, by_m: float) -> Real:
        """Return scales (…, K, J, C) that allow for a position off by `by_m`, at distances (…, K)."""
        by = np.stack([np.full_like(distance, by_m), *[by_m / np.maximum(distance, 1.0)] * 2], -1)
        wide: Real = np.sqrt(np.square(self.scale) + np.square(by)[..., None, self.kinds])
        return wide

    def cost(self, residual: Real, scale: Real) -> tuple[Real, npt.NDArray[np.intp]]:
        """Return C (…) and each base station's likeliest path (…, K), of residuals and scales (…, K, J, C)."""
        each = (self.freedom + 1) / 2 * np.log1p(np.square(residual / scale) / self.freedom)
        whole = np.where(np.isfinite(each), each, 0.0).sum(-1) + self.odds
        return whole.min(-1).sum(-1), whole.argmin(-1)


class Lateration:
    """Fits positions to paths."""

    def __init__(self, setup: CloudSetup, *, clock: bool) -> None:
        """Search the service area for users, whose clock is estimated if `clock`."""
        self._errors, self._clock = Errors.of(setup.config), clock
        low, high = np.array(setup.config["low"], np.float64), np.array(setup.config["high"], np.float64)
        self._low, self._high = low, high
        self._centre, self._variance = (low + high) / 2, np.square(high - low) / 12
        axes = [np.linspace(a, b, n) for a, b, n in zip(low, high, _GRID, strict=True)]
        self._grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        self._spacing = float(((high - low) / (np.array(_GRID) - 1)).max())
        self._place = {bs: np.array(position) for bs, position in setup.stations.items()}
        self._modelled = {bs: _modelled(self._grid - place) for bs, place in self._place.items()}

    def fix(self, paths: Mapping[int, Sequence[Path]]) -> tuple[Real, Real] | None:
        """Return position (3,) [m] and covariance (3, 3) [m²], or None if the reports do not determine them.

        Args:
            paths: what each base station reports, the first path first.
        """
        if not paths:
            return None
        seen = Seen.of(list(paths.values()), self._errors)
        if np.isfinite(seen.value[:, 0]).sum() < (4 if self._clock else 3):
            return None
        place = np.array([self._place[bs] for bs in paths])
        state = self._starts(np.stack([self._modelled[bs] for bs in paths], 1), seen)
        for widening in (_WIDENED, 0.0):
            state, cost, information = self._descend(place, seen, state, widening * self._spacing)
        best = int(cost.argmin())
        covariance = np.linalg.inv(information[best])[:3, :3]
        if np.trace(covariance) > _LEAST_KNOWN * self._variance.sum():
            return None
        return state[best, :3], covariance

    def _starts(self, modelled: Real, seen: Seen) -> Real:
        """Return the best places of the grid (S, 3), or (S, 4) with b, from models (G, K, 3) on it."""
        distance = modelled[..., 0]
        wide = seen.widened(distance, self._spacing / 2)
        residual = seen.residuals(modelled, np.zeros(len(distance)))
        cost, offset = np.full(len(distance), math.inf), np.zeros(len(distance))
        ranges = residual[..., 0].copy()
        for trusted in range(distance.shape[1] if self._clock else 1):
            own = ranges[:, trusted, 0] if self._clock else offset
            if self._clock:
                residual[..., 0] = ranges - own[:, None, None]
            tried = seen.cost(residual, wide)[0]
            better = tried < cost
            cost, offset = np.where(better, tried, cost), np.where(better, own, offset)
        best = np.argsort(cost, kind="stable")[:_STARTS]
        return np.column_stack([self._grid[best], offset[best]])[:, : 4 if self._clock else 3]

    def _descend(self, place: Real, seen: Seen, state: Real, widening_m: float) -> tuple[Real, Real, Real]:
        """Refine states (S, 3 or 4) with scales widened; return states, costs (S,) and information (S, ·, ·)."""
        unknowns = state.shape[1]
        centre, prior = np.append(self._centre, 0.0)[:unknowns], np.append(1 / self._variance, 0.0)[:unknowns]
        low, high = np.append(self._low, -math.inf)[:unknowns], np.append(self._high, math.inf)[:unknowns]
        trial, station = np.arange(len(state))[:, None], np.arange(len(place))
        for step in range(_STEPS + 1):
            line = state[:, None, :3] - place  # (S, K, 3)
            modelled = _modelled(line)
            residual = seen.residuals(modelled, state[:, 3] if self._clock else np.zeros(len(state)))
            wide = seen.widened(modelled[..., 0], widening_m)
            cost, likely = seen.cost(residual, wide)
            cost += 0.5 * (prior * np.square(state - centre)).sum(1)
            own, spread = residual[trial, station, likely], wide[trial, station, likely]  # (S, K, C)
            there, own = np.isfinite(own), np.nan_to_num(own)
            weight = there * (seen.freedom + 1) / (seen.freedom * np.square(spread) + np.square(own))
            slope = _slopes(line, modelled[..., 0], clock=self._clock)[:, :, seen.kinds]
            scaled = (slope * weight[..., None]).reshape(len(state), -1, unknowns)
            normal = scaled.swapaxes(1, 2) @ slope.reshape(scaled.shape) + np.diag(prior)
            right = (own.reshape(len(state), 1, -1) @ scaled)[:, 0] + prior * (centre - state)
            move = np.linalg.solve(normal, right[..., None])[..., 0]
            move *= np.minimum(1, _LARGEST_STEP_M / np.maximum(np.linalg.norm(move[:, :3], axis=1), 1e-9))[:, None]
            moved = (state + move).clip(low, high)
            if step == _STEPS or np.abs(moved - state).max() < _CLOSE_M:
                break
            state = moved
        share = seen.freedom / (seen.freedom + 3)
        known = (slope * (weight * share)[..., None]).reshape(scaled.shape)
        return state, cost, known.swapaxes(1, 2) @ slope.reshape(scaled.shape) + np.diag(prior)


def _modelled(line: Real) -> Real:
    """Return range, azimuth and zenith (…, 3) of lines (…, 3) from base stations."""
    distance = np.linalg.norm(line, axis=-1)
    zenith = np.arccos(np.clip(line[..., 2] / np.maximum(distance, 1e-9), -1, 1))
    return np.stack([distance, np.arctan2(line[..., 1], line[..., 0]), zenith], -1)


def _slopes(line: Real, distance: Real, *, clock: bool) -> Real:
    """Return the derivatives (…, 3, ·) of range + b, azimuth and zenith by position and b, of lines (…, 3)."""
    far = np.maximum(distance, 1e-9)
    flat = np.maximum(np.square(line[..., :2]).sum(-1), 1e-9)
    zero = np.zeros_like(far)
    by_range = line / far[..., None]
    by_azimuth = np.stack([-line[..., 1] / flat, line[..., 0] / flat, zero], -1)
    lean = line[..., 2] / (np.square(far) * np.sqrt(flat))
    by_zenith = np.stack([line[..., 0] * lean, line[..., 1] * lean, -np.sqrt(flat) / np.square(far)], -1)
    slope = np.stack([by_range, by_azimuth, by_zenith], -2)
    if clock:
        one = np.zeros((*slope.shape[:-1], 1))
        one[..., 0, 0] = 1.0
        slope = np.concatenate([slope, one], -1)
    return slope


class LaterationFusion:
    """Makes fixes of reports that hold paths."""

    def __init__(self, setup: CloudSetup, read: Callable[[Payload], list[Path]], *, clock: bool) -> None:
        """Use `read` to get the paths, first path first, of a payload that is not empty."""
        self._read = read
        self._lateration = Lateration(setup, clock=clock)

    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Make one fix from each group of reports."""
        return [self._fuse_one(sorted(group, key=lambda report: report.key.bs)) for group in groups]

    def _fuse_one(self, group: Sequence[Report]) -> Fix:
        silent = {report.key.bs: NOTHING_HEARD for report in group if not report.payload.bits}
        heard = [report for report in group if report.payload.bits]
        found = self._lateration.fix({report.key.bs: self._read(report.payload) for report in heard})
        if found is None:
            return Fix((math.nan, math.nan, math.nan), None, silent)
        x, y, z = found[0].tolist()
        return Fix((x, y, z), found[1], silent)


def _builder(*, timed: bool, angled: bool, clock: bool) -> Callable[[CloudSetup], OneRoundFusion]:
    def build(setup: CloudSetup) -> OneRoundFusion:
        payload = FirstPathPayload(timed=timed, angled=angled, k=int(setup.options.get("k", DEFAULT_K)))
        return LaterationFusion(setup, lambda report: [payload.decode(report)], clock=clock)

    return build


build_toa, build_tdoa = (_builder(timed=True, angled=False, clock=clock) for clock in (False, True))
build_toa_aoa, build_tdoa_aoa = (_builder(timed=True, angled=True, clock=clock) for clock in (False, True))
build_aoa = _builder(timed=False, angled=True, clock=False)
