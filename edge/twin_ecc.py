"""`twin-ecc` at the base station: `twin`, and a learned report in a second round if the cloud asks for it.

The first report is that of `twin`. The cloud asks where it comes to no position that it can vouch for
(`cloud.fusion.twin_ecc`); its question is empty. The answer is the report of `ecc-klt` for the same channel, which is
encoded only then. ECC's networks take channels from an LMMSE filter, `twin` from least squares: the filter is applied
to the latter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from edge.ecc_rate import RateEdge
from edge.estimation import LmmseEstimator
from edge.scheme import Chosen, EdgeBuilder, EdgeScheme, EdgeSetup, Encoded, SchemeSpec
from edge.twin import TwinEdge, fields
from fronthaul.message.messages import Payload
from fronthaul.payload.twin import DEFAULT_BITS, OPTIONS
from fronthaul.payload.twin_ecc import ANSWER_OPTION, LEARNED_OPTION, answer_bits, answer_options, learned_mm


class TwinEccEdge(TwinEdge):
    """Reports atoms, and answers with a learned report."""

    name = "twin-ecc"

    def __init__(self, setup: EdgeSetup) -> None:
        super().__init__(setup)
        self._learned = RateEdge(self.name, replace(setup, options=answer_options(setup.options)))
        self.answer_format = self._learned.format
        covariance = torch.view_as_complex(setup.tensors["covariance"].float().contiguous())
        self._filter = LmmseEstimator(covariance, float(setup.config["noise"]), 1.0, torch.ones(len(covariance)))

    def encode(self, channel: Tensor) -> Encoded:
        """Encode Ĥ (B, slot, antenna, tone); it is kept for an answer."""
        made = super().encode(channel)
        return Encoded(made.payloads, context=[*channel])

    def mark(self, encoded: Encoded, heard: Sequence[bool]) -> Encoded:
        """Empty the payloads of snapshots in which the user is not heard; the answers will be empty, too."""
        marked = super().mark(encoded, heard)
        kept = [channel if is_heard else None for channel, is_heard in zip(encoded.context, heard, strict=True)]
        return Encoded(marked.payloads, context=kept)

    def answer(self, context: Tensor | None, snapshot: int, round_: int, state: Payload) -> tuple[Payload, bytes]:
        """Return the learned report for the channel `context` (slot, antenna, tone)."""
        if state.bits:
            raise ValueError(f"a question has no payload, this one has {state.bits} bit")
        if context is None:
            return Payload(b"", 0), b""
        return self._learned.encode(self._filter.estimate(context[None])).payloads[0], b""


def make(setup: EdgeSetup) -> EdgeScheme:
    """Make the scheme at a base station.

    Raises:
        ValueError: there is no report or answer of this length.
    """
    return TwinEccEdge(setup)


def chosen(setup: EdgeSetup) -> Chosen:
    """Return the options of a run, all with their values."""
    numbers = {ANSWER_OPTION: answer_bits(setup.options), LEARNED_OPTION: learned_mm(setup.options)}
    return Chosen("twin-ecc", {"bits_per_report": DEFAULT_BITS, **numbers, **setup.options})


build = EdgeBuilder(
    SchemeSpec(
        options=dict.fromkeys((*OPTIONS, ANSWER_OPTION, LEARNED_OPTION), int),
        resolution="own",
        chosen=chosen,
        obtained="make one with `python cli.py twin SCENARIO --learned FILE`",
        fields=fields,
    ),
    make,
)
