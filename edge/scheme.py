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
from fronthaul.payload.choice import PayloadChoice

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

    `payload`: what a report is to carry; `config` and `tensors`: the weights file's configuration and this base
    station's share of its tensors; `device` on which to compute ("cpu", "cuda:0"); `site` where its own array stands
    [m], as it registers it; `options` of the scheme that the user gave, of those that its `SchemeSpec` says it takes.
    No position of any user is among them.
    """

    bs: int
    payload: PayloadChoice
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    device: str = "cpu"
    site: tuple[float, float, float] = (0.0, 0.0, 0.0)
    options: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def bits(self) -> int | None:
        """B of the payload; None for lossless."""
        return self.payload.bits


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a run's options came to: name of the fusion rule, and every option with the value that it has."""

    fusion: str
    options: Mapping[str, str | int]


@dataclass(frozen=True, kw_only=True)
class SchemeSpec:
    """What a scheme is beside its halves, declared once; a scheme gives what differs. Its entry point names it.

    Attributes:
        scenario: in which it runs where the user names none.
        interval_ms: between two snapshots [ms] where the user says nothing.
        weights: scheme on whose weights it runs; None for its own.
        options: that it takes, with their types. None takes none, and has every ValueError of its halves, when they are
            built, be about the weights; else it is about what the user chose.
        forwards: whether it forwards the channel itself in every way that `PayloadChoice.forward` may say.
        at_cloud: makes, of a base station's setup, a maker of what of it stands at the cloud, or None; that crosses to
            the cloud and is called there with the device on which to compute.
        chosen: says what the options came to; None takes them as the user gave them.
    """

    scenario: str = "paris-6"
    interval_ms: float = 30.0
    weights: str | None = None
    options: Mapping[str, type] | None = None
    forwards: bool = False
    at_cloud: Callable[[EdgeSetup], Callable[[str], Any] | None] | None = None
    chosen: Callable[[EdgeSetup], Chosen] | None = None


@runtime_checkable
class Described(Protocol):
    """A builder that says what its scheme is: an `EdgeBuilder`, or a class with such an attribute."""

    spec: SchemeSpec


@dataclass(frozen=True)
class EdgeBuilder:
    """A function that builds a scheme, and what the scheme is."""

    spec: SchemeSpec
    make: Callable[[EdgeSetup], EdgeScheme]

    def __call__(self, setup: EdgeSetup) -> EdgeScheme:
        """Build the scheme at a base station."""
        return self.make(setup)


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


def scheme_spec(name: str) -> SchemeSpec:
    """Return what scheme `name` says it is; one that says nothing is as `SchemeSpec` has it.

    Raises:
        LookupError: no installed package offers it, or it says so by something else than a `SchemeSpec`.
    """
    build = load_edge_scheme(name)
    spec = build.spec if isinstance(build, Described) else SchemeSpec()
    if not isinstance(spec, SchemeSpec):
        raise LookupError(f"The spec of scheme {name!r} is no SchemeSpec, but {spec!r}.")
    return spec


def weights_scheme(name: str) -> str:
    """Return the scheme whose weights scheme `name` runs on.

    Raises:
        LookupError: as `scheme_spec`.
    """
    return scheme_spec(name).weights or name
