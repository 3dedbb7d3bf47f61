"""Common parts of the DiffLoc rules at the cloud: prior, random draws, per-station constants, conversion to metres.

Coordinates are normalised: p = (position − centre) / scale. A fix in two dimensions has the common height of all users,
with zero variance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from cloud.fusion.scheme import CloudSetup, Fix
from cloud.fusion.scores.answers import Answers, eps_of
from cloud.fusion.scores.mixture import Mixture, product
from cloud.fusion.scores.prior import BoxPrior
from cloud.fusion.scores.rule import build_rule
from cloud.fusion.scores.sampler import Sampler
from fronthaul.draws import generator
from fronthaul.payload.diffloc import EXACT, ScoreFormat
from fronthaul.payload.diffloc import Mixture as SentMixture

Floats = npt.NDArray[np.float64]
Answer = tuple[Floats, Floats | None]
"""A network's output (P, D) at states, and s ∂ε̂/∂x (P, D, D) if the rule needs it; not finite if unusable."""


class DiffLocSpec:
    """Makes samplers, answers and fixes for a rule.

    Attributes:
        score: sampler, fusion rule and number formats of the run.
        posteriors: constant posterior covariance (D, D) of each base station.
    """

    def __init__(self, setup: CloudSetup, score: ScoreFormat) -> None:
        """Read the weights' configuration.

        Raises:
            ValueError: the weights cover fewer base stations than there are.
            KeyError: an entry of the weights is missing.
        """
        config = setup.config
        self.score = score
        self._prior = BoxPrior(score.low, score.high)
        self._seed = setup.seed
        self._centre = np.asarray(config["centre"], np.float64)
        self._scale = float(config["scale"])
        self._height = float(config["height_m"]) if score.dimensions == 2 else 0.0
        self._factor = float(config.get("calibration", {}).get(score.fusion, 1.0)) * self._scale**2
        table = setup.tensors["posterior"].double().numpy()
        if setup.stations and max(setup.stations) >= len(table):
            raise ValueError(f"the weights are of {len(table)} base stations, there are {max(setup.stations) + 1}")
        self.posteriors: Mapping[int, Floats] = {bs: np.asarray(table[bs], np.float64) for bs in setup.stations}

    def sampler(self, snapshot: int) -> Sampler:
        """Return a new sampler; its draws are keyed by snapshot and round."""
        score = self.score

        def draw(round_: int) -> Floats:
            drawn = generator(self._seed, "diffusion", snapshot, round_)
            return drawn.standard_normal((score.particles, score.dimensions))

        return Sampler(score.kind, score.levels, build_rule(score.fusion, self._prior), draw)

    def answers(self, sampler: Sampler, said: Sequence[Answer], covariances: Sequence[Floats]) -> Answers:
        """Return the answers of one or more base stations at the sampler's states, converted to ε̂."""
        level, particles = sampler.level, self.score.particles
        raw = np.stack([raw for raw, _ in said])
        jacobians = [jacobian for _, jacobian in said if jacobian is not None]
        own = np.stack(covariances)[:, None]
        return Answers(
            eps=eps_of(sampler.kind, raw, sampler.x, level),
            covariance=np.repeat(own, particles, 1),
            jacobian=np.stack(jacobians) / level.noise if jacobians else None,
        )

    def multiplied(self, mixtures: Sequence[SentMixture]) -> tuple[Floats, Floats]:
        """Return mean (D,) and covariance (D, D) of the product of one or more posteriors, under a flat prior."""
        factors = [Mixture(mixture.weight, mixture.mean, mixture.covariance) for mixture in mixtures]
        mean, covariance = product(factors).moments()
        return mean, covariance

    def fix(
        self,
        position: Floats,
        covariance: Floats,
        excluded: Mapping[int, str],
        excluded_from: Mapping[int, int] | None = None,
    ) -> Fix:
        """Return the fix from the means of positions (P, D) and covariances (P, D, D), both normalised."""
        size = self.score.dimensions
        place = np.full(3, self._height)
        place[:size] = self._centre + self._scale * position.mean(0)
        whole = np.zeros((3, 3))
        whole[:size, :size] = self._factor * covariance.mean(0)
        x, y, z = place.tolist()
        return Fix((x, y, z), whole, dict(excluded), dict(excluded_from or {}))

    def none(self, excluded: Mapping[int, str]) -> Fix:
        """Return a `Fix` with NaN position, which stands for no fix: no base station sent anything usable."""
        return Fix((math.nan, math.nan, math.nan), None, dict(excluded))


def is_finite(answer: Answer) -> bool:
    """Return whether all numbers of an answer are finite."""
    return all(bool(np.isfinite(part).all()) for part in answer if part is not None)


def is_exact(score: ScoreFormat) -> bool:
    """Return whether posteriors are multiplied exactly, without the cloud's sampler."""
    return score.fusion == EXACT
