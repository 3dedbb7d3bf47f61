"""Payload of `twin`: the atoms of a channel, each parameter in as many bits as it is worth for the position.

A report of L atoms carries, from the strongest atom on, each atom's amplitude, phase, τ, α and β, then the level of
what the atoms left of the channel. Amplitudes are in dB, those after the first relative to it; phases are relative to
the first atom's, which sends none. A parameter of 0 bits is not sent: the cloud takes the middle of its range. A base
station that hears nothing sends an empty payload.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fronthaul.codec.bitstream import pack_mixed, unpack_mixed
from fronthaul.codec.codebook import UniformCodebook
from fronthaul.errors import RemoteError
from fronthaul.message.messages import Payload, PayloadFormat
from fronthaul.payload.atoms import PER_ATOM, Complex, Real

DEFAULT_BITS = 128
"""Length of a report without `--bits-per-report` [bit]."""
OPTIONS = ("bits_per_report", "clock_ns", "bs_ps", "site_mm", "wall_mm", "alert_mm")
"""Options, whole numbers: the length of a report, what errors the cloud allows for, and the alert limit."""
LEVEL_BITS, LEVEL_DB = 2, (-48.0, 0.0)
"""Width and range of the level of what the atoms left, relative to their own energy."""
RELATIVE_DB = (-52.0, 3.0)
"""Range of amplitudes relative to the first atom's."""
MOST_BITS = 16
"""Maximum width of a parameter."""
_DB = math.log(10) / 20  # relative change of an amplitude per dB

Widths = tuple[tuple[int, ...], ...]
"""Widths of an atom's parameters, atom by atom [bit]."""


@dataclass(frozen=True)
class Atoms:
    """Parameters of B reports, as the cloud knows them.

    Attributes:
        place: τ, α, β (B, L, 3).
        gain: complex amplitudes (B, L).
        variance: of amplitude, phase·amplitude, τ, α, β, from quantisation (B, L, 5).
        share: energy of what the atoms left, relative to theirs (B,).
    """

    place: Real
    gain: Complex
    variance: Real
    share: Real


class TwinPayload:
    """Payload of the atoms of one channel.

    Attributes:
        widths: of the parameters of each atom.
        format: format of every report.
    """

    def __init__(self, widths: Widths, amplitude_db: tuple[float, float]) -> None:
        """Use `widths`, and the range of the first amplitude [dB]."""
        self.widths = widths
        self._flat = np.array([*sum(widths, ()), LEVEL_BITS])
        self.format = PayloadFormat(int(self._flat.sum()), fixed=False)
        self._ranges = [*_ranges(len(widths), amplitude_db), LEVEL_DB]
        self._books = [
            UniformCodebook(low, high, int(bits)) if bits else None
            for (low, high), bits in zip(self._ranges, self._flat, strict=True)
        ]
        self._step = steps(widths, amplitude_db)

    def encode(self, place: Real, gain: Complex, share: Real) -> list[Payload]:
        """Return the payloads of B reports.

        Args:
            place: τ in [0, 1), α and β in [−π, π) (B, L, 3), strongest atom first.
            gain: (B, L).
            share: energy of what the atoms left, relative to theirs (B,).
        """
        level = 20 * np.log10(np.maximum(np.abs(gain), 1e-15))
        phase = np.angle(gain * np.exp(-1j * np.angle(gain[:, :1])))
        value = np.concatenate([level[..., None], phase[..., None], place], -1).reshape(len(gain), -1)
        value = np.column_stack([value, 10 * np.log10(np.maximum(share, 1e-12))]).astype(np.float32)
        index = np.zeros(value.shape, np.uint32)
        first: Any = 0.0
        for column, book in enumerate(self._books):
            relative = column % PER_ATOM == 0 and 0 < column < len(self._books) - 1
            numbers = value[:, column] - (first if relative else np.float32(0))
            if book is not None:
                index[:, column] = book.index(numbers.astype(np.float32))
            if column == 0:
                first = self._reconstructed(index, 0)
        return [pack_mixed(row, self._flat) for row in index]

    def decode(self, payloads: Sequence[Payload]) -> Atoms:
        """Return the parameters of reports, none of which is empty.

        Raises:
            RemoteError: a payload of another size.
        """
        index = np.stack([self._indices(payload) for payload in payloads])
        value = np.stack([self._reconstructed(index, column) for column in range(len(self._books))], -1)
        parameter = value[:, :-1].astype(np.float64).reshape(len(index), -1, PER_ATOM)
        level = parameter[..., 0].copy()
        level[:, 1:] += level[:, :1]
        phase = parameter[..., 1].copy()
        phase[:, 0] = 0
        size = 10 ** (level / 20)
        share = 10 ** (value[:, -1].astype(np.float64) / 10)
        variance = variances(size, self._step)
        clipped = (index[:, :-1].reshape(parameter.shape)[..., 0] == 0) & (self._flat[:-1:PER_ATOM] > 0)
        variance[..., 0] = np.where(clipped, size**2 / 3, variance[..., 0])  # anything between none and this
        return Atoms(parameter[..., 2:], size * np.exp(1j * phase), variance, share)

    def _indices(self, payload: Payload) -> Any:
        if not payload.bits:
            raise RemoteError("length", "an empty payload has no atoms")
        return unpack_mixed(payload, self._flat)

    def _reconstructed(self, index: Any, column: int) -> Any:
        book = self._books[column]
        if book is None:
            return np.full(len(index), sum(self._ranges[column]) / 2, np.float32)
        return book.reconstruct(index[:, column])


