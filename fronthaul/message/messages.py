"""Messages between base stations and cloud, as values.

Notation: a *report* is what crosses a link for one base station (BS), snapshot and round: up, what the BS has measured
or computed; down, the state that the cloud broadcasts. A *frame* is one copy of one message of 1..64 reports on one
link. Every message is immutable and valid: constructors raise `LocalError`, so `wire.encode` never meets a value that
does not fit its field.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fronthaul.errors import LocalError
from fronthaul.message.checks import MAX_BUNDLE as MAX_BUNDLE
from fronthaul.message.checks import MAX_SIDE_BYTES as MAX_SIDE_BYTES
from fronthaul.message.checks import require_between, require_unsigned
from fronthaul.message.direction import Direction as Direction
from fronthaul.message.frames import Frame as Frame
from fronthaul.message.frames import Payload as Payload
from fronthaul.message.frames import Report as Report
from fronthaul.message.frames import ReportKey as ReportKey

MAX_TEXT_BYTES = 256
"""Maximum length of a scheme's name or the reason of an abort, in UTF-8 [B]: one sentence."""
MAX_COEFFICIENT_BITS = 32
"""Maximum width of a coefficient [bit]: that of a float32, the finest resolution in use."""
MAX_POSITION_M = 100_000.0
"""Maximum distance of a base station from the origin, on each axis [m]. Coordinates are local: a larger value is likely
geocentric, in millimetres or a mistake."""


@dataclass(frozen=True, slots=True)
class PayloadFormat:
    """Length of payloads, and of the side information sent with each.

    Attributes:
        max_bits: the longest payload, u32 [bit].
        side_bytes: side information of each report, 0..31 [B].
        fixed: whether every payload has exactly this length; otherwise lengths vary within 0..`max_bits`.
        width: of a coefficient, if a payload of fixed length consists of equally wide coefficients, 1..32; 1 for any
            other string of bits [bit].

    Raises:
        LocalError: a number is out of range, or `width` does not divide `max_bits`.
    """

    max_bits: int
    side_bytes: int = 0
    fixed: bool = True
    width: int = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_unsigned("max_bits", self.max_bits, 32)
        require_between("side_bytes", self.side_bytes, 0, MAX_SIDE_BYTES)
        if not isinstance(self.fixed, bool):
            raise LocalError(f"fixed must be a bool, not {type(self.fixed).__name__}")
        require_between("width", self.width, 1, MAX_COEFFICIENT_BITS if self.fixed else 1)
        if self.max_bits % self.width:
            raise LocalError(f"coefficients of {self.width} bit do not fill {self.max_bits} bit")

    @classmethod
    def uniform(cls, bits: int, coefficients: int, side_bytes: int = 0) -> PayloadFormat:
        """Return the format of `coefficients` of `bits` bits each.

        Raises:
            LocalError: a number out of range.
        """
        require_between("bits", bits, 1, MAX_COEFFICIENT_BITS)
        require_unsigned("coefficients", coefficients, 32)
        return cls(bits * coefficients, side_bytes, width=bits)

    @property
    def min_bits(self) -> int:
        """The shortest payload [bit]."""
        return self.max_bits if self.fixed else 0

    def admits(self, payload_bits: int, side_bytes: int) -> bool:
        """Whether a report may have a payload [bit] and side information [B] of these lengths."""
        return self.min_bits <= payload_bits <= self.max_bits and side_bytes == self.side_bytes

    def __str__(self) -> str:
        """Return the format as readable text."""
        size = f"{self.max_bits} bit"
        if not self.fixed:
            size = f"up to {size}"
        elif self.width > 1:
            size = f"{self.max_bits // self.width} x {self.width} bit"
        return f"{size} and {self.side_bytes} B of side information"


