"""ECC at the cloud: bits to latents, channel-masked attention, LSTM over tones, position. ECC Sec. II-D, III-B."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cloud.fusion.cma import CmaFusionNetwork, read_out
from cloud.fusion.scheme import CloudSetup, Fix, OneRoundFusion, unheard_fix
from fronthaul.message.messages import Report
from fronthaul.payload.ecc import ChannelPayload, LatentPayload, is_heard


def build(setup: CloudSetup) -> OneRoundFusion:
    """Build the fusion network for the payload of `setup.payload`."""
    return EccFusion(setup)


class EccFusion:
    """Fuses the reports of any subset of the base stations that the weights cover."""

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
        self._payloads: list[LatentPayload] | list[ChannelPayload]
        if setup.payload.bits is None:  # without an encoder: real and imaginary part of every slot and antenna
            self._payloads = self._stations * [
                ChannelPayload(setup.payload.forward, self._coefficients // 2, self._tones)
            ]
        else:
            steps = [setup.tensors[f"step.{k}.{setup.payload.bits}"].float().numpy() for k in range(self._stations)]
            self._payloads = [LatentPayload(step, self._tones, setup.payload.bits) for step in steps]

    @torch.inference_mode()
    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Make one fix from each group of reports."""
        latent = torch.zeros(len(groups), self._stations, self._tones, self._coefficients)
        gain = torch.ones(len(groups), self._stations)
        present = torch.zeros(len(groups), self._stations, dtype=torch.bool)
        for row, group in enumerate(groups):
            for report in group:
                k = report.key.bs
                values, gain[row, k] = self._payloads[k].decode(report.payload, report.side)
                latent[row, k] = torch.from_numpy(values)
                present[row, k] = True
        given = (part.to(self._device) for part in (latent, gain, present))
        estimate = read_out(self._network(*given), self._network.readout).cpu()
        fixes = [Fix((x, y, z)) for x, y, z in estimate.double().tolist()]
        return [unheard_fix(group, is_heard) or fix for group, fix in zip(groups, fixes, strict=True)]
