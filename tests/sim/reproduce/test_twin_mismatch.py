"""The table of mismatches: which worlds its rows run in, and where its page puts their figures."""

import re
from pathlib import Path

import numpy as np
import pytest

from sim.records.statistics import error_statistics
from sim.reproduce.twin_mismatch import ALLOWED, ECC, EXACT, KINDS, MORE_SEEDS, SEEDS, UNKNOWN, cells, mismatch_page
from sim.world.scenario import ClockErrors, load_scenario


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenario files are written below the working directory."""
    monkeypatch.chdir(tmp_path)


def test_each_row_is_in_a_world_with_one_error_and_ecc_is_in_the_same() -> None:
    worlds = {}
    for cell in cells():
        runs = cell.runs()
        few_numbers = cell.kind != ECC and cell.words.startswith(("sites", "clocks of base"))
        assert cell.seeds == (MORE_SEEDS if few_numbers else SEEDS)
        for seed, settings in zip(cell.seeds, runs.values(), strict=True):
            scenario = load_scenario(settings.scenario)
            assert settings.seed == seed
            assert scenario.data_name == "paris-6"
            errors = scenario.mismatch.words()
            errors += ["clock"] * (scenario.clock != ClockErrors())
            assert len(errors) == (cell.words != EXACT)
            assert not scenario.mismatch.words() or scenario.mismatch.seed == seed
            assert worlds.setdefault((cell.words, seed), scenario) == scenario
            if cell.kind == ECC:
                assert settings.scheme == "ecc" and settings.weights is None
    assert len(worlds) == len(SEEDS) + sum(len(kind.levels) * len(kind.seeds) for kind in KINDS)


def test_what_is_allowed_for_is_as_large_as_the_error() -> None:
    """`site_mm = 50` for 5 cm, `bs_ps = 300` for 0.3 ns, and so on: the label has the size in plain units."""
    per = {"cm": 10, "ns": {"bs_ps": 1000, "clock_ns": 1}}
    found = [cell for cell in cells() if cell.kind == ALLOWED]
    assert len(found) == 15
    for cell in found:
        [(name, value)] = [pair for pair in cell.scheme.options if pair[0] != "bits_per_report"]
        size, unit = re.search(r"([\d.]+) (cm|ns)", cell.words).groups()  # type: ignore[union-attr]
        factor = per[unit] if unit == "cm" else per[unit][name]  # type: ignore[index]
        assert value == pytest.approx(float(size) * factor)


def result(mean: float, undetermined: int) -> dict[str, object]:
    errors = error_statistics(np.full(40, mean), 0)
    return {"error_3d_m": errors, "coverage_90": 0.5, "fixes": 40, "undetermined": undetermined}


def test_a_line_of_the_page_has_what_is_unknown_what_is_allowed_for_and_ecc() -> None:
    figures = {UNKNOWN: result(0.111, 10), ALLOWED: result(0.222, 0), ECC: result(0.333, 0)}
    records = [
        {"label": cell.label, "section": "", "result": figures[cell.kind] if cell.words == EXACT else None}
        for cell in cells()
    ]
    nothing_known = {"label": "all lost: unknown", "section": "",
                     "result": {"error_3d_m": None, "coverage_90": None, "fixes": 0, "undetermined": 40}}  # fmt: skip
    page = mismatch_page("twin-mismatch", [*records, nothing_known])
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + 1 + sum(len(kind.levels) for kind in KINDS) + 1
    [exact] = [line for line in lines if line.startswith(f"| {EXACT}")]
    assert [cell.strip() for cell in exact.split("|")][2:-1] == [
        "0.111 (0.111–0.111)", "0.111", "50 %", "20.0 %", "", "", "", "", "0.33 (0.33–0.33)"
    ]  # fmt: skip
    assert "| all lost |  |  |  | 100.0 % |" in page
    unmeasured = [cell.label for cell in cells() if cell.words != EXACT]
    assert [line[2:] for line in page.splitlines() if line.startswith("- ")] == unmeasured
