"""Tracing and synthesis against Sionna RT itself, on its small street canyon."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fronthaul.draws import generator
from sim.errors import UserError
from sim.report.preview_page import write_preview
from sim.world.channel import Motion, Synthesizer, move_users, pad_paths, tone_offsets
from sim.world.deployment import Strip
from sim.world.mismatch import Mismatch
from sim.world.paths import PathSet, load_paths, mirror_matrix, unit_vector
from sim.world.perturbed import perturbed, site_steps
from sim.world.preview import make_preview
from sim.world.scenario import SPEED_OF_LIGHT, Array, Scenario, Walk, load_scenario
from sim.world.tracer import Tracer, shard_users, trace_scenario, trace_world

CANYON = """
name = "canyon"
scene = "simple_street_canyon"
sites = [{ position = [-30.0, 2.0, 20.0], yaw_deg = 10.0, pitch_deg = 12.0 },
         { position = [35.0, -3.0, 18.0], yaw_deg = 170.0 }]
[users]
low = [-25.0, -8.0, 1.5]
high = [25.0, 8.0, 8.0]
speed_mps = 2.0
[numerology]
carrier_hz = 3.5e9
bandwidth_hz = 20e6
subcarrier_spacing_hz = 60e3
[tracing]
positions = 100
depth = 3
samples_per_source = 2000
"""


@pytest.fixture(scope="module")
def canyon(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    path = tmp_path_factory.mktemp("scenario") / "canyon.toml"
    path.write_text(CANYON)
    return load_scenario(str(path))


@pytest.fixture(scope="module")
def tracer(canyon: Scenario) -> Tracer:
    return Tracer(canyon)


def still(scenario: Scenario, users: int) -> Motion:
    sites, slots = len(scenario.sites), scenario.numerology.slots
    return Motion(torch.zeros(users, 3), torch.zeros(users, sites), torch.zeros(users, sites, slots))


def users(count: int) -> np.ndarray:
    return np.random.default_rng(3).uniform([-25, -8, 1.5], [25, 8, 8], (count, 3))


def test_a_carrier_outside_the_range_of_a_material_is_one_sentence(canyon: Scenario) -> None:
    low = replace(canyon, numerology=replace(canyon.numerology, carrier_hz=0.4e9))
    with pytest.raises(
        UserError, match=r"^Scenario 'canyon': numerology\.carrier_hz does not suit the scene: "
    ) as refused:
        Tracer(low)
    assert "\n" not in str(refused.value)


def test_synthesis_equals_sionnas_frequency_response(canyon: Scenario, tracer: Tracer) -> None:
    rt = tracer._rt
    scene = tracer._scene
    n = canyon.numerology
    paths = tracer._trace(users(100))
    single = scene.tx_array
    scene.tx_array = rt.PlanarArray(
        num_rows=2, num_cols=2, vertical_spacing=0.5, horizontal_spacing=0.5, pattern="iso", polarization="V"
    )
    scene.rx_array = rt.PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization="V")
    solved = tracer._solver(
        scene, max_depth=3, samples_per_src=2000, refraction=False, synthetic_array=True, seed=canyon.tracing.seed
    )
    frequencies = tone_offsets(n)
    reference = np.array(
        solved.cfr(frequencies=frequencies.astype(np.float32), normalize_delays=False, out_type="numpy")
    )[:, 0, :, :, 0]
    scene.tx_array = scene.rx_array = single
    made = Synthesizer(canyon).response(pad_paths(paths, n.carrier_hz), still(canyon, 100))[:, :, 0].numpy()
    error = np.linalg.norm(made - reference) / np.linalg.norm(reference)
    assert error < 2e-3


def test_dual_polarised_synthesis_equals_sionnas_frequency_response(canyon: Scenario, tracer: Tracer) -> None:
    """32 ports at the sites, 4 at users who head anywhere: all 128 pairs of each link."""
    rt, scene, n = tracer._rt, tracer._scene, canyon.numerology
    dual = replace(
        canyon,
        array=Array(rows=4, columns=4, polarizations=2),
        user_array=Array(rows=1, columns=2, polarizations=2),
    )
    paths = tracer._trace(users(100))
    heading = np.random.default_rng(4).uniform(-np.pi, np.pi, 100)
    velocity = np.column_stack([np.cos(heading), np.sin(heading), 0 * heading]).astype(np.float32)
    padded = pad_paths(replace(paths, velocity=velocity), n.carrier_hz, matrices=True)
    made = Synthesizer(dual).response(padded, still(canyon, 100))[:, :, 0].numpy()

    def planar(array: Array) -> Any:
        return rt.PlanarArray(num_rows=array.rows, num_cols=array.columns, pattern="iso", polarization="VH")

    single = scene.tx_array
    scene.tx_array, scene.rx_array = planar(dual.array), planar(dual.user_array)
    for index, angle in enumerate(heading):
        scene.receivers[f"user-{index}"].orientation = [float(angle), 0.0, 0.0]
    try:
        solved = tracer._solver(
            scene, max_depth=3, samples_per_src=2000, refraction=False, synthetic_array=True, seed=canyon.tracing.seed
        )
        tones = tone_offsets(n).astype(np.float32)
        reference = np.array(solved.cfr(frequencies=tones, normalize_delays=False, out_type="numpy"))[..., 0, :]
    finally:
        scene.tx_array = scene.rx_array = single
        for index in range(100):
            scene.receivers[f"user-{index}"].orientation = [0.0, 0.0, 0.0]
    expected = np.moveaxis(reference, (2, 3), (1, 2)).reshape(100, 2, 128, -1)  # [user, site, site ant, user ant, tone]
    strength = np.abs(paths.matrix[:, [0, 1], [1, 0]]).max() / np.abs(paths.matrix).max()
    assert strength > 0.05  # something crosses from one polarisation to the other
    assert np.linalg.norm(made - expected) / np.linalg.norm(expected) < 3e-3


Walked = tuple[Scenario, PathSet, Tracer]


@pytest.fixture(scope="module")
def walked(canyon: Scenario) -> Walked:
    """A small shard of walks through the canyon, whose snapshots do not divide it."""
    walk = Walk((4.0, 8.0), snapshots=5, interval_s=0.5)
    world = replace(canyon, walk=walk, users=replace(canyon.users, min_links=2))
    tracer = Tracer(world)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sim.world.tracer._SHARD_USERS", 102)
        assert shard_users(world) == 100
        return world, tracer.shard(1), tracer


def test_a_shard_holds_whole_walks(walked: Walked) -> None:
    world, paths, _ = walked
    assert len(paths) == len(paths.velocity) == 100
    np.testing.assert_array_equal(paths.user, 20 + np.arange(100) // 5)
    assert ((paths.paths_per_link() > 0).sum(1) == 2).all()
    position, velocity = (array.reshape(20, 5, 3).astype(float) for array in (paths.position, paths.velocity))
    np.testing.assert_allclose(np.diff(position, axis=1), 0.5 * velocity[:, :-1], atol=1e-5)
    speed = np.linalg.norm(velocity, axis=2)
    assert (speed > 4 - 1e-5).all() and (speed < 8 + 1e-5).all() and np.ptp(speed, axis=1).max() < 1e-4
    assert (paths.position >= np.float32(world.users.low)).all()
    assert (paths.position <= np.float32(world.users.high)).all()


def test_no_step_crosses_a_wall(walked: Walked) -> None:
    _, paths, tracer = walked
    position = paths.position.reshape(-1, 5, 3)
    start, end = (part.reshape(-1, 3) for part in (position[:, :-1], position[:, 1:]))
    assert tracer.clear(start, end).all() and tracer.sees_sky(paths.position).all()
    # The test does see walls: houses stand on both sides of the street.
    assert not tracer.clear(start, start + np.array([0, 40.0, 0])).all()
    assert tracer.clear(start, start).all() and tracer.clear(start[:0], end[:0]).shape == (0,)


def test_shards_of_walks_do_not_depend_on_one_another(
    walked: Walked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More positions later keep the walks that there are."""
    monkeypatch.setattr("sim.world.tracer._SHARD_USERS", 102)
    world, second, _ = walked
    few, many = (replace(world, tracing=replace(world.tracing, positions=count)) for count in (30, 150))
    first, both = trace_scenario(few, tmp_path / "few"), trace_scenario(many, tmp_path / "many")
    for name in ("position", "velocity", "user"):
        np.testing.assert_array_equal(getattr(both, name)[:30], getattr(first, name))
        np.testing.assert_array_equal(getattr(both, name)[100:], getattr(second, name)[:50])


