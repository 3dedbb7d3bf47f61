"""What opening a connection costs; the kernel's word on it is in `test_fronthaul_kernel`."""

import pytest

from fronthaul.account.handshake import handshake_bytes
from fronthaul.transport.transport import identity


@pytest.mark.parametrize(
    ("name", "curve", "expected"),
    [
        (b"bs-000", False, (113, 107)),
        (b"bs-12345", False, (115, 107)),
        (b"", False, (107, 107)),
        (b"bs-000", True, (573, 301)),
        (b"", True, (567, 301)),
    ],
)
def test_sizes(name: bytes, curve: bool, expected: tuple[int, int]) -> None:
    assert handshake_bytes(name, curve=curve) == expected


def test_each_character_of_a_name_costs_a_byte_up() -> None:
    for curve in (False, True):
        up, down = handshake_bytes(b"", curve=curve)
        for bs in (0, 999, 1000, 65535):
            assert handshake_bytes(identity(bs), curve=curve) == (up + len(identity(bs)), down)


def test_a_long_name_costs_a_long_header() -> None:
    # READY of 43 B + the name: beyond 255 B the frame's header takes 9 B rather than 2 B.
    assert handshake_bytes(bytes(215))[0] - handshake_bytes(bytes(214))[0] == 8
