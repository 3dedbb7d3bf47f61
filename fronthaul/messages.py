"""What base stations and cloud say to each other, as values.

Notation: a *report* is what one base station (BS) sends for one snapshot; a *frame* is one copy of it on one
link. Every message is frozen, and valid from birth: constructors raise `LocalError`, so `wire.encode` cannot
meet a value that does not fit its field.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from fronthaul.errors import LocalError

MAX_SIDE_BYTES = 31
"""Side information of a report [B]: its length has 5 bits in the header."""
MAX_TEXT_BYTES = 256
"""A scheme's name or the reason of an abort in UTF-8 [B]: one sentence."""
MAX_COEFFICIENT_BITS = 32
"""Bits of a coefficient: one float32 is the finest that anybody sends."""


class Direction(StrEnum):
    """Which way a frame goes: UP from BS to cloud, DOWN from cloud to BS."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class ReportKey:
    """What identifies a report (accounting, "Keys").

    Attributes:
        bs: base station, u16.
        epoch: how many times this BS started before, u16.
        snapshot: positioning occasion, u32.
        round: u8; 0 unless the scheme exchanges several messages for one fix.

    Raises:
        LocalError: a number that does not fit.
    """

    bs: int
    epoch: int
    snapshot: int
    round: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        _require_unsigned("bs", self.bs, 16)
        _require_unsigned("epoch", self.epoch, 16)
        _require_unsigned("snapshot", self.snapshot, 32)
        _require_unsigned("round", self.round, 8)


@dataclass(frozen=True, slots=True)
class Payload:
    """A report's information bits, exact to the bit.

    Attributes:
        data: the bits, most significant first, zero padded to whole bytes.
        bits: how many of them count [bit].

    Raises:
        LocalError: `data` is not ceil(bits / 8) bytes, or its padding is not zero.
    """

    data: bytes
    bits: int

    def __post_init__(self) -> None:
        """Check the length and the padding."""
        _require_bytes("data", self.data)
        _require_unsigned("bits", self.bits, 32)
        if len(self.data) != -(-self.bits // 8):
            raise LocalError(f"{self.bits} bits take {-(-self.bits // 8)} B, not {len(self.data)} B")
        if self.data and self.data[-1] & ((1 << self.padding_bits) - 1):
            raise LocalError(f"the {self.padding_bits} padding bits after the payload must be zero")

    @property
    def padding_bits(self) -> int:
        """Zero bits between the payload's end and the next byte, 0..7 [bit]."""
        return -self.bits % 8


@dataclass(frozen=True, slots=True)
class Report:
    """What one BS sends for one snapshot.

    Attributes:
        key: which report it is.
        payload: its information bits.
        side: side information such as a gain, at most 31 B; b"" where the scheme has none.

    Raises:
        LocalError: `side` is too long.
    """

    key: ReportKey
    payload: Payload
    side: bytes = b""

    def __post_init__(self) -> None:
        """Check the side information's length."""
        _require_bytes("side", self.side)
        if len(self.side) > MAX_SIDE_BYTES:
            raise LocalError(f"side information is at most {MAX_SIDE_BYTES} B, not {len(self.side)} B")


@dataclass(frozen=True, slots=True)
class Frame:
    """One copy of a report on one link.

    Attributes:
        seq: u32, counts the frames of one link, epoch and direction.
        report: what the frame carries.

    Raises:
        LocalError: `seq` does not fit.
    """

    seq: int
    report: Report

    def __post_init__(self) -> None:
        """Check the range."""
        _require_unsigned("seq", self.seq, 32)


@dataclass(frozen=True, slots=True)
class Registration:
    """A BS announces itself and its codec; its first message on a connection.

    Attributes:
        bs: base station, u16.
        epoch: how many times this BS started before, u16.
        scheme: the scheme's name, 1..256 B of UTF-8.
        bits: bits of a coefficient, 1..32.
        coefficients: coefficients of a payload, u32.
        side_bytes: side information of each report, 0..31 [B].
        position: of the array's centre, x, y, z [m].
        orientation: of the array, yaw, pitch, roll [rad].

    Raises:
        LocalError: a value out of range, or not finite.
    """

    bs: int
    epoch: int
    scheme: str
    bits: int
    coefficients: int
    side_bytes: int
    position: tuple[float, float, float]
    orientation: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Check the ranges."""
        _require_unsigned("bs", self.bs, 16)
        _require_unsigned("epoch", self.epoch, 16)
        _require_text("scheme", self.scheme)
        if not self.scheme:
            raise LocalError("scheme must have a name")
        _require_between("bits", self.bits, 1, MAX_COEFFICIENT_BITS)
        _require_unsigned("coefficients", self.coefficients, 32)
        _require_between("side_bytes", self.side_bytes, 0, MAX_SIDE_BYTES)
        _require_vector("position", self.position)
        _require_vector("orientation", self.orientation)


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
        _require_unsigned("bs", self.bs, 16)
        _require_unsigned("epoch", self.epoch, 16)


@dataclass(frozen=True, slots=True)
class Goodbye:
    """A BS has sent all of its `frames` frames (u32) in `epoch`, and leaves.

    Raises:
        LocalError: a number that does not fit.
    """

    bs: int
    epoch: int
    frames: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        _require_unsigned("bs", self.bs, 16)
        _require_unsigned("epoch", self.epoch, 16)
        _require_unsigned("frames", self.frames, 32)


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


Control = Registration | Welcome | Goodbye | Abort
Message = Frame | Control


# These take any object: types are checked by mypy in this tree, but a user's scheme need not be.


def _require_between(name: str, value: object, low: int, high: int) -> None:
    # bool is an int to Python, but to no other reader of the bytes.
    if not isinstance(value, int) or isinstance(value, bool):
        raise LocalError(f"{name} must be an int, not {type(value).__name__}")
    if not low <= value <= high:
        raise LocalError(f"{name} must be in {low}..{high}, not {value}")


def _require_unsigned(name: str, value: object, width: int) -> None:
    _require_between(name, value, 0, (1 << width) - 1)


def _require_bytes(name: str, value: object) -> None:
    # bytearray and memoryview could change under a frozen message.
    if not isinstance(value, bytes):
        raise LocalError(f"{name} must be bytes, not {type(value).__name__}")


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
