"""What base stations and cloud say to each other, as values.

Notation: a *report* is what crosses a link for one base station (BS), snapshot and round: up, what the BS found; down,
what the cloud answers to it. A *frame* is one copy of one message of 1..64 reports on one link. Every message is
frozen, and valid from birth: constructors raise `LocalError`, so `wire.encode` cannot meet a value that does not fit
its field.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum

from fronthaul.errors import LocalError

MAX_SIDE_BYTES = 31
"""Side information of a report [B]: its length has 5 bits in the header."""
MAX_TEXT_BYTES = 256
"""A scheme's name or the reason of an abort in UTF-8 [B]: one sentence."""
MAX_COEFFICIENT_BITS = 32
"""Bits of a coefficient: one float32 is the finest that anybody sends."""
MAX_BUNDLE = 64
"""Reports of a frame: as many as a mask of 64 bits tells apart."""


class Direction(StrEnum):
    """Which way a frame goes: UP from BS to cloud, DOWN from cloud to BS."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Codec:
    """The size of a payload, and of the side information beside it.

    Attributes:
        bits: of a coefficient, 1..32 [bit].
        coefficients: of a payload, u32.
        side_bytes: side information of each report, 0..31 [B].

    Raises:
        LocalError: a number out of range.
    """

    bits: int
    coefficients: int
    side_bytes: int

    def __post_init__(self) -> None:
        """Check the ranges."""
        _require_between("bits", self.bits, 1, MAX_COEFFICIENT_BITS)
        _require_unsigned("coefficients", self.coefficients, 32)
        _require_between("side_bytes", self.side_bytes, 0, MAX_SIDE_BYTES)

    @property
    def payload_bits(self) -> int:
        """Bits of a payload, exact [bit]."""
        return self.bits * self.coefficients


# The four classes of a report in flight check by one expression that is true for all that is well, which takes a
# quarter of the time of checking value by value; what is wrong is looked for only where it is not.


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
        bs, epoch, snapshot, round_ = self.bs, self.epoch, self.snapshot, self.round
        if not (
            type(bs) is type(epoch) is type(snapshot) is type(round_) is int
            and 0 <= bs <= 0xFFFF
            and 0 <= epoch <= 0xFFFF
            and 0 <= snapshot <= 0xFFFFFFFF
            and 0 <= round_ <= 0xFF
        ):
            _require_unsigned("bs", bs, 16)
            _require_unsigned("epoch", epoch, 16)
            _require_unsigned("snapshot", snapshot, 32)
            _require_unsigned("round", round_, 8)


@dataclass(frozen=True, slots=True)
class Payload:
    """A report's information bits, exact to the bit.

    Attributes:
        data: the bits, most significant first, zero padded to whole bytes.
        bits: how many of them count [bit], u32.

    Raises:
        LocalError: `data` is not ceil(bits / 8) bytes, or its padding is not zero.
    """

    data: bytes
    bits: int

    def __post_init__(self) -> None:
        """Check the length and the padding."""
        data, bits = self.data, self.bits
        if not (
            type(data) is bytes
            and type(bits) is int
            and 0 <= bits <= 0xFFFFFFFF
            and len(data) == (bits + 7) >> 3
            and (bits & 7 == 0 or data[-1] & (0xFF >> (bits & 7)) == 0)
        ):
            _require_bytes("data", data)
            _require_unsigned("bits", bits, 32)
            if len(data) != -(-bits // 8):
                raise LocalError(f"{bits} bits take {-(-bits // 8)} B, not {len(data)} B")
            if data and data[-1] & ((1 << self.padding_bits) - 1):
                raise LocalError(f"the {self.padding_bits} padding bits after the payload must be zero")

    @property
    def padding_bits(self) -> int:
        """Zero bits between the payload's end and the next byte, 0..7 [bit]."""
        return -self.bits % 8


@dataclass(frozen=True, slots=True)
class Report:
    """What crosses a link for one BS, snapshot and round.

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
        side = self.side
        if not (type(side) is bytes and len(side) <= MAX_SIDE_BYTES):
            _require_bytes("side", side)
            if len(side) > MAX_SIDE_BYTES:
                raise LocalError(f"side information is at most {MAX_SIDE_BYTES} B, not {len(side)} B")


@dataclass(frozen=True, slots=True)
class Frame:
    """One copy of one message of reports on one link; a *bundle* if they are several.

    Attributes:
        seq: u32, counts the frames of one link, epoch and direction.
        reports: 1..64 reports of one BS and epoch, which are alike in payload bits and in bytes of side information;
            no two of them of the same snapshot and round.

    Raises:
        LocalError: `seq` does not fit, or the reports do not fit together.
    """

    seq: int
    reports: tuple[Report, ...]

    def __post_init__(self) -> None:
        """Check the range and whether the reports fit together."""
        seq, reports = self.seq, self.reports
        if not (type(seq) is int and 0 <= seq <= 0xFFFFFFFF):
            _require_unsigned("seq", seq, 32)
        if type(reports) is tuple and len(reports) == 1 and type(reports[0]) is Report:
            return
        _require_bundle(reports)

    @property
    def bs(self) -> int:
        """Base station at the link's edge: the sender up, the receiver down."""
        return self.reports[0].key.bs

    @property
    def epoch(self) -> int:
        """How many times that BS started before."""
        return self.reports[0].key.epoch