def steps(widths: Widths, amplitude_db: tuple[float, float]) -> Real:
    """Return the quantiser steps of all parameters (L, 5), amplitudes in dB; with 0 bits it is the whole range."""
    ranges = np.array(_ranges(len(widths), amplitude_db))
    found: Real = (ranges[:, 1] - ranges[:, 0]).reshape(-1, PER_ATOM) / 2.0 ** np.array(widths)
    return found


def variances(size: Real, step: Real) -> Real:
    """Return variances (B, L, 5) of amplitude, phase·amplitude, τ, α and β from quantisation.

    The phase of the first atom is none of the model's parameters, since the gains of paths are free.

    Args:
        size: amplitudes (B, L).
        step: quantiser steps (L, 5), see `steps`.
    """
    found = np.broadcast_to(step**2 / 12, (*size.shape, PER_ATOM)).copy()
    found[..., 0] *= (_DB * size) ** 2
    found[..., 1] *= size**2
    found[:, 0, 1] = 0
    return found


def _ranges(atoms: int, amplitude_db: tuple[float, float]) -> list[tuple[float, float]]:
    circle = (-math.pi, math.pi)
    return [
        interval
        for number in range(atoms)
        for interval in (RELATIVE_DB if number else amplitude_db, circle, (0.0, 1.0), circle, circle)
    ]


def report_widths(config: Mapping[str, Any], bits: int) -> Widths:
    """Return the widths of a report of `bits` bits, from a twin's allocation (`sim.learn.twin.allocation`).

    Raises:
        ValueError: the twin has no report of this length.
    """
    table = config["allocation"]
    lengths = [int(length) for length in table["lengths"]]
    if not lengths or not lengths[0] <= bits <= lengths[-1]:
        raise ValueError(f"a report has {lengths[0]} to {lengths[-1]} bits, not {bits}")
    if short := table.get("short", {}).get(str(bits)):
        return (tuple(int(width) for width in short),)
    atoms = int(table["atoms"][max(n for n, length in enumerate(lengths) if length <= bits)])
    order = table["orders"][str(atoms)]
    flat = np.array(order["least"])
    further = bits - LEVEL_BITS - int(flat.sum())
    flat += np.bincount(np.array(order["then"][:further], np.intp), minlength=len(flat))
    return tuple(tuple(int(width) for width in row) for row in flat.reshape(atoms, PER_ATOM))
