"""Answers of several base stations to noised states at one level: ε̂, posterior covariances and Jacobians.

A network's output is ε̂ itself (``diffusion``, DiffLoc Eq. 11) or the clean position f (``consistency``, Sec. IV-D).
Rules use ε̂ only: x = a f + s ε̂, so ε̂ = (x − a f) / s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fronthaul.payload.noise_levels import Level

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Kind = Literal["diffusion", "consistency"]


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers of K base stations to N states x (N, D), all at the same level.

    Attributes:
        eps: ε̂_k(x) (K, N, D).
        covariance: Σ_k (K, N, D, D), of base station k's own posterior of the clean position, prior included.
        jacobian: ∂ε̂_k/∂x (K, N, D, D), rows for components of ε̂, columns for those of x; None if not requested.

    Raises:
        ValueError: the shapes do not match.
    """

    eps: FloatArray
    covariance: FloatArray
    jacobian: FloatArray | None = None

    def __post_init__(self) -> None:
        if self.eps.ndim != 3:
            raise ValueError(f"ε̂ of base stations must be (K, N, D), not {self.eps.shape}")
        square = (*self.eps.shape, self.eps.shape[-1])
        for name, matrix in (("covariance", self.covariance), ("jacobian", self.jacobian)):
            if matrix is not None and matrix.shape != square:
                raise ValueError(f"{name} must be {square} beside ε̂ {self.eps.shape}, not {matrix.shape}")

    @property
    def stations(self) -> int:
        """K, number of base stations that answered."""
        return len(self.eps)

    def finite(self) -> BoolArray:
        """Return a mask (K,) of base stations whose numbers are all finite."""
        sent = [part for part in (self.eps, self.covariance, self.jacobian) if part is not None]
        good = [np.isfinite(part).all(axis=tuple(range(1, part.ndim))) for part in sent]
        return np.asarray(np.logical_and.reduce(good), np.bool_)

    def select(self, mask: BoolArray) -> Answers:
        """Return the answers of the base stations in a mask (K,), possibly none."""
        return Answers(self.eps[mask], self.covariance[mask], None if self.jacobian is None else self.jacobian[mask])


def eps_of(kind: Kind, raw: FloatArray, x: FloatArray, level: Level) -> FloatArray:
    """Return ε̂ (K, N, D) from networks' raw outputs (K, N, D) on states x (N, D).

    Raises:
        ValueError: the kind is unknown.
    """
    if kind == "diffusion":
        return np.asarray(raw, np.float64)
    if kind == "consistency":
        return np.asarray((x - level.signal * raw) / level.noise, np.float64)
    raise ValueError(f"networks are of kind 'diffusion' or 'consistency', not {kind!r}")
