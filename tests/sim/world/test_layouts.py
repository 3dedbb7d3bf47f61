"""Layouts of sites drawn on roofs, traced in Sionna RT's small street canyon."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import straight_world
import torch
from straight_world import assert_same

import cli
from sim.errors import UserError
from sim.world import layouts as module
from sim.world.channel import Motion, Synthesizer, pad_paths
from sim.world.deployment import Layouts
from sim.world.layouts import draw_places, lean, trace_layouts
from sim.world.paths import PathSet, load_paths
from sim.world.scenario import Array, Scenario, Site, load_scenario
from sim.world.store import (
    PARTS,
    Part,
    load_layouts,
    load_sites,
    load_test_layout,
    load_training_positions,
)
from sim.world.tracer import TraceProgress, Tracer

ROOFS = """
name = "roofs"
scene = "simple_street_canyon"
[layouts]
sites = 2
places = 3
training = 2
validation = 1
test = 2
users = 12
least_roof_m = 15.0
above_roof_m = 4.0
[layouts.region]
start = [-60.0, 20.0]
end = [60.0, -20.0]
width_m = 30.0
[users]
low = [-50.0, -30.0, 1.5]
high = [50.0, 30.0, 1.5]
speed_mps = 0.0
min_links = 1
[users.strip]
start = [-45.0, 10.0]
end = [45.0, -10.0]
width_m = 20.0
[numerology]
carrier_hz = 40e9
bandwidth_hz = 20e6
subcarrier_spacing_hz = 60e3
[tracing]
depth = 2
samples_per_source = 1000
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    path = tmp_path_factory.mktemp("scenario") / "roofs.toml"
    path.write_text(ROOFS)
    return load_scenario(str(path))


