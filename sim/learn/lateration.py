"""Fit of the classical schemes: how far times and angles of first paths are from the line of sight, in training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor

from cloud.fusion.lateration import KINDS
from edge.estimation import LeastSquaresEstimator
from edge.first_path import FirstPathEdge
from edge.scheme import EdgeSetup
from fronthaul.payload.choice import PayloadChoice
from fronthaul.payload.measurements import SPEED_OF_LIGHT
from sim.errors import UserError
from sim.learn.music import array_weights
from sim.learn.splits import SplitName, split_positions
from sim.plan.weights import Weights, save_weights
from sim.world.channel import pad_paths, scenario_pilots
from sim.world.paths import PathSet
from sim.world.radio import Radio
from sim.world.scenario import MEASURED_SCENE, Scenario

Real = npt.NDArray[np.float64]

POSITIONS = 2000
_SEED = 0
_BATCH = 200
_LEAST_LINKS = 100
_FREEDOM = (1.0, 30.0)
"""Range of ν; below 1 the likeliest place is one measurement's alone."""


def train_toa(
    scenario: Scenario,
    paths: PathSet,
    split: SplitName,
    output: Path,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, tuple[float, float]]:
    """Fit the errors of times and angles on training positions; write the weights file of the classical schemes.

    Returns:
        Freedom and scale of each of `cloud.fusion.lateration.KINDS` [m, rad, rad].

    Raises:
        UserError: the scenario has channels that these schemes cannot read, or the positions hear too few sites.
    """
    weights = first_path_weights(scenario)
    index = split_positions(scenario, paths.position, split).train[:POSITIONS]
    residual, deviation = residuals(scenario, paths.select(index), weights, on_progress)
    if len(residual) < _LEAST_LINKS:
        raise UserError(f"The training positions hear {len(residual)} base stations in all, too few for a fit.")
    found = fitted(residual, deviation)
    config = weights.config | {"errors": found, "record": {"positions": len(index), "split": split}}
    save_weights(output, Weights(config, weights.tensors))
    return found


def fitted(residual: Real, deviation: Real) -> dict[str, tuple[float, float]]:
    """Return the error model of what `residuals` returns."""
    columns = zip(KINDS, residual.T, deviation.T, strict=True)
    return {kind: student(column, own) for kind, column, own in columns}


def first_path_weights(scenario: Scenario) -> Weights:
    """Return what the classical schemes know of a scenario but for its errors.

    Raises:
        UserError: the scenario has channels that they cannot read.
    """
    numerology = scenario.numerology
    if numerology.taps or scenario.polarized or scenario.user_array.antennas > 1 or scenario.layouts is not None:
        raise UserError(
            f"Scenario {scenario.name!r} has taps, several user antennas, dual polarisation or layouts: times and "
            "angles of paths are measured on the tones of single-polarised arrays at known sites."
        )
    weights = array_weights(scenario, "toa")
    noisy = scenario.link_budget.noise == "thermal" or scenario.scene == MEASURED_SCENE  # in what was measured, it is
    own = {
        "tones": numerology.tones,
        "tone_spacing_hz": numerology.tone_spacing_hz,
        "noise": scenario.tone_noise_w / scenario.tone_power_w if noisy else 0.0,
        "power_dbm": 10 * math.log10(scenario.tone_power_w) + 30,
    }
    return Weights(weights.config | own, weights.tensors)


def residuals(
    scenario: Scenario, paths: PathSet, weights: Weights, on_progress: Callable[[int, int], None] = lambda *_: None
) -> tuple[Real, Real]:
    """Return by how much range [m], azimuth and zenith [rad] of first paths exceed those of the lines of sight (L, 3).

    The second result is the deviations that the base stations give them. Links that hear nothing are left out,
    and users are synchronised.
    """
    found, deviations = [], []
    edges = [
        FirstPathEdge("toa-aoa", EdgeSetup(k, PayloadChoice(4), weights.config, weights.edge(k)))
        for k in range(len(scenario.sites))
    ]
    for k, chunk, channel in estimates(scenario, paths):
        seen = edges[k].paths(channel)
        line = paths.position[chunk] - np.array(scenario.sites[k].position)
        distance = np.linalg.norm(line, axis=1)
        azimuth = np.array([one.azimuth for one in seen]) - np.arctan2(line[:, 1], line[:, 0])
        zenith = np.array([one.zenith for one in seen]) - np.arccos(line[:, 2] / distance)
        range_m = np.array([one.delay_s for one in seen]) * SPEED_OF_LIGHT - distance
        found.append(np.stack([range_m, (azimuth + np.pi) % (2 * np.pi) - np.pi, zenith], 1))
        deviations += [[one.delay_sd_s * SPEED_OF_LIGHT, one.azimuth_sd, one.zenith_sd] for one in seen]
        on_progress(len(deviations), int(paths.heard.sum()))
    return np.concatenate(found), np.array(deviations)


def estimates(scenario: Scenario, paths: PathSet) -> Iterator[tuple[int, npt.NDArray[np.int64], Tensor]]:
    """Yield base station, numbers of positions that it hears and their Ĥ (B, slot, antenna, tone), in batches.

    Users are synchronised, channels estimated by least squares.
    """
    synchronised = dataclasses.replace(scenario, clock=dataclasses.replace(scenario.clock, ue_bias_ns=0.0))
    padded = pad_paths(paths, scenario.numerology.carrier_hz)
    heard = paths.heard
    estimator = LeastSquaresEstimator(scenario.tone_power_w, scenario_pilots(scenario))
    for k in range(len(scenario.sites)):
        radio = Radio(synchronised, padded.site(k), k, _SEED)
        own = np.flatnonzero(heard[:, k])
        for chunk in np.split(own, range(_BATCH, len(own), _BATCH)):
            if len(chunk):
                received = torch.stack([radio.observe(int(n)) for n in chunk])
                yield k, chunk, estimator.estimate(received)


def student(residual: Real, deviation: Real) -> tuple[float, float]:
    """Return freedom ν and scale s of Student's t distributions about zero that make residuals (L,) likeliest.

    The scale of each is √(s² + its deviation²), with the deviations (L,) that the base stations know.
    """
    middle = max(float(np.median(np.abs(residual))), 1e-12)
    square, known = np.square(residual / middle), np.square(deviation / middle)

    def cost(logs: Real) -> float:
        freedom = float(np.exp(logs[0]))
        variance = np.exp(2 * logs[1]) + known
        each = math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2) + 0.5 * math.log(freedom)
        spread = 0.5 * np.log(variance) + (freedom + 1) / 2 * np.log1p(square / (freedom * variance))
        return each + float(spread.mean())

    bounds = [tuple(np.log(_FREEDOM)), (-7.0, 3.0)]
    best = minimize(cost, np.log([2.0, 1.0]), method="Nelder-Mead", bounds=bounds)
    freedom, scale = np.exp(best.x)
    return float(freedom), float(scale * middle)
