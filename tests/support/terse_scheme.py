"""A scheme whose payloads differ in length: the received power in a prefix code, the mean of positions as the fix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from bitarray.util import huffman_code
from torch import Tensor

from cloud.fusion.scheme import CloudSetup, Fix
from edge.scheme import EdgeSetup, Encoded
from fronthaul.codec.bitstream import pack_code, unpack_code
from fronthaul.codec.codebook import UniformCodebook
from fronthaul.message.messages import PayloadFormat, Report

LEVELS = UniformCodebook(-140.0, -60.0, 6)  # of the received power, relative to the transmit power [dB]
CODE: Any = huffman_code({index: 2.0 ** (-abs(index - 24) / 2) for index in range(LEVELS.levels)})
MOST_BITS = max(map(len, CODE.values()))


class TerseEdge:
    """Sends one index."""

    name, weights = "terse", "rss"
    format = PayloadFormat(MOST_BITS, fixed=False)

    def __init__(self, setup: EdgeSetup) -> None:
        """Keep nothing."""

    def encode(self, channel: Tensor) -> Encoded:
        """Code the power of Ĥ (B, slot, antenna, tone)."""
        power = channel.abs().square().sum((1, 2, 3)).numpy()
        level = 10 * np.log10(np.maximum(power, 1e-20)).astype(np.float32)
        return Encoded([pack_code(index, CODE) for index in LEVELS.index(level[:, None])])


class TerseFusion:
    """Weighs the positions of base stations by received amplitude."""

    def __init__(self, setup: CloudSetup) -> None:
        """Keep where base stations stand."""
        self._stations = setup.stations

    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Make one fix from each group."""
        return [self._fuse_one(sorted(group, key=lambda report: report.key.bs)) for group in groups]

    def _fuse_one(self, group: Sequence[Report]) -> Fix:
        level = np.concatenate([LEVELS.reconstruct(unpack_code(report.payload, CODE)) for report in group])
        weight = 10 ** (level.astype(float) / 20)
        x, y, z = weight @ np.array([self._stations[report.key.bs] for report in group]) / weight.sum()
        return Fix((float(x), float(y), float(z)))
