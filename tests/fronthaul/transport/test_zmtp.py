"""What ZeroMQ adds; the kernel's word on it is in `test_tcp_info`."""

import pytest

from fronthaul.transport.zmtp import ZMTP_CURVE, ZMTP_NULL


@pytest.mark.parametrize(("bs", "up_bytes"), [(0, 124), (999, 124), (1000, 125), (12345, 126), (65535, 126)])
def test_in_the_clear_each_character_of_a_name_costs_a_byte_up(bs: int, up_bytes: int) -> None:
    assert ZMTP_NULL.handshake_bytes(bs) == (up_bytes, 107)


@pytest.mark.parametrize("bs", [0, 65535])
def test_keys_name_nobody(bs: int) -> None:
    assert ZMTP_CURVE.handshake_bytes(bs) == (567, 301)


@pytest.mark.parametrize(
    ("body_bytes", "curve", "total"),
    [(0, False, 2), (255, False, 257), (256, False, 265), (222, True, 2 + 255), (223, True, 9 + 256)],
)
def test_frames_turn_long(body_bytes: int, curve: bool, total: int) -> None:
    assert (ZMTP_CURVE if curve else ZMTP_NULL).stream_bytes(body_bytes) == total
