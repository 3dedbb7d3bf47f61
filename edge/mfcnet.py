"""MFCNet at a base station: the preprocessed channel is forwarded. A baseline of ECC (Sec. IV-E)."""

from __future__ import annotations

from edge.ecc import ForwardingEdge
from edge.scheme import EdgeBuilder, EdgeScheme, EdgeSetup, SchemeSpec


def make(setup: EdgeSetup) -> EdgeScheme:
    """Make the scheme.

    Raises:
        ValueError: `setup.payload` asks for quantised numbers.
    """
    if setup.payload.bits is not None:
        raise ValueError("it forwards the channel itself: --bits is lossless, iq16 or bfp1 to bfp16")
    return ForwardingEdge(setup.config, setup.payload.forward, "mfcnet")


build = EdgeBuilder(SchemeSpec(forwards=True, resolution="lossless", options={}), make)