def test_paths_are_consistent_with_geometry(canyon: Scenario, tracer: Tracer) -> None:
    paths = tracer._trace(users(100))
    counts = paths.paths_per_link().ravel()
    link = np.repeat(np.arange(len(counts)), counts)
    site = np.array([s.position for s in canyon.sites])[link % 2]
    user = paths.position[link // 2]
    mirror = mirror_matrix(paths.mirror, paths.bounces)
    arriving = np.einsum("pij,pi->pj", mirror, unit_vector(paths.site_angle))
    assert np.allclose(arriving, -unit_vector(paths.user_angle), atol=1e-3)
    assert np.allclose(np.abs(np.linalg.det(mirror)), 1, atol=1e-4)
    direct = paths.bounces == 0
    assert direct.any()
    assert np.allclose(np.linalg.norm(user - site, axis=1)[direct], paths.delay[direct] * SPEED_OF_LIGHT, atol=1e-3)


def test_moved_users_equal_a_new_trace(canyon: Scenario, tracer: Tracer) -> None:
    """Image-source extrapolation over 30 cm against tracing the moved position."""
    start, step = users(100), np.array([0.2, -0.15, 0.15])
    here, there = tracer._trace(start), tracer._trace(start + step)
    carrier = canyon.numerology.carrier_hz
    moved = move_users(pad_paths(here, carrier, mirrors=True), torch.tensor(step).float().expand(100, 3), carrier)
    synthesizer = Synthesizer(canyon)
    guess = synthesizer.response(moved, still(canyon, 100))
    truth = synthesizer.response(pad_paths(there, carrier), still(canyon, 100))
    same = torch.from_numpy(here.paths_per_link() == there.paths_per_link())
    error = (guess - truth).flatten(2).norm(dim=2) / truth.flatten(2).norm(dim=2).clamp_min(1e-12)
    assert same.float().mean() > 0.8
    # Reflection coefficients are kept, which is all that differs; an edge may still swap one path for another.
    assert error[same].quantile(0.9) < 0.05


def test_users_are_traced_where_they_are_put(canyon: Scenario, tracer: Tracer) -> None:
    position = users(130)  # more than one call
    paths = tracer.at(position)
    np.testing.assert_allclose(paths.position, position, atol=1e-5)
    sites = np.array([site.position for site in canyon.sites])
    first = np.array(
        [paths.delay[a:b].min(initial=np.inf) for a, b in zip(paths.offset, paths.offset[1:], strict=False)]
    )
    direct = np.linalg.norm(position[:, None] - sites, axis=2).ravel() / SPEED_OF_LIGHT
    seen = np.abs(first - direct) < 1e-10
    assert seen.mean() > 0.9 and (first[~seen] > direct[~seen]).all()  # in a street, nearly all in line of sight


def test_tracing_resumes_and_refuses_foreign_shards(canyon: Scenario, tmp_path: Path) -> None:
    small = replace(canyon, tracing=replace(canyon.tracing, positions=1200))
    first = trace_scenario(replace(canyon, tracing=replace(canyon.tracing, positions=20)), tmp_path / "a")
    assert len(first) == len(load_paths(tmp_path / "a" / "shard-0000.npz")) == 20
    whole = trace_scenario(small, tmp_path / "a")
    assert np.array_equal(whole.position[:20], first.position)  # the first stay
    assert len(whole) == 1200
    assert {p.name for p in (tmp_path / "a").iterdir()} == {"shard-0000.npz", "shard-0001.npz"}
    (tmp_path / "a" / "shard-0001.npz").unlink()
    seen = []
    again = trace_scenario(small, tmp_path / "a", seen.append)
    assert [p.resumed for p in seen] == [True, False]
    assert np.array_equal(again.position, whole.position)
    other = replace(small, sites=small.sites[:1])
    with pytest.raises(UserError, match="another scenario"):
        trace_scenario(other, tmp_path / "a")


def test_saved_paths_survive_and_damage_is_named(canyon: Scenario, tracer: Tracer, tmp_path: Path) -> None:
    paths = tracer._trace(users(100))
    paths.save(tmp_path / "p.npz")
    loaded = load_paths(tmp_path / "p.npz")
    assert np.array_equal(loaded.matrix, paths.matrix)
    data = (tmp_path / "p.npz").read_bytes()
    (tmp_path / "p.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="truncated or damaged"):
        load_paths(tmp_path / "p.npz")
    with pytest.raises(UserError, match="missing"):
        load_paths(tmp_path / "none.npz")


def test_unknown_scene_is_named(canyon: Scenario) -> None:
    with pytest.raises(UserError, match=r"^There is no scene 'munch' \(did you mean 'munich'\?\); "):
        Tracer(replace(canyon, scene="munch"))


def test_a_preview_counts_where_users_may_stand(canyon: Scenario, tmp_path: Path) -> None:
    wide = replace(canyon.users, low=(-20.0, -30.0, 1.5), high=(20.0, 30.0, 8.0), min_links=2)
    strip = Strip((0.0, -40.0), (0.0, 40.0), 30.0)
    indoors = replace(canyon.sites[0], position=(0.0, 20.0, 5.0), name="indoors")
    street = replace(canyon, users=replace(wide, strip=strip), sites=(*canyon.sites, indoors))
    made = make_preview(street)
    assert list(made.removed) == ["outside users.strip", "below a surface (users.outdoor)"]
    assert made.drawn == sum(made.removed.values()) + len(made.position)
    assert made.removed["outside users.strip"] == pytest.approx(made.drawn / 4, rel=0.1)  # 10 m of 40
    # Within |x| < 15 m, houses begin 9 m south and 10 m north of the street's middle: 19 m of 60 are left.
    assert (np.abs(made.position[:, 0]) <= 15).all() and (made.position[:, 1] > -9.1).all()
    assert (made.position[:, 1] < 10.1).all()
    assert len(made.position) == pytest.approx(made.drawn * 0.75 * 19 / 60, rel=0.1)
    assert made.covered.tolist() == [False, False, True]
    assert made.in_sight is not None and made.in_sight.mean(0)[:2].min() > 0.9 and not made.in_sight[:, 2].any()
    assert made.sure == made.in_sight[:, :2].all(1).sum()
    picture, page = write_preview(made, tmp_path)
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = page.read_text()
    assert "http" not in text.replace("http-equiv", "") and f"<td>{len(made.position)}</td>" in text
    assert "it may stand in a building" in text


# Worlds that differ from the scenario's (`Scenario.mismatch`)


def wrong(canyon: Scenario, **keys: Any) -> Scenario:
    return replace(canyon, mismatch=Mismatch(**keys))


def by_delay(paths: PathSet) -> PathSet:
    """Delays, gains and numbers of reflections of each link ordered by delay: a trace finds paths in any order."""
    link = np.repeat(np.arange(len(paths.offset) - 1), np.diff(paths.offset))
    order = np.lexsort((paths.delay, link))
    return replace(paths, delay=paths.delay[order], matrix=paths.matrix[order], bounces=paths.bounces[order])


def rows(paths: PathSet, user: int, site: int) -> slice:
    link = user * paths.sites + site
    return slice(int(paths.offset[link]), int(paths.offset[link + 1]))


def test_sites_that_stand_elsewhere_equal_a_new_trace(canyon: Scenario, tracer: Tracer) -> None:
    scenario = wrong(canyon, site_m=0.1)
    position = users(100)
    steps = site_steps(scenario.mismatch, 2)
    there = tuple(
        replace(site, position=tuple(np.add(site.position, step).tolist()))
        for site, step in zip(canyon.sites, steps, strict=True)
    )
    moved = Tracer(replace(canyon, sites=there)).at(position)
    found = perturbed(scenario, tracer.at(position))
    same = found.paths_per_link() == moved.paths_per_link()
    assert same.mean() > 0.8
    apart = []
    for user, site in np.argwhere(same):
        one, other = (np.sort(paths.delay[rows(paths, user, site)]) for paths in (found, moved))
        apart += list(np.abs(one.astype(float) - other) * SPEED_OF_LIGHT)
    assert np.quantile(apart, 0.9) < 1e-3  # m; an edge may still swap one path for another


def test_a_street_that_lies_elsewhere_lengthens_its_reflections(canyon: Scenario, tracer: Tracer) -> None:
    """The reflection on the street at height h is as long as the way to the user's image at 2 h − z."""
    mismatch = Mismatch(wall_m=0.3)
    moved = Tracer(canyon, mismatch)
    assert len(moved._scene.objects) == 7  # parts of the same material apart, sorted by name: the street is the last
    height = float(np.ravel(tracer._scene.objects["floor"].position)[2])
    height += 0.3 * generator(1, "mismatch walls", 6).standard_normal(3)[2]
    paths = moved.at(users(100))
    counts = paths.paths_per_link()
    site = np.array([s.position for s in canyon.sites])[np.repeat(np.tile([0, 1], 100), counts.ravel())]
    user = np.repeat(paths.position, counts.sum(1), axis=0)
    mirror = mirror_matrix(paths.mirror, paths.bounces)
    street = (paths.bounces == 1) & (np.abs(mirror - np.diag([1, 1, -1])).max((1, 2)) < 1e-3)
    assert street.sum() > 100
    across = user - site
    across[:, 2] = 2 * height - user[:, 2] - site[:, 2]
    length = np.linalg.norm(across, axis=1)[street]
    np.testing.assert_allclose(paths.delay[street] * SPEED_OF_LIGHT, length, atol=2e-3)


def test_walks_keep_their_users_and_velocities_in_another_world(walked: Walked) -> None:
    world, paths, _ = walked
    some = paths.select(np.arange(10))
    found = trace_world(wrong(world, wall_m=0.3), some)
    assert found.digest == wrong(world, wall_m=0.3).world_digest()
    np.testing.assert_array_equal(found.user, some.user)
    np.testing.assert_array_equal(found.velocity, some.velocity)
    np.testing.assert_array_equal(found.position, some.position)
    again = Tracer(world, Mismatch(wall_m=0.3)).at(some.position)
    np.testing.assert_allclose(by_delay(again).delay, by_delay(found).delay, rtol=1e-6)


def test_materials_change_by_their_draws_and_delays_do_not(canyon: Scenario, tracer: Tracer) -> None:
    changed = Tracer(canyon, Mismatch(materials=0.2))
    for number, name in enumerate(sorted(tracer._scene.radio_materials)):
        share = 0.2 * generator(1, "mismatch materials", number).uniform(-1, 1, 2)
        before, after = (one._scene.radio_materials[name] for one in (tracer, changed))
        ratio = np.ravel(after.conductivity) / np.ravel(before.conductivity)
        assert ratio[0] == pytest.approx(1 + share[1], rel=1e-5)
        permittivity = np.ravel(before.relative_permittivity)[0] * (1 + share[0])
        assert np.ravel(after.relative_permittivity)[0] == pytest.approx(max(1.0, permittivity), rel=1e-5)
    here, there = by_delay(tracer.at(users(100))), by_delay(changed.at(users(100)))
    np.testing.assert_allclose(here.delay, there.delay, rtol=1e-6)
    gain = np.abs(there.matrix[:, 0, 0]) / np.abs(here.matrix[:, 0, 0])
    assert gain[here.bounces == 0] == pytest.approx(1.0, rel=1e-4)
    assert np.abs(gain[here.bounces == 1] - 1).mean() > 1e-3


def test_diffuse_reflection_takes_its_power_from_specular_reflections(canyon: Scenario, tracer: Tracer) -> None:
    position, share = users(40), 0.4
    here = tracer.at(position)
    there = trace_world(wrong(canyon, diffuse=share), here)
    assert len(there.mirror) == 0  # a path by way of a rough wall follows no image
    number = np.arange(len(there.delay)) - np.repeat(there.offset[:-1], np.diff(there.offset))
    first = number < np.repeat(here.paths_per_link().ravel(), np.diff(there.offset))  # the specular ones
    here, found = by_delay(here), by_delay(there.keep(first))
    for user in range(40):
        for site in range(2):
            before, after = rows(here, user, site), rows(there, user, site)
            np.testing.assert_allclose(here.delay[before], found.delay[before], rtol=1e-6)
            gain = np.abs(found.matrix[before, 0, 0]) / np.abs(here.matrix[before, 0, 0])
            np.testing.assert_allclose(gain, (1 - share**2) ** (here.bounces[before] / 2), rtol=1e-3)
            diffuse = slice(after.start + before.stop - before.start, after.stop)
            assert (np.abs(there.matrix[diffuse]).max((1, 2)) > 0).any()
            assert (there.delay[diffuse] * SPEED_OF_LIGHT
                    > np.linalg.norm(position[user] - canyon.sites[site].position) - 1e-3).all()  # fmt: skip


def test_diffraction_adds_paths_to_those_that_there_are(canyon: Scenario, tracer: Tracer) -> None:
    here = tracer.at(users(40))
    there = trace_world(wrong(canyon, diffraction=True), here)
    more = there.paths_per_link() - here.paths_per_link()
    assert (more >= 0).all() and more.mean() > 1
    assert len(there.mirror) == 0
