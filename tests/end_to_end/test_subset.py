"""Runs in which a random part of the base stations measures each snapshot: the books hold, and nobody else speaks."""

import dataclasses
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import run_tables
import straight_world
from rich.console import Console

from fronthaul.link.link_file import link_plan
from fronthaul.roster import Roster
from sim.commands.summary import show_summary
from sim.emulate.controls import heard_paths
from sim.emulate.emulator import RunResult, emulate, evaluate_controls
from sim.emulate.in_process import run_in_process
from sim.errors import UserError
from sim.inspect.audit import audit
from sim.inspect.frames import check_books, link_totals, recover
from sim.inspect.replay import replay
from sim.plan.plan import load_plan
from sim.plan.settings import EmulateSettings
from sim.records.folder import RunFolder, read_configuration, write_configuration
from sim.world.bound import position_error_bound

MEMBERS = 2


@pytest.fixture
def settings(settings: EmulateSettings) -> EmulateSettings:
    return dataclasses.replace(settings, bs=MEMBERS, random_subset=True)


def drawn(settings: EmulateSettings) -> list[list[int]]:
    roster = Roster(settings.seed, 3, settings.bs)
    return [sorted(roster.of(snapshot)) for snapshot in range(settings.snapshots)]


def column(result: RunResult, name: str) -> list[Any]:
    values: list[Any] = pq.read_table(result.folder / "fixes.parquet")[name].to_pylist()
    return values


def require_whole(result: RunResult, settings: EmulateSettings) -> None:
    """Whatever can be held against something else holds."""
    assert audit(result.folder).ok, [f for f in audit(result.folder).findings if f.state == "fails"]
    assert check_books(result.folder).ok and result.summary["conservation"]["ok"]
    replayed = replay(result.folder)
    assert replayed.identical == replayed.total == result.summary["fixes"]
    assert [link.bs for link in link_totals(result.folder) if link.direction == "up"] == [0, 1, 2]


@pytest.mark.parametrize("changes", [{}, {"batch": 4}, {"batch": 6, "bundle": 3}, {"interval_ms": 0.0}])
def test_each_snapshot_has_its_own_base_stations(settings: EmulateSettings, changes: dict[str, Any]) -> None:
    settings = dataclasses.replace(settings, **changes)
    result = emulate(settings)
    assert column(result, "used_bs") == drawn(settings) and len(set(map(tuple, drawn(settings)))) == 3
    reports = MEMBERS * settings.snapshots
    assert result.summary["reports"] == {"used": reports, "unused": 0, "late": 0, "lost": 0}
    assert sum(result.summary["frames"].values()) <= reports
    assert result.summary["bytes"]["payload"] == reports * result.summary["payload_bits_per_report"] / 8
    sent = {bs: sum(bs in members for members in drawn(settings)) for bs in range(3)}
    for bs, ledger in enumerate(run_tables.ledgers(result.folder)):
        assert len(ledger) == sent[bs]  # nothing at all was sent in the others
    require_whole(result, settings)


def test_fixes_do_not_wait_for_who_is_silent(settings: EmulateSettings) -> None:
    result = emulate(settings)
    zero, fixed = column(result, "t_zero_ns"), column(result, "t_fix_ns")
    assert fixed == zero  # on the simulated clock: at once, and not at the deadline


def test_the_summary_says_so(settings: EmulateSettings) -> None:
    settings = dataclasses.replace(settings, controls=True)
    result = emulate(settings)
    summary = result.summary
    assert (summary["bs"], summary["bs_present"], summary["random_subset"], summary["layout"]) == (2, 3, True, None)
    out = StringIO()
    show_summary(Console(file=out, width=120), summary, result.folder)
    assert "random subset of 2 of 3 BS in each snapshot, 20 snapshots" in out.getvalue()
    assert read_configuration(RunFolder(result.folder)).settings == settings
    assert (result.folder / "map.png").stat().st_size > 0


