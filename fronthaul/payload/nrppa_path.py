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
from fronthaul.payload.measurements import Path
from fronthaul.payload.nrppa_elements import (
    Elements,
    choices,
    put_angles,
    put_power,
    take_angles,
    take_power,
)

MOST_PATHS = 8
_USUAL = {"paths": 4, "k": 0, "powers": 1, "angles": 1, "aligned": 1, "candidates": 1}
_FLAGS = ("powers", "angles", "aligned", "candidates")
OPTIONS: dict[str, type] = dict.fromkeys(_USUAL, int)
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
        chosen = choices(options, _USUAL, _FLAGS)
        if not 0 <= chosen["paths"] <= MOST_PATHS:
            raise ValueError(f"a report has 0 to {MOST_PATHS} further paths, not {chosen['paths']}")
        flags = {name: bool(chosen[name]) for name in _FLAGS}
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
        self._elements = Elements(choice.k)
        time = self._elements.time
        path = Path(time.low + time.step * time.count, 0.0, 0.0, 0.0)
        self.format = PayloadFormat(self.encode([path] * (1 + choice.paths)).bits, fixed=False)

    def encode(self, paths: Sequence[Path]) -> Payload:
        """Return the payload of paths, the first one first; further ones beyond `choice.paths` are left out."""
        first, further = paths[0], paths[1 : 1 + self.choice.paths]
        elements = self._elements
        writer = PerWriter(aligned=self.choice.aligned)
        writer.bits(0b001 if further else 0, 3)  # not extended; no AdditionalPathList; iE-extensions
        elements.put_time(writer, elements.time, first.delay_s)
        if further:
            writer.whole(0, _MOST_EXTENSIONS - 1)
            writer.whole(_ID_EXTENDED_LIST, _MOST_EXTENSIONS)
            writer.bits(_IGNORE, 2)
            inner = PerWriter(aligned=self.choice.aligned)
            inner.bits(len(further) - 1, 3)
            reference = elements.time.value(elements.time.index(first.delay_s))
            for path in further:
                inner.bits(self._optional, 5)
                elements.put_time(inner, elements.relative, path.delay_s - reference)
                if self.choice.angles:
                    inner.bits(0, 2 + 3 + 2)  # MultipleULAoA of one UL-AoA
                    put_angles(inner, path)
                if self.choice.powers:
                    put_power(inner, path.power_dbm)
            writer.open_type(inner)
        if self.choice.powers:
            writer.pad()
            put_power(writer, first.power_dbm)
        if self.choice.angles:
            writer.pad()
            put_angles(writer, first)
        return writer.payload()

    def decode(self, payload: Payload) -> list[Path]:
        """Return the paths of a payload that is not empty, the first one first.

        Raises:
            RemoteError: it holds something else.
        """
        reader = PerReader(payload, aligned=self.choice.aligned)
        reader.expect(0, 2, "preamble of a measurement")
        has_further = reader.bits(1)
        found = [self._take_time(reader)]
        if has_further:
            reader.expect_whole(0, _MOST_EXTENSIONS - 1, "number of further extensions")
            reader.expect_whole(_ID_EXTENDED_LIST, _MOST_EXTENSIONS, "extension")
            reader.expect(_IGNORE, 2, "criticality")
            inner = reader.open_type()
            for _ in range(inner.bits(3) + 1):
                inner.expect(self._optional, 5, "preamble of a path")
                path = self._take_time(inner, found[0]["delay_s"])
                if self.choice.angles:
                    inner.expect(0, 7, "preamble of a direction")
                    path |= take_angles(inner)
                if self.choice.powers:
                    path |= take_power(inner)
                found.append(path)
            inner.end()
        if self.choice.powers:
            reader.pad()
            found[0] |= take_power(reader)
        if self.choice.angles:
            reader.pad()
            found[0] |= take_angles(reader)
        reader.end()
        return [Path(**path) for path in found]

    @property
    def _optional(self) -> int:
        """Preamble of a further path: not extended, then quality, direction, power and extensions."""
        return self.choice.angles << 2 | self.choice.powers << 1

    def _take_time(self, reader: PerReader, origin_s: float | None = None) -> dict[str, float]:
        """Read the time of a path, that of a further one relative to the first's."""
        scale = self._elements.time if origin_s is None else self._elements.relative
        return {"delay_s": (origin_s or 0.0) + self._elements.take_time(reader, scale), "delay_sd_s": scale.deviation}
