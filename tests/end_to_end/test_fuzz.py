"""Forty seconds of fuzzing, and the inputs that earlier fuzzing kept; see docs/fuzzing.md for longer runs."""

import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from cloud.collector import Collector
from tests.fuzz import collector, decoder
from tests.fuzz.__main__ import SEEDS
from tests.fuzz.model import REASONS

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {"decoder": decoder, "collector": collector}
SECONDS = {"decoder": 10, "collector": 10}
EVERY_OUTCOME = {
    "decoder": {
        *(f"rejected: {reason}" for reason in decoder.REASONS),
        *(f"accepted: {kind}" for kind in ("frame", "bundle", "registration", "welcome", "goodbye", "abort")),
        *("accepted: ping", "accepted: pong"),
    },
    "collector": {
        *(f"rejected: {rule}" for rule in REASONS),
        *("delivered", "duplicate", "late reports", "gatherings", "failed rounds", "registered", "refused"),
    },
}


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs_hold_and_reach_every_outcome(name: str) -> None:
    """Without atheris: nothing fails, and no reason to reject is left out."""
    tally: Counter[str] = Counter()
    inputs = sorted((SEEDS / name).iterdir())
    for path in inputs:
        TARGETS[name].check(path.read_bytes(), tally)
    assert {what for what, count in tally.items() if count} == EVERY_OUTCOME[name]
    assert sum(path.stat().st_size for path in inputs) < 50_000


@pytest.mark.slow
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no wheel for this Python")
@pytest.mark.parametrize("name", TARGETS)
def test_fuzzing_finds_nothing(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(SECONDS[name])]
    command += ["--findings", str(tmp_path / "findings")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{name}: nothing found" in done.stdout


@pytest.mark.parametrize("name", TARGETS)
def test_a_broken_rule_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kept inputs are enough to notice a decoder that takes too much, or a collector that hands out twice."""
    if name == "decoder":
        monkeypatch.setattr(decoder, "encode", lambda message: b"")
    else:
        monkeypatch.setattr(Collector, "take_ready", lambda self: list(self._ready))
    with pytest.raises(AssertionError):
        test_kept_inputs_hold_and_reach_every_outcome(name)
