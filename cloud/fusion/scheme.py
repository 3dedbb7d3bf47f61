"""What a scheme is at the cloud: groups of reports in, fixes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fronthaul.messages import Report

ENTRY_POINT_GROUP = "cofix.fusion"


@dataclass(frozen=True, slots=True)
class Fix:
    """An estimated position [m], with its covariance (3, 3) [m²] where the scheme has one."""

    position: tuple[float, float, float]
    covariance: npt.NDArray[np.float64] | None = None


class Fusion(Protocol):
    """A fusion rule. Its only inputs are reports: no call takes a user's position."""

    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Make one fix from each group, the used reports of one snapshot; a pure function of them and the seed."""


@dataclass(frozen=True)
class CloudSetup:
    """What a fusion rule is built from.

    `stations`: base station → array position [m], as registered; `bits` per coefficient, None for lossless;
    `config` and `tensors`: the weights file's configuration and the cloud's share of its tensors.
    """

    stations: Mapping[int, tuple[float, float, float]]
    bits: int | None
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    seed: int = 0


def load_fusion(name: str) -> Callable[[CloudSetup], Fusion]:
    """Return the builder of fusion rule `name`.

    Raises:
        LookupError: no installed package offers it; the sentence names those that are.
    """
    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in found:
        raise LookupError(f"There is no fusion rule {name!r}; installed are {', '.join(sorted(found)) or 'none'}.")
    build: Callable[[CloudSetup], Fusion] = found[name].load()
    return build
