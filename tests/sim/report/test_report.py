"""The report: its numbers are the run's, and in a browser it shows them in any width, light or dark, without a word."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import chi2

import cli
from fronthaul.link.link_file import LinkPlan, with_options
from sim.emulate.chaos import Aftermath, Fault
from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.inspect.audit import audit
from sim.plan.outcome import Restart
from sim.plan.settings import EmulateSettings
from sim.report import run_data as module
from sim.report.page import page, write_report
from sim.report.run_data import run_data

HOSTILE = "</script><img src=x onerror=alert(1)>"


def test_a_run_ends_with_its_report(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    assert text == page([run_data(run)]) and "{{" not in text.split('<script id="data"')[0]
    assert audit(run).ok  # the manifest knows it
    assert not re.search(r"https?://", re.sub(r'"http://www\.w3\.org/2000/svg"', "", text))


def test_its_numbers_are_the_tables(run: Path) -> None:
    data = run_data(run)
    fixes, shots, links = pq.read_table(run / "fixes.parquet"), data["snapshots"], data["links"]
    made = [n for n, error in enumerate(shots["error"]) if error is not None]
    assert made == fixes["snapshot"].to_pylist() and 0 < len(made) < 48
    assert np.allclose([shots["error"][n] for n in made], fixes["error_3d_m"].to_numpy(), atol=1e-4)
    assert np.allclose([shots["true_x"][n] for n in made], fixes["true_x_m"].to_numpy(), atol=1e-3)
    truth = pq.read_table(run / "positions.parquet").to_pylist()
    for n in set(range(48)) - set(made):  # a position is known without a fix, too
        assert links["true_y"][n] == pytest.approx(truth[3 * (n % 16)]["true_y_m"], abs=1e-3)
    for n in (0, 17, 47):
        for bs in range(3):
            row, at = truth[3 * (n % 16) + bs], 3 * links["row"][n] + bs
            assert links["world"]["snr_db"][at] == pytest.approx(row["snr_db"], abs=0.06)
            assert links["world"]["line_of_sight"][at] == row["line_of_sight"]
    summary = json.loads((run / "summary.json").read_text())
    fates = {fate: links["fate"].count(n) for n, fate in enumerate(("used", "unused", "late", "lost"))}
    assert fates == summary["reports"] and fates["late"] and fates["lost"]
    assert {name: sum(counts) for name, counts in data["timeline"]["reports"].items()} == fates
    assert sum(data["timeline"]["fixes"]) == summary["fixes"]
    used = [n for n, fate in enumerate(links["fate"]) if fate == 0]
    assert all(0 < links["arrival"][n] < 4.5 for n in used)
    assert data["repeat"]["configuration"] == summary["configuration_digest"]


def test_the_command_repeats_the_run(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = run_data(run)["repeat"]["command"].split()
    assert words[:3] == ["python", "cli.py", "emulate"]
    assert cli.main([*words[2:], "--output", str(tmp_path), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    summary = json.loads((run / "summary.json").read_text())
    assert (again["error_3d_m"], again["reports"]) == (summary["error_3d_m"], summary["reports"])


def test_long_runs_are_shown_by_evenly_spaced_snapshots(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LINKS", 40)
    data = run_data(run)
    assert data["every"] == 4 and data["snapshots"]["snapshot"] == list(range(0, 48, 4))
    assert len(data["links"]["fate"]) == 36 and sum(data["timeline"]["fixes"]) == data["summary"]["fixes"]


def test_what_cannot_be_reported_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is given twice"):
        write_report([run, run], tmp_path / "report.html")
    with pytest.raises(UserError, match="is not a run's folder"):
        write_report([tmp_path], tmp_path / "report.html")
    with pytest.raises(UserError, match="in a folder that is there"):
        write_report([run], tmp_path / "nowhere" / "report.html")


def test_faults_are_on_the_timeline(run: Path, tab: browser.Page, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    summary = json.loads((folder / "summary.json").read_text())
    t0_ns = summary["t0_ns"]
    fault = Fault(0.05, "kill", 1, 0.0)
    aftermath = dataclasses.asdict(Aftermath(fault, t0_ns + 50_000_000, 0.01, 1.0, None))
    (folder / "chaos.json").write_text(json.dumps({"faults": [aftermath]}))
    restart = dataclasses.asdict(Restart("BS 1", t0_ns + 60_000_000, t0_ns + 160_000_000))
    (folder / "summary.json").write_text(json.dumps(summary | {"restarts": [restart]}))
    assert [(event["s"], event["kind"], event["who"]) for event in run_data(folder)["events"]] == [
        (0.05, "fault: kill", "BS 1"),
        (0.06, "died", "BS 1"),
    ]
    path = tmp_path / "report.html"
    write_report([folder], path)
    tab.open(path, 1280, "light")
    assert count(tab, "#timeline title") == 2 and "back after 0.10 s" in tab.evaluate("document.body.textContent")


def count(tab: browser.Page, selector: str) -> int:
    return int(tab.evaluate(f"document.querySelectorAll({selector!r}).length"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_opens_in_any_width_and_light(run: Path, tab: browser.Page, width: int, scheme: str) -> None:
    tab.open(run / "report.html", width, scheme)
    assert tab.complaints == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert count(tab, "#map circle") == 48 and count(tab, "#cdf path") == 2  # its own and the prior
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    ink = tab.evaluate("getComputedStyle(document.body).color")
    assert contrast(background, ink) > 7
    for colour in ("--muted", "--late", "--lost", "--used", "--accent"):
        value = tab.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue({colour!r})")
        assert contrast(background, value) > 3, colour


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, from 1 to 21 (WCAG 2.2)."""

    def luminance(colour: str) -> float:
        parts = re.findall(r"\d+", colour) if colour.startswith("rgb") else re.findall(r"[0-9a-f]{2}", colour)
        values = [int(part, 10 if colour.startswith("rgb") else 16) / 255 for part in parts[:3]]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_map_and_distribution_choose_the_same_positions(run: Path, tab: browser.Page) -> None:
    fixes = pq.read_table(run / "fixes.parquet").to_pylist()
    tab.open(run / "report.html", 1280, "light")
    tab.drag("#cdf", (0.1, 0.5), (0.99, 0.5))
    assert tab.evaluate("document.querySelector('#chosen h3').textContent") == f"{len(fixes)} chosen"
    rows = tab.evaluate("[...document.querySelectorAll('#chosen tbody tr')].map((row) => row.cells[0].textContent)")
    by_error = sorted(fixes, key=lambda fix: -fix["error_3d_m"])
    assert rows == [str(fix["snapshot"]) for fix in by_error]
    tab.drag("#map", (0.01, 0.01), (0.99, 0.99))
    assert tab.evaluate("document.querySelector('#chosen h3').textContent") == "48 chosen"
    tab.evaluate(f"document.querySelector('#chosen tr[data-at=\"{by_error[0]['snapshot']}\"]').click()")
    links = tab.evaluate("[...document.querySelectorAll('#chosen table')].at(-1).innerText")
    assert links.count("yes") == 3 and links.count("used") == len(by_error[0]["used_bs"])
    assert count(tab, "#waterfall circle") == 4  # the stages that are measured in process
    tab.evaluate("document.getElementById('zoom-chosen').click()")
    assert tab.complaints == []


