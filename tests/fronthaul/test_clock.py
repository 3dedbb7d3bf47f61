"""Real time: the wall clock when a process starts, the monotonic clock from then on."""

import time
from dataclasses import replace

import pytest

from fronthaul import clock
from fronthaul.clock import WallClock, adopt, origin, read_origin, real_ns


@pytest.fixture(autouse=True)
def own_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_origin", read_origin())


@pytest.mark.parametrize("step_s", [3, -60])
def test_setting_the_wall_clock_neither_moves_nor_delays_anything(monkeypatch: pytest.MonkeyPatch, step_s: int) -> None:
    before_ns, wall_ns = real_ns(), time.time_ns
    assert abs(before_ns - wall_ns()) < 10_000_000
    monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + step_s * 10**9)
    begin_s = time.monotonic()
    WallClock().sleep_until(before_ns + 50_000_000)
    took_ns = WallClock().now_ns() - before_ns
    assert took_ns >= 50_000_000
    assert took_ns < (time.monotonic() - begin_s) * 1e9 + 50_000_000
    assert abs(read_origin().t_ns - origin().t_ns - step_s * 10**9) < 10_000_000  # and is seen


def test_a_process_tells_the_time_of_the_driver_on_its_host_alone() -> None:
    own = origin()
    adopt(replace(own, host="another", t_ns=0))
    assert origin() == own
    adopt(replace(own, t_ns=own.t_ns - 3 * 10**9))
    assert abs(time.time_ns() - real_ns() - 3 * 10**9) < 10_000_000
