"""`nrppa-path` at the base station: first path and further ones, resolved beyond the band, as NRPPa's measurements.

Atoms are fitted to the channel (`edge.atom_fit`): each is a path with delay, direction and power. Those weaker than the
strongest by more than 15 dB are left out. The earliest of the rest is the first path, from which the others follow in
the order of their delays. Delays are known modulo the inverse of the tones' spacing, and taken from −5 % of it on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from edge.atom_fit import fit_atoms, slot_reduced
from edge.first_path import EARLY, Angles
from edge.music import require_plane
from edge.scheme import EdgeBuilder, EdgeScheme, EdgeSetup, Encoded, SchemeSpec, emptied
from fronthaul.payload.atoms import AtomGrid
from fronthaul.payload.measurements import Path
from fronthaul.payload.nrppa_path import OPTIONS, NrppaPathPayload, PathChoice

FAINT_DB = 15.0
_LEAST_ATOMS = 3
"""Atoms that are fitted at least: the strongest path need not be the first."""


class NrppaPathEdge:
    """Measures paths and packs them as NRPPa does."""

    def __init__(self, setup: EdgeSetup, name: str = "nrppa-path") -> None:
        """Build from the array, the tones and the options.

        Raises:
            ValueError: an option is out of range, or the array does not measure the angles that are to be sent.
        """
        self.name, config = name, setup.config
        self._grid = AtomGrid(*(int(config[name]) for name in ("columns", "rows", "tones")))
        self._spacing_hz, self._spacing = float(config["tone_spacing_hz"]), float(config["spacing"])
        self._power_dbm = float(config["power_dbm"])
        self._angles = Angles(config, setup.tensors["orientation"])
        self._payload = NrppaPathPayload(PathChoice.of(setup.options))
        if self._payload.choice.angles:
            require_plane(config)
        self.format = self._payload.format

    def encode(self, channel: Tensor) -> Encoded:
        """Encode Ĥ (B, slot, antenna, tone)."""
        return Encoded([self._payload.encode(paths) for paths in self.paths(channel)])

    def paths(self, channel: Tensor) -> list[list[Path]]:
        """Return the paths of each of Ĥ (B, slot, antenna, tone), the first one first."""
        reduced = slot_reduced(channel.flatten(2).numpy().astype(np.complex128))
        place, gain, _ = fit_atoms(self._grid, reduced, max(_LEAST_ATOMS, 1 + self._payload.choice.paths))
        delay = ((place[..., 0] + EARLY) % 1 - EARLY) / self._spacing_hz
        cosine = place[..., 1:] / (2 * math.pi * self._spacing)
        cosine /= np.maximum(np.linalg.norm(cosine, axis=-1, keepdims=True), 1)
        azimuth, zenith = self._angles.in_space(cosine)
        power = 20 * np.log10(np.maximum(np.abs(gain), 1e-15)) + self._power_dbm
        made = []
        for row in range(len(delay)):
            heard = np.flatnonzero(power[row] >= power[row].max() - FAINT_DB)
            first = heard[delay[row, heard].argmin()]
            strongest = [n for n in heard.tolist() if n != first][: self._payload.choice.paths]
            order = [first, *sorted(strongest, key=lambda n, row=row: float(delay[row, n]))]  # type: ignore[misc]
            made.append(
                [Path(float(delay[row, n]), float(azimuth[row, n]), float(zenith[row, n]), float(power[row, n]))
                 for n in order]
            )  # fmt: skip
        return made

    def mark(self, encoded: Encoded, heard: Sequence[bool]) -> Encoded:
        """Empty the payloads of snapshots in which the user is not heard."""
        return emptied(encoded, heard)


def _builder(name: str, weights: str, options: Mapping[str, type]) -> EdgeBuilder:
    def make(setup: EdgeSetup) -> EdgeScheme:
        return NrppaPathEdge(setup, name)

    return EdgeBuilder(SchemeSpec(weights=weights, options=options, resolution="own"), make)


build = _builder("nrppa-path", "toa", OPTIONS)
_NETWORK = {option: kind for option, kind in OPTIONS.items() if option != "candidates"}
build_learned = _builder("nrppa-path-learned", "nrppa", _NETWORK)
