"""Measurements of NR positioning as whole numbers: how TS 38.133 maps them and NRPPa (TS 38.455) carries them.

A measurement is the number of its cell (`Scale`). Times have cells of 2^k T_c, k = 0…5, with T_c = 1 / (480 kHz · 4096)
(TS 38.211): an UL-RTOA within ± 985 024 T_c, the time of a further path relative to it within ± 8175 T_c. Powers of
paths (SRS-RSRPP) have cells of 1 dB from −156 to −31 dBm, angles (UL-AoA) of 0.1°, azimuths from −180° and zeniths from
0°. Times and powers have one more cell on either side for all beyond. The quality of a time is its uncertainty in
0…31 units of 0.1, 1, 10 or 30 m, that of an angle in 0…255 units of 0.1°. A phase (UL-RSCP) has cells of 0.1° from 0°.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SPEED_OF_LIGHT = 299_792_458.0  # [m/s]
TC_S = 1 / (480e3 * 4096)
FINEST, COARSEST = 0, 5
"""Range of k."""
_RTOA_TC, _RELATIVE_TC = 985_024, 8175
_UNITS_M = (0.1, 1.0, 10.0, 30.0)
_MOST_TIMING, _MOST_ANGLE = 31, 255
_TENTH = math.radians(0.1)


@dataclass(frozen=True)
class Scale:
    """Cells of width `step` from `low` on, `count` with those beyond; `below` of them lie before `low`."""

    low: float
    step: float
    count: int
    below: int = 0

    @property
    def bits(self) -> int:
        """Least number of bits of a cell's number."""
        return (self.count - 1).bit_length()

    @property
    def deviation(self) -> float:
        """Standard deviation of a value that is spread evenly over a cell."""
        return self.step / math.sqrt(12)

    def index(self, value: float) -> int:
        """Return the number of the cell that a value lies in, or of the outermost one."""
        cell = math.floor((value - self.low) / self.step) + self.below
        return min(max(cell, 0), self.count - 1)

    def value(self, index: int) -> float:
        """Return the middle of a cell."""
        return self.low + (index - self.below + 0.5) * self.step


def _times(most_tc: int, k: int) -> Scale:
    if not FINEST <= k <= COARSEST:
        raise ValueError(f"the granularity of times is 2^k Tc with k from {FINEST} to {COARSEST}, not {k}")
    return Scale(-most_tc * TC_S, 2**k * TC_S, (2 * most_tc >> k) + 2, 1)


def rtoa_scale(k: int) -> Scale:
    """Return the cells of an UL-RTOA [s] (TS 38.133, 13.1).

    Raises:
        ValueError: there is no granularity 2^k T_c.
    """
    return _times(_RTOA_TC, k)


def relative_scale(k: int) -> Scale:
    """Return the cells of the time of a further path [s], relative to the UL-RTOA.

    Raises:
        ValueError: there is no granularity 2^k T_c.
    """
    return _times(_RELATIVE_TC, k)


POWER_DBM = Scale(-156.0, 1.0, 127, 1)
"""Cells of SRS-RSRPP [dBm]."""
AZIMUTH = Scale(-math.pi, _TENTH, 3600)
"""Cells of an azimuth of arrival [rad], from the x axis towards y."""
ZENITH = Scale(0.0, _TENTH, 1800)
"""Cells of a zenith of arrival [rad]."""
PHASE = Scale(0.0, _TENTH, 3600)
"""Cells of UL-RSCP, the phase of a path at the carrier [rad]."""


def timing_quality(deviation_s: float) -> tuple[int, int]:
    """Return value and unit (index) of the quality of a time, from its standard deviation [s], rounded up."""
    metres = deviation_s * SPEED_OF_LIGHT
    for unit, size in enumerate(_UNITS_M):
        value = math.ceil(metres / size - 1e-9)
        if value <= _MOST_TIMING:
            return value, unit
    return _MOST_TIMING, len(_UNITS_M) - 1


def timing_deviation_s(value: int, unit: int) -> float:
    """Undo `timing_quality`."""
    return value * _UNITS_M[unit] / SPEED_OF_LIGHT


def angle_quality(deviation: float) -> int:
    """Return the quality of an angle, from its standard deviation [rad], rounded up."""
    return min(math.ceil(deviation / _TENTH - 1e-9), _MOST_ANGLE)


def angle_deviation(quality: int) -> float:
    """Undo `angle_quality`."""
    return quality * _TENTH


@dataclass(frozen=True, slots=True)
class Path:
    """A path as a base station reports it; NaN is what it does not report.

    Attributes:
        delay_s: time of arrival since the transmission by the base station's clock [s].
        azimuth: of the direction that it comes from, from the x axis towards y [rad].
        zenith: angle of that direction to the vertical [rad].
        power_dbm: received power on a tone [dBm].
        delay_sd_s: standard deviation of the delay as far as noise and quantiser cause it [s].
        azimuth_sd: the same of the azimuth [rad].
        zenith_sd: the same of the zenith [rad].
        phase: at the carrier [rad].
    """

    delay_s: float = math.nan
    azimuth: float = math.nan
    zenith: float = math.nan
    power_dbm: float = math.nan
    delay_sd_s: float = 0.0
    azimuth_sd: float = 0.0
    zenith_sd: float = 0.0
    phase: float = math.nan
