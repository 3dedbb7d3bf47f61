"""Position error bound (Cramér-Rao) of ray-traced snapshots, under the scenario's own clock keys.

Model at one site: Y = Σ_p g_p a_p + noise, a_p = space ⊗ frequency as in `sim.world.channel`, the same in T slots.
The unknowns are the position (3), all complex path gains g_p, and the clock errors where the scenario has them. A gain
is the path's coefficient times e^{−j2π f_c τ_p}: as an unknown it absorbs the carrier's phase, so that its phase says
nothing about the position, but the paths' true relative phases decide how much of the Jacobian the gains can explain.
Delays and directions follow the position exactly for specular paths with a known map:

    ∂τ_p/∂p = −q_p / c,     ∂u_p/∂p = (I − u_p u_pᵀ) R_p / d_p

with q_p seen from the user, u_p from the site, d_p the path's length and R_p its mirror. Per site the gains are
eliminated by projecting the Jacobian onto the complement of span{a_p} (equivalent to the Schur complement of
2/σ² Re JᴴJ). The information of all sites is summed; clock errors are eliminated at the end, with the information 1/σ²
of their Gaussian prior. The bound holds for unbiased estimators; one that knows the prior of the positions can go
below it where the geometry is poor.

Two unknowns drop out, so T slots simply multiply the information by T. The user's velocity rotates the phases by
amounts that are odd in the slot's time, while all other derivatives are even (to first order around standstill), hence
orthogonal. A random phase per slot and site splits into a part common to the slots, which the unknown gains already
contain, and a part of zero mean over the slots, which is orthogonal as well.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sim.errors import UserError
from sim.world.channel import antenna_positions, propagation_phasor, tone_offsets
from sim.world.paths import PathSet, mirror_matrix, unit_vector
from sim.world.scenario import SPEED_OF_LIGHT, Scenario

_USER_CLOCK, _SITE_CLOCK = 3, 4  # places behind the three coordinates
_RANK_TOLERANCE = 1e-7  # paths that no array could tell apart count as one


def position_error_bound(
    scenario: Scenario, paths: PathSet, sites: int | None = None
) -> npt.NDArray[np.float64] | None:
    """Return √tr J⁻¹ [m] of each position, (N,); infinite where the position cannot be determined.

    None where the model above does not describe the scenario: users with several antennas, dual polarisation (four
    unknown gains per path), taps instead of tones, noise other than thermal receiver noise, clock errors that are not
    Gaussian, carrier phases that are not the traced ones, an indoor factory, which has no map, or a world other than
    what is known of it (`Scenario.mismatch`).

    Args:
        scenario: arrays, numerology, link budget and clocks.
        paths: path set with mirrors.
        sites: use only the first `sites` sites; all by default.

    Raises:
        UserError: the paths come without mirrors.
    """
    if not covered(scenario):
        return None
    if not len(paths.mirror) and len(paths.delay):
        raise UserError("The position error bound needs path data with mirrors; trace the scenario again.")
    used = len(scenario.sites) if sites is None else sites
    bound = np.full(len(paths), math.inf)
    for n in range(len(paths)):
        information = np.zeros((_SITE_CLOCK + used, _SITE_CLOCK + used))
        for k in range(used):
            link = n * paths.sites + k
            rows = slice(int(paths.offset[link]), int(paths.offset[link + 1]))
            if rows.start < rows.stop:
                index = [*range(_SITE_CLOCK), _SITE_CLOCK + k]
                information[np.ix_(index, index)] += _site_information(scenario, paths, rows, k)
        bound[n] = _bound_from(information, scenario)
    return bound


def covered(scenario: Scenario) -> bool:
    """Return whether `position_error_bound` covers the scenario."""
    single = scenario.user_array.antennas == 1 and not scenario.polarized
    mapped = scenario.factory is None and scenario.phases == "traced" and not scenario.mismatch.words()
    mapped &= not scenario.clock.bs_limit_sigmas
    return single and mapped and not scenario.numerology.taps and scenario.link_budget.noise == "thermal"


def _site_information(scenario: Scenario, paths: PathSet, rows: slice, site: int) -> npt.NDArray[np.float64]:
    """Return the Fisher information (5, 5) of one site: position [m], user and site clock [ns]; gains eliminated."""
    numerology = scenario.numerology
    wavenumber = 2 * math.pi / numerology.wavelength_m
    antenna = antenna_positions(scenario.array, scenario.sites[site], numerology)  # (M, 3)
    tone = tone_offsets(numerology)
    u, q = unit_vector(paths.site_angle[rows]), unit_vector(paths.user_angle[rows])  # (P, 3)
    delay = paths.delay[rows].astype(np.float64)
    length = delay * SPEED_OF_LIGHT
    mirror = mirror_matrix(paths.mirror[rows], paths.bounces[rows])
    gain = paths.matrix[rows, 0, 0] * propagation_phasor(numerology.carrier_hz, delay)

    space = np.exp(1j * wavenumber * antenna @ u.T)  # (M, P)
    frequency = np.exp(-2j * np.pi * np.outer(tone, delay))  # (F, P)
    steering = space[:, None] * frequency  # (M, F, P)
    turn = mirror - u[:, :, None] * (u[:, None, :] @ mirror)  # (I − uuᵀ) R
    by_space = 1j * wavenumber * np.einsum("mi,pij->mpj", antenna, turn / length[:, None, None])  # (M, P, 3)
    by_frequency = 2j * np.pi * tone[:, None, None] * (q / SPEED_OF_LIGHT)  # −j2πν · (−q/c): (F, P, 3)
    signal = (steering * gain)[..., None]
    by_position = (signal * (by_space[:, None] + by_frequency)).sum(2)  # (M, F, 3)
    by_clock = -2j * np.pi * 1e-9 * tone[:, None] * signal.sum(2)  # (M, F, 1), per nanosecond
    jacobian = np.concatenate([by_position, by_clock, by_clock], -1).reshape(-1, 5)

    basis, strength, _ = np.linalg.svd(steering.reshape(-1, len(gain)), full_matrices=False)
    basis = basis[:, strength > _RANK_TOLERANCE * strength[0]]
    residual = jacobian - basis @ (basis.conj().T @ jacobian)
    noise = scenario.tone_noise_w / scenario.tone_power_w
    information: npt.NDArray[np.float64] = numerology.slots * 2 / noise * (residual.conj().T @ residual).real
    return information


def _eliminate(information: npt.NDArray[np.float64], keep: int) -> npt.NDArray[np.float64]:
    """Return the Schur complement onto the first `keep` parameters."""
    if len(information) == keep:
        return information
    head, cross, tail = information[:keep, :keep], information[:keep, keep:], information[keep:, keep:]
    reduced: npt.NDArray[np.float64] = head - cross @ np.linalg.solve(tail, cross.T)
    return reduced


def _bound_from(information: npt.NDArray[np.float64], scenario: Scenario) -> float:
    """Eliminate the clock errors and return √tr of the position's covariance [m]."""
    clock = scenario.clock
    order = [0, 1, 2]
    if clock.ue_bias_ns > 0:
        information[_USER_CLOCK, _USER_CLOCK] += 1 / clock.ue_bias_ns**2
        order.append(_USER_CLOCK)
    if clock.bs_sigma_ns > 0:
        own = np.arange(_SITE_CLOCK, len(information))
        information[own, own] += 1 / clock.bs_sigma_ns**2
        order.extend(own)
    values = np.linalg.eigvalsh(_eliminate(information[np.ix_(order, order)], 3))
    if values[0] <= 1e-9 * max(values[-1], 1e-300):
        return math.inf
    return float(math.sqrt((1 / values).sum()))
