"""Messages are valid from birth."""

import copy
import dataclasses
import pickle
from typing import Any

import pytest
from any_message import frames, written
from hypothesis import given

from fronthaul.errors import LocalError, RegistrationError, RemoteError
from fronthaul.message.messages import (
    MAX_BUNDLE,
    MAX_POSITION_M,
    Abort,
    Frame,
    Goodbye,
    Payload,
    PayloadFormat,
    Ping,
    Pong,
    Registration,
    Report,
    ReportKey,
    Welcome,
    place_text,
)
from fronthaul.message.wire import decode, encode

REPORT = Report(ReportKey(0, 0, 0), Payload(b"", 0))
FORMAT = PayloadFormat.uniform(4, 768, 4)
REGISTRATION = Registration(0, 0, "ecc", FORMAT, None, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))


def report(*key: int, bits: int = 8, side: bytes = b"") -> Report:
    """Return a report of zeros."""
    return Report(ReportKey(*key), Payload(bytes(-(-bits // 8)), bits), side)


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (ReportKey, (1 << 16, 0, 0)),
        (ReportKey, (0, 1 << 16, 0)),
        (ReportKey, (0, 0, 1 << 32)),
        (ReportKey, (0, 0, 0, 1 << 8)),
        (ReportKey, (-1, 0, 0)),
        (ReportKey, (0, -1, 0)),
        (ReportKey, (0, 0, -1)),
        (ReportKey, (0, 0, 0, -1)),
        (ReportKey, (True, 0, 0)),
        (ReportKey, (0, 0, 0, False)),
        (ReportKey, (0.0, 0, 0)),
        (Payload, (b"\0", 0)),
        (Payload, (b"", 1)),
        (Payload, (b"", -1)),
        (Payload, (b"\0\0", 8)),
        (Payload, (b"\x01", 7)),
        (Payload, (b"\x80\x40", 9)),
        (Payload, (b"\0", True)),
        (Payload, (bytearray(1), 8)),
        (Report, (ReportKey(0, 0, 0), Payload(b"", 0), bytes(32))),
        (Report, (ReportKey(0, 0, 0), Payload(b"", 0), bytearray(1))),
        (Frame, (1 << 32, (REPORT,))),
        (Frame, (-1, (REPORT,))),
        (Frame, (False, (REPORT,))),
        (PayloadFormat, (-1, 0)),
        (PayloadFormat, (1 << 32, 0)),
        (PayloadFormat, (True, 0)),
        (PayloadFormat, (1, 32)),
        (PayloadFormat, (1, -1)),
        (PayloadFormat, (1, 0, 1)),
        (PayloadFormat, (0, 0, True, 0)),
        (PayloadFormat, (33, 0, True, 33)),
        (PayloadFormat, (9, 0, True, 2)),
        (PayloadFormat, (8, 0, False, 2)),
        (PayloadFormat.uniform, (0, 1, 0)),
        (PayloadFormat.uniform, (33, 1, 0)),
        (PayloadFormat.uniform, (1, -1, 0)),
        (PayloadFormat.uniform, (1, 1 << 32, 0)),
        (PayloadFormat.uniform, (2, 1 << 31, 0)),
        (PayloadFormat.uniform, (1, 1, 32)),
        (PayloadFormat.uniform, (1, True, 0)),
        (Welcome, (0, -1)),
        (Goodbye, (0, 0, 1 << 32)),
        (Ping, (0, 0, 1 << 64)),
        (Ping, (0, 0, -1)),
        (Ping, (1 << 16, 0, 0)),
        (Pong, (0, 0, 0, 0, 1 << 64)),
        (Pong, (0, 0, 0, 1 << 64, 0)),
        (Pong, (0, 0, 1.0, 0, 0)),
        (Abort, ("ü" * 129,)),
        (Abort, ("\ud800",)),
        (Abort, (b"no",)),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, arguments: tuple[object, ...]) -> None:
    with pytest.raises(LocalError):
        make(*arguments)


@pytest.mark.parametrize(
    "reports",
    [
        pytest.param((), id="none"),
        pytest.param([REPORT], id="a list"),
        pytest.param((b"",), id="no report"),
        pytest.param((REPORT, b""), id="one of them no report"),
        pytest.param(tuple(report(0, 0, snapshot) for snapshot in range(MAX_BUNDLE + 1)), id="too many"),
        pytest.param((report(0, 0, 0), report(1, 0, 1)), id="of two BSs"),
        pytest.param((report(0, 0, 0), report(0, 1, 1)), id="of two epochs"),
        pytest.param((report(0, 0, 0), report(0, 0, 1, side=b"x")), id="of two lengths of side information"),
        pytest.param((report(0, 0, 0, 1), report(0, 0, 1), report(0, 0, 0, 1)), id="twice the same"),
    ],
)
def test_what_does_not_fit_into_one_frame_is_refused(reports: Any) -> None:
    with pytest.raises(LocalError):
        Frame(0, reports)


def test_a_bundle_is_of_one_start_of_one_base_station() -> None:
    reports = tuple(report(7, 3, index // 2, index % 2) for index in range(MAX_BUNDLE))
    bundle = Frame(0, reports)
    assert (bundle.bs, bundle.epoch) == (7, 3)
    assert Frame(0, reports[:1]) == Frame(0, (report(7, 3, 0),))


@pytest.mark.parametrize(
    "change",
    [
        {"bs": 1 << 16},
        {"epoch": -1},
        {"scheme": ""},
        {"report": None},
        {"report": (4, 768, 4)},
        {"answer": (4, 768, 4)},
        {"position": (0.0, 0.0)},
        {"position": [0.0, 0.0, 0.0]},
        {"position": (0.0, 0.0, float("inf"))},
        {"orientation": (0.0, 0.0, float("nan"))},
        {"orientation": (0, 0.0, 0.0)},
    ],
)
def test_what_does_not_fit_a_registration_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(LocalError):
        dataclasses.replace(REGISTRATION, **change)


@pytest.mark.parametrize(
    ("border", "beyond"),
    [
        ((MAX_POSITION_M, 0.0, 0.0), (-4.2e6, 1.0, 1.0)),
        ((0.0, -MAX_POSITION_M, 0.0), (1.0, 100_001.0, 1.0)),
        ((0.0, 0.0, MAX_POSITION_M), (1.0, 1.0, 1e300)),
    ],
)
def test_a_base_station_stands_within_100_km_of_the_origin(
    border: tuple[float, float, float], beyond: tuple[float, float, float]
) -> None:
    assert dataclasses.replace(REGISTRATION, position=border).position == border
    with pytest.raises(LocalError) as caught:
        dataclasses.replace(REGISTRATION, bs=7, position=beyond)
    assert str(caught.value) == (
        "position of BS 7 must lie within ±100 km of the origin of the local coordinates, which are metres, "
        f"not at {place_text(beyond)}"
    )
    assert place_text((1.0, -4.2e6, 0.25)) == "(1, -4.2e+06, 0.25) m"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_place_that_is_not_finite_is_refused_by_the_name_of_its_base_station(number: float) -> None:
    with pytest.raises(LocalError, match=r"^position of BS 3 must hold three finite floats, not \(1\.0, "):
        dataclasses.replace(REGISTRATION, bs=3, position=(1.0, number, 0.0))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"position": (0.0, float("nan"), 0.0)}, RegistrationError),
        ({"position": (0.0, 2e5, 0.0)}, RegistrationError),
        ({"scheme": ""}, RegistrationError),
        ({"bs": -1}, RegistrationError),
        ({}, None),
    ],
)
def test_a_registration_that_cannot_be_is_told_from_other_bytes(
    change: dict[str, Any], kind: type[RemoteError] | None
) -> None:
    data = written(REGISTRATION, change)
    if kind is None:
        assert decode(data) == REGISTRATION
        return
    with pytest.raises(kind) as caught:
        decode(data)
    assert caught.value.reason == "field" and type(pickle.loads(pickle.dumps(caught.value))) is kind


def test_another_message_that_cannot_be_is_no_registration() -> None:
    with pytest.raises(RemoteError) as caught:
        decode(written(Welcome(0, 0), {"bs": -1}))
    assert type(caught.value) is RemoteError


def test_messages_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        REPORT.side = b"x"  # type: ignore[misc]


@pytest.mark.parametrize(("bits", "padding_bits"), [(0, 0), (1, 7), (7, 1), (8, 0), (9, 7)])
def test_padding(bits: int, padding_bits: int) -> None:
    assert Payload(bytes(-(-bits // 8)), bits).padding_bits == padding_bits


@pytest.mark.parametrize(
    ("declared", "admitted", "text"),
    [
        (FORMAT, range(3072, 3073), "768 x 4 bit and 4 B of side information"),
        (PayloadFormat(9), range(9, 10), "9 bit and 0 B of side information"),
        (PayloadFormat.uniform(8, 0), range(1), "0 x 8 bit and 0 B of side information"),
        (PayloadFormat(9, 1, fixed=False), range(10), "up to 9 bit and 1 B of side information"),
    ],
)
def test_what_a_format_admits(declared: PayloadFormat, admitted: range, text: str) -> None:
    assert [bits for bits in range(4000) if declared.admits(bits, declared.side_bytes)] == list(admitted)
    assert not declared.admits(declared.max_bits, declared.side_bytes + 1)
    assert str(declared) == text


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (ReportKey, (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFF)),
        (Payload, (b"", 0)),
        (Payload, (b"\xff\x80", 9)),
        (PayloadFormat, (0xFFFFFFFF, 31, False)),
        (PayloadFormat.uniform, (32, (1 << 27) - 1, 31)),
        (Ping, (0xFFFF, 0xFFFF, (1 << 64) - 1)),
        (Pong, (0, 0, 0, 0, (1 << 64) - 1)),
        (Frame, (0xFFFFFFFF, (REPORT,))),
    ],
)
def test_borders_are_within(make: Any, arguments: tuple[object, ...]) -> None:
    make(*arguments)


# Frames that were decoded hold bytes until their reports are asked for; nobody may tell them from others.


@given(frames())
def test_a_decoded_frame_is_like_one_that_was_made(made: Frame) -> None:
    data = encode(made)
    assert decode(data).head == made.head  # type: ignore[union-attr]
    assert decode(data) == made and made == decode(data)
    assert hash(decode(data)) == hash(made) and repr(decode(data)) == repr(made)
    for again in (pickle.loads(pickle.dumps(decode(data))), copy.copy(decode(data)), copy.deepcopy(decode(data))):
        assert again == made and encode(again) == data


@given(frames())
def test_what_is_cut_out_of_a_decoded_frame_is_what_constructors_make(made: Frame) -> None:
    """Constructors check again what decoding has checked, so they must take all of it and change nothing."""
    found = decode(encode(made))
    assert isinstance(found, Frame)
    cut = found.reports
    assert found.reports is cut  # once
    again = [Report(ReportKey(*_values(r.key)), Payload(*_values(r.payload)), r.side) for r in cut]
    assert again == list(cut) == list(made.reports)
    assert [_types(report) for report in again] == [_types(report) for report in cut]
    assert Frame(found.seq, cut).head == found.head
    assert found.head.parts == tuple((r.key.snapshot, r.key.round) for r in made.reports)


def _values(message: Any) -> list[Any]:
    return [getattr(message, field.name) for field in dataclasses.fields(message)]


def _types(report: Report) -> list[type]:
    return [type(value) for value in (*_values(report.key), *_values(report.payload), report.side)]


def test_reports_are_cut_out_when_they_are_asked_for() -> None:
    found = decode(encode(Frame(1, (report(0, 0, 0), report(0, 0, 1)))))
    assert isinstance(found, Frame)
    assert isinstance(found._content, bytes)
    assert found.bs == found.epoch == 0 and found.seq == 1 and isinstance(found._content, bytes)
    assert len(found.reports) == 2 and isinstance(found._content, tuple)


@pytest.mark.parametrize("name", ["seq", "reports", "head", "bs", "_content", "other"])
def test_frames_are_frozen(name: str) -> None:
    for found in (Frame(0, (REPORT,)), decode(encode(Frame(0, (REPORT,))))):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(found, name, 1)
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(found, name)
        assert found == Frame(0, (REPORT,)) and found != REPORT
