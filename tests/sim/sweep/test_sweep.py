"""Sweeps: every combination once, resumed, and figures that are those of the runs."""

import dataclasses
import json
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_world
import torch
from matplotlib.figure import Figure

import cli
from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.plan.outcome import RunResult
from sim.plan.settings import EmulateSettings
from sim.sweep import sweep_figure
from sim.sweep.sweep import combinations, markdown, quantile_of_all, run_sweep
from sim.world import store


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmulateSettings:
    monkeypatch.setattr(store, "ASSET_FOLDER", tmp_path / "assets")
    return dataclasses.replace(tiny_world.write(tmp_path), snapshots=6)


@pytest.fixture
def words(base: EmulateSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A sweep on the command line, into ``sweep`` in the working directory."""
    monkeypatch.chdir(tmp_path)
    fixed = f"--scenario {base.scenario} --weights {base.weights} --snapshots 6"
    return shlex.split(f"sweep --bits 2,4 --bs 2,3 {fixed}")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the rows that were run."""
    names: list[str] = []

    def noted(settings: EmulateSettings, *others: object) -> RunResult:
        names.append(settings.output.name)
        return emulate(settings, *others)  # type: ignore[arg-type]

    monkeypatch.setattr("sim.sweep.sweep.emulate", noted)
    return names


def test_every_combination_is_one_row_and_is_not_run_again(
    words: list[str], ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, "--loss", "0,50%", "--output", "sweep"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-3:] == ["sweep/sweep.json", "sweep/sweep.md", "sweep/sweep.png"]
    names = [f"bits-{bits}_bs-{bs}_loss-{loss}" for bits in (2, 4) for bs in (2, 3) for loss in ("0", "50pct")]
    assert ran == names
    table = json.loads(Path("sweep/sweep.json").read_text())
    assert table["swept"] == ["bits", "bs", "loss"]
    assert table["command"].startswith("cofix sweep --bits 2,4 --bs 2,3 ")
    assert Path("sweep/sweep.png").read_bytes().startswith(b"\x89PNG")
    text = Path("sweep/sweep.md").read_text()
    assert table["command"] in text and text.count(" of 6 |") == 8
    for row, name in zip(table["rows"], names, strict=True):
        folder = Path("sweep") / row["run"]
        assert folder.parent.name == name
        summary = json.loads((folder / "summary.json").read_text())
        errors = pq.read_table(folder / "fixes.parquet")["error_3d_m"].to_numpy()
        assert row["error_3d_m"] == summary["error_3d_m"]
        assert row["fixes"] == len(errors) <= row["snapshots"] == 6
        assert row["payload_bits_per_fix"] == summary["bs"] * 8 * 4 * int(row["settings"]["bits"])
        assert row["lost_share"] == summary["reports"]["lost"] / sum(summary["reports"].values())
        assert (row["lost_share"] > 0) == (row["settings"]["loss"] == "50%")

    before = Path("sweep/sweep.json").read_bytes()
    assert cli.main([*words, "--loss", "0,50%", "--output", "sweep"]) == 0
    assert ran == names and Path("sweep/sweep.json").read_bytes() == before
    longer = [word.replace("2,4", "2,4,8") for word in words]
    assert cli.main([*longer, "--loss", "50%,0", "--output", "sweep"]) == 2  # weights have no step of 8 bit
    capsys.readouterr()
    tried = list(ran)
    other = [*words, "--loss", "0,50%", "--output", "sweep", "--seed", "2"]
    assert cli.main(other) == 2
    assert "is the table of another sweep (8 of its 8 rows" in capsys.readouterr().err
    assert ran == tried and Path("sweep/sweep.json").read_bytes() == before
    Path("sweep/sweep.json").unlink()
    assert cli.main(other) == 0
    assert ran[-8:] == names  # another seed is another row


def test_a_sweep_that_was_stopped_goes_on(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def stopped(settings: EmulateSettings, *others: object) -> RunResult:
        begun.append(settings.output.name)
        if len(begun) == 3:
            (settings.output / "x.part").mkdir(parents=True)
            raise KeyboardInterrupt
        return emulate(settings, *others)  # type: ignore[arg-type]

    monkeypatch.setattr("sim.sweep.sweep.emulate", stopped)
    assert cli.main(words) == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith("Stopped; finished rows are in sweep")
    assert cli.main(words) == 0
    assert begun == ["bits-2_bs-2", "bits-2_bs-3", "bits-4_bs-2", "bits-4_bs-2", "bits-4_bs-3"]
    assert not list(Path("sweep").glob("*/*.part"))


def test_rows_are_the_same_at_every_rerun(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if somebody works in the checkout, and whatever thread count and memory other code has left behind."""
    monkeypatch.setattr("sim.records.folder._SOURCE_FOLDER", checkout := tmp_path / "checkout")
    git = ["git", "-C", str(checkout), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run(["git", "init", "--quiet", str(checkout)], check=True)
    rows = []
    threads = torch.get_num_threads()
    for output in ("one", "two"):
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", output], check=True)
        torch.set_num_threads(1 if output == "one" else 3)
        used = [np.full(size, np.nan, np.float32) for size in range(1, 20_000, 7)]
        del used  # freed memory is not zero
        assert cli.main([*words, "--loss", "30%", "--output", output]) == 0
        rows.append(json.loads((Path(output) / "sweep.json").read_text())["rows"])
    torch.set_num_threads(threads)
    assert [{**row, "run": ""} for row in rows[0]] == [{**row, "run": ""} for row in rows[1]]
    assert rows[0][0]["commit"] and len({row["commit"] for row in rows[0]}) == 1


def test_rows_without_a_fix_are_shown(base: EmulateSettings, tmp_path: Path) -> None:
    def settings_of(texts: Mapping[str, str]) -> EmulateSettings:
        return dataclasses.replace(base, minimum_bs=int(texts["minimum-bs"]), links=lossy)

    from fronthaul.link.link_file import LinkPlan, with_options

    lossy = with_options(LinkPlan(), {"loss": "100%"})
    cases = combinations({"minimum-bs": ["1", "3"]}, settings_of, tmp_path / "sweep")
    made = run_sweep(cases, tmp_path / "sweep", "a command")
    assert [row["fixes"] for row in made.rows] == [0, 0]
    assert "| 1 | 0 of 6 | no fix | – | beyond |" in markdown(made.rows, "a command")
    assert made.picture.is_file()


def test_impossible_combinations_are_named_before_anything_runs(base: EmulateSettings, tmp_path: Path) -> None:
    def settings_of(texts: Mapping[str, str]) -> EmulateSettings:
        return dataclasses.replace(base, bs=int(texts["bs"]), minimum_bs=int(texts["minimum-bs"]))

    with pytest.raises(UserError, match=r"--minimum-bs.*\(in the combination --bs 1, --minimum-bs 2\)"):
        combinations({"bs": ["1", "2"], "minimum-bs": ["1", "2"]}, settings_of, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_a_quantile_of_all_snapshots_counts_those_without_a_fix() -> None:
    errors = np.arange(9, 0, -1.0)
    assert quantile_of_all(errors, 10, 0.9) == 9.0
    assert quantile_of_all(errors, 11, 0.9) is None
    assert quantile_of_all(errors, 18, 0.5) == 9.0
    assert quantile_of_all(errors, 9, 0.5) == 5.0
    assert quantile_of_all(np.empty(0), 1, 0.5) is None


@pytest.mark.parametrize(("option", "label"), [("deadline", "--deadline [ms]"), ("loss", "--loss")])
def test_the_abscissa_names_option_and_unit(option: str, label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(sweep_figure, "write_picture", lambda figure, _: drawn.append(figure))
    error = {"mean": 1.0, "ci95_of_mean": [0.9, 1.1]}
    row = {"settings": {option: "5"}, "error_3d_m": error, "fixes": 9, "snapshots": 10}
    sweep_figure.draw(Path("unused.png"), [row], [option])
    assert drawn[0].axes[-1].get_xlabel() == label
