"""`twin` at the base station: the channel as a few atoms, quantised open loop.

The slots are reduced to their principal direction, which drops any phase of a slot's own; atoms are fitted to it until
they are stationary (`edge.atom_fit`). A base station knows its array and the widths of its report; the map is at the
cloud.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from edge.atom_fit import fit_atoms, slot_reduced
from edge.scheme import Chosen, EdgeBuilder, EdgeScheme, EdgeSetup, Encoded, SchemeSpec, emptied
from fronthaul.message.messages import Payload
from fronthaul.payload.atoms import AtomGrid
from fronthaul.payload.fields import PayloadField
from fronthaul.payload.twin import DEFAULT_BITS, OPTIONS, TwinPayload, report_widths
from fronthaul.payload.twin_fields import payload_fields


def make(setup: EdgeSetup) -> EdgeScheme:
    """Make the scheme at a base station.

    Raises:
        ValueError: the twin has no report of this length.
    """
    return TwinEdge(setup)


def chosen(setup: EdgeSetup) -> Chosen:
    """Return the options of a run, with the length of its reports."""
    return Chosen("twin", {"bits_per_report": DEFAULT_BITS, **setup.options})


def fields(setup: EdgeSetup, payload: Payload) -> list[PayloadField]:
    """Return the numbers in a payload."""
    low, high = setup.tensors["gain_db"].tolist()
    return payload_fields(
        payload,
        report_widths(setup.config, int(setup.options.get("bits_per_report", DEFAULT_BITS))),
        (low, high),
        tone_spacing_hz=float(setup.config["tone_spacing_hz"]),
        spacing_wavelengths=float(setup.config["spacing_wavelengths"]),
    )


build = EdgeBuilder(
    SchemeSpec(
        options=dict.fromkeys(OPTIONS, int),
        resolution="own",
        chosen=chosen,
        obtained="make one with `python cli.py twin SCENARIO`",
        fields=fields,
    ),
    make,
)


class TwinEdge:
    """Fits atoms and quantises them."""

    name = "twin"

    def __init__(self, setup: EdgeSetup) -> None:
        config = setup.config
        self._grid = AtomGrid(*(int(config[name]) for name in ("columns", "rows", "tones")))
        widths = report_widths(config, int(setup.options.get("bits_per_report", DEFAULT_BITS)))
        low, high = setup.tensors["gain_db"].tolist()
        self._payload = TwinPayload(widths, (low, high))
        self.format = self._payload.format

    def encode(self, channel: Tensor) -> Encoded:
        """Encode Ĥ (B, slot, antenna, tone)."""
        reduced = slot_reduced(channel.flatten(2).numpy().astype(np.complex128))
        return Encoded(self._payload.encode(*fit_atoms(self._grid, reduced, len(self._payload.widths))))

    def mark(self, encoded: Encoded, heard: Sequence[bool]) -> Encoded:
        """Empty the payloads of snapshots in which the user is not heard."""
        return emptied(encoded, heard)
