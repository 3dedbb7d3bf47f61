"""ECC's comparisons: which network each row needs, how it is trained where it is missing, and what the pages say."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sim.learn.ecc.model import EccShape
from sim.learn.ecc.train import EccTraining
from sim.learn.trainer import Schedule
from sim.plan.settings import EmulateSettings
from sim.plan.weights import find_weights, load_weights
from sim.reproduce.ecc import ablations, baselines, runs, stage1, strategies, subcarriers, tracking
from sim.reproduce.ecc.campaign import BaselineJob, Job, Lengths, jobs
from sim.reproduce.tables import reproduce
from sim.world.scenario import load_scenario
from sim.world.store import load_test_paths

TABLES: dict[str, Callable[[], runs.ComparisonBench]] = {
    "ablations": ablations.ablation_bench,
    "strategies": strategies.strategy_bench,
    "baselines": baselines.baseline_bench,
    "subcarriers": subcarriers.subcarrier_bench,
    "tracking": tracking.spiral_bench,
}
SMALL = EccShape(coefficients=4, encoder_width=8, encoder_depth=1, fusion_width=16, hidden=16)


def tiny(bits: int | None = 4, **changes: Any) -> EccTraining:
    """A training of four steps."""
    schedule = Schedule(epochs=0.5, batch=4, warmup_steps=1, validate_every=2)
    return EccTraining(bits=bits, stage_one_epochs=0.25, shape=SMALL, schedule=schedule, **changes)


@pytest.mark.parametrize("table", TABLES)
def test_every_network_of_a_row_is_one_that_the_campaign_trains_for_it(
    table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "DATA_FOLDER", tmp_path)
    made = {name: job for job in jobs(Lengths()).values() for name in job.names}
    for label, settings in TABLES[table]().settings.items():
        if settings.weights is None or settings.weights.stem == runs.MUSIC:
            continue
        stem, scenario = settings.weights.stem, load_scenario(settings.scenario)
        job = made[stem]
        assert scenario.data_name == "paris-6", label
        if isinstance(job, BaselineJob):
            assert job.baselines[stem] == settings.scheme and settings.bits is None, label
            continue
        training = job.trainings[stem]
        assert training.bits == settings.bits and settings.scheme == "ecc", label
        assert (training.split == "block") == (settings.test is not None and "block" in settings.test.name), label
        numerology = {key: getattr(scenario.numerology, key) for key in job.grid}
        assert numerology == dict(job.grid) and scenario.clock == (job.clock or load_scenario("paris-6").clock), label
        changed = dataclasses.replace(load_scenario("paris-6").numerology, **job.grid)
        assert changed == scenario.numerology, label


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, EccTraining]], None]:
    """Trainings of a few steps on a few of the shipped channels of paris-6 in place of the campaign's."""
    shipped = load_test_paths(load_scenario("paris-6")).select(np.arange(64))
    paths = dataclasses.replace(shipped, position=shipped.position + 1.0)  # shipped positions are not trained on
    monkeypatch.setattr(runs, "_paths", lambda: paths)

    def use(trainings: Mapping[str, EccTraining]) -> None:
        monkeypatch.setattr(runs, "_JOBS", {"small": Job(trainings)})

    return use


def of(folder: Path, name: str, bits: int | None = 4) -> EmulateSettings:
    settings = runs.comparison(bits, name)
    return dataclasses.replace(settings, snapshots=12, weights=folder / f"{name}.safetensors", output=folder / "runs")


def records(output: Path, name: str) -> dict[str, Any]:
    return {one["label"]: one for one in json.loads((output / f"{name}.json").read_text())}


