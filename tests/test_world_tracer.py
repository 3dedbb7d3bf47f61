"""Tracing and synthesis against Sionna RT itself, on its small street canyon."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sim.errors import UserError
from sim.world.channel import Motion, Synthesizer, move_users, pad_paths, tone_offsets
from sim.world.paths import load_paths, mirror_matrix, unit_vector
from sim.world.scenario import SPEED_OF_LIGHT, Scenario, load_scenario
from sim.world.tracer import _Tracer, trace_scenario

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
def tracer(canyon: Scenario) -> _Tracer:
    return _Tracer(canyon)


def still(scenario: Scenario, users: int) -> Motion:
    sites, slots = len(scenario.sites), scenario.numerology.slots
    return Motion(torch.zeros(users, 3), torch.zeros(users, sites), torch.zeros(users, sites, slots))


def users(count: int) -> np.ndarray:
    return np.random.default_rng(3).uniform([-25, -8, 1.5], [25, 8, 8], (count, 3))


def test_synthesis_equals_sionnas_frequency_response(canyon: Scenario, tracer: _Tracer) -> None:
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


def test_paths_are_consistent_with_geometry(canyon: Scenario, tracer: _Tracer) -> None:
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


def test_moved_users_equal_a_new_trace(canyon: Scenario, tracer: _Tracer) -> None:
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


def test_tracing_resumes_and_refuses_foreign_shards(canyon: Scenario, tmp_path: Path) -> None:
    small = replace(canyon, tracing=replace(canyon.tracing, positions=1200))
    whole = trace_scenario(small, tmp_path / "a")
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


def test_saved_paths_survive_and_damage_is_named(canyon: Scenario, tracer: _Tracer, tmp_path: Path) -> None:
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
    with pytest.raises(UserError, match="no scene 'atlantis'"):
        _Tracer(replace(canyon, scene="atlantis"))
