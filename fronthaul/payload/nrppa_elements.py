"""Information elements of NRPPa (TS 38.455, Rel-18) of which reports are made: times, powers, directions and phases.

    ULRTOAMeas, RelativePathDelay   k (a choice of three bits), then a whole number, whose range is k's
    UL-SRS-RSRPP                    0 … 126
    UL-AoA                          azimuth 0 … 3599, zenith 0 … 1799, by the axes of space
    UL-RSCPMeas                     its number alone: 0 … 3599 tenths of a degree

Each is packed by ASN.1's PER (`fronthaul.codec.per`): aligned, as NRPPa has it, or unaligned.
"""

from __future__ import annotations

from collections.abc import Mapping

from fronthaul.codec.per import PerReader, PerWriter
from fronthaul.payload.measurements import AZIMUTH, PHASE, POWER_DBM, ZENITH, Path, Scale, relative_scale, rtoa_scale


def choices(options: Mapping[str, str | int], usual: Mapping[str, int], flags: tuple[str, ...]) -> dict[str, int]:
    """Return the options of a run, with the usual value of each that is missing.

    Raises:
        ValueError: one of the `flags` is neither 0 nor 1.
    """
    chosen = {name: int(options.get(name, value)) for name, value in usual.items()}
    for name in flags:
        if chosen[name] not in (0, 1):
            raise ValueError(f"{name} is 0 or 1, not {chosen[name]}")
    return chosen


class Elements:
    """Writes and reads elements with times in 2^k T_c.

    Attributes:
        time: cells of ULRTOAMeas [s].
        relative: cells of RelativePathDelay [s].
    """

    def __init__(self, k: int) -> None:
        """Use granularity k.

        Raises:
            ValueError: there is no granularity 2^k T_c.
        """
        self.time, self.relative = rtoa_scale(k), relative_scale(k)
        self._k = k

    def put_time(self, writer: PerWriter, scale: Scale, time_s: float) -> None:
        """Write a time, by the cells of `time` or `relative`."""
        writer.bits(self._k, 3)
        writer.whole(scale.index(time_s), scale.count - 1)

    def take_time(self, reader: PerReader, scale: Scale) -> float:
        """Read a time [s].

        Raises:
            RemoteError: it has another granularity, or the payload ends within it.
        """
        reader.expect(self._k, 3, "granularity of a time")
        return scale.value(reader.whole(scale.count - 1))


def put_power(writer: PerWriter, power_dbm: float) -> None:
    """Write UL-SRS-RSRPP."""
    writer.bits(0, 2)
    writer.whole(POWER_DBM.index(power_dbm), POWER_DBM.count - 1)


def take_power(reader: PerReader) -> dict[str, float]:
    """Read UL-SRS-RSRPP, as a field of `Path`.

    Raises:
        RemoteError: there is something else.
    """
    reader.expect(0, 2, "preamble of a power")
    return {"power_dbm": POWER_DBM.value(reader.whole(POWER_DBM.count - 1))}


def put_angles(writer: PerWriter, path: Path) -> None:
    """Write UL-AoA."""
    writer.bits(0b0100, 4)  # with zenith; by the axes of space
    writer.whole(AZIMUTH.index(path.azimuth), AZIMUTH.count - 1)
    writer.whole(ZENITH.index(path.zenith), ZENITH.count - 1)


def take_angles(reader: PerReader) -> dict[str, float]:
    """Read UL-AoA, as fields of `Path`.

    Raises:
        RemoteError: there is something else.
    """
    reader.expect(0b0100, 4, "preamble of a direction")
    azimuth = AZIMUTH.value(reader.whole(AZIMUTH.count - 1))
    zenith = ZENITH.value(reader.whole(ZENITH.count - 1))
    return {"azimuth": azimuth, "zenith": zenith, "azimuth_sd": AZIMUTH.deviation, "zenith_sd": ZENITH.deviation}


def put_phase(writer: PerWriter, phase: float) -> None:
    """Write the number of UL-RSCPMeas for a phase [rad], whichever turn it has."""
    writer.whole(PHASE.index(PHASE.low + (phase - PHASE.low) % (PHASE.step * PHASE.count)), PHASE.count - 1)


def take_phase(reader: PerReader) -> float:
    """Read the number of UL-RSCPMeas; return the phase [rad].

    Raises:
        RemoteError: it is out of range, or the payload ends within it.
    """
    return PHASE.value(reader.whole(PHASE.count - 1))
