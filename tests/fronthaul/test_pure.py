"""Fates, draws, clocks and imports."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fronthaul
from fronthaul.clock import Clock, SimulatedClock, WallClock
from fronthaul.draws import generator
from fronthaul.message.fates import FrameFate, ReportFate


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
def test_draws_depend_on_the_key_alone(one: tuple[int, str, list[int]], other: tuple[int, str, list[int]]) -> None:
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


def test_wall_clock_is_unix_time() -> None:
    clock: Clock = WallClock()
    before = time.time_ns()
    clock.sleep_until(before + 1_000_000)
    assert clock.now_ns() >= before + 1_000_000
    clock.sleep_until(0)


def test_importing_brings_in_neither_zmq_nor_ray_nor_torch() -> None:
    """Nor pyarrow, which takes longer to import than everything else together."""
    folder = Path(fronthaul.__file__).parent
    zmq_users = ("sockets", "connect")
    modules = sorted(file.stem for file in folder.glob("*.py") if file.stem not in ("__init__", *zmq_users))
    script = "; ".join(
        [
            "import importlib, sys",
            f"[importlib.import_module('fronthaul.' + name) for name in {modules}]",
            "print([name for name in ('zmq', 'ray', 'torch', 'pyarrow') if name in sys.modules])",
        ]
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=folder.parent, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
