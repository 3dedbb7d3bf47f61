"""Fusion by one network that takes the numbers of all base stations at once, absent ones masked out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cloud.fusion.cma import read_out
from cloud.fusion.scheme import CloudSetup, Fix, unheard_fix
from fronthaul.message.messages import Report

Decode = Callable[[int, Sequence[Report]], tuple[npt.NDArray[np.float32], Sequence[float]]]
"""Reads reports of a base station, given with its number: their numbers (B, …), in the shape that the network takes,
and gains g > 0 (B,). It raises a RemoteError for a payload of another size."""


class NetworkFusion:
    """Makes fixes with a network that maps numbers (B, K, …), gains (B, K) and presence (B, K) to positions (B, N, 3).

    The fix is the mean of the last `network.readout` positions.
    """

    def __init__(
        self,
        setup: CloudSetup,
        network: nn.Module,
        prefix: str,
        shape: tuple[int, ...],
        decode: Decode,
        is_heard: Callable[[bytes], bool] | None = None,
    ) -> None:
        """Load the network.

        Args:
            setup: its `tensors` named ``<prefix>.…`` are the network's.
            network: the network, with an attribute `readout`.
            prefix: of the names of its tensors.
            shape: K, the number of base stations that it covers, then the shape of the numbers of each.
            decode: reads the reports of a base station.
            is_heard: reads from its side information whether the base station hears the user; None if it cannot say.
        """
        network.load_state_dict(_share(setup.tensors, prefix))
        self._device = torch.device(setup.device)
        self._network = network.eval().to(self._device)
        self._shape, self._decode, self._is_heard = shape, decode, is_heard

    @torch.inference_mode()
    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Make one fix from each group of reports."""
        numbers = torch.zeros(len(groups), *self._shape)
        gain = torch.ones(len(groups), self._shape[0])
        present = torch.zeros(len(groups), self._shape[0], dtype=torch.bool)
        sent: dict[int, list[tuple[int, Report]]] = {}  # by base station, each with its row
        for row, group in enumerate(groups):
            for report in group:
                sent.setdefault(report.key.bs, []).append((row, report))
        for k, own in sent.items():
            rows = slice(None) if len(own) == len(groups) else [row for row, _ in own]  # all of them, mostly
            values, gains = self._decode(k, [report for _, report in own])
            numbers[rows, k] = torch.from_numpy(values)
            gain[rows, k] = torch.tensor(gains)
            present[rows, k] = True
        given = (part.to(self._device) for part in (numbers, gain, present))
        estimate = read_out(self._network(*given), self._network.readout).cpu()  # type: ignore[arg-type]
        fixes = [Fix((x, y, z)) for x, y, z in estimate.double().tolist()]
        if self._is_heard is None:
            return fixes
        return [unheard_fix(group, self._is_heard) or fix for group, fix in zip(groups, fixes, strict=True)]


def _share(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    dotted = f"{prefix}."
    return {name.removeprefix(dotted): value.float() for name, value in tensors.items() if name.startswith(dotted)}
