"""DiffLoc at the base station: what its score network says of the cloud's states, in B bits a number.

    --where edge       a header, or the own covariance; then answers on states, one a round          DiffLoc Alg. 2
    --where central    the embedding of the channel; the rest of the network stands at the cloud
    --where one-shot   a Gaussian mixture of samples of the own posterior

Numbers and their sizes are `fronthaul.payload.diffloc`'s.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from edge.scheme import Chosen, EdgeBuilder, EdgeScheme, EdgeSetup, Encoded, SchemeSpec
from edge.score_station import EMBEDDING_ONLY, ScoreStation, StationAtCloud, embedding_payload
from fronthaul.message.messages import Payload
from fronthaul.payload.diffloc import OPTIONS, EmbeddingPayload, ScoreFormat, score_format


def make(setup: EdgeSetup) -> EdgeScheme:
    """Make the half that the options ask for.

    Raises:
        ValueError: an option is impossible.
    """
    score = _score(setup)
    station = ScoreStation(score, setup.config, setup.tensors, setup.bs, setup.device)
    if score.where == "edge":
        return RoundsEdge(score, station)
    if score.where == "central":
        return CentralEdge(station, embedding_payload(setup.tensors, score.bits))
    return OneShotEdge(score, station)


def at_cloud(setup: EdgeSetup) -> Callable[[str], StationAtCloud] | None:
    """Return a maker of what stands at the cloud: without the part that embeds, which is most of it."""
    if _score(setup).where != "central":
        return None
    kept = {name: value for name, value in setup.tensors.items() if name not in EMBEDDING_ONLY}
    return functools.partial(station_at_cloud, replace(setup, tensors=kept))


def station_at_cloud(setup: EdgeSetup, device: str) -> StationAtCloud:
    """Build the part of a base station that stands at the cloud, and computes on `device` there."""
    return StationAtCloud(_score(setup), setup.config, setup.tensors, setup.bs, device)


def chosen(setup: EdgeSetup) -> Chosen:
    """Say what the options came to."""
    score = _score(setup)
    return Chosen(score.fusion, score.chosen)


def _score(setup: EdgeSetup) -> ScoreFormat:
    return score_format(setup.config, setup.options, setup.payload.bits)


build = EdgeBuilder(SchemeSpec(scenario="paris-7", options=OPTIONS, at_cloud=at_cloud, chosen=chosen), make)


class RoundsEdge:
    """Answers states with what its network says of them; the channel's embedding stays here."""

    name = "diffloc"

    def __init__(self, score: ScoreFormat, station: ScoreStation) -> None:
        self.format, self.answer_format = score.report_format, score.answer_format
        self._score = score
        self._station = station

    def encode(self, channel: Tensor) -> Encoded:
        """Embed Ĥ (B, slot, pair, tone or tap), and keep it; sent is the own covariance where it was asked for."""
        embedding = self._station.embed(channel)
        payloads = len(channel) * [Payload(b"", 0)]
        if self._score.local:
            drawn = self._station.samples(embedding, self._score.local)
            payloads = [self._score.encode_covariance(self._station.own_spread(samples)) for samples in drawn]
        return Encoded(payloads, context=list(embedding))

    def answer(self, context: Tensor, snapshot: int, round_: int, state: Payload) -> tuple[Payload, bytes]:
        """Answer the state of a round as it was received, for the embedding `context` (E,).

        Raises:
            ValueError: a round that the sampler does not have.
        """
        levels = self._score.levels
        if not 1 <= round_ <= len(levels):
            raise ValueError(f"the sampler has {len(levels)} steps, there is no round {round_}")
        level = levels[round_ - 1]
        x = self._score.decode_state(state, level)
        raw, jacobian = self._station.answer(context, x, level)
        return self._score.encode_answer(raw, x, level, jacobian), b""


class CentralEdge:
    """Sends embeddings."""

    name = "diffloc"

    def __init__(self, station: ScoreStation, code: EmbeddingPayload) -> None:
        self.format = code.format
        self._station = station
        self._code = code

    def encode(self, channel: Tensor) -> Encoded:
        """Embed Ĥ (B, slot, pair, tone or tap)."""
        return Encoded([self._code.encode(embedding) for embedding in self._station.embed(channel).float().numpy()])


class OneShotEdge:
    """Sends its own posterior, once."""

    name = "diffloc"

    def __init__(self, score: ScoreFormat, station: ScoreStation) -> None:
        self.format = score.report_format
        self._score = score
        self._station = station

    def encode(self, channel: Tensor) -> Encoded:
        """Sample the own posterior of each of Ĥ (B, slot, pair, tone or tap), and send what mixture fits."""
        drawn = self._station.samples(self._station.embed(channel), self._score.particles)
        return Encoded([self._score.encode_mixture(self._station.own_mixture(samples)) for samples in drawn])
