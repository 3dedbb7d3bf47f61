"""Payload of `nrppa-sample`: samples of a channel's impulse response, as 3GPP agreed on for Rel-19's case 3b.

Of a window of N_t samples, T = 2^k T_c apart, N_t' are reported: when the window begins, which samples they are, and
the power of each, with its phase where chosen. The direction of the first path may follow.

What RAN1 agreed on is N_t ∈ {32, 64, 128}, N_t' ≤ 24, T = 2^k T_c with k = 0 … 5, times relative to the reference of
UL-RTOA, powers by the scale of UL-SRS-RSRPP. The elements are NRPPa's of Rel-18 (`fronthaul.payload.nrppa_elements`).
The structure that holds them is this project's reconstruction, not NRPPa's of Rel-19:

    SampledChannel ::= SEQUENCE {
        windowStart  ULRTOAMeas,
        reported     CHOICE {
            n32   BIT STRING (SIZE (32)),
            n64   BIT STRING (SIZE (64)),
            n128  BIT STRING (SIZE (128))
        },
        powers       SEQUENCE (SIZE (1..24)) OF INTEGER (0..126),
        phases       SEQUENCE (SIZE (1..24)) OF INTEGER (0..3599) OPTIONAL
    }

packed by ASN.1's PER, aligned or unaligned; UL-AoA, where chosen, follows from an octet on. A base station that does
not hear the user sends an empty payload.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fronthaul.codec.per import PerReader, PerWriter
from fronthaul.errors import RemoteError
from fronthaul.message.messages import Payload, PayloadFormat
from fronthaul.payload.measurements import POWER_DBM, Path, Scale
from fronthaul.payload.nrppa_elements import Elements, choices, put_angles, put_phase, take_angles, take_phase

WINDOWS = (32, 64, 128)
MOST_SAMPLES = 24
_USUAL = {"samples": 9, "window": 64, "k": 5, "phases": 0, "angles": 1, "aligned": 1}
_FLAGS = ("phases", "angles", "aligned")
OPTIONS: dict[str, type] = dict.fromkeys(_USUAL, int)
"""Options of the scheme, whole numbers: N_t', N_t, k, and what is sent or packed (1) or not (0)."""
NOWHERE = Path()


@dataclass(frozen=True)
class SampleChoice:
    """What reports hold: `samples` (N_t') of `window` (N_t), 2^k T_c apart, phases, angles; how they are packed."""

    samples: int
    window: int
    k: int
    phases: bool
    angles: bool
    aligned: bool

    @classmethod
    def of(cls, options: Mapping[str, str | int]) -> SampleChoice:
        """Read the options of a run.

        Raises:
            ValueError: one is out of range.
        """
        chosen = choices(options, _USUAL, _FLAGS)
        samples, window, k = (chosen[name] for name in ("samples", "window", "k"))
        if not 1 <= samples <= MOST_SAMPLES:
            raise ValueError(f"a report has 1 to {MOST_SAMPLES} samples, not {samples}")
        if window not in WINDOWS:
            raise ValueError(f"a window has {', '.join(map(str, WINDOWS[:-1]))} or {WINDOWS[-1]} samples, not {window}")
        return cls(samples, window, k, **{name: bool(chosen[name]) for name in _FLAGS})


@dataclass(frozen=True)
class SampledChannel:
    """Samples of an impulse response.

    Attributes:
        start_s: when the window begins, by the base station's clock [s].
        index: numbers of the samples in the window, ascending.
        power_dbm: power of each on a tone [dBm].
        phase: phase of each [rad]; empty if not reported.
        first: direction of the first path; NaN if not reported.
    """

    start_s: float
    index: tuple[int, ...]
    power_dbm: tuple[float, ...]
    phase: tuple[float, ...] = ()
    first: Path = NOWHERE


class NrppaSamplePayload:
    """Payload of samples.

    Attributes:
        choice: what reports hold.
        format: format of every report.
        start: cells of the time at which a window begins [s].
    """

    def __init__(self, choice: SampleChoice) -> None:
        """Use what `choice` says.

        Raises:
            ValueError: there is no granularity 2^k T_c.
        """
        self.choice = choice
        self._elements = Elements(choice.k)
        self.start: Scale = self._elements.time
        largest = self.start.value(self.start.count - 1)
        index = tuple(range(choice.samples))
        zeros = (0.0,) * choice.samples
        self.format = PayloadFormat(
            self.encode(SampledChannel(largest, index, zeros, zeros, Path(0.0, 0.0, 0.0))).bits, fixed=False
        )

    def encode(self, sampled: SampledChannel) -> Payload:
        """Return the payload of samples."""
        choice = self.choice
        writer = PerWriter(aligned=choice.aligned)
        writer.bits(choice.phases, 1)
        self._elements.put_time(writer, self.start, sampled.start_s)
        writer.bits(WINDOWS.index(choice.window), 2)
        writer.align()
        writer.bits(sum(1 << (choice.window - 1 - n) for n in sampled.index), choice.window)
        writer.whole(len(sampled.index) - 1, MOST_SAMPLES - 1)
        for power_dbm in sampled.power_dbm:
            writer.whole(POWER_DBM.index(power_dbm), POWER_DBM.count - 1)
        if choice.phases:
            writer.whole(len(sampled.index) - 1, MOST_SAMPLES - 1)
            for phase in sampled.phase:
                put_phase(writer, phase)
        if choice.angles:
            writer.pad()
            put_angles(writer, sampled.first)
        return writer.payload()

    def decode(self, payload: Payload) -> SampledChannel:
        """Return the samples of a payload that is not empty.

        Raises:
            RemoteError: it holds something else.
        """
        choice = self.choice
        reader = PerReader(payload, aligned=choice.aligned)
        reader.expect(choice.phases, 1, "preamble of samples")
        start_s = self._elements.take_time(reader, self.start)
        reader.expect(WINDOWS.index(choice.window), 2, "length of a window")
        reader.align()
        reported = reader.bits(choice.window)
        index = tuple(n for n in range(choice.window) if reported >> (choice.window - 1 - n) & 1)
        if not 1 <= len(index) <= choice.samples:
            raise RemoteError("field", f"{len(index)} samples are reported, not 1 to {choice.samples}")
        reader.expect_whole(len(index) - 1, MOST_SAMPLES - 1, "number of powers, less one,")
        powers = tuple(POWER_DBM.value(reader.whole(POWER_DBM.count - 1)) for _ in index)
        phases: tuple[float, ...] = ()
        if choice.phases:
            reader.expect_whole(len(index) - 1, MOST_SAMPLES - 1, "number of phases, less one,")
            phases = tuple(take_phase(reader) for _ in index)
        first = NOWHERE
        if choice.angles:
            reader.pad()
            first = Path(**take_angles(reader))
        reader.end()
        return SampledChannel(start_s, index, powers, phases, first)

    def paths(self, sampled: SampledChannel) -> list[Path]:
        """Return each sample as if it were a path: its time, power, and phase if reported."""
        phases = sampled.phase or (math.nan,) * len(sampled.index)
        rows = zip(sampled.index, sampled.power_dbm, phases, strict=True)
        return [Path(sampled.start_s + n * self.start.step, power_dbm=power, phase=phase) for n, power, phase in rows]
