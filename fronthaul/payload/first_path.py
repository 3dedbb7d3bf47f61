"""Payload of the classical schemes: time and angles of the first path, each with its quality.

    time (k)    UL-RTOA 21 … 16 bit for k = 0 … 5, then the quality: 5 bit and 2 bit of unit
    angles      azimuth 12 bit and zenith 11 bit, then the qualities of both, 8 bit each

The numbers are NRPPa's (`fronthaul.payload.measurements`), without the structure around them, which `nrppa-path` sends.
A base station that does not hear the user sends an empty payload.
"""

from __future__ import annotations

import math

import numpy as np

from fronthaul.codec.bitstream import pack_mixed, unpack_mixed
from fronthaul.message.messages import Payload, PayloadFormat
from fronthaul.payload.fields import PayloadField
from fronthaul.payload.measurements import (
    AZIMUTH,
    SPEED_OF_LIGHT,
    ZENITH,
    Path,
    angle_deviation,
    angle_quality,
    rtoa_scale,
    timing_deviation_s,
    timing_quality,
)

DEFAULT_K = 0
OPTIONS = {"k": int}
"""Option of schemes that report times: their granularity is 2^k T_c."""
_TIME_QUALITY = (5, 2)
_ANGLE_QUALITY = (8, 8)


class FirstPathPayload:
    """Payload of a first path.

    Attributes:
        timed: whether it has the time.
        angled: whether it has the angles.
        format: format of every report.
    """

    def __init__(self, *, timed: bool, angled: bool, k: int = DEFAULT_K) -> None:
        """Report the time in units of 2^k T_c, the angles, or both.

        Raises:
            ValueError: there is no granularity 2^k T_c.
        """
        self.timed, self.angled = timed, angled
        self._time = rtoa_scale(k)
        self._widths = [self._time.bits, *_TIME_QUALITY] if timed else []
        self._widths += [AZIMUTH.bits, ZENITH.bits, *_ANGLE_QUALITY] if angled else []
        self.format = PayloadFormat(sum(self._widths), fixed=False)

    def encode(self, path: Path) -> Payload:
        """Return the payload of a path."""
        index: list[int] = []
        if self.timed:
            index += [self._time.index(path.delay_s), *timing_quality(path.delay_sd_s)]
        if self.angled:
            index += [AZIMUTH.index(path.azimuth), ZENITH.index(path.zenith)]
            index += [angle_quality(path.azimuth_sd), angle_quality(path.zenith_sd)]
        return pack_mixed(np.array(index, np.uint32), self._widths)

    def decode(self, payload: Payload) -> Path:
        """Return the path of a payload that is not empty; its deviations have the quantiser's share.

        Raises:
            RemoteError: a payload of another size.
        """
        index = unpack_mixed(payload, self._widths).tolist()
        found = {}
        if self.timed:
            time, *quality = index[:3]
            found["delay_s"] = self._time.value(time)
            found["delay_sd_s"] = math.hypot(timing_deviation_s(*quality), self._time.deviation)
        if self.angled:
            azimuth, zenith, *both = index[-4:]
            found |= {"azimuth": AZIMUTH.value(azimuth), "zenith": ZENITH.value(zenith)}
            deviations = [math.hypot(angle_deviation(one), AZIMUTH.deviation) for one in both]
            found |= dict(zip(("azimuth_sd", "zenith_sd"), deviations, strict=True))
        return Path(**found)

    def fields(self, payload: Payload) -> list[PayloadField]:
        """Return the numbers in a payload; none of an empty one.

        Raises:
            RemoteError: a payload of another size.
        """
        if not payload.bits:
            return []
        path, index = self.decode(payload), unpack_mixed(payload, self._widths).tolist()
        found = []
        if self.timed:
            time, value, unit = index[:3]
            metres = f"{path.delay_s * SPEED_OF_LIGHT:.2f} m"
            step_ns, quality_ns = self._time.step * 1e9, timing_deviation_s(value, unit) * 1e9
            found.append(("time", self._time.bits, time, path.delay_s * 1e9, step_ns, "ns", metres))
            found.append(("quality", 5, value, quality_ns, timing_deviation_s(1, unit) * 1e9, "ns", ""))
            found.append(("quality unit", 2, unit, timing_deviation_s(1, unit) * SPEED_OF_LIGHT, 0.0, "m", ""))
        if self.angled:
            azimuth, zenith, *both = index[-4:]
            found.append(("azimuth", AZIMUTH.bits, azimuth, math.degrees(path.azimuth), 0.1, "°", ""))
            found.append(("zenith", ZENITH.bits, zenith, math.degrees(path.zenith), 0.1, "°", ""))
            for name, one in zip(("azimuth quality", "zenith quality"), both, strict=True):
                found.append((name, 8, one, math.degrees(angle_deviation(one)), 0.1, "°", ""))
        return [PayloadField("first path", *one) for one in found]