def fitting_report(bs: int, epoch: int, snapshot: int, round_: int, payload: Payload, side: bytes) -> Report:
    """Return a report of numbers that are known to fit: no check is made a second time.

    For the decoder, whose layouts admit no others; this takes half the time of two constructors.
    """
    key = _new(ReportKey)
    _key_bs(key, bs)
    _key_epoch(key, epoch)
    _key_snapshot(key, snapshot)
    _key_round(key, round_)
    report = _new(Report)
    _report_key(report, key)
    _report_payload(report, payload)
    _report_side(report, side)
    return report


def _setters(kind: type) -> list[Callable[[object, object], None]]:
    return [getattr(kind, field.name).__set__ for field in fields(kind)]


_new = object.__new__
_key_bs, _key_epoch, _key_snapshot, _key_round = _setters(ReportKey)
_report_key, _report_payload, _report_side = _setters(Report)


@dataclass(frozen=True, slots=True)
class Registration:
    """A BS announces itself and its codecs; its first message on a connection.

    Attributes:
        bs: base station, u16.
        epoch: how many times this BS started before, u16.
        scheme: the scheme's name, 1..256 B of UTF-8.
        report: codec of round 0.
        answer: codec of later rounds; None where the scheme has one round only.
        position: of the array's centre, x, y, z [m].
        orientation: of the array, yaw, pitch, roll [rad].

    Raises:
        LocalError: a value out of range, or not finite.
    """

    bs: int
    epoch: int
    scheme: str
    report: Codec
    answer: Codec | None
    position: tuple[float, float, float]
    orientation: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Check the ranges."""
        _require_unsigned("bs", self.bs, 16)
        _require_unsigned("epoch", self.epoch, 16)
        _require_text("scheme", self.scheme)
        if not self.scheme:
            raise LocalError("scheme must have a name")
        _require_codec("report", self.report)
        if self.answer is not None:
            _require_codec("answer", self.answer)
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
    """All `frames` frames (u32) of one direction are sent in `epoch`: up, the BS leaves; down, the cloud has finished.

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


@dataclass(frozen=True, slots=True)
class Ping:
    """A BS is alive, and asks what time it is; goes up.

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
        _require_unsigned("bs", self.bs, 16)
        _require_unsigned("epoch", self.epoch, 16)
        _require_unsigned("t_sent_ns", self.t_sent_ns, 64)


@dataclass(frozen=True, slots=True)
class Pong:
    """The cloud's answer to a `Ping`; goes down.

    Attributes:
        bs: base station, u16.
        epoch: as the ping says, u16.
        t_sent_ns: as the ping says, by the BS's clock, u64 [ns].
        t_received_ns: when the ping came, by the cloud's clock, u64 [ns].
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
        _require_unsigned("bs", self.bs, 16)
        _require_unsigned("epoch", self.epoch, 16)
        for name in ("t_sent_ns", "t_received_ns", "t_answered_ns"):
            _require_unsigned(name, getattr(self, name), 64)


Control = Registration | Welcome | Goodbye | Abort | Ping | Pong
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


def _require_codec(name: str, value: object) -> None:
    if not isinstance(value, Codec):
        raise LocalError(f"{name} must be a Codec, not {type(value).__name__}")


def _require_bundle(reports: object) -> None:
    if not isinstance(reports, tuple) or not all(isinstance(report, Report) for report in reports):
        raise LocalError("reports must be a tuple of Report")
    if not 1 <= len(reports) <= MAX_BUNDLE:
        raise LocalError(f"a frame carries 1..{MAX_BUNDLE} reports, not {len(reports)}")
    if len({(r.key.bs, r.key.epoch, r.payload.bits, len(r.side)) for r in reports}) > 1:
        raise LocalError("the reports of a frame must agree in BS, epoch, payload bits and length of side information")
    if len({(r.key.snapshot, r.key.round) for r in reports}) < len(reports):
        raise LocalError("a frame must not carry two reports of the same snapshot and round")
