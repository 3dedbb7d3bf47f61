"""Accounting, draws, clocks and imports."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fronthaul
from fronthaul.accounting import (
    frame_cost,
    handshake_bytes,
    lossless_bits,
    modelled_ecpri_ethernet_bytes,
    modelled_ethernet_bytes,
    modelled_tcpip_bytes,
    zmtp_frame_bytes,
)
from fronthaul.bitstream import pack
from fronthaul.clock import Clock, SimulatedClock, WallClock
from fronthaul.draws import generator
from fronthaul.errors import LocalError
from fronthaul.fates import FrameFate, ReportFate
from fronthaul.messages import Frame, Payload, Report, ReportKey
from fronthaul.wire import encode

KEY = ReportKey(0, 0, 0)


def test_overhead_stays_within_its_budget() -> None:
    """Header, CRC, gain and ZMTP together cost at most 32 B beside the payload."""
    frame = Frame(0, Report(KEY, pack(np.zeros(768, np.uint32), 4), bytes(4)))
    assert frame_cost(frame).stream_bytes - 3072 // 8 == 32


@given(st.integers(0, 3000), st.integers(0, 31), st.booleans())
def test_cost_adds_up_to_the_zmtp_frame(bits: int, side_bytes: int, curve: bool) -> None:
    frame = Frame(0, Report(KEY, Payload(bytes(-(-bits // 8)), bits), bytes(side_bytes)))
    cost = frame_cost(frame, curve=curve)
    assert cost.stream_bytes == zmtp_frame_bytes(len(encode(frame)), curve=curve)
    assert (cost.payload_bits, cost.side_bits) == (bits, 8 * side_bytes)
    assert (cost.payload_bits + cost.padding_bits) % 8 == 0


@pytest.mark.parametrize(
    ("body_bytes", "curve", "total"),
    [(0, False, 2), (255, False, 257), (256, False, 265), (222, True, 2 + 255), (223, True, 9 + 256)],
)
def test_zmtp_frames_turn_long(body_bytes: int, curve: bool, total: int) -> None:
    assert zmtp_frame_bytes(body_bytes, curve=curve) == total


@pytest.mark.parametrize(
    ("identity", "up", "down"),
    [(b"bs-000", 113, 107), (b"bs-65535", 115, 107), (b"x" * 214, 64 + 2 + 255, 107), (b"x" * 215, 329, 107)],
)
def test_handshake_depends_on_the_identity(identity: bytes, up: int, down: int) -> None:
    assert handshake_bytes(identity) == (up, down)


@pytest.mark.parametrize(
    ("stream_bytes", "segments"), [(0, 0), (1, 1), (416, 1), (1448, 1), (1449, 2), (2896, 2), (2897, 3)]
)
def test_modelled_tcpip_and_ethernet(stream_bytes: int, segments: int) -> None:
    assert modelled_tcpip_bytes(stream_bytes) == stream_bytes + 52 * segments
    assert modelled_ethernet_bytes(stream_bytes) == stream_bytes + 66 * segments
    assert modelled_ethernet_bytes(stream_bytes, preamble_fcs_gap=True) == stream_bytes + 90 * segments


@pytest.mark.parametrize(
    ("report_bytes", "total"),
    [
        (0, 14 + 46),
        (34, 14 + 46),
        (35, 14 + 12 + 35),
        (1488, 14 + 1500),
        (1489, 14 + 1500 + 14 + 46),
        (2976, 2 * 1514),
    ],
)
def test_modelled_ecpri(report_bytes: int, total: int) -> None:
    assert modelled_ecpri_ethernet_bytes(report_bytes) == total


def test_lossless_csi_of_the_paper() -> None:
    """ECC Eq. 37 for 10 slots, 4 antennas and 24 tones."""
    assert lossless_bits(10, 4, 24) == 61_440


def test_fates_are_their_names() -> None:
    assert [str(fate) for fate in FrameFate] == ["delivered", "duplicate", "corrupt", "rejected", "dropped"]
    assert [str(fate) for fate in ReportFate] == ["used", "unused", "late", "lost"]


def test_draws_are_golden() -> None:
    """The raw Philox stream, so that a new version of anything cannot change a run unseen.

    The key is `printf '7\\x1fnoise\\x1f3\\x1f11' | b2sum -l 128`, read as two little-endian words.
    """
    raw = generator(7, "noise", 3, 11).bit_generator.random_raw(2)
    assert [int(word) for word in raw] == [6283666413630835842, 4294618464193745004]


@given(
    st.tuples(st.integers(), st.text("abc", max_size=5), st.lists(st.integers(), max_size=3)),
    st.tuples(st.integers(), st.text("abc", max_size=5), st.lists(st.integers(), max_size=3)),
)
def test_draws_depend_on_the_key_alone(
    one: tuple[int, str, list[int]], other: tuple[int, str, list[int]]
) -> None:
    def first(case: tuple[int, str, list[int]]) -> list[int]:
        return [int(word) for word in generator(case[0], case[1], *case[2]).bit_generator.random_raw(2)]

    assert (first(one) == first(other)) == (one == other)


def test_draws_take_numpy_integers_and_no_others() -> None:
    assert generator(1, "a", np.int64(2)).random() == generator(1, "a", 2).random()  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        generator(1, "a", 2.0)  # type: ignore[arg-type]


def test_simulated_time_moves_only_when_told() -> None:
    clock = SimulatedClock(5)
    assert clock.now_ns() == clock.now_ns() == 5
    clock.sleep_until(9)
    clock.sleep_until(7)
    assert clock.now_ns() == 9
    clock.advance_to(12)
    assert clock.now_ns() == 12
    with pytest.raises(LocalError, match="back"):
        clock.advance_to(11)


def test_wall_clock_is_unix_time() -> None:
    clock: Clock = WallClock()
    before = time.time_ns()
    clock.sleep_until(before + 1_000_000)
    assert clock.now_ns() >= before + 1_000_000
    clock.sleep_until(0)


def test_importing_brings_in_neither_zmq_nor_ray_nor_torch() -> None:
    """Nor pyarrow, which takes longer to import than everything else together."""
    folder = Path(fronthaul.__file__).parent
    modules = sorted(file.stem for file in folder.glob("*.py") if file.stem not in ("__init__", "sockets"))
    script = "; ".join(
        [
            "import importlib, sys",
            f"[importlib.import_module('fronthaul.' + name) for name in {modules}]",
            "print([name for name in ('zmq', 'ray', 'torch', 'pyarrow') if name in sys.modules])",
        ]
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=folder.parent, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"
