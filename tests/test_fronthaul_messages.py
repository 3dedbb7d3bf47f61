"""Messages are valid from birth."""

import dataclasses
from typing import Any

import pytest

from fronthaul.errors import LocalError
from fronthaul.messages import Abort, Frame, Goodbye, Payload, Registration, Report, ReportKey, Welcome

REPORT = Report(ReportKey(0, 0, 0), Payload(b"", 0))
REGISTRATION = Registration(0, 0, "ecc", 4, 768, 4, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (ReportKey, (1 << 16, 0, 0)),
        (ReportKey, (0, 1 << 16, 0)),
        (ReportKey, (0, 0, 1 << 32)),
        (ReportKey, (0, 0, 0, 1 << 8)),
        (ReportKey, (-1, 0, 0)),
        (ReportKey, (True, 0, 0)),
        (ReportKey, (0.0, 0, 0)),
        (Payload, (b"\0", 0)),
        (Payload, (b"", 1)),
        (Payload, (b"\0\0", 8)),
        (Payload, (b"\x01", 7)),
        (Payload, (bytearray(1), 8)),
        (Report, (ReportKey(0, 0, 0), Payload(b"", 0), bytes(32))),
        (Frame, (1 << 32, REPORT)),
        (Welcome, (0, -1)),
        (Goodbye, (0, 0, 1 << 32)),
        (Abort, ("ü" * 129,)),
        (Abort, ("\ud800",)),
        (Abort, (b"no",)),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, arguments: tuple[object, ...]) -> None:
    with pytest.raises(LocalError):
        make(*arguments)


@pytest.mark.parametrize(
    "change",
    [
        {"bs": 1 << 16},
        {"epoch": -1},
        {"scheme": ""},
        {"bits": 0},
        {"bits": 33},
        {"coefficients": 1 << 32},
        {"side_bytes": 32},
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


def test_messages_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        REPORT.side = b"x"  # type: ignore[misc]


@pytest.mark.parametrize(("bits", "padding_bits"), [(0, 0), (1, 7), (7, 1), (8, 0), (9, 7)])
def test_padding(bits: int, padding_bits: int) -> None:
    assert Payload(bytes(-(-bits // 8)), bits).padding_bits == padding_bits
