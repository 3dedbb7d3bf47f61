"""VIn-Loc at a base station: impulse response, one network for all base stations, midrise quantiser. VIn-Loc Sec. 3.

A report carries the 256 values of the embedding and a flag, whether the base station hears the user
(`fronthaul.payload.vinloc`); the cloud leaves out base stations that do not. A base station does not hear a user whose
pilots have no more energy than noise, or whose channel estimate is zero or not finite.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edge.cir_embedding import CirEmbedding
from edge.scheme import EdgeBuilder, EdgeScheme, EdgeSetup, Encoded, SchemeSpec
from edge.shared_network import shared_network
from fronthaul.payload.vinloc import VinLocPayload


class VinLocEdge:
    """Embeds impulse responses and quantises the embeddings."""

    name = "vinloc"

    def __init__(self, setup: EdgeSetup) -> None:
        shape = setup.config["embedding"]
        prefix = "embedding."
        weights = {k.removeprefix(prefix): v for k, v in setup.tensors.items() if k.startswith(prefix)}
        self._device = torch.device(setup.device)
        self._network = shared_network(CirEmbedding, shape, weights, self._device)
        self._shape = (1, int(shape.get("antennas", 1)), int(shape.get("taps", 256)))
        self._payload = VinLocPayload(setup.bits)
        self.format = self._payload.format

    @torch.inference_mode()
    def encode(self, channel: Tensor) -> Encoded:
        """Encode Ĥ (B, 1, pair, tap) into values (B, 256) and whether the user was heard.

        Raises:
            ValueError: the channels do not have the network's input shape.
        """
        if tuple(channel.shape[1:]) != self._shape:
            raise ValueError(f"the network takes channels of {_sizes(self._shape)}, not of {_sizes(channel.shape[1:])}")
        power = channel.abs().double().square().mean((1, 2, 3))
        heard = (power.isfinite() & (power > 0)).cpu()
        values = iter(())
        if heard.any():
            values = iter(self._network(channel[heard, 0].to(self._device)).float().cpu().numpy())
        pairs = [self._payload.encode(next(values) if is_heard else None) for is_heard in heard.tolist()]
        return Encoded([payload for payload, _ in pairs], [side for _, side in pairs])

    def mark(self, encoded: Encoded, heard: Sequence[bool]) -> Encoded:
        """Replace reports on users that are not heard."""
        nothing = self._payload.encode(None)
        pairs = zip(encoded.payloads, encoded.side, heard, strict=True)
        made = [(payload, side) if is_heard else nothing for payload, side, is_heard in pairs]
        return Encoded([payload for payload, _ in made], [side for _, side in made])


def make(setup: EdgeSetup) -> EdgeScheme:
    """Make the scheme for B bits per value; lossless sends float32 words."""
    return VinLocEdge(setup)


# The interval is what 18 edge networks and the cloud's network sustain on two cores. `options` is empty, not None, so
# that a ValueError (too many base stations for the cloud's network) is reported as a fault of the user's choice.
build = EdgeBuilder(SchemeSpec(scenario="inf-dh-18", interval_ms=200.0, options={}), make)


def _sizes(shape: tuple[int, ...]) -> str:
    """Describe the three axes of a channel; for another number of axes, return the shape."""
    if len(shape) != 3:
        return f"shape {tuple(shape)}"
    return ", ".join(f"{size} {name}{'' if size == 1 else 's'}" for size, name in
                     zip(shape, ("slot", "antenna pair", "tap"), strict=True))  # fmt: skip
