"""Reports and the frames that carry them: the data of the fronthaul, as values (see `messages`).

A decoded frame keeps its received bytes and extracts the reports on first access. Checking, counting and logging a
frame needs only its head, and most of the decoding time would go into objects that are never used. The bytes have been
validated before (`wire.decode`), so extraction cannot fail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, fields
from typing import NamedTuple

from fronthaul.errors import LocalError
from fronthaul.message.checks import MAX_BUNDLE, MAX_SIDE_BYTES, require_bytes, require_unsigned

# The checks use one expression that is true for valid values, which takes a quarter of the time of checking value by
# value; the individual checks run only if it is false, to find the error.


@dataclass(frozen=True, slots=True)
class ReportKey:
    """What identifies a report.

    Attributes:
        bs: base station, u16.
        epoch: how many times this BS started before, u16.
        snapshot: number of the positioning occasion, u32.
        round: u8; 0 unless the scheme has several rounds per fix.

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
            require_unsigned("bs", bs, 16)
            require_unsigned("epoch", epoch, 16)
            require_unsigned("snapshot", snapshot, 32)
            require_unsigned("round", round_, 8)


@dataclass(frozen=True, slots=True)
class Payload:
    """A report's information bits, exact to the bit.

    Attributes:
        data: the bits, most significant first, zero padded to whole bytes.
        bits: their number, without the padding [bit], u32.

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
            require_bytes("data", data)
            require_unsigned("bits", bits, 32)
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
        side: side information such as a gain, at most 31 B; b"" if the scheme has none.

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
            require_bytes("side", side)
            if len(side) > MAX_SIDE_BYTES:
                raise LocalError(f"side information is at most {MAX_SIDE_BYTES} B, not {len(side)} B")


class FrameHead(NamedTuple):
    """All fields of a frame except payloads and side information.

    Attributes:
        bs: base station at the link's edge: the sender up, the receiver down.
        epoch: how many times that BS started before.
        seq: counts the frames of one link, epoch and direction.
        parts: snapshot and round of each report.
        payload_bits: of each report [bit].
        side_bytes: of each report, equal for all [B].
    """

    bs: int
    epoch: int
    seq: int
    parts: tuple[tuple[int, int], ...]
    payload_bits: tuple[int, ...]
    side_bytes: int

    @property
    def is_mixed(self) -> bool:
        """Whether the payloads differ in length."""
        bits = self.payload_bits
        return bits.count(bits[0]) < len(bits)


class Frame:
    """One copy of a message of one or more reports on one link; a *bundle* if there are several.

    Attributes:
        head: all fields except payloads and side information.
    """

    __slots__ = ("_content", "head")
    __match_args__ = ("seq", "reports")

    head: FrameHead
    # The reports; or, until they are accessed, bytes that end with their side information and then their payloads.
    _content: tuple[Report, ...] | bytes

    def __init__(self, seq: int, reports: tuple[Report, ...]) -> None:
        """Check the range of `seq`, and that the reports are consistent.

        Args:
            seq: u32, counts the frames of one link, epoch and direction.
            reports: 1..64 reports of one BS and epoch with as many bytes of side information each; no two of them of
                the same snapshot and round.

        Raises:
            LocalError: `seq` is out of range, or the reports are inconsistent.
        """
        if not (type(seq) is int and 0 <= seq <= 0xFFFFFFFF):
            require_unsigned("seq", seq, 32)
        _frame_head(self, _head_of(seq, reports))
        _frame_content(self, reports)

    @property
    def seq(self) -> int:
        """Number of the frame within its link, epoch and direction."""
        return self.head.seq

    @property
    def bs(self) -> int:
        """Base station at the link's edge: the sender up, the receiver down."""
        return self.head.bs

    @property
    def epoch(self) -> int:
        """How many times that BS started before."""
        return self.head.epoch

    @property
    def reports(self) -> tuple[Report, ...]:
        """The 1..64 reports that the frame carries."""
        content = self._content
        if isinstance(content, bytes):
            content = _cut(self.head, content)
            _frame_content(self, content)
        return content

    def __eq__(self, other: object) -> bool:
        """Return whether seq and reports are equal."""
        if not isinstance(other, Frame):
            return NotImplemented
        return self.head == other.head and self.reports == other.reports

    def __hash__(self) -> int:
        """Return the hash of seq and reports."""
        return hash((self.seq, self.reports))

    def __repr__(self) -> str:
        """Return an expression that creates the frame."""
        return f"Frame(seq={self.seq!r}, reports={self.reports!r})"

    def __reduce__(self) -> tuple[type[Frame], tuple[int, tuple[Report, ...]]]:
        """Pickle and copy seq and reports, not the internal representation."""
        return Frame, (self.seq, self.reports)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: a message is frozen."""
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        """Refuse: a message is frozen."""
        raise FrozenInstanceError(f"cannot delete field {name!r}")


def decoded_frame(
    bs: int,
    epoch: int,
    seq: int,
    parts: tuple[tuple[int, int], ...],
    payload_bits: tuple[int, ...],
    side_bytes: int,
    body: bytes,
) -> Frame:
    """Return the frame in the `body` of a message, without repeating checks.

    For the decoder only, which has made all the checks of the constructors.

    Args:
        bs: see `FrameHead`, also for the next five.
        epoch: see `FrameHead`.
        seq: see `FrameHead`.
        parts: see `FrameHead`.
        payload_bits: see `FrameHead`.
        side_bytes: see `FrameHead`.
        body: bytes that end with the side information of all reports and then all payloads.
    """
    frame: Frame = _new(Frame)
    # As FrameHead(...) does, without its step in Python.
    _frame_head(frame, _new_tuple(FrameHead, (bs, epoch, seq, parts, payload_bits, side_bytes)))
    _frame_content(frame, body)
    return frame


def _head_of(seq: int, reports: object) -> FrameHead:
    """Return the head of a frame of `reports`, after checking that they are consistent."""
    if type(reports) is tuple and len(reports) == 1 and type(reports[0]) is Report:  # as most are: nothing to compare
        (report,) = reports
        key = report.key
        part = ((key.snapshot, key.round),)
        return _new_tuple(FrameHead, (key.bs, key.epoch, seq, part, (report.payload.bits,), len(report.side)))
    if not isinstance(reports, tuple) or not all(isinstance(report, Report) for report in reports):
        raise LocalError("reports must be a tuple of Report")
    if not 1 <= len(reports) <= MAX_BUNDLE:
        raise LocalError(f"a frame carries 1..{MAX_BUNDLE} reports, not {len(reports)}")
    first: Report = reports[0]
    bs, epoch, side_bytes = first.key.bs, first.key.epoch, len(first.side)
    parts = []
    for report in reports:
        key = report.key
        if key.bs != bs or key.epoch != epoch or len(report.side) != side_bytes:
            raise LocalError("the reports of a frame must agree in BS, epoch and length of side information")
        parts.append((key.snapshot, key.round))
    check_distinct(parts)
    return FrameHead(bs, epoch, seq, tuple(parts), tuple(report.payload.bits for report in reports), side_bytes)


def check_distinct(parts: list[tuple[int, int]] | tuple[tuple[int, int], ...]) -> None:
    """Raise `LocalError` if two reports are of the same snapshot and round."""
    if len(parts) > 1 and len(set(parts)) < len(parts):
        raise LocalError("a frame must not carry two reports of the same snapshot and round")


def _cut(head: FrameHead, body: bytes) -> tuple[Report, ...]:
    """Return the reports at the end of `body`: side information of all, then payloads of all."""
    bs, epoch, _, parts, payload_bits, side_bytes = head
    payload_at = len(body) - sum([(bits + 7) >> 3 for bits in payload_bits])
    side_at = payload_at - len(parts) * side_bytes
    reports = []
    for (snapshot, round_), bits in zip(parts, payload_bits, strict=True):
        payload_bytes = (bits + 7) >> 3
        side, data = body[side_at : side_at + side_bytes], body[payload_at : payload_at + payload_bytes]
        reports.append(report_of(bs, epoch, snapshot, round_, side, data, bits))
        payload_at += payload_bytes
        side_at += side_bytes
    return tuple(reports)


def report_of(bs: int, epoch: int, snapshot: int, round_: int, side: bytes, data: bytes, bits: int) -> Report:
    """Return a report, without repeating the checks of the constructors, like `decoded_frame`."""
    key = _new(ReportKey)
    _key_bs(key, bs)
    _key_epoch(key, epoch)
    _key_snapshot(key, snapshot)
    _key_round(key, round_)
    payload = _new(Payload)
    _payload_data(payload, data)
    _payload_bits(payload, bits)
    report = _new(Report)
    _report_key(report, key)
    _report_payload(report, payload)
    _report_side(report, side)
    return report


def _setters(kind: type, names: list[str]) -> list[Callable[[object, object], None]]:
    """Return the functions that set the slots of a frozen object."""
    return [getattr(kind, name).__set__ for name in names]


def _names(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


_new = object.__new__
_new_tuple = tuple.__new__
_key_bs, _key_epoch, _key_snapshot, _key_round = _setters(ReportKey, _names(ReportKey))
_payload_data, _payload_bits = _setters(Payload, _names(Payload))
_report_key, _report_payload, _report_side = _setters(Report, _names(Report))
_frame_head, _frame_content = _setters(Frame, ["head", "_content"])
