"""Looking into runs: whole ones, damaged ones, and those that were cut."""

import dataclasses
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fronthaul.link.link_file import link_plan
from fronthaul.message.fates import ReportFate
from fronthaul.message.messages import Direction
from sim.emulate.emulator import Progress, emulate, run_plan
from sim.errors import UserError
from sim.inspect.frames import Choice, check_books, chosen_frames, frame_view, link_totals, recover
from sim.inspect.replay import replay
from sim.plan import plan as compose
from sim.plan.settings import EmulateSettings


def test_damaged_tables_are_one_sentence(settings: EmulateSettings) -> None:
    whole = emulate(settings).folder
    for name, readers in (
        ("links/bs-001.parquet", (replay, link_totals, check_books)),
        ("fixes.parquet", (replay, check_books)),
    ):
        folder = whole.with_name(Path(name).stem)
        shutil.copytree(whole, folder)
        whole_file = (folder / name).read_bytes()
        (folder / name).write_bytes(whole_file[: len(whole_file) // 2])
        for read in readers:
            with pytest.raises(UserError, match=rf"{name} cannot be read"):
                read(folder)
    (whole / "run.toml").write_bytes(b'"\xff" = 1\n')
    with pytest.raises(UserError, match=r"run\.toml is damaged"):
        link_totals(whole)


def test_the_books_are_checked_against_the_fixes(settings: EmulateSettings) -> None:
    folder = emulate(settings).folder
    books = check_books(folder)
    assert books.ok and books.reports_journaled == 3 * settings.snapshots
    whole = pq.read_table(folder / "fixes.parquet")
    pq.write_table(whole.slice(1), folder / "fixes.parquet")
    assert check_books(folder).problems == (
        "used reports that no fix lists: 3, first ReportKey(bs=0, epoch=0, snapshot=0, round=0)",
    )
    (folder / "fixes.parquet").unlink()
    assert "the run was cut" in check_books(folder).problems[0]


def test_inspection_shows_totals_and_single_frames(settings: EmulateSettings) -> None:
    folder = emulate(settings).folder
    totals = link_totals(folder)
    assert [link.bs for link in totals] == [0, 1, 2]
    assert totals[0].payload_bits == settings.snapshots * 128
    view = frame_view(folder, link=2, frame=5)
    assert (view.bs, view.seq, view.direction) == (2, 5, Direction.UP)
    (report,) = view.reports
    assert (report.snapshot, report.round, report.report_fate, report.bits) == (5, 0, "used", 4)
    assert len(view.data) == 15 + 4 + 16 + 4 and view.data[-4:] == view.crc32.to_bytes(4, "big")
    assert report.index.shape == (32,) and report.index.max() < 16
    assert len(report.side_values) == 1
    assert view.hex == view.data.hex()
    for link, frame in ((9, 0), (0, 20)):
        with pytest.raises(UserError, match="There is no"):
            frame_view(folder, link, frame)
    with pytest.raises(UserError, match="not a run's folder"):
        link_totals(folder / "links")


def test_frames_are_chosen_by_time_and_fate(settings: EmulateSettings) -> None:
    links = link_plan({"bs": {"1": {"up": {"loss": 0.3}}}})
    folder = emulate(dataclasses.replace(settings, links=links)).folder
    lost, count = chosen_frames(folder, Choice(1, fates=("dropped",)))
    assert lost and {(row["bs"], row["frame_fate"], row["reason"]) for row in lost} == {(1, "dropped", "loss")}
    assert chosen_frames(folder, Choice(fates=("lost",))) == (lost, count) and count == len(lost) > 1
    assert chosen_frames(folder, Choice(fates=("lost",)), most=1) == (lost[:1], count)
    early, _ = chosen_frames(folder, Choice(end_s=0.3, direction="up"))
    late, _ = chosen_frames(folder, Choice(begin_s=0.3))
    assert {row["snapshot"] for row in early} == set(range(10))
    assert chosen_frames(folder, Choice()) == (early + late, len(early + late))
    with pytest.raises(UserError, match=r"no fate 'drop' \(did you mean 'dropped'"):
        Choice(fates=("drop",))


def test_a_run_that_is_cut_can_be_recovered(settings: EmulateSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.emulate.in_process.PROGRESS_S", 0.0)
    plan = compose.load_plan(dataclasses.replace(settings, links=link_plan({"bs": {"1": {"up": {"loss": 0.3}}}})))

    def interrupt(progress: Progress) -> None:
        if progress.done >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_plan(plan, interrupt)
    (folder,) = settings.output.iterdir()
    assert folder.name.endswith(".part") and not (folder / "summary.json").exists()
    found = recover(folder)
    whole = emulate(plan.settings)
    made = pq.read_table(whole.folder / "fixes.parquet").to_pylist()
    fixes = found.books.fixes.to_pylist()
    assert len(fixes) >= 12
    for fix, row in zip(fixes, made, strict=False):
        assert fix["snapshot"] == row["snapshot"] and fix["position"] == [row["x_m"], row["y_m"], row["z_m"]]
    checked = found.conservation
    assert checked.ok, checked.problems
    assert checked.reports[ReportFate.USED] == sum(len(fix["used_bs"]) for fix in fixes)
    assert checked.reports[ReportFate.LOST] > 0
    assert checked.frames_journaled == sum(sum(link.frames.values()) for link in found.links)
    assert link_totals(folder) == found.links
