"""Sweeps: every combination once, resumed, and figures that are those of the runs."""

import dataclasses
import json
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_world
import torch

import cli
from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.plan.outcome import RunResult
from sim.plan.settings import EmulateSettings
from sim.sweep.cases import cases_of, weights_of
from sim.sweep.sweep import Row, combinations, markdown, quantile_of_all, run_sweep
from sim.sweep.sweep_figure import draw, front, sent_bits, sweep_figure, swept
from sim.world import radio, store


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

    def noted(settings: EmulateSettings, *others: Any, **more: Any) -> RunResult:
        names.append(settings.output.name)
        return emulate(settings, *others, **more)

    monkeypatch.setattr("sim.sweep.sweep.emulate", noted)
    return names


@pytest.fixture
def channels(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of channels that were made, piece by piece."""
    made: list[int] = []

    def noted(rows: Sequence[Any], received: torch.Tensor) -> None:
        made.append(len(rows))
        usual(rows, received)

    usual = radio._receive_piece
    monkeypatch.setattr(radio, "_receive_piece", noted)
    return made


def test_every_combination_is_one_row_and_is_not_run_again(
    words: list[str], ran: list[str], channels: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, "--loss", "0,50%", "--output", "sweep"]) == 0
    assert sum(channels) == 3 * 6  # each base station's in each snapshot, once for all rows
    out = capsys.readouterr().out
    assert out.splitlines()[-5:] == [f"sweep/sweep.{ending}" for ending in ("json", "md", "png", "pdf", "svg")]
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
    capsys.readouterr()
    assert cli.main([*words, "--loss", "0,50%,20%", "--output", "sweep", "--dry-run"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in told if line.startswith("finished")] == names
    assert told[-1] == "4 of 12 rows to run, 24 fixes. Nothing was done."
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

    def stopped(settings: EmulateSettings, *others: Any, **more: Any) -> RunResult:
        begun.append(settings.output.name)
        if len(begun) == 3:
            (settings.output / "x.part").mkdir(parents=True)
            raise KeyboardInterrupt
        return emulate(settings, *others, **more)

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
    assert all(picture.is_file() for picture in made.pictures)


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


def row_of(mean: float, payload: float, **settings: str) -> Row:
    return {
        "scenario": "tiny",
        "settings": settings,
        "run": "",
        "error_3d_m": {"mean": mean, "ci95_of_mean": [0.9 * mean, 1.1 * mean], "p90": 2 * mean},
        "bound_m": 0.02,
        "fixes": 9,
        "snapshots": 10,
        "payload_bits_per_fix": payload,
        "side_bits_per_fix": 8.0,
    }


@pytest.mark.parametrize(("option", "label"), [("deadline", "--deadline [ms]"), ("loss", "--loss")])
def test_the_abscissa_names_option_and_unit(option: str, label: str) -> None:
    rows = [row_of(1.0, 100.0, **{option: text}) for text in ("5", "10")]
    assert sweep_figure(rows).axes[-1].get_xlabel() == label


def test_schemes_share_a_picture_with_the_front_and_the_bound() -> None:
    rows = [
        row_of(1.0, 600.0, scheme="ecc", bits="2"),
        row_of(0.5, 900.0, scheme="ecc", bits="3"),
        row_of(0.1, 700.0, scheme="twin", **{"bits-per-report": "128"}),
    ]
    assert swept(rows) == ["scheme", "bits", "bits-per-report"]
    assert front([(sent_bits(row), row) for row in rows]) == [(608.0, 1.0), (708.0, 0.1)]
    figure = sweep_figure(rows)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "Pareto front", "position error bound", "ecc", "twin"
    ]  # fmt: skip
    assert {note.get_text() for note in figure.axes[0].texts} == {"B = 2", "B = 3", "128 bit"}


def test_labels_that_find_no_place_are_left_out_and_the_others_lie_apart() -> None:
    """Twenty points, of which each has one beside it that is nearly the same."""
    rows = [
        row_of(mean, payload * far, scheme=scheme, bits=str(bits))
        for bits, payload, mean in ((2, 300.0, 2.0), (3, 310.0, 1.9), (4, 900.0, 1.0), (5, 910.0, 0.95))
        for scheme, far in (("ecc", 1.0), ("rss", 1.001), ("toa", 1.002), ("music", 1.003), ("twin", 4.0))
    ]
    figure = sweep_figure(rows)
    axes = figure.axes[0]
    boxes = [note.get_window_extent() for note in axes.texts]
    assert 4 < len(boxes) < len(rows)
    assert all(one.count_overlaps([other for other in boxes if other is not one]) == 0 for one in boxes)
    points = axes.transData.transform([(sent_bits(row), row["error_3d_m"]["mean"]) for row in rows])
    assert all(box.count_contains(points) == 0 for box in boxes)
    assert all(axes.bbox.count_contains(box.corners()) == 4 for box in boxes)


def test_vector_pictures_are_the_same_at_every_rerun(tmp_path: Path) -> None:
    pictures = [draw(tmp_path / f"{name}.png", [row_of(1.0, 600.0, bits="2")]) for name in ("one", "two")]
    assert [path.suffix for path in pictures[0]] == [".png", ".pdf", ".svg"]
    for one, two in zip(*pictures, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_each_scheme_takes_what_means_something_to_it(tmp_path: Path) -> None:
    def options(given: dict[str, Any]) -> list[str]:
        return [case.name for case in cases_of({"scheme": "ecc,twin,music", **given}, tmp_path)]

    assert options({"bits": "2-4", "bits_per_report": "32,64"}) == [
        *(f"scheme-ecc_bits-{bits}" for bits in (2, 3, 4)),
        *(f"scheme-twin_bits-per-report-{bits}" for bits in (32, 64)),
        "scheme-music",
    ]
    assert options({"bits": "lossless,iq16"})[-2:] == ["scheme-twin", "scheme-music_bits-lossless"]
    for given, sentence in (
        ({"scheme": "twin", "bits": "2"}, "--bits means nothing to scheme 'twin'.*give --bits-per-report"),
        ({"bits": "2", "steps": "5"}, "Scheme 'ecc' has no option 'steps'"),
        (
            {"scheme": "ecc,vinloc"},
            r"different scenarios \(ecc: paris-6, vinloc: inf-dh-18\): name one with --scenario",
        ),
        ({"bits": "5-2"}, "A range such as 2-5 goes up, by less than 1000; --bits has 5-2"),
    ):
        with pytest.raises(UserError, match=sentence):
            options(given)


def test_each_scheme_has_its_weights(tmp_path: Path) -> None:
    schemes, file = ["ecc", "rss"], tmp_path / "a=b"
    assert weights_of(None, schemes) == {"ecc": None, "rss": None}
    assert weights_of(["rss=r", "ecc=e=2"], schemes) == {"ecc": Path("e=2"), "rss": Path("r")}
    assert weights_of(["rss=r", "e"], schemes) == {"ecc": Path("e"), "rss": Path("r")}
    assert weights_of(["rss=r"], schemes) == {"ecc": None, "rss": Path("r")}
    file.touch()
    for alone in (file, [str(file)]):
        assert weights_of(alone, ["ecc"]) == {"ecc": file}
    assert weights_of(Path("t"), ["rss", "rss-rounds"]) == dict.fromkeys(("rss", "rss-rounds"), Path("t"))
    for given, sentence in (
        ([str(file)], "is for one scheme, and ecc, rss need weights of their own: give each its file, as in --weights"),
        (["ecc=e", "ecc=f"], "two files for scheme 'ecc'"),
        (["ekk=e"], r"--weights ekk=e: 'ekk' is none of this sweep's schemes \(ecc, rss\)"),
        (["e", "f"], "two files that name no scheme, e and f"),
    ):
        with pytest.raises(UserError, match=sentence):
            weights_of(given, schemes)


def test_rows_of_several_processes_and_sweeps_are_the_same(
    base: EmulateSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fixed = f"--scenario {base.scenario} --test assets/tiny/test.npz --snapshots 6 --bits 2,4"
    own = f"--weights ecc={base.weights} --weights rss={base.weights}"
    assert cli.main(shlex.split(f"sweep --scheme ecc,rss {fixed} {own} --workers 2 --output both")) == 0
    for scheme in ("ecc", "rss"):
        line = f"sweep --scheme {scheme} {fixed} --weights {base.weights} --output {scheme}"
        assert cli.main(shlex.split(line)) == 0
    assert cli.main(["compare", "ecc", "rss"]) == 0
    both, joined = (json.loads(Path(name).read_text())["rows"] for name in ("both/sweep.json", "compare/compare.json"))
    assert [row["settings"]["scheme"] for row in joined] == ["ecc", "ecc", "rss", "rss"]
    for one, other in zip(both, joined, strict=True):
        for name in ("error_3d_m", "bound_m", "crossed_bits_per_fix", "side_bits_per_fix", "weights_digest"):
            assert one[name] == other[name], name
        assert (Path(other["run"]) / "summary.json").is_file()
    text = Path("compare/compare.md").read_text()
    assert "cofix compare ecc rss" in text and "--scenario tiny" in text
    assert Path("compare/compare.svg").is_file()

    assert cli.main(["compare", "both", "rss", "--output", "twice"]) == 0  # equal options: sweeps have their names
    rows = json.loads(Path("twice/compare.json").read_text())["rows"]
    assert [row["settings"]["sweep"] for row in rows] == [*4 * ["both"], *2 * ["rss"]]
    capsys.readouterr()
    for words, sentence in (
        (["both", "ecc"], "compare.json is of another command"),
        (["both", "./both"], "is given twice"),
        (["assets"], "is not a sweep's folder"),
    ):
        assert cli.main(["compare", *words]) == 2
        assert sentence in capsys.readouterr().err
