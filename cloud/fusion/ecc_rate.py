"""`ecc-klt` and `ecc-rd` at the cloud: bits to coefficients, latents and gains, then ECC's fusion network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cloud.fusion.cma import CmaFusionNetwork
from cloud.fusion.network_fusion import NetworkFusion
from cloud.fusion.scheme import NOTHING_HEARD, CloudSetup, Fix, OneRoundFusion
from fronthaul.message.messages import Report
from fronthaul.payload.rate import DEFAULT_BITS, RatePayload, Transform


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
        bits = int(setup.options.get("bits_per_report", DEFAULT_BITS))
        self._transforms, self._payloads = [], []
        for k in range(stations):
            prefix = f"rate.{k}."
            own = {n.removeprefix(prefix): v.float().numpy() for n, v in setup.tensors.items() if n.startswith(prefix)}
            self._transforms.append(Transform(own))
            self._payloads.append(RatePayload(own["worth"], bits))
        super().__init__(setup, CmaFusionNetwork(**shape), "fusion", (stations, tones, coefficients), self._read)

    def _read(self, bs: int, report: Report) -> tuple[npt.NDArray[np.float32], float]:
        gain_db, latent = self._transforms[bs].synthesise(self._payloads[bs].decode(report.payload)[None])
        return latent[0], 10 ** (float(gain_db[0]) / 20)

    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Make one fix from each group of reports; a base station that does not hear the user is excluded."""
        heard = [[report for report in group if report.payload.bits] for group in groups]
        fixes = []
        for group, used, fix in zip(groups, heard, super().fuse(heard), strict=True):
            excluded = {report.key.bs: NOTHING_HEARD for report in group if not report.payload.bits}
            position = fix.position if used else (math.nan, math.nan, math.nan)
            fixes.append(replace(fix, position=position, excluded=excluded))
        return fixes
