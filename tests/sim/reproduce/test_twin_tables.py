"""Pages of `twin-bits` and `twin-ecc`: where their figures stand, and which runs they are of."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sim.records.statistics import error_statistics
from sim.reproduce.twin_bits import (
    BY_ECC,
    BY_LENGTH,
    BY_MIXING,
    HEAD,
    LENGTHS,
    MIXED,
    TwinBench,
    mixed,
    twin_page,
    twin_rows,
)
from sim.reproduce.twin_ecc import SCHEMES, WORLDS, cells, fallback_page, runs

ERROR = error_statistics(np.full(40, 0.25), 0)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenario files are written below the working directory."""
    monkeypatch.chdir(tmp_path)


def test_a_row_has_its_marks_and_its_bound() -> None:
    found = {"error_3d_m": ERROR, "above_1_m": 0.05, "above_1_m_unmarked": 1, "uncertain": 8, "bound_m": 0.125,
             "coverage_90": 0.9, "fixes": 40, "undetermined": 10, "payload_bits_per_fix": 744.0}  # fmt: skip
    ecc = {name: value for name, value in found.items() if name not in ("bound_m", "uncertain", "above_1_m_unmarked")}
    mixed_up = {"error_3d_m": None, "fixes": 2, "undetermined": 48}
    records = [
        {"label": "128 bit", "section": BY_LENGTH, "result": found},
        {"label": "ECC, B = 2", "section": BY_ECC, "result": ecc | {"coverage_90": None}},
        {"label": MIXED, "section": BY_MIXING, "result": mixed_up},
    ]
    for record in records:
        record |= {"commit": "0", "date": "2026-01-01", "cores": 2}
    page = twin_page("twin-bits", records)
    same = "744 | 40 of 50 | 0.250 (0.250–0.250) | 0.250 | 0.250"
    assert f"| 128 bit | {same} | 90 % | 5.0 % | 20.0 % | 1 | 0.125 |" in page
    assert f"| ECC, B = 2 | {same} |  | 5.0 % |  |  |  |" in page
    assert f"| {MIXED} |  | 2 of 50 |{'  |' * (len(HEAD) - 3)}" in page


def test_each_length_is_a_row_and_the_bound_falls_with_bits() -> None:
    bench = TwinBench()
    assert [row.label for row in twin_rows(bench) if row.section == BY_LENGTH] == [f"{bits} bit" for bits in LENGTHS]
    for name in ("24 bit", "64 bit", "256 bit"):
        bench.settings[name] = replace(bench.settings[name], snapshots=15)
    bounds = [bench.bound_m(name) for name in ("24 bit", "64 bit", "256 bit")]
    assert 1 > bounds[0] > bounds[1] > bounds[2] > 0.003


def test_reports_of_different_users_are_announced() -> None:
    bench = TwinBench()
    bench.settings[MIXED] = replace(bench.settings[MIXED], snapshots=24)
    found = mixed(bench, [MIXED])
    assert found["fixes"] + found["undetermined"] == 24
    assert found["fixes"] <= 1


def test_both_schemes_are_in_the_same_worlds() -> None:
    found = {cell.label: runs(cell) for cell in cells()}
    assert len(found) == 2 * (1 + len(WORLDS))
    for words in WORLDS:
        one, other = (found[f"{words}: {scheme}"] for scheme in SCHEMES)
        for mine, its in zip(one.values(), other.values(), strict=True):
            assert (mine.scenario, mine.seed, mine.snapshots) == (its.scenario, its.seed, its.snapshots)
            assert (mine.scheme, its.scheme) == SCHEMES and mine.scenario != "paris-6"


def test_a_line_of_the_fallback_has_what_was_learned() -> None:
    result = {"error_3d_m": ERROR, "worst_m": 3.0, "fixes": 45, "snapshots": 50, "learned": 5, "combined": 2,
              "learned_m": 0.5, "bits_per_report": 130.4}  # fmt: skip
    records = [
        {
            "label": f"a world: {scheme}",
            "section": "",
            "result": result,
            "commit": "0",
            "date": "2026-01-01",
            "cores": 2,
        }
        for scheme in SCHEMES
    ]
    records[0]["result"] = result | {"learned": 0, "learned_m": None}
    page = fallback_page("twin-ecc", records)
    assert "| a world | `twin` | 130 | 45 of 50 |  | 0.250 (0.250–0.250) | 0.250 | 3.00 |  |" in page
    assert "| a world | `twin-ecc` | 130 | 45 of 50 | 5 / 2 | 0.250 (0.250–0.250) | 0.250 | 3.00 | 0.50 |" in page
