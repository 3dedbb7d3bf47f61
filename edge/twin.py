"""`twin` at the base station: the channel as a few atoms, quantised open loop.

The slots are reduced to their principal direction, which drops any phase of a slot's own; atoms are fitted to it until
they are stationary (`edge.atom_fit`). A base station knows its array, its noise and the widths of its report; the map
is at the cloud.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from edge.atom_fit import fit_atoms, slot_reduced
from edge.scheme import EdgeBuilder, EdgeScheme, EdgeSetup, Encoded, SchemeSpec
from fronthaul.message.messages import Payload
from fronthaul.payload.atoms import AtomGrid
from fronthaul.payload.twin import DEFAULT_BITS, OPTIONS, TwinPayload, report_widths

_HEARD = 3.0
"""Power above which a base station hears the user, in units of the noise after the reduction over slots."""


def make(setup: EdgeSetup) -> EdgeScheme:
    """Make the scheme at a base station.

    Raises:
        ValueError: the twin has no report of this length.
    """
    return TwinEdge(setup)


build = EdgeBuilder(SchemeSpec(options=dict.fromkeys(OPTIONS, int)), make)


class TwinEdge:
    """Fits atoms and quantises them."""

    name = "twin"

    def __init__(self, setup: EdgeSetup) -> None:
        config = setup.config
        self._grid = AtomGrid(*(int(config[name]) for name in ("columns", "rows", "tones")))
        widths = report_widths(config, int(setup.options.get("bits_per_report", DEFAULT_BITS)))
        low, high = setup.tensors["gain_db"].tolist()
        self._payload = TwinPayload(widths, (low, high))
        self._noise = float(config["noise"])
        self.format = self._payload.format

    def encode(self, channel: Tensor) -> Encoded:
        """Encode Ĥ (B, slot, antenna, tone)."""
        whole = channel.flatten(2).numpy().astype(np.complex128)
        reduced = slot_reduced(whole)
        payloads = [Payload(b"", 0)] * len(reduced)
        heard = np.flatnonzero((np.abs(reduced) ** 2).mean(-1) > _HEARD * self._noise / channel.shape[1])
        if len(heard):
            fitted = fit_atoms(self._grid, reduced[heard], len(self._payload.widths))
            for number, payload in zip(heard, self._payload.encode(*fitted), strict=True):
                payloads[number] = payload
        return Encoded(payloads)
