"""Fields of a report of `twin`: the atoms' powers, phases, delays and angles, with their bits and quantiser steps."""

from __future__ import annotations

import math

import numpy as np

from fronthaul.codec.bitstream import unpack_mixed
from fronthaul.message.messages import Payload
from fronthaul.payload.atoms import PER_ATOM
from fronthaul.payload.fields import PayloadField
from fronthaul.payload.twin import LEVEL_BITS, LEVEL_DB, TwinPayload, Widths, steps

_SPEED_OF_LIGHT = 299_792_458.0


def payload_fields(
    payload: Payload,
    widths: Widths,
    amplitude_db: tuple[float, float],
    *,
    tone_spacing_hz: float,
    spacing_wavelengths: float,
) -> list[PayloadField]:
    """Return the fields of a report; none of an empty one.

    Args:
        payload: report of a base station.
        widths: of its parameters.
        amplitude_db: range of the first amplitude [dB].
        tone_spacing_hz: of the measured tones; delays are known up to a multiple of its inverse.
        spacing_wavelengths: of the array's elements; makes directions of spatial frequencies.

    Raises:
        RemoteError: a payload of another size.
    """
    if not payload.bits:
        return []
    atoms = TwinPayload(widths, amplitude_db).decode([payload])
    place, gain, share = atoms.place[0], atoms.gain[0], float(atoms.share[0])
    index = unpack_mixed(payload, np.array([*sum(widths, ()), LEVEL_BITS])).tolist()
    period_ns = 1e9 / tone_spacing_hz
    found = []
    for atom, step in enumerate(steps(widths, amplitude_db)):
        tau, *angles = place[atom]
        delay_ns = tau * period_ns
        metres = f"{delay_ns * 1e-9 * _SPEED_OF_LIGHT:.3f} m"
        numbers = [
            ("power", 20 * math.log10(abs(gain[atom])), step[0], "dB", ""),
            ("phase", math.degrees(np.angle(gain[atom])), math.degrees(step[1]), "°", ""),
            ("delay", delay_ns, step[2] * period_ns, "ns", metres),
            ("column angle", angles[0], step[3], "rad", _direction(angles[0], spacing_wavelengths)),
            ("row angle", angles[1], step[4], "rad", _direction(angles[1], spacing_wavelengths)),
        ]
        for number, (name, value, one, unit, words) in enumerate(numbers):
            bits, at = widths[atom][number], index[atom * PER_ATOM + number]
            found.append(PayloadField(f"atom {atom + 1}", name, bits, at, float(value), float(one), unit, words))
    left_db = 10 * math.log10(share)
    step_db = (LEVEL_DB[1] - LEVEL_DB[0]) / 2**LEVEL_BITS
    found.append(PayloadField("the rest", "power", LEVEL_BITS, index[-1], left_db, step_db, "dB"))
    return found


def _direction(angle: float, spacing_wavelengths: float) -> str:
    """Return the direction that a phase between neighbouring elements stands for, from the array's broadside."""
    sine = angle / (2 * math.pi * spacing_wavelengths)
    return f"{math.degrees(math.asin(sine)):.2f}°" if abs(sine) <= 1 else "none"
