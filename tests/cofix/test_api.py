"""The Python API: the same runs as the command line's, as tables and pictures; one kind of error."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import run_tables
import tiny_world

import cli
import cofix
from cofix.options import ONLY_COMMANDS
from cofix.run import TABLES
from sim.plan.options import OPTIONS
from sim.world import store

LOSSY: dict[str, Any] = {"loss": "20%", "duplicate": 0.2, "deadline": 5, "interval": 2.0}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Options of a run of 20 snapshots in a tiny world, its paths as texts."""
    folder = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "ASSET_FOLDER", folder / "assets")
        settings = tiny_world.write(folder)
        yield {
            "scenario": settings.scenario, "bs": 3, "snapshots": 20, "driver": "process",
            "weights": str(settings.weights), "output": str(folder / "runs"),
        }  # fmt: skip


@pytest.fixture(scope="module")
def run(own: dict[str, Any]) -> cofix.Run:
    return cofix.emulate(**own, **LOSSY)


def test_options_are_those_of_the_command_line() -> None:
    hints = get_type_hints(cofix.Options)
    assert hints.keys() == OPTIONS.keys() - set(ONLY_COMMANDS)
    kinds: dict[str, Any] = {name: kind for name, (kind, _) in OPTIONS.items()}
    for name, hint in hints.items():
        named = get_args(hint) or (hint,)
        assert {Path: str}.get(kinds[name], kinds[name]) in named or name == "option", name


def test_a_run_is_the_command_lines(own: dict[str, Any], run: cofix.Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for name, value in (own | LOSSY).items() for word in (f"--{name}", str(value))]
    assert cli.main(["emulate", *words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    for name in ("error_3d_m", "bytes", "frames", "reports", "notes", "controls"):
        assert printed[name] == run.summary[name], name
    other = max(Path(own["output"]).iterdir(), key=lambda folder: folder.stat().st_mtime_ns)
    assert other != run.folder and run_tables.fixes(other).equals(run_tables.fixes(run.folder))


def test_tables_are_data_frames_and_arrow(run: cofix.Run) -> None:
    fixes, reports, links, positions = run.fixes, run.reports, run.links, run.positions
    assert all(isinstance(table, pd.DataFrame) for table in (fixes, reports, links, positions))
    assert len(fixes) == run.summary["fixes"] and len(positions) == 3 * tiny_world.USERS
    assert fixes["error_3d_m"].mean() == pytest.approx(run.summary["error_3d_m"]["mean"])
    fates = reports["report_fate"].value_counts().to_dict()
    assert fates == {fate: count for fate, count in run.summary["reports"].items() if count}
    assert not reports.duplicated(["bs", "epoch", "snapshot", "round"]).any()
    assert fates["lost"] > 0 and not (reports["frame_fate"] == "duplicate").any()
    assert reports["t_received_ns"].notna().equals(reports["report_fate"] != "lost")
    assert fixes["used_bs"].map(len).sum() == fates["used"]
    assert links["frames_duplicate"].sum() == run.summary["frames"]["duplicate"] > 0
    assert links["stream_bytes"].sum() == sum(
        run.summary["bytes"][name] for name in ("payload", "side", "header", "padding", "zmtp", "curve")
    )
    there = {name: run.table(name) for name in TABLES}
    assert all(isinstance(table, pa.Table) and table.num_columns for table in there.values())
    assert there["fixes"].num_rows == len(fixes)
    with pytest.raises(cofix.UserError, match=r"no table 'fixs' .did you mean 'fixes'"):
        run.table("fixs")


def test_a_folder_is_opened_as_what_it_is(run: cofix.Run, tmp_path: Path) -> None:
    again = cofix.open(str(run.folder))
    assert again.summary == run.summary and again.fixes.equals(run.fixes)
    assert repr(again).startswith(f"<Run {run.folder}: ecc, B = 4, {run.summary['fixes']} fixes, mean 3D error ")
    with pytest.raises(cofix.UserError, match="is not a run's folder"):
        cofix.open(tmp_path)


def test_pictures_go_on_axes(run: cofix.Run) -> None:
    try:
        ax = run.plot_cdf()
        assert run.plot_cdf(ax=ax) is ax
        curve = ax.get_lines()[0]
        assert np.array_equal(curve.get_xdata(), np.sort(run.fixes["error_3d_m"]))
        assert ax.get_legend_handles_labels()[1][0] == "ecc, B = 4" and ax.get_xlabel() == "3D error [m]"
        others = plt.subplots(1, 2)[1]
        assert run.plot_map(ax=others[1]) is others[1] and not others[0].collections
        offsets = others[1].collections[1].get_offsets()
        assert np.array_equal(offsets, run.fixes[["true_x_m", "true_y_m"]].to_numpy())
    finally:
        plt.close("all")


def test_a_report_is_one_file(run: cofix.Run, tmp_path: Path) -> None:
    path = cofix.report(run, str(tmp_path / "one.html"))
    assert path.read_text(encoding="utf-8") == (run.folder / "report.html").read_text(encoding="utf-8")
    with pytest.raises(cofix.UserError, match="needs at least one run"):
        cofix.report([], tmp_path / "none.html")
    with pytest.raises(cofix.UserError, match="is given twice"):
        cofix.report([run, run], path)


def test_a_sweep_has_a_row_per_combination(own: dict[str, Any], tmp_path: Path) -> None:
    shared = {name: value for name, value in own.items() if name not in ("driver", "output", "bs")}
    made = cofix.sweep(output=tmp_path / "sweep", bits=[2, 4], bs=[3], **shared)
    assert made.rows[["bits", "fixes"]].to_numpy().tolist() == [["2", 20], ["4", 20]]
    assert [run.summary["bits"] for run in made.runs] == [2, 4]
    assert made.rows["mean_m"].tolist() == [run.summary["error_3d_m"]["mean"] for run in made.runs]
    with pytest.raises(cofix.UserError, match="A sweep does not take 'driver'"):
        cofix.sweep(output=tmp_path / "other", driver="process", **shared)
    with pytest.raises(cofix.UserError, match="snapshots takes one value, not the list"):
        cofix.sweep(output=tmp_path / "other", **shared | {"snapshots": [1, 2]})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"bitts": 4}, "There is no option 'bitts' .did you mean 'bits'"),
        ({"json": True}, "There is no option 'json'"),
        ({"bs": "3"}, "bs must be a whole number, it is '3'"),
        ({"capture": 1}, "capture must be True or False, it is 1"),
        ({"snapshots": True}, "snapshots must be a whole number, it is True"),
        ({"scenario": 6}, "scenario must be a text, it is 6"),
        ({"weights": 6}, "weights must be a path, it is 6"),
        ({"bits": 9}, "--bits must be .* it is '9'"),
        ({"loss": 2}, "--loss '2'"),
        ({"driver": "process", "host": "::1"}, "--host has no meaning with --driver process"),
        ({"option": {"steps": 3}, "driver": "process"}, "no option 'steps'"),
        ({"links": "nowhere.toml"}, "Cannot read --links nowhere.toml"),
        ({"scheme": "eec"}, "eec"),
    ],
)
def test_bad_input_is_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(cofix.UserError, match=sentence):
        cofix.emulate(**options)
