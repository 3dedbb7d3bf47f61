"""Calibration of the covariances of fixes: the share of fixes within their own 90 % confidence region.

A fix with error e and covariance C of rank r is within the region if eᵀ C⁺ e ≤ χ²_r(0.9), with C⁺ the pseudoinverse.
If the height of all users is known, C has no variance in z: the region is an ellipse, and only the horizontal error
counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincinv  # scipy.stats takes a second to import

if TYPE_CHECKING:
    import pyarrow as pa

SHARE = 0.9
_NO_VARIANCE = 1e-9
"""Fraction of the largest variance below which a variance counts as rounding error."""


def coverage_90(fixes: pa.Table) -> float | None:
    """Return the share of fixes within their 90 % region; None if no fix has a covariance.

    Args:
        fixes: table from `sim.records.summary.fix_table`.
    """
    chosen = fixes.filter(fixes["covariance_m2"].is_valid())
    if not len(chosen):
        return None
    covariance = np.array(chosen["covariance_m2"].to_pylist(), np.float64).reshape(-1, 3, 3)
    error = np.stack([chosen[f"{axis}_m"].to_numpy() - chosen[f"true_{axis}_m"].to_numpy() for axis in "xyz"], 1)
    return float(within_region(error, covariance).mean())


def within_region(
    error: npt.NDArray[np.float64], covariance: npt.NDArray[np.float64], share: float = SHARE
) -> npt.NDArray[np.bool_]:
    """Return whether errors (N, 3) [m] lie within the `share` confidence region of their covariances (N, 3, 3) [m²].

    Directions without variance are ignored. The region of a zero covariance is empty.
    """
    variance, axes = np.linalg.eigh(covariance)
    has_variance = variance > _NO_VARIANCE * variance[:, -1:].clip(min=0.0)
    along = np.einsum("nij,ni->nj", axes, error)  # components of the error along the principal axes
    squares = np.divide(along**2, variance, out=np.zeros_like(along), where=has_variance).sum(1)
    rank = has_variance.sum(1)
    inside: npt.NDArray[np.bool_] = (rank > 0) & (squares <= 2 * gammaincinv(np.maximum(rank, 1) / 2, share))
    return inside