def test_ellipses_are_the_90_percent_regions(run: Path, tab: browser.Page) -> None:
    covariance = np.array([[4.0, 1.5], [1.5, 2.0]])  # [m²]
    tab.open(run / "report.html", 1280, "light")
    columns = [[float(covariance[at])] for at in ((0, 0), (0, 1), (1, 1))]
    drawn = tab.evaluate(f"ellipse({{snapshots: {{covariance: {columns}}}}}, 0, [7, 8], 10, '')")
    rx, ry, x, y, turn = map(float, re.findall(r"-?[\d.]+", drawn))
    variance, axes = np.linalg.eigh(covariance)
    assert (x, y) == (7, 8)
    assert (rx, ry) == pytest.approx(10 * np.sqrt(chi2.ppf(0.9, 2) * variance[::-1]), abs=0.06)
    along = np.array([np.cos(np.radians(turn)), -np.sin(np.radians(turn))])  # a screen's y points down
    assert abs(along @ axes[:, 1]) == pytest.approx(1, abs=1e-5)


def test_the_table_of_causes_adds_up(run: Path, tab: browser.Page) -> None:
    fixes = pq.read_table(run / "fixes.parquet").to_pylist()
    tab.open(run / "report.html", 1280, "light")
    cells = tab.evaluate(
        "[...document.querySelectorAll('#causes table')].find((it) => it.innerText.includes('reports used')).innerText"
    )
    found = {row[0]: row[1:] for row in (line.split("\t") for line in cells.splitlines()[1:])}
    for used in (2, 3):
        mine = [fix["error_3d_m"] for fix in fixes if len(fix["used_bs"]) == used]
        assert int(found[str(used)][0]) == len(mine)
        assert float(found[str(used)][2]) == pytest.approx(np.mean(mine), abs=0.06)


