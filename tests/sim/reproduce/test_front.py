"""The front: points of other tables with all their bits, points of its own, one page and one picture."""

import json
from pathlib import Path

import pytest

from sim.errors import UserError
from sim.reproduce.front import CONTROLS, FrontBench, cells, emulated, front_draw, front_page, front_rows
from sim.reproduce.rows import measure_rows

ERROR = {"mean": 0.5, "median": 0.4, "p90": 1.0, "ci95_of_mean": [0.45, 0.55]}


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    def row(label: str, **result: object) -> dict[str, object]:
        return {"label": label, "result": {"error_3d_m": ERROR, **result}}

    controls = {"prior": ERROR | {"mean": 60.0}, "bound": ERROR | {"mean": 0.02}}
    first = [
        row("rss, B = 8", payload_bits_per_report=8),
        row("B = 4", payload_bits_per_report=3072, controls=controls),
        row("lossless CSI, no encoder", payload_bits_per_report=61440),
        {"label": "B = 3", "result": None},
    ]
    (tmp_path / "ecc-table2.json").write_text(json.dumps(first))
    (tmp_path / "twin-bits.json").write_text(json.dumps([row("64 bit", payload_bits_per_fix=372.0)]))
    return tmp_path


def test_points_of_other_tables_count_side_information(tables: Path) -> None:
    bench = FrontBench(tables)
    expected = {"rss, B = 8": 16, "B = 4": 3104, "lossless": 61472, "twin, 64 bit": 62.0}
    assert {name: bench.read(name)["bits"] for name in expected} == expected
    assert bench.read("position error bound") == {"error_3d_m": ERROR | {"mean": 0.02}, "bits": None}
    assert bench.identity("B = 3", fitted=True) is bench.identity("twin, 16 bit", fitted=True) is None
    with pytest.raises(UserError, match=r"python cli\.py reproduce twin-bits"):
        bench.read("twin, 16 bit")
    before = bench.identity("twin, 64 bit", fitted=True)
    (tables / "twin-bits.json").write_text((tables / "twin-bits.json").read_text().replace("0.4", "0.3"))
    assert before != bench.identity("twin, 64 bit", fitted=True) is not None


def test_a_page_and_a_picture_of_what_there_is(tables: Path) -> None:
    bench = FrontBench(tables)
    rows = [row for row in front_rows(bench) if row.measure is not emulated]
    assert len({row.label for row in front_rows(bench)}) == len(front_rows(bench))
    records = measure_rows(bench, rows, tables / "front.json")
    front_draw(tables / "front.png", records)
    assert (tables / "front.png").stat().st_size > 10_000
    page = front_page("front", records)
    assert "| B = 4 | 3 104 | 0.500 (0.450–0.550) | 0.400 | 1.000 |" in page
    assert "| B = 3 |  | not trained |  |  |" in page
    assert cells({"label": "a", "section": CONTROLS, "result": {"error_3d_m": ERROR, "bits": None}})[1] == ""