def test_missing_networks_are_trained_once_and_compared_position_by_position(
    tmp_path: Path, small: Callable[[Mapping[str, EccTraining]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    small({"short-a": tiny(), "short-b": tiny(phase="tone")})
    sections = {"": {ablations.AS_BUILT: of(tmp_path, "short-a"), ablations.LETTER: of(tmp_path, "short-b")}}
    monkeypatch.setattr(ablations, "SECTIONS", sections)
    output = tmp_path / "tables"
    untrained = reproduce("ecc-ablations", output, train=False, bench=ablations.ablation_bench()).read_text()
    assert untrained.count("not trained") == 2 and not (tmp_path / "short-a.safetensors").exists()
    text = reproduce("ecc-ablations", output, bench=ablations.ablation_bench()).read_text()
    found = records(output, "ecc-ablations")
    base, other = found[ablations.AS_BUILT]["result"], found[ablations.LETTER]["result"]
    assert "difference" not in base
    apart = other["error_3d_m"]["mean"] - base["error_3d_m"]["mean"]
    assert other["difference"]["mean"] == pytest.approx(apart, abs=2e-4)  # of numbers with six digits
    low, high = other["difference"]["ci95_of_mean"]
    assert low <= apart <= high and f"| {apart:+.3f} ({low:+.3f} to {high:+.3f}) |" in text
    assert "| 0.52 / 0.90 |" in text
    assert base["cdf"]["50"] == pytest.approx(base["error_3d_m"]["median"], abs=1e-4)
    trained = (tmp_path / "short-a.safetensors").stat().st_mtime_ns
    reproduce("ecc-ablations", output, bench=ablations.ablation_bench())
    assert records(output, "ecc-ablations") == found
    assert (tmp_path / "short-a.safetensors").stat().st_mtime_ns == trained


def test_strategies_are_ranked_and_their_curves_drawn(
    tmp_path: Path, small: Callable[[Mapping[str, EccTraining]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"a": {"stage_one_epochs": 0.0}, "b": {"frozen": True}, "c": {}, "d": {}}
    trainings = {
        name: dataclasses.replace(tiny(None if name == "d" else 4), **changes) for name, changes in names.items()
    }
    small(trainings)
    settings = dict(zip(strategies.RUNS, (of(tmp_path, n, None if n == "d" else 4) for n in names), strict=True))
    monkeypatch.setattr(strategies, "RUNS", settings)
    output = tmp_path / "tables"
    text = reproduce("ecc-strategies", output, bench=strategies.strategy_bench()).read_text()
    found = records(output, "ecc-strategies")
    for label, settings_of_row in settings.items():
        weights = settings_of_row.weights
        assert weights is not None
        curves = found[label]["result"]["curves"]
        assert curves == load_weights(weights).config["record"]["curves"]
        assert bool(curves["stage_one_loss"]) == (label not in ("joint from scratch", "raw CSI, no encoders"))
        assert len(curves["validation_m"]) >= 2
    ranked = sorted(settings, key=lambda label: found[label]["result"]["error_3d_m"]["mean"])
    assert f"Order, best first: {'; '.join(ranked)}." in text
    assert (output / "ecc-strategies.png").stat().st_size > 10_000


def test_the_order_of_methods_is_told_by_mean_and_median() -> None:
    def record(label: str, mean: float, median: float) -> dict[str, Any]:
        return {"label": label, "result": {"error_3d_m": {"mean": mean, "median": median, "p90": mean}}}

    labels = list(baselines.RUNS)
    some = [record(label, float(n), float(n)) for n, label in enumerate(labels)]
    told = baselines.orders(some)
    assert sum("ECC best holds, MUSIC worst holds" in line for line in told) == 3
    some[-1]["result"]["error_3d_m"]["median"] = 0.5
    told = baselines.orders(some)
    assert sum("ECC best does not hold, MUSIC worst does not hold" in line for line in told) == 1
    some[2]["result"] = None
    assert baselines.orders(some) == []


def test_positions_after_all_tokens_are_those_that_an_emulation_reads_out() -> None:
    """Another draw of the noise, so alike within a few centimetres in the mean."""
    position, truth = subcarriers.positions_of("paris-6", find_weights("paris-6", "ecc", 5))
    assert position.shape == (2000, 24, 3)
    fix = position[:, -12:].mean(1)
    assert np.linalg.norm(fix - truth, axis=1).mean() == pytest.approx(0.343, abs=0.02)


def test_the_spiral_rises_evenly_around_the_square() -> None:
    scenario, points = load_scenario("paris-6"), tracking.spiral()
    assert (points >= scenario.users.low).all() and (points <= scenario.users.high).all()
    step = np.linalg.norm(np.diff(points, axis=0), axis=1)
    np.testing.assert_allclose(step, step.mean(), rtol=1e-6)
    turned = np.unwrap(np.arctan2(points[:, 1], points[:, 0]))
    assert turned[-1] - turned[0] == pytest.approx(6 * np.pi)


def test_a_reconstruction_that_differs_by_one_phase_is_perfect_and_noise_is_not() -> None:
    class Bench(stage1.AutoencoderBench):
        made: Any

        @property
        def reconstructed(self) -> Any:  # type: ignore[override]
            return self.made

    scenario = load_scenario("paris-6")
    slots, antennas, tones = scenario.csi_shape
    x = torch.randn(5, 6, 2, tones, slots * antennas)
    turned = torch.complex(x[:, :, 0], x[:, :, 1]) * torch.exp(torch.tensor(0.7j))
    bench = Bench()
    bench.made = x, 3 * torch.stack([turned.real, turned.imag], 2), []
    found = stage1.reconstruction(bench, (), station=2, drawn=True)
    assert found["beyond_best"]["mean"] == pytest.approx(0, abs=1e-5) and found["map_cosine"] == pytest.approx(1)
    assert found["phase_deg"]["mean"] < 0.1 and np.shape(found["phases"]) == (2, tones, slots * antennas)
    bench.made = x, torch.randn_like(x), []
    found = stage1.reconstruction(bench, (), station=2, drawn=False)
    assert found["beyond_best"]["mean"] > 0.8 and found["phase_deg"]["mean"] > 60 and "phases" not in found
