"""VIn-Loc at the cloud: from values and sites of any base stations to a position. VIn-Loc Sec. 3.

Sites and fixes are both normalised, p = (position − centre) / extent, with the constants of the weights. Base stations
that do not hear the user are masked out of the attention, as absent ones are, and listed as excluded. Snapshots with
different numbers of base stations share a batch: the shorter ones are padded, and the padding masked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from cloud.fusion.loc_token import MOST_STATIONS, LocTokenNetwork
from cloud.fusion.scheme import NOTHING_HEARD, CloudSetup, Fix, OneRoundFusion
from fronthaul.message.messages import Report
from fronthaul.payload.hearing import HEARD
from fronthaul.payload.vinloc import VALUES, Values, VinLocPayload


def build(setup: CloudSetup) -> OneRoundFusion:
    """Build the fusion network for the payload of `setup.payload`.

    Raises:
        ValueError: there are more base stations than `MOST_STATIONS`.
    """
    return VinLocFusion(setup)


class VinLocFusion:
    """Fuses the reports of any base stations, wherever they stand."""

    def __init__(self, setup: CloudSetup) -> None:
        if len(setup.stations) > MOST_STATIONS:
            raise ValueError(f"it takes at most {MOST_STATIONS} base stations, there are {len(setup.stations)}")
        self._network = LocTokenNetwork(**setup.config["network"])
        prefix = "network."
        own = {k.removeprefix(prefix): v.float() for k, v in setup.tensors.items() if k.startswith(prefix)}
        self._network.load_state_dict(own)
        self._device = torch.device(setup.device)
        self._network.eval().to(self._device)
        self._centre, self._extent = (setup.tensors[name].double().numpy() for name in ("centre", "extent"))
        self._site = {
            bs: ((np.array(position) - self._centre) / self._extent).astype(np.float32)
            for bs, position in setup.stations.items()
        }
        self._payload = VinLocPayload(setup.payload.bits)

    @torch.inference_mode()
    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Make one fix from each group of reports; its position is NaN if no base station of the group is usable."""
        read = [self._read(group) for group in groups]
        rows = [row for row, (values, _) in enumerate(read) if values]
        position = np.full((len(groups), 3), math.nan)
        if rows:
            shape = len(rows), max(len(read[row][0]) for row in rows)
            values, site = torch.zeros(*shape, VALUES), torch.zeros(*shape, 3)
            present = torch.zeros(shape, dtype=torch.bool)
            for place, row in enumerate(rows):
                sent = read[row][0]
                values[place, : len(sent)] = torch.from_numpy(np.stack(list(sent.values())))
                site[place, : len(sent)] = torch.from_numpy(np.stack([self._site[bs] for bs in sent]))
                present[place, : len(sent)] = True
            given = (part.to(self._device) for part in (values, site, present))
            made = self._network(*given).cpu().double().numpy()
            position[rows] = self._centre + self._extent * made
        return [
            Fix((x, y, z), None, excluded) for (x, y, z), (_, excluded) in zip(position.tolist(), read, strict=True)
        ]

    def _read(self, group: Sequence[Report]) -> tuple[dict[int, Values], dict[int, str]]:
        """Return usable values and reasons of exclusion, both by base station and in order of their numbers.

        Raises:
            ValueError: a report is of a base station that is not in `CloudSetup.stations`.
        """
        values: dict[int, Values] = {}
        excluded: dict[int, str] = {}
        for report in sorted(group, key=lambda report: report.key.bs):
            bs = report.key.bs
            if bs not in self._site:
                raise ValueError(f"BS {bs} has not registered its position")
            sent = self._payload.decode(report.payload, report.side)
            if sent is None:
                excluded[bs] = NOTHING_HEARD
            elif report.side != HEARD:
                excluded[bs] = f"its side information is neither 00 nor 01: {report.side.hex()}"
            elif not (np.abs(sent) <= 1).all():  # also true of NaN
                excluded[bs] = "its values are outside −1..1"
            else:
                values[bs] = sent
        return values, excluded
