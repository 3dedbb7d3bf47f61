"""Runs in scenarios of several layouts: one held-out layout each, an ordinary scenario from there on."""

import dataclasses
import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import run_tables
import tiny_world
from rich.console import Console

from sim.commands.summary import show_summary
from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.inspect.audit import audit
from sim.inspect.replay import replay
from sim.plan.plan import load_plan
from sim.plan.settings import EmulateSettings
from sim.plan.weights import Weights, save_weights
from sim.records.folder import RunFolder, read_configuration
from sim.sweep.sweep import Inputs
from sim.toml.write import toml_text
from sim.world import store
from sim.world.deployment import Layouts, Strip
from sim.world.paths import concatenate
from sim.world.scenario import Scenario, scenario_table

LAYOUTS = Layouts(Strip((-80.0, 0.0), (80.0, 0.0), 160.0), sites=4, places=6, training=3, validation=1, test=2, users=8)
PLACES = np.random.default_rng(8).uniform((-80, -80, 20), (80, 80, 30), (2, 4, 3))


def scenario() -> Scenario:
    plain = tiny_world.scenario()
    tracing = dataclasses.replace(plain.tracing, positions=0)
    return dataclasses.replace(plain, name="drawn", sites=(), tracing=tracing, layouts=LAYOUTS)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmulateSettings:
    """A short run in a world of two held-out layouts, four sites and eight users each."""
    monkeypatch.setattr(store, "ASSET_FOLDER", tmp_path / "assets")
    monkeypatch.setattr("sim.plan.weights.ASSET_FOLDER", tmp_path / "assets")
    world = scenario()
    (tmp_path / "drawn.toml").write_text(toml_text(scenario_table(world)))
    traced = [tiny_world.paths(world.at_layout(places)).select(np.arange(8) + 8 * n) for n, places in enumerate(PLACES)]
    folder = tmp_path / "assets" / "drawn"
    concatenate(traced).save(folder / "test.npz")
    np.savez(folder / store.TEST_LAYOUTS_FILE, site=PLACES, users=8)
    made = tiny_world.rss_weights(world)
    save_weights(folder / "rss.safetensors", Weights(json.loads(json.dumps(made.config)), made.tensors))
    return EmulateSettings(
        scenario=str(tmp_path / "drawn.toml"),
        scheme="rss",
        bs=4,
        bits=8,
        snapshots=10,
        driver="process",
        output=tmp_path / "runs",
    )


@pytest.mark.parametrize(("layout", "number"), [(None, 0), (0, 0), (1, 1)])
def test_a_run_is_at_one_layout(settings: EmulateSettings, layout: int | None, number: int) -> None:
    result = emulate(dataclasses.replace(settings, layout=layout))
    assert result.summary["layout"] == number and result.summary["bs"] == result.summary["bs_present"] == 4
    assert result.summary["weights"] == "rss.safetensors"
    read = read_configuration(RunFolder(result.folder))
    assert read.settings.layout == number
    assert [site.position for site in read.scenario.sites] == [tuple(place) for place in PLACES[number].tolist()]
    fixes = run_tables.fixes(result.folder)
    world = scenario().at_layout(PLACES[number])
    expected = tiny_world.paths(world).position[8 * number :][fixes["sample"].to_numpy()]
    assert np.array_equal(np.stack([fixes[f"true_{axis}_m"].to_numpy() for axis in "xyz"], 1), expected)
    assert audit(result.folder).ok and replay(result.folder).identical == settings.snapshots
    out = StringIO()
    show_summary(Console(file=out, width=120), result.summary, result.folder)
    assert f"4 BS, layout {number}, 10 snapshots" in out.getvalue()


def test_layouts_are_different_rows_of_a_sweep(settings: EmulateSettings) -> None:
    inputs = Inputs()
    keys = [inputs.key(dataclasses.replace(settings, layout=layout)) for layout in (None, 0, 1)]
    assert keys[0] == keys[1] != keys[2]


def test_a_layout_may_have_random_subsets(settings: EmulateSettings) -> None:
    result = emulate(dataclasses.replace(settings, layout=1, bs=2, random_subset=True))
    assert (result.summary["bs"], result.summary["bs_present"]) == (2, 4)
    assert audit(result.folder).ok and replay(result.folder).identical == settings.snapshots


def test_a_layout_that_is_not_there_is_one_sentence(settings: EmulateSettings) -> None:
    with pytest.raises(UserError, match=r"no test layout 2 of scenario 'drawn'; there are 0 to 1"):
        load_plan(dataclasses.replace(settings, layout=2))
    with pytest.raises(UserError, match="--layout must lie in 0"):
        dataclasses.replace(settings, layout=-1)
    with pytest.raises(UserError, match="--bs 5 is more than the 4 sites"):
        load_plan(dataclasses.replace(settings, bs=5))
    with pytest.raises(UserError, match="--test has no meaning in scenario 'drawn'"):
        load_plan(dataclasses.replace(settings, test=Path("x.npz")))


def test_a_layout_where_there_are_none_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ASSET_FOLDER", tmp_path / "assets")
    with pytest.raises(UserError, match="--layout is for scenarios of several layouts; 'tiny' has one"):
        load_plan(dataclasses.replace(tiny_world.write(tmp_path), layout=0))
