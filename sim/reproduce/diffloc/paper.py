"""The paper's results, for comparison with ours. DiffLoc Tables IV-VI [cm as printed], Sec. VI [m]."""

from __future__ import annotations

from typing import Any

GRID = (2115.1, 2219.0, 1915.2, 1703.7, 1850.7, 2325.6, 3334.4)
MLP = (124.0, 149.5, 159.3, 114.6, 135.7, 187.8, 443.9)
UNET = (49.3, 52.0, 52.5, 56.0, 55.1, 53.1, 54.4)
CT = (1.6, 1.7, 1.6, 2.0, 1.5, 1.1, 7.6)
USER_GRID = (2699.5, 2640.2, 2490.3, 2099.2, 2282.1, 2883.9, 3571.6)
USER_UNET = (52.2, 52.5, 54.6, 57.4, 56.5, 55.8, 54.3)
USER_CT = (1.4, 1.2, 1.4, 1.6, 1.6, 1.4, 1.4)

STEPS = {2: 14.705, 50: 0.078, 200: 0.118}
"""Fig. 8: error [m] of DiffLoc-UNet by the number of steps it is trained for, where the text states it."""
SUBSETS = {1: (0.493, 0.560), 2: (0.212, 0.239), 7: (0.114, 0.114)}
"""Fig. 7: least and largest error [m] of DiffLoc-UNet by the number of base stations fused (one: Table IV)."""
NOISE = {50.0: 0.076, 10.0: 0.090}
"""Fig. 11: error [m] of DiffLoc-UNet trained at each signal-to-noise ratio [dB] alone."""
MIXED_M = 50.0
"""Fig. 11: approximate error [m] with one training for all ratios."""


def figures(column: str, fused: float, alone: tuple[float, ...] = ()) -> dict[str, Any]:
    """Return a row's errors [m] from those printed [cm]; `column` is the fusion rule of the fused error."""
    return {"alone": [round(value / 100, 4) for value in alone], "fused": {column: round(fused / 100, 4)}}
