"""`ecc-total` at the cloud: as `ecc-klt`, from reports that say which length they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloud.fusion.ecc_rate import Decoder, RateFusion, Share
from cloud.fusion.scheme import CloudSetup, OneRoundFusion
from fronthaul.payload.total import total_payload


class TotalFusion(RateFusion):
    """Fuses the reports of base stations that hear the user, any subset of those that the weights cover."""

    def _made_payloads(self, shares: Sequence[Share], options: Mapping[str, str | int]) -> Sequence[Decoder]:
        return [total_payload(k, len(shares), own, options) for k, own in enumerate(shares)]


def build(setup: CloudSetup) -> OneRoundFusion:
    """Build the fusion network.

    Raises:
        ValueError: an option has no such value.
    """
    return TotalFusion(setup)
