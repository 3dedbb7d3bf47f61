"""Signals that end a command: each raises `KeyboardInterrupt` once, and leaves what was there before."""

import signal
from collections.abc import Iterator

import pytest

from sim.signals import STOPPING, like_ctrl_c


@pytest.fixture(autouse=True)
def as_in_the_foreground() -> Iterator[None]:
    """Have SIGINT act, which a shell's background job ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_once(number: signal.Signals, capfd: pytest.CaptureFixture[str]) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, *STOPPING)}
    with pytest.raises(KeyboardInterrupt), like_ctrl_c():
        try:
            signal.raise_signal(number)
        finally:  # what closes is not disturbed
            for another in before:
                signal.raise_signal(another)
    assert capfd.readouterr().err.split("\n") == ["", "Stopping already: what is open is being closed.", ""]
    assert before == {each: signal.getsignal(each) for each in before}


def test_what_a_background_job_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with like_ctrl_c():
            signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
