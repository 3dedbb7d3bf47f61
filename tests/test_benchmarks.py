"""The benchmarks run and report what they say; their figures are for people."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import cli
from benchmarks import compare, grid, growth, page, processor, report
from benchmarks.diffloc import NO_GPU, require_same
from benchmarks.machine import this_machine
from benchmarks.timing import QUICK, Case, Row, measure, row
from benchmarks.whole import Measured, costs, require_same_fixes
from sim.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
DIGITS = 2e-3
"""Relative error of the ratio of two figures that are written with four digits."""


Quick = tuple[str, dict[str, Any]]


def quick(folder: Path, *parts: str) -> Quick:
    """What a smoke test prints, and what it writes."""
    file = folder / "benchmarks.json"
    command = [sys.executable, "cli.py", "bench", "--quick", "--json", str(file), *parts]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written: dict[str, Any] = json.loads(file.read_text())
    assert list(written["parts"]) == list(parts)
    return done.stdout, written


@pytest.fixture(scope="module")
def without_ray(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    parts = ("packing", "wire", "encode", "transport", "closing", "fusion", "diffloc", "twin")
    return quick(tmp_path_factory.mktemp("without-ray"), *parts)


@pytest.fixture(scope="module")
def with_ray(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return quick(tmp_path_factory.mktemp("with-ray"), "fronthaul", "growth", "start", "whole")[1]


def rows_of(written: dict[str, Any], part: str) -> dict[str, dict[str, Any]]:
    return {each["case"]: each for each in written["parts"][part]}


def test_every_part_but_the_whole_prints_what_it_writes(without_ray: Quick) -> None:
    printed, written = without_ray
    assert written["quick"] and "these figures mean nothing" in printed
    assert written["machine"]["torch_threads"] == 1 and written["machine"]["cores"] >= 1
    for rows in written["parts"].values():
        names = [each["case"] for each in rows]
        assert len(set(names)) == len(names)
        for each in rows:
            assert f" {each['case']} " in printed
            assert 0 < each["least"] <= each["median"] <= each["largest"]
            assert (each["ratio"] is None) == (each["reference"] is None)
            assert each["reference"] is None or each["reference"] in names


def test_closing_accounts_for_every_report_within_its_memory(without_ray: Quick) -> None:
    """Its own process would fail if a report were unaccounted for or the audit found anything."""
    rows = rows_of(without_ray[1], "closing")
    assert rows.keys() == {*(f"{job}, 3000 reports" for job in ("close", "audit", "inspect")), "peak memory"}
    assert rows["peak memory"]["median"] < 1000


def test_the_process_is_held_against_networks_and_radios_alone(tmp_path: Path) -> None:
    _, written = quick(tmp_path, "process")
    rows = {each["case"]: each for each in written["parts"]["process"]}
    for name, base, unit in (
        ("ecc", "networks alone", "fixes/s"),
        ("rss", "radios alone", "reports/s"),
        ("rss, one slot", "radios alone, one slot", "reports/s"),
        ("rss, one slot, 16 BSs", "radios alone, one slot, 16 BSs", "reports/s"),
    ):
        assert rows[name]["reference"] == base and rows[name]["unit"] == rows[base]["unit"] == unit
        assert rows[name]["ratio"] == pytest.approx(rows[name]["median"] / rows[base]["median"], rel=DIGITS)
        assert 0 < rows[name]["ratio"] < 1  # a run holds all that its yardstick does


@pytest.mark.ray
@pytest.mark.slow
def test_the_whole_compares_both_drivers_and_shows_their_stages(with_ray: dict[str, Any]) -> None:
    rows = rows_of(with_ray, "whole")
    process, ray = rows["process, batch 1"], rows["Ray + ZeroMQ, batch 1"]
    assert ray["unit"] == process["unit"] == "fixes/s"
    assert ray["ratio"] == pytest.approx(ray["median"] / process["median"], rel=DIGITS)
    assert {"Ray + ZeroMQ: fronthaul", "Ray + ZeroMQ: fuse", "process: encode"} <= rows.keys()
    latency, rest = (rows[f"Ray, 1 BS, 5 ms links: {what}"] for what in ("latency", "of it no computing, no link"))
    assert rest["median"] + 5.0 < latency["median"] and rest["ratio"] == pytest.approx(
        rest["median"] / latency["median"], rel=DIGITS
    )


@pytest.mark.ray
@pytest.mark.slow
def test_starts_are_held_against_one_process_and_base_stations_share_memory(with_ray: dict[str, Any]) -> None:
    rows = rows_of(with_ray, "start")
    for name in ("6 BSs", "8 BSs, 1 a process", "16 BSs, 2 a process"):
        assert rows[f"{name}: ready"]["reference"] == "one process imports the libraries"
    assert rows["a further BS of a process"]["median"] < 5 < rows["a BS alone in its process"]["median"]


@pytest.mark.ray
@pytest.mark.slow
def test_growth_is_measured_with_its_exponents(with_ray: dict[str, Any]) -> None:
    rows = rows_of(with_ray, "growth")
    for name, unit in growth.FIGURES.items():
        few, more = rows[f"vinloc, 2 BSs: {name}"], rows[f"vinloc, 4 BSs: {name}"]
        assert few["unit"] == more["unit"] == unit and few["median"] > 0 and more["reference"] == few["case"]
        assert 2 ** rows[f"vinloc: {name}, exponent"]["median"] == pytest.approx(more["ratio"], rel=DIGITS)
    assert 100 < rows["vinloc, 4 BSs: peak memory"]["median"] < 2000  # MB


def test_processor_time_is_that_of_all_descendants_and_costs_are_held_against_one_process() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\nimport sys; sys.stdin.read()"
    outer = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    command = [sys.executable, "-c", outer, burn]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()
        ours = processor.family()
        assert child.pid in ours and len(ours) >= 3
        before_s = processor.spent_s([os.getpid()])
        assert 0.25 < processor.spent_s(ours) - before_s < 2.0
        child.stdin.close()
    pair = tuple(Measured(Path(), {}, cost_ms) for cost_ms in (10.0, 11.0))
    assert [(each.case, each.median, each.ratio) for each in costs(1, [pair, pair], [12.5, 12.5])] == [
        ("process, batch 1: CPU", 10.0, None),
        ("process on each core, batch 1: CPU", 12.5, 1.25),
        ("Ray + ZeroMQ, batch 1: CPU", 11.0, 1.1),
    ]


@pytest.mark.ray
@pytest.mark.slow
def test_the_fronthaul_is_held_against_pyzmq_and_ray(with_ray: dict[str, Any]) -> None:
    rows = rows_of(with_ray, "fronthaul")
    for what, unit in (("rate, one by one", "reports/s"), ("rate, 16 aggregated", "reports/s"), ("round", "µs")):
        ours, bare, ray = (rows[f"{what}: {side}"] for side in ("ours, ledger on", "bare pyzmq", "Ray"))
        assert ours["unit"] == bare["unit"] == ray["unit"] == unit
        assert ours["reference"] == bare["case"] and ray["reference"] == ours["case"]
        assert ours["median"] > 0 and bare["ratio"] is None


def test_diffloc_is_timed_in_turn_and_stacked_and_says_where_there_is_no_gpu(
    without_ray: Quick,
) -> None:
    printed, written = without_ray
    rows = rows_of(written, "diffloc")
    for batch in (1, 32):
        for what in ("embed, one BS", "answer of a step, one BS", "cloud, both steps", "one network, two passes",
                     "fix, in turn, 2 threads", "fix, stacked"):  # fmt: skip
            row_ = rows[f"{what}, batch {batch}"]
            assert row_["unit"] == "µs" and row_["reference"] == f"fix, in turn, batch {batch}"
    assert rows["fix, in turn, batch 32"]["reference"] == "fix, in turn, batch 1"
    assert (NO_GPU in printed) != any("GPU" in name for name in rows)
    assert any("GPU" in name for name in rows) == torch.cuda.is_available()


def test_twin_is_timed_beside_ecc(without_ray: Quick) -> None:
    rows = rows_of(without_ray[1], "twin")
    for what in ("report, batch 1", "report, batch 32", "fix, batch 1", "fix, batch 32"):
        for bits in (64, 128):
            row_ = rows[f"twin {bits} bit: {what}"]
            assert row_["unit"] == "µs" and row_["reference"] == f"ecc: {what}"


def test_fixes_in_turn_and_stacked_must_agree() -> None:
    one = np.zeros((2, 2))
    require_same(one, one + 9e-5)
    for other in (one + 2e-4, one + np.nan):
        with pytest.raises(UserError, match="in turn and stacked disagree"):
            require_same(one, other)


def test_fixes_of_both_drivers_must_agree(tmp_path: Path) -> None:
    fixes = pa.table({"snapshot": [0, 1], "x_m": [1.0, 2.0], "y_m": [0.0, 0.0], "z_m": [1.5, 1.5]})
    cases = {
        "one": fixes,
        "near": fixes.set_column(1, "x_m", pa.array([1.0009, 2.0])),
        "far": fixes.set_column(1, "x_m", pa.array([1.0, 2.0011])),
        "short": fixes.slice(1),
    }
    for name, table in cases.items():
        (tmp_path / name).mkdir()
        pq.write_table(table, tmp_path / name / "fixes.parquet")
    require_same_fixes(tmp_path / "one", tmp_path / "near")
    with pytest.raises(UserError, match=r"up to 0\.0011 m apart"):
        require_same_fixes(tmp_path / "one", tmp_path / "far")
    with pytest.raises(UserError, match="2 and 1 snapshots"):
        require_same_fixes(tmp_path / "one", tmp_path / "short")


def test_a_ratio_compares_within_repetitions() -> None:
    summed = row("mine", "µs", [2.0, 30.0, 6.0], "yardstick", [1.0, 10.0, 2.0])
    assert (summed.median, summed.least, summed.largest, summed.ratio) == (6.0, 2.0, 30.0, 3.0)


def test_a_case_is_timed_per_what_it_counts() -> None:
    calls: list[str] = []
    cases = [Case("one", lambda: calls.append("one")), Case("four", lambda: calls.append("four"), 4, "one")]
    one, four = measure(cases, QUICK)
    assert calls[-4:] == ["one", "four", "one", "four"]  # in turn
    assert one.ratio is None and four.reference == "one" and four.ratio is not None


def test_a_part_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "fussion"]) == 2
    assert "fussion" in capsys.readouterr().err


def test_a_ratio_is_worse_only_beyond_the_spread_of_both_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [1.0, 1.0, 1.0]

    def rows(unit: str, values: dict[str, list[float]]) -> list[Row]:
        return [row(case, unit, each, "bare", base[: len(each)]) for case, each in values.items()]

    before = {
        "times": rows(
            "µs", {"same": [2, 2.1, 2.2], "slow": [2, 2.1, 2.2], "noisy": [2, 2.1, 9], "gone": base, "once": [2]}
        ),
        "rates": rows("reports/s", {"slow": [2, 2.1, 2.2], "fast": [2, 2.1, 2.2]}),
    }
    now = {
        "times": rows(
            "µs", {"same": [2.2, 2.25, 2.3], "slow": [3, 3.1, 3.2], "noisy": [4, 4.1, 4.2], "new": base, "once": [9]}
        ),
        "rates": rows("reports/s", {"slow": [1, 1.05, 1.1], "fast": [3, 3.1, 3.2]}),
        "unknown": rows("µs", {"new": base}),
    }
    file = tmp_path / "before.json"
    report.save(file, before, this_machine(), "", quick=False)
    found = compare.changes(now, compare.read(file))
    assert {(part, one.case): one.verdict for part, ones in found.items() for one in ones} == {
        ("times", "same"): "", ("times", "slow"): "worse", ("times", "noisy"): "",
        ("times", "once"): "",
        ("rates", "slow"): "worse", ("rates", "fast"): "better",
    }  # fmt: skip
    assert found["rates"][0].factor == pytest.approx(2.0)  # half the rate, twice the cost
    assert compare.show(now, compare.read(file)) == 2
    assert "2 of 6 ratios are worse" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[]", '{"parts": {"wire": [{"cost": 1}]}}', '{"parts": [1]}'])
def test_what_is_no_earlier_run_is_refused_before_anything_is_timed(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "before.json"
    file.write_text(text)
    assert cli.main(["bench", "wire", "--against", str(file)]) == 2
    assert "is not a file that `bench --json` of this version wrote" in capsys.readouterr().err


def test_the_page_shows_the_stored_run() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert text.count("<!-- bench") == 10
    assert page.filled(text) == text


def test_the_picture_of_growth_shows_every_figure_of_both_schemes() -> None:
    stored = {each.case: each.median for each in compare.read(page.BASELINE)["growth"]}
    panels = page.growth_figure(compare.read(page.BASELINE)).axes
    assert [panel.get_ylabel() for panel in panels] == [f"{name} [{unit}]" for name, unit in growth.FIGURES.items()]
    for panel, name in zip(panels, growth.FIGURES, strict=True):
        for line, scheme in zip(panel.get_lines(), grid.SCHEMES, strict=True):
            points = {f"{scheme}, {int(size)} BSs: {name}": value for size, value in line.get_xydata()}
            assert points.items() <= stored.items() and len(points) == len(growth.SIZES)
            assert line.get_label() == f"{scheme}, exponent {stored[f'{scheme}: {name}, exponent']:.2f}"
