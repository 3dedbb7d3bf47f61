"""``diffloc-bits``: every point an emulation of its own, its figures those of the run, and nothing is run twice."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import tiny_scores

from sim.emulate.emulator import emulate
from sim.plan.outcome import RunResult
from sim.plan.settings import EmulateSettings
from sim.reproduce import emulations
from sim.reproduce.diffloc import bits
from sim.reproduce.tables import reproduce
from sim.world import store
from sim.world.scenario import load_scenario


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bits.Study:
    """Three snapshots, two delays, and neither diffusion nor ECC weights."""
    monkeypatch.setattr(store, "ASSET_FOLDER", tmp_path / "assets")
    monkeypatch.setattr(bits, "EDGE_BITS", (3, 8, None))
    monkeypatch.setattr(bits, "CENTRAL_BITS", (4,))
    monkeypatch.setattr(bits, "ONE_SHOT_BITS", (5,))
    monkeypatch.setattr(bits, "CT_STEPS", (2, 10))
    base = dataclasses.replace(tiny_scores.write(tmp_path), snapshots=3)
    missing = tmp_path / "ecc-b4.safetensors"
    return bits.Study(base, tmp_path / "unet.safetensors", base.scenario, {4: missing}, (0, 5, 50))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[EmulateSettings]:
    """What is run."""
    found: list[EmulateSettings] = []

    def noted(settings: EmulateSettings, **how: Any) -> RunResult:
        found.append(settings)
        return emulate(settings, **how)

    monkeypatch.setattr(emulations, "emulate", noted)
    return found


def by_name(output: Path) -> dict[str, Any]:
    records = json.loads((output / "diffloc-bits.json").read_text())
    assert len({one["label"] for one in records}) == len(records)
    return {one["label"]: one["result"] for one in records} | {"raw": records[0]["about"]["study"]["raw_bits"]}


def test_points_are_measured_once_and_say_what_is_missing(
    study: bits.Study, ran: list[EmulateSettings], tmp_path: Path
) -> None:
    output = tmp_path / "tables"
    page = reproduce(bits.NAME, output, bench=bits.BitsBench(study))
    text = page.read_text()
    found = by_name(output)
    assert found["raw"] == 3 * 2 * 4 * 8 * 32  # base stations, magnitude and phase, antennas, tones, float32
    for resolution in (3, 8, 16):
        size = found[f"(a) edge, CT, 2 steps, B = {resolution}"]["per_snapshot"]
        assert size["payload_up_bits"] == size["payload_down_bits"] == 3 * 2 * 2 * resolution  # K R D B
        assert size["header_bits"] > size["payload_up_bits"] and size["side_bits"] == 3 * 8  # who hears the user
        whole = size["payload_up_bits"] + size["payload_down_bits"] + size["side_bits"] + size["header_bits"]
        assert 8 * size["stream_bytes"] == whole < 8 * size["ethernet_bytes"]
    assert found["(b) central, CT, B = 4"]["per_snapshot"]["payload_up_bits"] == 3 * 64 * 4  # K E B
    assert found["(c) one-shot, CT, B = 5"]["per_snapshot"]["payload_up_bits"] == 3 * 18 * 5  # 3 K (1 + D + S) B
    assert found["(a) edge, CT, 2 steps, 0 ms"] == found["(a) edge, CT, 2 steps, B = 8"]
    for missing in ("ECC, B = 4", "(a) edge, UNet, 20 steps, B = 8", "(c) one-shot, UNet, B = 8", "ECC, 5 ms"):
        assert found[missing] is None
    assert text.count("not trained") == 4 + 2 * 3 * 3 and (output / "diffloc-bits.png").stat().st_size > 10_000
    count = len(ran)
    assert count == 5 + 11  # of twelve with a delay one is there: 2 steps without delay
    reproduce(bits.NAME, output, bench=bits.BitsBench(study))
    assert len(ran) == count and page.read_text() == text


def test_what_does_not_fit_into_the_deadline_is_cut_and_latency_is_delay_alone(
    study: bits.Study, tmp_path: Path
) -> None:
    reproduce(bits.NAME, tmp_path / "tables", bench=bits.BitsBench(study))
    found = by_name(tmp_path / "tables")
    for line, rounds in (("(a) edge, CT, 2 steps", 2), ("(b) central, CT", 0), ("(c) one-shot, CT", 0)):
        result = found[f"{line}, 5 ms"]
        assert result["fixes"] == 3 and result["cut"] == 0
        assert result["latency_ms"]["p50"] == pytest.approx(5 + 2 * 5 * rounds, abs=1e-3)
    cut = found["(a) edge, CT, 10 steps, 5 ms"]  # 5 + 2 · 5 · 10 ms would be too much
    assert (cut["fixes"], cut["cut"], cut["steps_p50"]) == (3, 3, 9.0)
    assert cut["latency_ms"]["p50"] == pytest.approx(bits.DEADLINE_MS, abs=1e-3)
    none = found["(a) edge, CT, 2 steps, 50 ms"]
    assert (none["fixes"], none["error_2d_m"], none["latency_ms"]) == (0, None, None)
    assert "no fix" in (tmp_path / "tables" / "diffloc-bits.md").read_text()


def test_raw_fingerprints_of_the_paper() -> None:
    assert bits.raw_bits(load_scenario("paris-7"), 7) == 7 * 38_400 * 32
