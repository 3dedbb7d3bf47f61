"""DiffLoc at the base station: outputs of its score network at the cloud's states, in B bits per number.

A base station sends, depending on the option:

    --where edge       a header, or its own covariance; then one answer per round                    DiffLoc Alg. 2
    --where central    the embedding of the channel; the rest of the network runs at the cloud
    --where one-shot   a Gaussian mixture fitted to samples of its own posterior

Number formats and payload sizes are defined in `fronthaul.payload.diffloc`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from edge.scheme import Chosen, EdgeBuilder, EdgeScheme, EdgeSetup, Encoded, SchemeSpec, with_hearing
from edge.score_station import EMBEDDING_ONLY, ScoreStation, StationAtCloud, embedding_payload
from fronthaul.message.messages import Payload
from fronthaul.payload.diffloc import OPTIONS, EmbeddingPayload, ScoreFormat, score_format


def make(setup: EdgeSetup) -> EdgeScheme:
    """Make the edge scheme that option `where` selects.

    Raises:
        ValueError: an option is invalid.
    """
    score = _score(setup)
    station = ScoreStation(score, setup.config, setup.tensors, setup.bs, setup.device)
    if score.where == "edge":
        return RoundsEdge(score, station)
    if score.where == "central":
        return CentralEdge(station, embedding_payload(setup.tensors, score.bits))
    return OneShotEdge(score, station)


def at_cloud(setup: EdgeSetup) -> Callable[[str], StationAtCloud] | None:
    """Return a factory of the part at the cloud, without the embedding layer, which is most of the network.

    None unless option `where` is `central`.
    """
    if _score(setup).where != "central":
        return None
    kept = {name: value for name, value in setup.tensors.items() if name not in EMBEDDING_ONLY}
    return functools.partial(station_at_cloud, replace(setup, tensors=kept))


def station_at_cloud(setup: EdgeSetup, device: str) -> StationAtCloud:
    """Build the part of a base station that runs at the cloud, on `device` there."""
    return StationAtCloud(_score(setup), setup.config, setup.tensors, setup.bs, device)


def chosen(setup: EdgeSetup) -> Chosen:
    """Return the resolved options."""
    score = _score(setup)
    return Chosen(score.fusion, score.chosen)


def _score(setup: EdgeSetup) -> ScoreFormat:
    return score_format(setup.config, setup.options, setup.payload.bits)


build = EdgeBuilder(SchemeSpec(scenario="paris-7", options=OPTIONS, at_cloud=at_cloud, chosen=chosen), make)


class RoundsEdge:
    """Answers states with its network's output; the channel's embedding stays at the base station."""

    name = "diffloc"

    def __init__(self, score: ScoreFormat, station: ScoreStation) -> None:
        self.format, self.answer_format = score.report_format, score.answer_format
        self._score = score
        self._station = station

    def encode(self, channel: Tensor) -> Encoded:
        """Embed Ĥ (B, slot, pair, tone or tap) as context; send the own covariance if option `local` is set."""
        embedding = self._station.embed(channel)
        payloads = len(channel) * [Payload(b"", 0)]
        if self._score.local:
            drawn = self._station.samples(embedding, self._score.local)
            payloads = [self._score.encode_covariance(self._station.local_covariance(samples)) for samples in drawn]
        return Encoded(payloads, context=list(embedding))

    def mark(self, encoded: Encoded, heard: Sequence[bool]) -> Encoded:
        """Say in each report whether the user is heard."""
        return with_hearing(encoded, heard)

    def answer(self, context: Tensor, snapshot: int, round_: int, state: Payload) -> tuple[Payload, bytes]:
        """Answer the state of a round, as it was received, for the embedding `context` (E,).

        Raises:
            ValueError: the sampler has no such round.
        """
        levels = self._score.levels
        if not 1 <= round_ <= len(levels):
            raise ValueError(f"the sampler has {len(levels)} steps, there is no round {round_}")
        level = levels[round_ - 1]
        x = self._score.decode_state(state, level)
        raw, jacobian = self._station.answer(context, x, level)
        return self._score.encode_answer(raw, x, level, jacobian), b""


class CentralEdge:
    """Sends embeddings of channels."""

    name = "diffloc"

    def __init__(self, station: ScoreStation, code: EmbeddingPayload) -> None:
        self.format = code.format
        self._station = station
        self._code = code

    def encode(self, channel: Tensor) -> Encoded:
        """Embed Ĥ (B, slot, pair, tone or tap)."""
        return Encoded([self._code.encode(embedding) for embedding in self._station.embed(channel).float().numpy()])

    def mark(self, encoded: Encoded, heard: Sequence[bool]) -> Encoded:
        """Say in each report whether the user is heard."""
        return with_hearing(encoded, heard)


class OneShotEdge:
    """Sends its own posterior in one message."""

    name = "diffloc"

    def __init__(self, score: ScoreFormat, station: ScoreStation) -> None:
        self.format = score.report_format
        self._score = score
        self._station = station

    def encode(self, channel: Tensor) -> Encoded:
        """Sample the own posterior for each Ĥ (B, slot, pair, tone or tap); encode a mixture fitted to the samples."""
        drawn = self._station.samples(self._station.embed(channel), self._score.particles)
        return Encoded([self._score.encode_mixture(self._station.own_mixture(samples)) for samples in drawn])

    def mark(self, encoded: Encoded, heard: Sequence[bool]) -> Encoded:
        """Say in each report whether the user is heard."""
        return with_hearing(encoded, heard)
