"""`ecc-klt` and `ecc-rd` at the cloud: bits to coefficients, latents and gains, then ECC's fusion network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from cloud.fusion.cma import CmaFusionNetwork
from cloud.fusion.network_fusion import NetworkFusion
from cloud.fusion.scheme import NOTHING_HEARD, CloudSetup, Fix, OneRoundFusion
from fronthaul.errors import RemoteError
from fronthaul.message.messages import Payload, Report
from fronthaul.payload.rate import Transform, rate_payload

_READ_ONCE = 1024
Share = Mapping[str, npt.NDArray[np.float32]]
"""Tensors of a base station's transform and payload."""


class Decoder(Protocol):
    """Reads the payloads of a base station."""

    def decode(self, payload: Payload) -> npt.NDArray[np.float32]:
        """Return ŷ (1 + L,).

        Raises:
            RemoteError: a payload that the base station does not make.
        """


def build(setup: CloudSetup) -> OneRoundFusion:
    """Build the fusion network.

    Raises:
        ValueError: there are no reports of this length.
    """
    return RateFusion(setup)


class RateFusion(NetworkFusion):
    """Fuses the reports of base stations that hear the user, any subset of those that the weights cover."""

    def __init__(self, setup: CloudSetup) -> None:
        shape = setup.config["fusion"]
        stations, tones, coefficients = int(shape["stations"]), int(setup.config["tones"]), int(shape["coefficients"])
        shares = [_share_of(setup.tensors, k) for k in range(stations)]
        self._transforms = [Transform(own) for own in shares]
        payloads = self._made_payloads(shares, setup.options)
        # A report is read twice: whether it can be used, and to be used.
        self._numbers = lru_cache(_READ_ONCE)(lambda bs, payload: payloads[bs].decode(payload))
        super().__init__(setup, CmaFusionNetwork(**shape), "fusion", (stations, tones, coefficients), self._read)

    def _made_payloads(self, shares: Sequence[Share], options: Mapping[str, str | int]) -> Sequence[Decoder]:
        return [rate_payload(own, options) for own in shares]

    def _read(self, bs: int, reports: Sequence[Report]) -> tuple[npt.NDArray[np.float32], list[float]]:
        numbers = [self._numbers(bs, report.payload)[None] for report in reports]
        gain_db, latent = zip(*map(self._transforms[bs].synthesise, numbers), strict=True)
        return np.concatenate(latent), [10 ** (float(one[0]) / 20) for one in gain_db]

    def _fault(self, report: Report) -> str | None:
        """Return why a report cannot be used; None if it can."""
        if not report.payload.bits:
            return NOTHING_HEARD
        try:
            self._numbers(report.key.bs, report.payload)
        except RemoteError as error:
            return f"sent no report of this length and code: {error.detail}"
        return None

    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Make one fix from each group of reports; a base station that does not hear the user is excluded."""
        faults = [{report.key.bs: fault for report in group if (fault := self._fault(report))} for group in groups]
        good = [
            [one for one in group if one.key.bs not in excluded] for group, excluded in zip(groups, faults, strict=True)
        ]
        fixes = []
        for used, excluded, fix in zip(good, faults, super().fuse(good), strict=True):
            position = fix.position if used else (math.nan, math.nan, math.nan)
            fixes.append(replace(fix, position=position, excluded=excluded))
        return fixes


def _share_of(tensors: Mapping[str, Tensor], bs: int) -> Share:
    share: dict[str, npt.NDArray[np.float32]] = {}
    for prefix in ("rate.all.", f"rate.{bs}."):
        share |= {n.removeprefix(prefix): v.float().numpy() for n, v in tensors.items() if n.startswith(prefix)}
    return share