@dataclass(frozen=True, slots=True)
class Registration:
    """A BS announces itself and what it will send; its first message on a connection.

    Attributes:
        bs: base station, u16.
        epoch: how many times this BS started before, u16.
        scheme: the scheme's name, 1..256 B of UTF-8.
        report: format of round 0.
        answer: format of later rounds; None if the scheme has one round only.
        position: of the array's centre, x, y, z in local coordinates, each within ±100 km of their origin [m].
        orientation: of the array, yaw, pitch, roll [rad].

    Raises:
        LocalError: a value is out of range or not finite.
    """

    bs: int
    epoch: int
    scheme: str
    report: PayloadFormat
    answer: PayloadFormat | None
    position: tuple[float, float, float]
    orientation: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_unsigned("bs", self.bs, 16)
        require_unsigned("epoch", self.epoch, 16)
        _require_text("scheme", self.scheme)
        if not self.scheme:
            raise LocalError("scheme must have a name")
        _require_format("report", self.report)
        if self.answer is not None:
            _require_format("answer", self.answer)
        _require_vector(f"position of BS {self.bs}", self.position)
        _require_vector(f"orientation of BS {self.bs}", self.orientation)
        if max(map(abs, self.position)) > MAX_POSITION_M:
            raise LocalError(
                f"position of BS {self.bs} must lie within ±{MAX_POSITION_M / 1e3:g} km of the origin of the local "
                f"coordinates, which are metres, not at {place_text(self.position)}"
            )


def place_text(position: tuple[float, float, float]) -> str:
    """Return a position [m] as readable text."""
    return f"({', '.join(f'{coordinate:g}' for coordinate in position)}) m"


@dataclass(frozen=True, slots=True)
class Welcome:
    """The cloud accepts the registration of `bs` in `epoch`.

    Raises:
        LocalError: a number that does not fit u16.
    """

    bs: int
    epoch: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_unsigned("bs", self.bs, 16)
        require_unsigned("epoch", self.epoch, 16)


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The sender has sent all its `frames` frames (u32) in `epoch`: up, the BS leaves; down, the cloud has finished.

    Raises:
        LocalError: a number that does not fit.
    """

    bs: int
    epoch: int
    frames: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_unsigned("bs", self.bs, 16)
        require_unsigned("epoch", self.epoch, 16)
        require_unsigned("frames", self.frames, 32)


@dataclass(frozen=True, slots=True)
class Abort:
    """The sender gives up, for a `reason` in one sentence (at most 256 B of UTF-8).

    Raises:
        LocalError: the reason is too long.
    """

    reason: str

    def __post_init__(self) -> None:
        """Check the length."""
        _require_text("reason", self.reason)


@dataclass(frozen=True, slots=True)
class Ping:
    """Heartbeat of a BS, which also asks for the cloud's time; sent up.

    Attributes:
        bs: base station, u16.
        epoch: how many times this BS started before, u16.
        t_sent_ns: when it was sent, by the BS's clock, u64 [ns].

    Raises:
        LocalError: a number that does not fit.
    """

    bs: int
    epoch: int
    t_sent_ns: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_unsigned("bs", self.bs, 16)
        require_unsigned("epoch", self.epoch, 16)
        require_unsigned("t_sent_ns", self.t_sent_ns, 64)


@dataclass(frozen=True, slots=True)
class Pong:
    """The cloud's answer to a `Ping`; sent down.

    Attributes:
        bs: base station, u16.
        epoch: as in the ping, u16.
        t_sent_ns: as in the ping, by the BS's clock, u64 [ns].
        t_received_ns: when the ping arrived, by the cloud's clock, u64 [ns].
        t_answered_ns: when this was sent, by the cloud's clock, u64 [ns].

    Raises:
        LocalError: a number that does not fit.
    """

    bs: int
    epoch: int
    t_sent_ns: int
    t_received_ns: int
    t_answered_ns: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_unsigned("bs", self.bs, 16)
        require_unsigned("epoch", self.epoch, 16)
        for name in ("t_sent_ns", "t_received_ns", "t_answered_ns"):
            require_unsigned(name, getattr(self, name), 64)


Control = Registration | Welcome | Goodbye | Abort | Ping | Pong
Message = Frame | Control


# These accept any object, like those in `checks`.


def _require_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise LocalError(f"{name} must be a str, not {type(value).__name__}")
    try:
        length = len(value.encode())
    except UnicodeEncodeError as error:
        raise LocalError(f"{name} must be valid Unicode: {error}") from error
    if length > MAX_TEXT_BYTES:
        raise LocalError(f"{name} is at most {MAX_TEXT_BYTES} B of UTF-8, not {length} B")


def _require_vector(name: str, value: object) -> None:
    if not isinstance(value, tuple) or len(value) != 3:
        raise LocalError(f"{name} must be a tuple of three floats, not {value!r}")
    if not all(isinstance(component, float) and math.isfinite(component) for component in value):
        raise LocalError(f"{name} must hold three finite floats, not {value!r}")


def _require_format(name: str, value: object) -> None:
    if not isinstance(value, PayloadFormat):
        raise LocalError(f"{name} must be a PayloadFormat, not {type(value).__name__}")