@pytest.fixture(scope="module")
def traced(world: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory that holds the traced data."""
    folder = tmp_path_factory.mktemp("world")
    summary = trace_layouts(world, folder / "data" / "roofs")
    assert (summary.training, summary.users, summary.test) == (2, 24, 2)
    assert summary.heard.shape == (24,) and (summary.heard >= 1).all()
    return folder


@pytest.fixture
def data(traced: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(traced)
    return Path("data/roofs")


def assert_traced_alike(one: PathSet, other: PathSet) -> None:
    """Fail unless both hold the same paths, in whichever order a link's paths come from many threads."""
    np.testing.assert_array_equal(one.position, other.position)
    np.testing.assert_array_equal(one.offset, other.offset)
    link = np.repeat(np.arange(len(one.offset) - 1), np.diff(one.offset))
    orders = [np.lexsort((paths.delay, link)) for paths in (one, other)]
    np.testing.assert_allclose(one.delay[orders[0]], other.delay[orders[1]], rtol=1e-5)


def layouts_of(world: Scenario) -> Layouts:
    assert world.layouts is not None
    return world.layouts


def test_sites_stand_above_roofs_of_the_region(world: Scenario) -> None:
    layouts, tracer = layouts_of(world), Tracer(world)
    sites = np.concatenate([draw_places(tracer, layouts, "train", n) for n in range(30)])
    assert sites.shape == (90, 3)
    roof = tracer.surface_m(sites)
    np.testing.assert_allclose(sites[:, 2] - roof, layouts.above_roof_m, atol=1e-4)
    assert (roof >= 15).all() and {29, 50} == set(np.floor(roof).astype(int))  # houses of two heights
    assert layouts.region.holds(sites).mean() > 0.98  # but for rounding at the edge
    assert tracer.sees_sky(sites).all()


def test_the_height_of_the_surface_is_the_scenes(world: Scenario) -> None:
    height = Tracer(world).surface_m(np.array([[0.0, 0.0], [0.0, 25.0], [-50.0, -20.0], [500.0, 500.0]]))
    np.testing.assert_allclose(height[:3], [0, 50.9, 21.6], atol=0.6)
    assert height[3] == -np.inf


def test_users_keep_to_the_street_and_see_the_sky(world: Scenario, data: Path) -> None:
    assert world.users.strip is not None
    tracer = Tracer(world)
    for part in PARTS:
        for sites, paths in load_layouts(data / "layouts", part):
            assert len(paths) == 12 and paths.sites == len(sites)
            assert world.users.strip.holds(paths.position).all() and tracer.sees_sky(paths.position).all()
            assert ((paths.paths_per_link() > 0).sum(1) >= 1).all()
            assert (paths.position[:, 2] == 1.5).all()


def test_training_validation_and_test_share_nothing(data: Path) -> None:
    sites = {part: load_sites(data / "layouts" / "sites.npz", part)[0] for part in PARTS}
    assert [sites[part].shape for part in PARTS] == [(2, 3, 3), (1, 2, 3), (2, 2, 3)]
    places = np.concatenate([part.reshape(-1, 3) for part in sites.values()])
    users = np.concatenate([paths.position for part in PARTS for _, paths in load_layouts(data / "layouts", part)])
    assert len(np.unique(places, axis=0)) == len(places) == 12
    assert len(np.unique(users, axis=0)) == len(users) == 60


def test_paths_lead_to_the_drawn_sites(data: Path) -> None:
    seen = 0
    for sites, paths in load_layouts(data / "layouts", "train"):
        link = np.repeat(np.arange(len(paths) * 3), paths.paths_per_link().ravel())
        direct = paths.bounces == 0
        distance = np.linalg.norm(paths.position[link // 3] - sites[link % 3], axis=1)
        np.testing.assert_allclose(paths.delay[direct] * 299_792_458.0, distance[direct], atol=1e-3)
        seen += int(direct.sum())
        assert (paths.delay * 299_792_458.0 >= distance - 1e-3).all()
    assert seen > 0


def test_a_test_layout_comes_with_its_sites(world: Scenario, data: Path) -> None:
    every = load_paths(data / "test.npz")
    for number, (sites, paths) in enumerate(load_layouts(data / "layouts", "test")):
        at, found = load_test_layout(world, number)
        assert at == world.at_layout(sites) and at.station_count == 2
        assert at.sites[1] == Site((*sites[1].tolist(),), name="trp-1")
        assert at.tracing_digest() == world.tracing_digest() == found.digest
        assert_same(found, lean(world, paths))
        assert_same(found, every.select(np.arange(12 * number, 12 * (number + 1))))
    for number in (2, -1):
        with pytest.raises(UserError, match=rf"no test layout {number} of scenario 'roofs'; there are 0 to 1\."):
            load_test_layout(world, number)
    known = load_training_positions(world)
    assert known is not None
    training = np.concatenate([paths.position for _, paths in load_layouts(data / "layouts", "train")])
    np.testing.assert_allclose(known, training, rtol=1e-6)


def test_a_trace_resumes_and_more_layouts_keep_those_there_are(world: Scenario, traced: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "roofs"
    shutil.copytree(traced / "data" / "roofs", folder)
    lost = folder / "layouts" / "train-0001.npz"
    before = load_paths(lost)
    lost.unlink()
    seen: list[TraceProgress] = []
    trace_layouts(world, folder, seen.append)
    assert [progress.resumed for progress in seen] == [True] * 4 + [False]
    assert [progress.done for progress in seen] == [12, 24, 36, 48, 60] and seen[0].total == 60
    assert_traced_alike(load_paths(lost), before)

    known = load_sites(folder / "layouts" / "sites.npz", "train")[0]
    more = replace(world, layouts=replace(layouts_of(world), training=3))
    seen.clear()
    trace_layouts(more, folder, seen.append)
    assert [progress.resumed for progress in seen] == [True] * 5 + [False]
    np.testing.assert_array_equal(load_sites(folder / "layouts" / "sites.npz", "train")[0][:2], known)
    assert len(load_layouts(folder / "layouts", "train")) == 3
    seen.clear()
    trace_layouts(world, folder, seen.append)  # fewer again: what is read is what is wanted
    assert len(seen) == 5 and len(load_layouts(folder / "layouts", "train")) == 2

    other = replace(world, layouts=replace(layouts_of(world), above_roof_m=5.0))
    with pytest.raises(UserError, match="layouts of another scenario"):
        trace_layouts(other, folder)
    (folder / "layouts" / "sites.npz").unlink()
    with pytest.raises(UserError, match="layouts of another scenario"):
        trace_layouts(other, folder)


def test_many_sites_are_traced_in_turns(world: Scenario, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sites, paths = load_layouts(data / "layouts", "train")[0]
    tracer = Tracer(world.at_layout(sites))
    together = tracer._trace(paths.position)
    monkeypatch.setattr("sim.world.tracer._SITES_PER_CALL", 2)
    assert_traced_alike(tracer._trace(paths.position), together)
    fewer = tracer._trace(paths.position[:5])  # as many receivers as there are users
    np.testing.assert_array_equal(fewer.paths_per_link(), together.paths_per_link()[:5])


@pytest.mark.parametrize("least", [15.0, 1000.0])
def test_too_few_roofs_are_said(world: Scenario, least: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_DRAWS", 2)
    wanted = replace(layouts_of(world), least_roof_m=least, places=3 if least > 100 else 900)
    with pytest.raises(UserError, match="hardly any roof"):
        draw_places(Tracer(world), wanted, "train", 0)


def test_too_few_users_are_said(world: Scenario, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.world.tracer._MAX_DRAWS_PER_SHARD", 2)
    sites, _ = load_layouts(data / "layouts", "validation")[0]
    below = replace(world, users=replace(world.users, high=(50.0, 30.0, 1.5), low=(50.0, 30.0, 1.5)))
    with pytest.raises(UserError, match="hardly any position"):
        Tracer(below.at_layout(sites)).users(5, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["test-layouts.npz", "layouts/sites.npz", "layouts/train-0000.npz"])
def test_damaged_files_are_named(
    world: Scenario, traced: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    shutil.copytree(traced / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "data" / "roofs" / name
    part: Part = "train"

    def read() -> None:
        if name == "test-layouts.npz":
            load_test_layout(world, 0)
        else:
            load_layouts(tmp_path / "data" / "roofs" / "layouts", part)

    read()
    whole = file.read_bytes()
    for length in (0, 100, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError, match=f"{name} .*damaged"):
            read()
    file.unlink()
    with pytest.raises(UserError, match=f"{name} (is|are) missing"):
        read()


def test_test_layouts_that_do_not_fit_their_paths_are_refused(
    world: Scenario, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    shutil.copytree(data, tmp_path / "data" / "roofs")
    monkeypatch.chdir(tmp_path)
    load_paths(data / "test.npz").select(np.arange(23)).save(data / "test.npz")
    with pytest.raises(UserError, match="do not fit the test paths"):
        load_test_layout(world, 0)


def test_trace_says_what_it_made(
    traced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(traced)
    (tmp_path / "roofs.toml").write_text(ROOFS)
    assert cli.main(["trace", str(tmp_path / "roofs.toml")]) == 0
    said = capsys.readouterr().out
    assert "2 training layouts with 24 users: data/roofs/layouts\n" in said
    assert "2 test layouts with 24 users, each with a path to " in said
    assert Path("data/roofs/ground-plan.npz").is_file()
    assert cli.main(["trace", str(tmp_path / "roofs.toml"), "--positions", "10"]) == 2
    assert "--positions is not for a scenario with layouts" in capsys.readouterr().err


def test_a_scenario_without_layouts_has_none(world: Scenario) -> None:
    with pytest.raises(UserError, match="has no layouts"):
        load_test_layout(load_scenario("paris-6"), 0)


def test_what_is_shipped_of_test_layouts_makes_the_same_channels() -> None:
    still_users = replace(straight_world.scenario().users, speed_mps=0.0)
    world = straight_world.scenario(array=Array(rows=1, columns=1), users=still_users)
    paths = straight_world.trace(world, straight_world.positions(world, 10), [((1.0, 0.0, 0.0), 200.0)])
    small = lean(world, paths)
    assert not len(small.mirror)
    assert not small.site_angle.any()
    still = Motion.draw(world, 10, torch.Generator().manual_seed(1))
    whole, own = (Synthesizer(world).response(pad_paths(p, world.numerology.carrier_hz), still) for p in (paths, small))
    torch.testing.assert_close(own, whole, rtol=1e-3, atol=1e-3 * float(whole.abs().max()))
