"""Payload of `nrppa-path`: the information elements of NRPPa (TS 38.455, Rel-18) for one base station's measurements.

    UL-RTOAMeasurement   time of the first path; in its extension ExtendedAdditionalPathList, up to eight further paths,
                         each with its time relative to the first (RelativePathDelay) and, where chosen, its power
                         (UL-SRS-RSRPP) and its direction (MultipleULAoA)
    UL-SRS-RSRPP         power of the first path, where chosen
    UL-AoA               direction of the first path, where chosen

They follow each other, each from an octet on, packed by ASN.1's PER (`fronthaul.codec.per`): aligned, as NRPPa has it,
or unaligned. What is around them in a message, such as time stamps and identifiers, is what this project's own header
carries. A base station that does not hear the user sends an empty payload.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fronthaul.codec.per import PerReader, PerWriter
from fronthaul.message.messages import Payload, PayloadFormat
from fronthaul.payload.measurements import AZIMUTH, POWER_DBM, ZENITH, Path, Scale, relative_scale, rtoa_scale

MOST_PATHS = 8
_DEFAULTS = {"paths": 4, "k": 0, "powers": 1, "angles": 1, "aligned": 1, "candidates": 1}
OPTIONS: dict[str, type] = dict.fromkeys(_DEFAULTS, int)
"""Options of the scheme, whole numbers: further paths, k, and what is sent, packed or used (1) or not (0)."""
_MOST_EXTENSIONS = 65535
_ID_EXTENDED_LIST = 77
_IGNORE = 1


@dataclass(frozen=True)
class PathChoice:
    """What reports hold: `paths` further ones, times in 2^k T_c, powers, angles; and how they are packed and used."""

    paths: int
    k: int
    powers: bool
    angles: bool
    aligned: bool
    candidates: bool

    @classmethod
    def of(cls, options: Mapping[str, str | int]) -> PathChoice:
        """Read the options of a run.

        Raises:
            ValueError: one is out of range.
        """
        chosen = {name: int(options.get(name, usual)) for name, usual in _DEFAULTS.items()}
        if not 0 <= chosen["paths"] <= MOST_PATHS:
            raise ValueError(f"a report has 0 to {MOST_PATHS} further paths, not {chosen['paths']}")
        for name in ("powers", "angles", "aligned", "candidates"):
            if chosen[name] not in (0, 1):
                raise ValueError(f"{name} is 0 or 1, not {chosen[name]}")
        flags = {name: bool(chosen[name]) for name in ("powers", "angles", "aligned", "candidates")}
        return cls(chosen["paths"], chosen["k"], **flags)


class NrppaPathPayload:
    """Payload of a first path and further ones.

    Attributes:
        choice: what reports hold.
        format: format of every report.
    """

    def __init__(self, choice: PathChoice) -> None:
        """Use what `choice` says.

        Raises:
            ValueError: there is no granularity 2^k T_c.
        """
        self.choice = choice
        self._time, self._relative = rtoa_scale(choice.k), relative_scale(choice.k)
        largest = self._time.low + self._time.step * self._time.count
        path = Path(largest, 0.0, 0.0, 0.0)
        self.format = PayloadFormat(self.encode([path] * (1 + choice.paths)).bits, fixed=False)

    def encode(self, paths: Sequence[Path]) -> Payload:
        """Return the payload of paths, the first one first; further ones beyond `choice.paths` are left out."""
        first, further = paths[0], paths[1 : 1 + self.choice.paths]
        writer = PerWriter(aligned=self.choice.aligned)
        writer.bits(0b001 if further else 0, 3)  # not extended; no AdditionalPathList; iE-extensions
        self._put_time(writer, self._time, first.delay_s)
        if further:
            writer.whole(0, _MOST_EXTENSIONS - 1)
            writer.whole(_ID_EXTENDED_LIST, _MOST_EXTENSIONS)
            writer.bits(_IGNORE, 2)
            inner = PerWriter(aligned=self.choice.aligned)
            inner.bits(len(further) - 1, 3)
            reference = self._time.value(self._time.index(first.delay_s))
            for path in further:
                inner.bits(self._optional, 5)
                self._put_time(inner, self._relative, path.delay_s - reference)
                if self.choice.angles:
                    inner.bits(0, 2 + 3 + 2)  # MultipleULAoA of one UL-AoA
                    self._put_angles(inner, path)
                if self.choice.powers:
                    self._put_power(inner, path)
            writer.open_type(inner)
        if self.choice.powers:
            writer.pad()
            self._put_power(writer, first)
        if self.choice.angles:
            writer.pad()
            self._put_angles(writer, first)
        return writer.payload()

    def decode(self, payload: Payload) -> list[Path]:
        """Return the paths of a payload that is not empty, the first one first.

        Raises:
            RemoteError: it holds something else.
        """
        reader = PerReader(payload, aligned=self.choice.aligned)
        reader.expect(0, 2, "preamble of a measurement")
        has_further = reader.bits(1)
        found = [self._take_time(reader, self._time, 0.0)]
        if has_further:
            reader.expect_whole(0, _MOST_EXTENSIONS - 1, "number of further extensions")
            reader.expect_whole(_ID_EXTENDED_LIST, _MOST_EXTENSIONS, "extension")
            reader.expect(_IGNORE, 2, "criticality")
            inner = reader.open_type()
            for _ in range(inner.bits(3) + 1):
                inner.expect(self._optional, 5, "preamble of a path")
                path = self._take_time(inner, self._relative, found[0]["delay_s"])
                if self.choice.angles:
                    inner.expect(0, 7, "preamble of a direction")
                    path |= self._take_angles(inner)
                if self.choice.powers:
                    path |= self._take_power(inner)
                found.append(path)
            inner.end()
        if self.choice.powers:
            reader.pad()
            found[0] |= self._take_power(reader)
        if self.choice.angles:
            reader.pad()
            found[0] |= self._take_angles(reader)
        reader.end()
        return [Path(**path) for path in found]

    @property
    def _optional(self) -> int:
        """Preamble of a further path: not extended, then quality, direction, power and extensions."""
        return self.choice.angles << 2 | self.choice.powers << 1

    def _put_time(self, writer: PerWriter, scale: Scale, time_s: float) -> None:
        writer.bits(self.choice.k, 3)
        writer.whole(scale.index(time_s), scale.count - 1)

    def _take_time(self, reader: PerReader, scale: Scale, origin_s: float) -> dict[str, float]:
        reader.expect(self.choice.k, 3, "granularity of a time")
        delay_s = origin_s + scale.value(reader.whole(scale.count - 1))
        return {"delay_s": delay_s, "delay_sd_s": scale.deviation}

    def _put_power(self, writer: PerWriter, path: Path) -> None:
        writer.bits(0, 2)
        writer.whole(POWER_DBM.index(path.power_dbm), POWER_DBM.count - 1)

    def _take_power(self, reader: PerReader) -> dict[str, float]:
        reader.expect(0, 2, "preamble of a power")
        return {"power_dbm": POWER_DBM.value(reader.whole(POWER_DBM.count - 1))}

    def _put_angles(self, writer: PerWriter, path: Path) -> None:
        writer.bits(0b0100, 4)  # with zenith; by the axes of space
        writer.whole(AZIMUTH.index(path.azimuth), AZIMUTH.count - 1)
        writer.whole(ZENITH.index(path.zenith), ZENITH.count - 1)

    def _take_angles(self, reader: PerReader) -> dict[str, float]:
        reader.expect(0b0100, 4, "preamble of a direction")
        azimuth = AZIMUTH.value(reader.whole(AZIMUTH.count - 1))
        zenith = ZENITH.value(reader.whole(ZENITH.count - 1))
        return {"azimuth": azimuth, "zenith": zenith, "azimuth_sd": AZIMUTH.deviation, "zenith_sd": ZENITH.deviation}
