"""Interface of a scheme at the base station: estimated channels in, payloads and side information out.

A scheme is one module here and one in `cloud.fusion`. Both are found by entry points, built-in ones included, so a
user's own scheme needs no change in this tree (docs/schemes.md shows one).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from fronthaul.installed import load
from fronthaul.message.messages import Payload, PayloadFormat
from fronthaul.payload.choice import PayloadChoice
from fronthaul.payload.fields import PayloadField
from fronthaul.payload.hearing import HEARD, UNHEARD

ENTRY_POINT_GROUP = "cofix.edge"


@dataclass(frozen=True, slots=True)
class Encoded:
    """Output of a scheme for a batch of B snapshots.

    `payloads` and `side` hold the payload and side information of each snapshot, in the scheme's format; `side` may be
    empty if the format declares 0 bytes. `context` holds what a scheme of several rounds keeps of each snapshot for its
    answers; otherwise it is empty.
    """

    payloads: Sequence[Payload]
    side: Sequence[bytes] = ()
    context: Sequence[Any] = ()

    def split(self, counts: Sequence[int]) -> list[Encoded]:
        """Return the parts of consecutive snapshots, so many in each."""
        own = [slice(end - count, end) for count, end in zip(counts, accumulate(counts), strict=True)]
        return [Encoded(self.payloads[part], self.side[part], self.context[part]) for part in own]


class EdgeScheme(Protocol):
    """Encoder and quantiser of one base station; `format` declares the size of its reports."""

    name: str
    format: PayloadFormat

    def encode(self, channel: Tensor) -> Encoded:
        """Encode estimated channels Ĥ (B, slot, antenna, tone) complex64."""


@runtime_checkable
class RoundScheme(Protocol):
    """Addition to `EdgeScheme` for a scheme whose fix takes several rounds: answers to the cloud's states.

    `answer_format` declares the size of answers; `answer` is a pure function of its arguments.
    """

    answer_format: PayloadFormat

    def answer(self, context: Any, snapshot: int, round_: int, state: Payload) -> tuple[Payload, bytes]:
        """Return the payload and the side information of the answer.

        Args:
            context: the entry of `Encoded.context` for this snapshot.
            snapshot: snapshot number; may key random draws.
            round_: number of the round, from 1.
            state: state that the cloud broadcast.

        Raises:
            ValueError: the state is not of this scheme. The frame is then rejected, as on a RemoteError of `unpack`.
        """


@runtime_checkable
class HearingScheme(Protocol):
    """Addition to `EdgeScheme` for a scheme whose reports say whether the base station hears the user."""

    def mark(self, encoded: Encoded, heard: Sequence[bool]) -> Encoded:
        """Return the result of `encode` with what it says about hearing.

        Args:
            encoded: what `encode` made of B snapshots.
            heard: for each, whether more than noise was received (`edge.base_station.StationSpec.silence_w`).
        """


@runtime_checkable
class JointScheme(Protocol):
    """Addition to `EdgeScheme` for a scheme that encodes faster for several base stations of a process at once.

    A subclass that changes `encode` must change `encode_together` too.
    """

    def encode_together(self, schemes: Sequence[Any], channels: Sequence[Tensor]) -> list[Encoded]:
        """Return what `encode` of each of some schemes of this class makes of its channels, to the last bit."""


def encode_together(schemes: Sequence[EdgeScheme], channels: Sequence[Tensor]) -> list[Encoded]:
    """Encode the estimated channels of each of several base stations by its scheme."""
    first = schemes[0]
    if isinstance(first, JointScheme) and all(type(scheme) is type(first) for scheme in schemes):
        return first.encode_together(schemes, channels)
    return [scheme.encode(channel) for scheme, channel in zip(schemes, channels, strict=True)]


def with_hearing(encoded: Encoded, heard: Sequence[bool]) -> Encoded:
    """Return reports whose side information is the byte of `fronthaul.payload.hearing`."""
    return replace(encoded, side=[HEARD if is_heard else UNHEARD for is_heard in heard])


def emptied(encoded: Encoded, heard: Sequence[bool]) -> Encoded:
    """Return reports whose payload is empty where the user is not heard."""
    nothing = Payload(b"", 0)
    pairs = zip(encoded.payloads, heard, strict=True)
    return replace(encoded, payloads=[payload if is_heard else nothing for payload, is_heard in pairs])


@dataclass(frozen=True)
class EdgeSetup:
    """Inputs from which a scheme is built at base station `bs`.

    `payload`: what a report carries; `config` and `tensors`: the weights file's configuration and this base station's
    share of its tensors; `device`: compute device ("cpu", "cuda:0"); `site`: position of its own array [m], as
    registered; `options`: scheme options that the user set, of those that its `SchemeSpec` declares. No position of any
    user is among them.
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
    """Resolved options of a run: name of the fusion rule, and every option with its final value."""

    fusion: str
    options: Mapping[str, str | int]


