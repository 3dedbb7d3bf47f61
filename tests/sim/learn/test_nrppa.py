"""Training of the learned fusion: its error falls, a stopped one resumes, and the same command makes the same file."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import straight_world
import torch

from sim.learn.lateration import first_path_weights, fitted, residuals
from sim.learn.nrppa import NrppaTraining, thinned, train_nrppa
from sim.plan.weights import Weights, load_weights, save_weights
from sim.world.paths import PathSet
from sim.world.scenario import Scenario


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenario, PathSet, Path]:
    made = straight_world.scenario(4)
    scenario = dataclasses.replace(made, numerology=dataclasses.replace(made.numerology, tones=24, tone_stride=12))
    paths = straight_world.trace(scenario, straight_world.positions(scenario, 60))
    weights = first_path_weights(scenario)
    errors = fitted(*residuals(scenario, paths, weights))
    start = tmp_path_factory.mktemp("start") / "toa.safetensors"
    save_weights(start, Weights(weights.config | {"errors": errors}, weights.tensors))
    return scenario, paths, start


def test_a_stopped_training_resumes_to_the_same_file(tmp_path: Path, world: tuple[Scenario, PathSet, Path]) -> None:
    scenario, paths, start = world
    training = NrppaTraining(start, positions=40, epochs=5, batch=20)
    first: list[str] = []

    def stop(stage: str, done: int, total: int, note: str) -> None:
        first.append(stage)
        if (stage, done) == ("training", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_nrppa(scenario, paths, training, tmp_path / "a.safetensors", stop, tmp_path / "a.pt")
    later: list[str] = []
    errors = train_nrppa(
        scenario, paths, training, tmp_path / "a.safetensors", lambda *told: later.append(told[0]), tmp_path / "a.pt"
    )
    whole = train_nrppa(scenario, paths, training, tmp_path / "b.safetensors", lambda *told: None)
    assert "reports" in first and later == ["training"] * 2
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert errors == whole and set(errors) == {"path", "sample"}
    mean_m = np.linalg.norm(paths.position - paths.position.mean(0), axis=1).mean()
    assert max(errors.values()) < mean_m
    assert load_weights(tmp_path / "a.safetensors").config["networks"]["sample"]["reports"]["samples"] == 9


def test_reports_are_thinned_as_base_stations_would() -> None:
    table = torch.rand(200, 6, 5, 5)
    made = thinned("path", table, torch.Generator().manual_seed(0))
    kept = made[:, :, 1:, 3].isfinite()
    assert set(kept.sum(2).flatten().tolist()) == {0, 1, 2, 3, 4}
    assert (kept.sum(2) == kept.sum(2)[:, :1]).all() and torch.equal(made[:, :, 0], table[:, :, 0])
    weakest_kept = torch.where(kept, table[:, :, 1:, 3], 2.0).amin(2)
    strongest_lost = torch.where(kept, -1.0, table[:, :, 1:, 3]).amax(2)
    assert (strongest_lost <= weakest_kept).all()
    sampled = thinned("sample", table, torch.Generator().manual_seed(0))
    assert 0.3 < sampled[..., 4].isnan().float().mean() < 0.7 and torch.equal(sampled[..., :4], table[..., :4])
