"""DiffLoc with networks at the cloud: base stations send embeddings of their channels, one report per fix.

The sampler is that of `diffloc_rounds`; states and answers are not rounded, since they cross no link. A fix takes K E B
bits for embeddings of E numbers, without headers, whatever the number of steps. A base station whose embedding or
network output is not finite is excluded, and sampling is repeated without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from cloud.fusion.diffloc_spec import Answer, DiffLocSpec, Floats, is_exact, is_finite
from cloud.fusion.scheme import CloudSetup, Fix, unheard_fix
from fronthaul.message.messages import Payload, Report
from fronthaul.payload.diffloc import Mixture, ScoreFormat
from fronthaul.payload.noise_levels import Level


class Network(Protocol):
    """The part of a base station that runs at the cloud, made by `CloudSetup.networks`."""

    def read(self, payload: Payload) -> Any:
        """Return the embedding of a report; None if it is not finite."""

    def answer(self, embedding: Any, x: Floats, level: Level) -> Answer:
        """Return the network's answer at states x (P, D)."""

    def own_mixture(self, embedding: Any) -> Mixture:
        """Return the mixture of the base station's own posterior."""


class CentralFusion:
    """Fusion rule that runs every base station's network at the cloud."""

    def __init__(self, setup: CloudSetup, score: ScoreFormat) -> None:
        """Build the networks."""
        self._score = score
        self._parts = DiffLocSpec(setup, score)
        self._networks: dict[int, Network] = {bs: make(setup.device) for bs, make in setup.networks.items()}

    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Sample a position for each group."""
        return [
            unheard_fix(group) or self._fuse_one(sorted(group, key=lambda report: report.key.bs)) for group in groups
        ]

    def _fuse_one(self, group: Sequence[Report]) -> Fix:
        read = {report.key.bs: self._networks[report.key.bs].read(report.payload) for report in group}
        excluded = {bs: "its embedding is not finite" for bs, embedding in read.items() if embedding is None}
        embeddings = {bs: embedding for bs, embedding in read.items() if embedding is not None}
        if is_exact(self._score):
            return self._multiplied(embeddings, excluded)
        while embeddings:
            found = self._sampled(group[0].key.snapshot, embeddings)
            if not isinstance(found, set):
                return self._parts.fix(*found, excluded)
            excluded |= dict.fromkeys(found, "its network's output is not finite")
            embeddings = {bs: embedding for bs, embedding in embeddings.items() if bs not in found}
        return self._parts.none(excluded)

    def _sampled(self, snapshot: int, embeddings: Mapping[int, Any]) -> tuple[Floats, Floats] | set[int]:
        """Return positions and covariances; or the base stations whose network output is not finite."""
        sampler = self._parts.sampler(snapshot)
        covariances = [self._parts.posteriors[bs] for bs in embeddings]
        while not sampler.done and np.isfinite(sampler.x).all():
            said = {bs: self._networks[bs].answer(e, sampler.x, sampler.level) for bs, e in embeddings.items()}
            lost = {bs for bs, answer in said.items() if not is_finite(answer)}
            if lost:
                return lost
            sampler.advance(self._parts.answers(sampler, list(said.values()), covariances))
        return sampler.position, sampler.covariance

    def _multiplied(self, embeddings: Mapping[int, Any], excluded: dict[int, str]) -> Fix:
        mixtures = {bs: self._networks[bs].own_mixture(embedding) for bs, embedding in embeddings.items()}
        kept = [mixture for mixture in mixtures.values() if np.isfinite(mixture.mean).all()]
        lost = [bs for bs, mixture in mixtures.items() if not np.isfinite(mixture.mean).all()]
        excluded = excluded | dict.fromkeys(lost, "its network's output is not finite")
        if not kept:
            return self._parts.none(excluded)
        mean, covariance = self._parts.multiplied(kept)
        return self._parts.fix(mean[None], covariance[None], excluded)