def test_runs_are_compared(run: Path, world: EmulateSettings, tab: browser.Page, tmp_path: Path) -> None:
    other = emulate(dataclasses.replace(world, bits=2, links=LinkPlan(), controls=False, report=False)).folder
    assert not (other / "report.html").exists()
    path = tmp_path / "both.html"
    assert cli.main(["report", str(run), str(other), "--output", str(path)]) == 0
    tab.open(path, 390, "dark")
    rows = tab.evaluate("[...document.querySelectorAll('#compared tbody tr')].map((row) => row.innerText)")
    for row, folder in zip(rows, (run, other), strict=True):
        error = json.loads((folder / "summary.json").read_text())["error_3d_m"]
        cells = row.split("\t")
        assert folder.name in cells[0] and float(cells[4]) == pytest.approx(error["mean"], abs=0.06)
        assert [float(end) for end in cells[5].split(" … ")] == pytest.approx(error["ci95_of_mean"], abs=0.06)
    assert count(tab, "#cdf path") == 3  # both runs, and the first one's prior
    tab.evaluate("document.querySelector('#runs [data-run=\"1\"]').click()")
    assert count(tab, "#cdf path") == 2 and tab.evaluate("document.getElementById('subtitle').innerText").startswith(
        other.name
    )
    assert tab.complaints == [] and tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_texts_cannot_run_and_tables_may_be_missing(run: Path, tab: browser.Page, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "<i>own"))
    for name in ("positions.parquet", "controls.parquet"):  # as in runs of earlier versions
        (folder / name).unlink()
    summary = json.loads((folder / "summary.json").read_text()) | {"notes": [HOSTILE]}
    (folder / "summary.json").write_text(json.dumps(summary))
    record = folder / "run.toml"
    record.write_text(record.read_text().replace('name = "north-east"', f'name = "{HOSTILE}"'))
    assert HOSTILE in record.read_text()
    path = tmp_path / "report.html"
    write_report([folder], path)
    tab.open(path, 1280, "light")
    assert tab.complaints == [] and count(tab, "img") == 0
    assert tab.evaluate("document.getElementById('notes').innerText") == HOSTILE
    assert tab.evaluate("document.querySelector('h1').innerText") == "<i>own"
    assert HOSTILE in tab.evaluate("document.getElementById('map').textContent")
    assert count(tab, "#map circle") == summary["fixes"]


def test_a_closed_loop_has_a_report(world: EmulateSettings, tab: browser.Page) -> None:
    deadline_ms = EmulateSettings.deadline_ms
    closed = dataclasses.replace(world, interval_ms=0.0, deadline_ms=deadline_ms, links=LinkPlan())
    folder = emulate(closed).folder
    data = run_data(folder)
    assert set(data["links"]["arrival"]) == {None}  # snapshots have no time zero of their own
    assert sum(data["timeline"]["reports"]["used"]) == 3 * 48
    tab.open(folder / "report.html", 1280, "light")
    assert tab.complaints == [] and count(tab, "#timeline rect") > 0


def test_a_run_without_any_fix_has_a_report(world: EmulateSettings, tab: browser.Page) -> None:
    everything: dict[str, Any] = {"links": with_options(LinkPlan(), {"loss": "100%"}), "snapshots": 8}
    folder = emulate(dataclasses.replace(world, **everything)).folder
    tab.open(folder / "report.html", 1280, "dark")
    assert tab.complaints == [] and count(tab, "#map circle") == 8
    assert "no fix" in tab.evaluate("document.getElementById('figures').innerText")
