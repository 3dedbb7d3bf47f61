"""Controls for comparison with a run, on the same users: prior, look-ups of fingerprints, position error bound.

They use data that the scheme does not have: unquantised channels of all the run's sites in one place. Noise, motion
and clocks are the same draws as in the run, so errors can be compared snapshot by snapshot. If only a subset of the
base stations measures each snapshot, the bound uses the same subset.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge.estimation import Estimator, LeastSquaresEstimator, LmmseEstimator
from fronthaul.draws import generator
from fronthaul.roster import Roster
from sim.learn.fingerprints import FingerprintTable
from sim.plan.plan import padded_paths
from sim.plan.weights import Weights
from sim.world.bound import position_error_bound
from sim.world.channel import scenario_pilots
from sim.world.made_for import GRID, differences, made_for_shipped
from sim.world.paths import PathSet
from sim.world.radio import Radio
from sim.world.scenario import Scenario

Errors = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Controls:
    """3D errors (N,) [m] of each control on the test users; None where its data are not available.

    Attributes:
        prior: error of the mean training position.
        prior_draw: error of a random training position, as of an estimator that is given another user's channel.
        wknn: error of weighted nearest neighbours.
        linear: error of local linear regression on the same fingerprints, the stronger of the two.
        bound: lower bound on the root mean square error of any unbiased estimator.
        notes: a sentence for each difference between the run and what the nearest-neighbour table was made for; if the
            channels themselves differ, `wknn` and `linear` are left out.
    """

    prior: Errors | None = None
    prior_draw: Errors | None = None
    wknn: Errors | None = None
    linear: Errors | None = None
    bound: Errors | None = None
    notes: tuple[str, ...] = ()

    def items(self) -> dict[str, Errors]:
        """Return the evaluated controls by name."""
        names = ("prior", "prior_draw", "wknn", "linear", "bound")
        return {name: errors for name in names if (errors := getattr(self, name)) is not None}


def compute_controls(
    scenario: Scenario,
    paths: PathSet,
    weights: Weights,
    *,
    sites: int,
    seed: int,
    training: npt.NDArray[np.float64] | None,
    fingerprints: Path | None,
    roster: Roster | None = None,
) -> Controls:
    """Evaluate the controls on the users of `paths`; snapshot n is that of user n.

    The table of fingerprints is of all sites, so look-ups are left out if not all of them take part.
    """
    prior = prior_draw = None
    if training is not None and len(training):
        prior = np.linalg.norm(paths.position - training.mean(0), axis=1)
        drawn = training[generator(seed, "prior").integers(0, len(training), len(paths))]
        prior_draw = np.linalg.norm(paths.position - drawn, axis=1)
    wknn = linear = None
    notes = []
    everybody = sites == len(scenario.sites) and roster is None
    if fingerprints is not None and fingerprints.is_file() and everybody:
        table = FingerprintTable.load(fingerprints)
        found = differences(table.made_for or made_for_shipped(scenario.data_name), scenario)
        left_out = ": look-ups of fingerprints are left out" if GRID & found.keys() else ""
        notes = [f"The fingerprints were made for {difference}{left_out}." for difference in found.values()]
        if not left_out:
            array = scenario.array
            channel = estimated_channels(scenario, paths, weights, sites=sites, seed=seed)
            wknn, linear = (
                np.linalg.norm(locate(channel, array.rows, array.columns) - paths.position, axis=1)
                for locate in (table.locate, table.locate_linear)
            )
    bound = None
    if paths.movable:
        bound = position_error_bound(scenario, paths if roster is None else heard_paths(paths, roster), sites)
    return Controls(prior, prior_draw, wknn, linear, bound, tuple(notes))


def heard_paths(paths: PathSet, roster: Roster) -> PathSet:
    """Return the paths of each user n to the sites that measure snapshot n."""
    counts = paths.paths_per_link()
    heard = np.zeros(counts.shape, bool)
    for snapshot, row in enumerate(heard):
        row[sorted(roster.of(snapshot))] = True
    return paths.keep(np.repeat(heard.ravel(), counts.ravel()))


def estimated_channels(scenario: Scenario, paths: PathSet, weights: Weights, *, sites: int, seed: int) -> Tensor:
    """Return channel estimates (N, K, slot, antenna, tone) of the snapshots of a run with `seed`.

    They are LMMSE estimates, or least-squares estimates for sites whose covariance is not in the weights.
    """
    padded = padded_paths(scenario, paths.select(np.arange(len(paths)), range(sites)))
    pilots = scenario_pilots(scenario)
    columns = []
    for k in range(sites):
        radio = Radio(scenario, padded.site(k), k, seed)
        received = torch.stack([radio.observe(n) for n in range(len(paths))])
        estimator: Estimator = LeastSquaresEstimator(scenario.tone_power_w, pilots)
        stored = weights.edge(k).get("covariance")
        if stored is not None:
            covariance = torch.view_as_complex(stored.float().contiguous())
            estimator = LmmseEstimator(covariance, scenario.tone_noise_w, scenario.tone_power_w, pilots)
        columns.append(estimator.estimate(received))
    return torch.stack(columns, 1)
