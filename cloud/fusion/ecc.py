"""ECC at the cloud: bits to latents, channel-masked attention, LSTM over tones, position. ECC Sec. II-D, III-B."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cloud.fusion.cma import CmaFusionNetwork
from cloud.fusion.network_fusion import NetworkFusion
from cloud.fusion.scheme import CloudSetup, OneRoundFusion
from fronthaul.message.messages import Report
from fronthaul.payload.ecc import ChannelPayload, LatentPayload, is_heard


def build(setup: CloudSetup) -> OneRoundFusion:
    """Build the fusion network for the payload of `setup.payload`."""
    return EccFusion(setup)


class EccFusion(NetworkFusion):
    """Fuses the reports of any subset of the base stations that the weights cover."""

    def __init__(self, setup: CloudSetup) -> None:
        shape = setup.config["fusion"]
        stations, tones, coefficients = int(shape["stations"]), int(setup.config["tones"]), int(shape["coefficients"])
        self._payloads: list[LatentPayload] | list[ChannelPayload]
        if setup.payload.bits is None:  # without an encoder: real and imaginary part of every slot and antenna
            self._payloads = stations * [ChannelPayload(setup.payload.forward, coefficients // 2, tones)]
        else:
            steps = [setup.tensors[f"step.{k}.{setup.payload.bits}"].float().numpy() for k in range(stations)]
            self._payloads = [LatentPayload(step, tones, setup.payload.bits) for step in steps]
        super().__init__(
            setup, CmaFusionNetwork(**shape), "fusion", (stations, tones, coefficients), self._read, is_heard
        )

    def _read(self, bs: int, reports: Sequence[Report]) -> tuple[npt.NDArray[np.float32], list[float]]:
        return self._payloads[bs].decode([report.payload for report in reports], [report.side for report in reports])
