"""What the world says about each link of each test position: ``positions.parquet``, one row per position and site.

The driver writes it after the run, from the paths of the test set; no node ever sees it. It explains why a position
fails. With ``shuffle_csi`` a base station hears another user's channel; the rows are still those of the position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sim.world.paths import PathSet
from sim.world.scenario import Scenario

if TYPE_CHECKING:
    import pyarrow as pa

_Floats = npt.NDArray[np.float64]
_RANK_TOLERANCE = 1e-9
"""Fraction of the largest eigenvalue below which a direction counts as undetermined."""
_LINKS_AT_ONCE = 1 << 18


def position_table(scenario: Scenario, paths: PathSet, stations: Sequence[int]) -> pa.Table:
    """Return one row per test position and base station, in this order; `sample` is the position's number.

    `gain_db` is Σ_p |g_p|², averaged over the pairs of polarisations that the arrays have: the mean power gain between
    two of their antennas over random phases of the paths. `snr_db` is that of a tone at one antenna before estimation.
    In measured channels the gain is the mean power of slots, pairs and tones, and what is said of paths is null.
    """
    import pyarrow as pa

    chosen = paths.select(np.arange(len(paths)), stations)
    counts = chosen.paths_per_link().ravel()
    link = np.repeat(np.arange(len(counts)), counts)
    matrix = chosen.matrix[:, : scenario.array.polarizations, : scenario.user_array.polarizations]
    power = np.square(np.abs(matrix).astype(np.float64)).mean((1, 2))
    gain = np.bincount(link, power, len(counts))
    measured = len(chosen.csi) > 0
    if measured:
        gain = np.square(np.abs(chosen.csi).astype(np.float64)).mean((2, 3, 4)).ravel()
    unknown = np.full(len(counts), measured)
    direct = np.bincount(link, chosen.bounces == 0, len(counts)) > 0
    with np.errstate(divide="ignore"):
        gain_db = 10 * np.log10(gain)
    site = np.array([scenario.sites[bs].position for bs in stations])
    distance = np.linalg.norm(chosen.position[:, None] - site, axis=2).ravel()
    silent = gain == 0
    return pa.table(
        {
            "sample": pa.array(np.repeat(np.arange(len(chosen)), len(site)), pa.uint32()),
            "bs": pa.array(np.tile(np.asarray(stations), len(chosen)), pa.uint16()),
            **{f"true_{axis}_m": np.repeat(chosen.position[:, n], len(site)) for n, axis in enumerate("xyz")},
            "distance_m": distance,
            "line_of_sight": pa.array(direct, pa.bool_(), mask=unknown),
            "paths": pa.array(counts, pa.uint16(), mask=unknown),
            "gain_db": pa.array(gain_db, pa.float64(), mask=silent),
            "snr_db": pa.array(_snr_db(scenario, gain_db), pa.float64(), mask=silent | _noiseless(scenario)),
        }
    )


def dilution(site: _Floats, position: _Floats, used: npt.NDArray[np.bool_], *, clock: bool) -> _Floats:
    """Return the geometric dilution of precision √tr (GᵀG)⁻¹ of ranges (N,); NaN where they do not determine a point.

    The rows of G are unit vectors from the position to its sites; with an unknown clock they end with a one
    (Kaplan and Hegarty, "Understanding GPS/GNSS", 3rd ed., section 11.2.1).

    Args:
        site: positions of the sites (K, 3) [m].
        position: (N, 3) [m].
        used: sites of each position (N, K).
        clock: whether the user's clock is unknown, too.
    """
    rows = max(1, _LINKS_AT_ONCE // len(site))
    parts = [slice(begin, begin + rows) for begin in range(0, len(position), rows)]
    return np.concatenate([np.zeros(0), *(_dilution(site, position[part], used[part], clock) for part in parts)])


def _dilution(site: _Floats, position: _Floats, used: npt.NDArray[np.bool_], clock: bool) -> _Floats:
    step = site - position[:, None]
    row = step / np.maximum(np.linalg.norm(step, axis=2, keepdims=True), 1e-9)
    if clock:
        row = np.concatenate([row, np.ones_like(row[..., :1])], 2)
    value = np.linalg.eigvalsh(np.einsum("nki,nkj,nk->nij", row, row, used.astype(np.float64)))
    known = value[:, 0] > _RANK_TOLERANCE * np.maximum(value[:, -1], 1e-300)
    inverse = np.divide(1.0, value, out=np.zeros_like(value), where=known[:, None])
    found: _Floats = np.where(known, np.sqrt(inverse.sum(1)), np.nan)
    return found


def _snr_db(scenario: Scenario, gain_db: _Floats) -> _Floats:
    """Return the SNR of links with the given gains (N,) [dB]."""
    if scenario.link_budget.noise == "thermal":
        return np.add(gain_db, 10 * math.log10(scenario.tone_power_w / scenario.tone_noise_w))
    return np.full_like(gain_db, scenario.link_budget.snr_db)


def _noiseless(scenario: Scenario) -> bool:
    return scenario.link_budget.noise == "none"
