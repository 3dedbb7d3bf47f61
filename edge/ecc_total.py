"""`ecc-total` at the base station: `ecc-klt` in a length that follows the gain, under one budget for all of them."""

from __future__ import annotations

from torch import Tensor

from edge.ecc_rate import LatentEdge
from edge.scheme import Chosen, EdgeBuilder, EdgeScheme, EdgeSetup, Encoded, SchemeSpec
from fronthaul.payload.total import OPTIONS, total_options, total_payload


class TotalEdge(LatentEdge):
    """Finds a report's class by the gain, and quantises in the length that the class has."""

    def __init__(self, setup: EdgeSetup) -> None:
        super().__init__("ecc-total", setup)
        self._payload = total_payload(setup.bs, _stations(setup), self._own, setup.options)
        self.format = self._payload.format

    def encode(self, channel: Tensor) -> Encoded:
        """Encode Ĥ (B, slot, antenna, tone)."""
        gain_db, y = self.numbers(channel)
        return Encoded([self._payload.encode(float(gain), own) for gain, own in zip(gain_db, y, strict=True)])


def make(setup: EdgeSetup) -> EdgeScheme:
    """Make the scheme at a base station.

    Raises:
        ValueError: an option has no such value.
    """
    return TotalEdge(setup)


def chosen(setup: EdgeSetup) -> Chosen:
    """Return the options of a run, all with their values."""
    return Chosen("ecc-total", total_options(_stations(setup), setup.options))


def _stations(setup: EdgeSetup) -> int:
    return int(setup.config["fusion"]["stations"])


build = EdgeBuilder(
    SchemeSpec(
        options=OPTIONS,
        resolution="own",
        chosen=chosen,
        obtained="fit some to weights of ecc-klt with `python cli.py train ecc-total`",
    ),
    make,
)
