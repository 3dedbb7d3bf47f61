"""DiffLoc at the cloud: fusion of base stations' scores, and sampling. DiffLoc Sec. III, Alg. 2.

Where the networks run determines what the links carry (`fronthaul.payload.diffloc`): `diffloc_rounds` asks base
stations at every step, `diffloc_central` runs their networks at the cloud, `diffloc_oneshot` multiplies posteriors.
"""

from __future__ import annotations

from cloud.fusion.diffloc_central import CentralFusion
from cloud.fusion.diffloc_oneshot import OneShotFusion
from cloud.fusion.diffloc_rounds import RoundsFusion
from cloud.fusion.scheme import CloudSetup, Fusion, OneRoundFusion
from fronthaul.payload.diffloc import score_format


def build(setup: CloudSetup) -> Fusion | OneRoundFusion:
    """Build the fusion rule that option `where` selects.

    Raises:
        ValueError: an option is invalid.
        KeyError: the weights hold no posterior covariances.
    """
    score = score_format(setup.config, setup.options, setup.payload.bits)
    if score.where == "edge":
        return RoundsFusion(setup, score)
    if score.where == "central":
        return CentralFusion(setup, score)
    return OneShotFusion(setup, score)