Resolution = Literal["chosen", "lossless", "own"]
"""What the user's choice of bits per number means to a scheme: it follows it; it sends unquantised numbers only; or it
means nothing, as payloads have resolutions of their own."""


@dataclass(frozen=True, kw_only=True)
class SchemeSpec:
    """Declaration of a scheme's properties; a scheme sets what differs from the defaults. Its entry point names it.

    Attributes:
        scenario: default scenario.
        interval_ms: default interval between two snapshots [ms].
        weights: scheme whose weights it uses; None for its own.
        options: options that it accepts, with their types. None accepts none, and a ValueError raised while its edge or
            cloud part is built is then reported as a fault of the weights; otherwise as a fault of the user's choice.
        forwards: whether it can forward the channel itself in each format of `PayloadChoice.forward`.
        resolution: what ``--bits`` means to it, see `Resolution`.
        at_cloud: returns, for a base station's setup, a factory of the part of it that runs at the cloud, or None. The
            factory is sent to the cloud and called there with the compute device.
        chosen: resolves the options; None takes them as the user gave them.
        obtained: how a user gets weights where none are shipped, for a sentence.
        fields: returns the numbers in a base station's payload, for people who inspect frames; None shows no more than
            its bits, or its indices if all payloads have the same length.
    """

    scenario: str = "paris-6"
    interval_ms: float = 30.0
    weights: str | None = None
    options: Mapping[str, type] | None = None
    forwards: bool = False
    resolution: Resolution = "chosen"
    at_cloud: Callable[[EdgeSetup], Callable[[str], Any] | None] | None = None
    chosen: Callable[[EdgeSetup], Chosen] | None = None
    obtained: str = "train one"
    fields: Callable[[EdgeSetup, Payload], list[PayloadField]] | None = None


@runtime_checkable
class Described(Protocol):
    """A builder that declares its scheme's properties: an `EdgeBuilder`, or a class with an attribute `spec`."""

    spec: SchemeSpec


@dataclass(frozen=True)
class EdgeBuilder:
    """A function that builds a scheme, and the scheme's declaration."""

    spec: SchemeSpec
    make: Callable[[EdgeSetup], EdgeScheme]

    def __call__(self, setup: EdgeSetup) -> EdgeScheme:
        """Build the scheme at a base station."""
        return self.make(setup)


def load_edge_scheme(name: str) -> Callable[[EdgeSetup], EdgeScheme]:
    """Return the builder of scheme `name`.

    Raises:
        LookupError: as for `fronthaul.installed.load`.
    """
    build: Callable[[EdgeSetup], EdgeScheme] = load(ENTRY_POINT_GROUP, name, "scheme", "base station's")
    return build


def scheme_spec(name: str) -> SchemeSpec:
    """Return the declaration of scheme `name`, or the defaults of `SchemeSpec` if it has none.

    Raises:
        LookupError: no installed package provides it, or its declaration is not a `SchemeSpec`.
    """
    build = load_edge_scheme(name)
    spec = build.spec if isinstance(build, Described) else SchemeSpec()
    if not isinstance(spec, SchemeSpec):
        raise LookupError(f"The spec of scheme {name!r} is not a SchemeSpec, but {spec!r}.")
    return spec


def weights_scheme(name: str) -> str:
    """Return the name of the scheme whose weights scheme `name` uses.

    Raises:
        LookupError: as for `scheme_spec`.
    """
    return scheme_spec(name).weights or name
