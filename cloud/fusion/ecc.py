"""ECC at the cloud: bits to latents, channel-masked attention, LSTM over tones, position. ECC Sec. II-D, III-B."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from cloud.fusion.cma import CmaFusionNetwork
from cloud.fusion.scheme import CloudSetup, Fix, OneRoundFusion
from fronthaul.codec.bitstream import unpack
from fronthaul.codec.codebook import MidriseCodebook
from fronthaul.codec.iq import decompress, iq_codec, of_norm
from fronthaul.message.messages import Report


def build(setup: CloudSetup) -> OneRoundFusion:
    """Build the fusion network for the payload of `setup.payload`."""
    return EccFusion(setup)


class EccFusion:
    """Fuses the reports of any subset of the base stations that the weights know."""

    def __init__(self, setup: CloudSetup) -> None:
        shape = setup.config["fusion"]
        self._network = CmaFusionNetwork(**shape)
        self._network.load_state_dict(
            {k.removeprefix("fusion."): v.float() for k, v in setup.tensors.items() if k.startswith("fusion.")}
        )
        self._device = torch.device(setup.device)
        self._network.eval().to(self._device)
        self._stations = int(shape["stations"])
        self._tones = int(setup.config["tones"])
        self._coefficients = int(shape["coefficients"])
        rows = self._coefficients // 2  # without an encoder: real and imaginary part of every slot and antenna
        bits, forwarded = setup.payload.bits, setup.payload.forwarded
        self._codec = None if forwarded is None else iq_codec(forwarded, rows, self._tones)
        self._codebooks: dict[int, MidriseCodebook] = {}
        if bits is not None:
            for k in range(self._stations):
                step = setup.tensors[f"step.{k}.{bits}"].float().numpy()
                self._codebooks[k] = MidriseCodebook(np.tile(step, self._tones), bits)

    @torch.inference_mode()
    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Make one fix from each group of reports."""
        latent = torch.zeros(len(groups), self._stations, self._tones, self._coefficients)
        gain = torch.ones(len(groups), self._stations)
        present = torch.zeros(len(groups), self._stations, dtype=torch.bool)
        for row, group in enumerate(groups):
            for report in group:
                k = report.key.bs
                latent[row, k] = torch.from_numpy(self._values(report)).reshape(self._tones, -1)
                gain[row, k] = float(np.frombuffer(report.side, ">f4")[0])
                present[row, k] = True
        given = (part.to(self._device) for part in (latent, gain, present))
        estimate = self._network(*given)[:, -1].cpu()  # the answer is the last step  # ECC Eq. 33
        return [Fix((float(x), float(y), float(z))) for x, y, z in estimate.double()]

    def _values(self, report: Report) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """Payload bits to real numbers, tone by tone: dequantised latents, or the preprocessed channel itself."""
        if self._codec is not None:
            csi = decompress(self._codec, report.payload)  # (slot·antenna, tone)
            if self._codec.scaled:  # back to the norm that preprocessing gave it  # ECC Eq. 8
                csi = of_norm(csi, math.sqrt(csi.size))
            return np.ascontiguousarray(csi.T).view(np.float32)
        codebook = self._codebooks[report.key.bs]
        return codebook.reconstruct(unpack(report.payload, codebook.bits, self._tones * self._coefficients))