def test_what_a_base_station_measures_is_what_it_would_measure_with_everybody(settings: EmulateSettings) -> None:
    part = emulate(settings)
    whole = emulate(dataclasses.replace(settings, bs=3, random_subset=False))
    known = ["bs", "snapshot", "payload", "side"]
    assert set(run_tables.rows(part.folder, known)) < set(run_tables.rows(whole.folder, known))
    everybody = emulate(dataclasses.replace(settings, bs=3))
    assert run_tables.fixes(everybody.folder).equals(run_tables.fixes(whole.folder))
    assert whole.summary["bs_present"] == whole.summary["bs"] == 3


def test_losses_late_reports_and_the_minimum_keep_their_meaning(settings: EmulateSettings) -> None:
    links = link_plan({"default": {"loss": "20%", "duplicate": "10%", "jitter": "30ms", "delay": "5ms"}})
    settings = dataclasses.replace(
        settings, links=links, snapshots=60, deadline_ms=40.0, minimum_bs=MEMBERS, batch=2, interval_ms=20.0
    )
    result = emulate(settings)
    assert sum(result.summary["reports"].values()) == MEMBERS * settings.snapshots
    assert min(result.summary["reports"].values()) > 0 and 0 < result.summary["fixes"] < settings.snapshots
    members = drawn(settings)
    for snapshot, used in zip(column(result, "snapshot"), column(result, "used_bs"), strict=True):
        assert used == members[snapshot]  # with the minimum at --bs nobody may be missing
    require_whole(result, settings)


def test_several_rounds_go_to_those_who_measured(settings: EmulateSettings) -> None:
    settings = dataclasses.replace(settings, scheme="rss-rounds", bits=8, minimum_bs=2)
    result = emulate(settings)
    assert [sorted(set(used)) for used in column(result, "used_bs")] == drawn(settings)
    assert max(column(result, "rounds")) > 1
    down = [(bs, snapshot) for bs, snapshot, way in run_tables.rows(result.folder, ["bs", "snapshot", "direction"])
            if way == "down"]  # fmt: skip
    assert down and all(bs in drawn(settings)[snapshot] for bs, snapshot in down)
    assert result.summary["frames"]["rejected"] == 0 and result.summary["reports"]["unused"] == 0
    require_whole(result, settings)


def test_a_run_that_was_cut_is_recovered_with_all_its_links(settings: EmulateSettings) -> None:
    plan = load_plan(dataclasses.replace(settings, snapshots=6))
    folder = RunFolder.create(plan.settings, plan.scenario.name)
    write_configuration(folder, plan)
    run_in_process(plan, folder, lambda _: None)
    found = recover(folder.path)
    assert found.conservation.ok and sorted(bs for bs in found.books.ledgers if bs is not None) == [0, 1, 2]
    assert sum(found.conservation.reports.values()) == 6 * MEMBERS


def test_the_bound_is_that_of_who_measured(settings: EmulateSettings) -> None:
    plan = load_plan(settings)
    traced = straight_world.trace(plan.scenario, plan.truth, [((0.0, 0.0, 1.0), 0.0)])  # tiny paths have no mirrors
    heard = heard_paths(traced, Roster(settings.seed, 3, MEMBERS))
    sites = [[bs for bs in range(3) if row[bs]] for row in heard.paths_per_link()]
    assert sites == drawn(settings)[: len(traced)]
    controls = evaluate_controls(dataclasses.replace(plan, paths=traced))
    expected, everybody = (position_error_bound(plan.scenario, paths) for paths in (heard, traced))
    assert controls.bound is not None and expected is not None and everybody is not None
    assert np.array_equal(controls.bound, expected) and np.all(expected > everybody)
    assert controls.wknn is None


def test_more_than_there_are_is_one_sentence(settings: EmulateSettings) -> None:
    with pytest.raises(UserError, match="--bs 4 is more than the 3 sites"):
        emulate(dataclasses.replace(settings, bs=4))
    with pytest.raises(UserError, match=r"--minimum-bs must lie in 1\.\.2"):
        dataclasses.replace(settings, minimum_bs=3)
    assert not list(Path(settings.output).glob("*"))
