"""Deterministic fit of Gaussian mixtures to samples: expectation maximisation, started at samples far apart.

    start   first centre: the sample nearest to the mean; each next one: the sample farthest from those before
    E       r_nc ∝ w_c N(x_n; m_c, S_c)
    M       w_c = Σ_n r_nc / N,   m_c and S_c weighted by r_nc,   S_c += floor² I

If samples coincide, or have fewer modes than there are components, some components keep almost no weight. They get the
mean and covariance of the heaviest component, so that no component lies where there are no samples.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fronthaul.payload.diffloc import DEVIATION, Mixture

ITERATIONS = 50
TOLERANCE = 1e-6
LEAST_WEIGHT = 0.02
"""A component of less weight is replaced by the heaviest one: about one sample of 64."""

Floats = npt.NDArray[np.float64]


def fit_mixture(samples: Floats, components: int, floor: float = DEVIATION[0]) -> Mixture:
    """Fit a mixture to samples.

    Args:
        samples: (P, D), finite.
        components: C.
        floor: minimum standard deviation along any axis, also that of samples that coincide.

    Returns:
        A mixture of C components whose covariances are at least floor² I.
    """
    count, size = samples.shape
    least = floor**2 * np.eye(size)
    mean = _far_apart(samples, components)
    spread = np.atleast_2d(np.cov(samples.T, bias=True)) + least
    covariance = np.repeat(spread[None], components, 0)
    weight = np.full(components, 1 / components)
    before = -np.inf
    for _ in range(ITERATIONS):
        joint = _log_joint(samples, weight, mean, covariance)  # (P, C)
        top = joint.max(1, keepdims=True)
        total = top[:, 0] + np.log(np.exp(joint - top).sum(1))
        share = np.exp(joint - total[:, None])
        mass = share.sum(0)
        held = np.maximum(mass, 1e-12)
        weight = mass / count
        mean = share.T @ samples / held[:, None]
        apart = samples[:, None] - mean
        covariance = np.einsum("nc,nci,ncj->cij", share, apart, apart) / held[:, None, None] + least
        if abs(total.mean() - before) < TOLERANCE:
            break
        before = total.mean()
    return _without_strays(weight, mean, covariance)


def _without_strays(weight: Floats, mean: Floats, covariance: Floats) -> Mixture:
    heaviest, stray = int(weight.argmax()), weight < LEAST_WEIGHT
    mean, covariance = mean.copy(), covariance.copy()
    mean[stray], covariance[stray] = mean[heaviest], covariance[heaviest]
    return Mixture(weight / weight.sum(), mean, covariance)


def _far_apart(samples: Floats, components: int) -> Floats:
    centres = [samples[np.square(samples - samples.mean(0)).sum(1).argmin()]]
    nearest = np.square(samples - centres[0]).sum(1)
    for _ in range(components - 1):
        centres.append(samples[nearest.argmax()])
        nearest = np.minimum(nearest, np.square(samples - centres[-1]).sum(1))
    return np.stack(centres)


def _log_joint(samples: Floats, weight: Floats, mean: Floats, covariance: Floats) -> Floats:
    """Return log w_c N(x_n; m_c, S_c) (P, C), without the additive constant that all share."""
    apart = samples[:, None] - mean
    square = np.einsum("nci,cij,ncj->nc", apart, np.linalg.inv(covariance), apart)
    scale = np.log(np.maximum(weight, 1e-300)) - np.linalg.slogdet(covariance)[1] / 2
    return np.asarray(scale - square / 2, np.float64)
