"""What a scheme is at the base station: estimated channels in, payloads and side information out.

A scheme is one module here and one in `cloud.fusion`. Both are found by entry points, built-in ones included, so a
user's own scheme needs no change in this tree (docs/schemes.md shows one).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from fronthaul.message.messages import Payload, PayloadFormat

ENTRY_POINT_GROUP = "cofix.edge"


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a scheme sends for a batch of B snapshots.

    `payloads` and `side`, payload and side information of each snapshot, as the scheme's format says; `side` may be
    empty where it says 0 bytes. `context` what a scheme of several rounds keeps of each snapshot to answer with, else
    empty.
    """

    payloads: Sequence[Payload]
    side: Sequence[bytes] = ()
    context: Sequence[Any] = ()


class EdgeScheme(Protocol):
    """Encoder and quantiser of one base station; `format` says how long its reports will be."""

    name: str
    format: PayloadFormat

    def encode(self, channel: Tensor) -> Encoded:
        """Encode estimated channels Ĥ (B, slot, antenna, tone) complex64."""


@runtime_checkable
class RoundScheme(Protocol):
    """What a scheme offers beside `EdgeScheme` if a fix takes several rounds: answers to the cloud's states.

    `answer_format` says how long answers are; `answer` is a pure function of what it is given.
    """

    answer_format: PayloadFormat

    def answer(self, context: Any, snapshot: int, round_: int, state: Payload) -> tuple[Payload, bytes]:
        """Return the payload and the side information of the answer.

        Args:
            context: what `encode` kept of this snapshot.
            snapshot: its number; may key random draws.
            round_: number of the round, from 1.
            state: what the cloud broadcast.

        Raises:
            ValueError: the state is not of this scheme; like `unpack`'s RemoteError it has the frame rejected.
        """


@dataclass(frozen=True)
class EdgeSetup:
    """What a scheme is built from at base station `bs`.

    `bits` per coefficient, None for lossless; `config` and `tensors`: the weights file's configuration and this base
    station's share of its tensors; `device` on which to compute ("cpu" or "cuda"); `forward` how a scheme that sends
    the channel itself when `bits` is None encodes it: a name that `fronthaul.codec.iq.iq_codec` knows; `site` where its
    own array stands [m], as it registers it; `options` of the scheme that the user gave, of those that its builder says
    it takes. No position of any user is among them.
    """

    bs: int
    bits: int | None
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    device: str = "cpu"
    forward: str = "complex64"
    site: tuple[float, float, float] = (0.0, 0.0, 0.0)
    options: Mapping[str, str | int] = field(default_factory=dict)


def load_edge_scheme(name: str) -> Callable[[EdgeSetup], EdgeScheme]:
    """Return the builder of scheme `name`.

    Raises:
        LookupError: no installed package offers it; the sentence names those that are.
    """
    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in found:
        raise LookupError(f"There is no scheme {name!r}; installed are {', '.join(sorted(found)) or 'none'}.")
    build: Callable[[EdgeSetup], EdgeScheme] = found[name].load()
    return build


def weights_scheme(name: str) -> str:
    """Return the scheme whose weights scheme `name` runs on: what its builder says in `weights`, else its own.

    Raises:
        LookupError: no installed package offers it.
    """
    return str(getattr(load_edge_scheme(name), "weights", name))
