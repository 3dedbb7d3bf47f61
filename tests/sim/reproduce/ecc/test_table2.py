"""`reproduce ecc-table2`: every row an emulation of its own, kept as long as nothing is there to doubt it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_world

from sim.plan.settings import EmulateSettings
from sim.records.statistics import error_statistics
from sim.reproduce import emulations
from sim.reproduce.ecc import table2
from sim.reproduce.rows import rounded
from sim.reproduce.tables import reproduce

BLOCK, SEED = "block split", "B = 4, seed 1"
LABELS = ("B = 5", table2.B4, "B = 2", BLOCK, SEED)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, EmulateSettings]:
    """One row that can be run; weights of other bits, none, and a test set that is missing."""
    monkeypatch.setattr("sim.world.store.ASSET_FOLDER", tmp_path / "assets")
    monkeypatch.setattr(table2, "DIRECT", tmp_path / "direct.npz")
    there = dataclasses.replace(tiny_world.write(tmp_path), bits=4, capture=False, controls=True)
    made = {
        "B = 5": dataclasses.replace(there, bits=5),
        table2.B4: there,
        "B = 2": dataclasses.replace(there, bits=2, weights=tmp_path / "none.safetensors"),
        BLOCK: dataclasses.replace(there, test=tmp_path / "none.npz"),
        SEED: dataclasses.replace(there, shuffle_csi=True),
    }
    assert tuple(made) == LABELS
    return made


def records(output: Path) -> dict[str, Any]:
    return {one["label"]: one for one in json.loads((output / "ecc-table2.json").read_text())}


def test_rows_are_measured_once_and_say_what_is_missing(
    settings: dict[str, EmulateSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "tables"
    text = reproduce("ecc-table2", output, bench=table2.EccBench(settings)).read_text()
    found = records(output)
    assert {label for label in found if found[label]["result"]} == {table2.B4, SEED}
    result = found[table2.B4]["result"]
    assert result["snapshots"] == 20 and result["payload_bits_per_report"] == 8 * 4 * 4
    assert sum(one["samples"] for one in result["by_distance"]) == 20
    weighted = sum(one["samples"] * one["mean"] for one in result["by_distance"]) / 20
    assert weighted == pytest.approx(result["error_3d_m"]["mean"])
    low, high = result["error_3d_m"]["ci95_of_mean"]
    size, mean = f"128 | {100 * result['payload_ratio']:.2f} %", f"{result['error_3d_m']['mean']:.3f}"
    assert f"| B = 4 | {size} | 0.52 / 0.90 | {mean} ({low:.3f}–{high:.3f}) |" in text
    assert text.count("not trained") == 3
    assert f"| prior: mean training position |  |  |  | {result['controls']['prior']['mean']:.3f} (" in text
    assert table2.REGRESSION not in text and "- B = 4: from " in text
    errors = np.arange(1.0, 11.0)
    np.savez(tmp_path / "direct.npz", errors_3d_m=errors)

    def not_again(_: EmulateSettings, **__: object) -> None:
        raise AssertionError("run again")

    monkeypatch.setattr(emulations, "emulate", not_again)
    later = reproduce("ecc-table2", output, bench=table2.EccBench(settings)).read_text()
    assert records(output)[table2.B4] == found[table2.B4]
    assert records(output)[table2.REGRESSION]["result"] == {"error_3d_m": rounded(error_statistics(errors, 1))}
    assert "| direct regression |  |  |  | 5.500 (" in later


def test_without_its_weights_a_row_keeps_its_result(
    settings: dict[str, EmulateSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "tables"
    text = reproduce("ecc-table2", output, bench=table2.EccBench(settings)).read_text()
    found = records(output)
    (tmp_path / "tiny.safetensors").unlink()
    assert reproduce("ecc-table2", output, bench=table2.EccBench(settings)).read_text() == text
    assert records(output) == found


def test_the_papers_rows_are_those_of_its_table() -> None:
    rows = {row.label: row for row in table2.table2_rows(table2.EccBench())}
    assert len(rows) == 10 and [label for label, row in rows.items() if row.paper] == list(rows)[:5]
    assert rows["lossless CSI, no encoder"].paper == {"mean": 0.42, "p90": 0.75}
    assert rows["B = 2"].paper == {"mean": 0.56, "p90": 0.97}
    assert [row.section for row in rows.values()] == [""] * 9 + [table2.CONTROLS]
