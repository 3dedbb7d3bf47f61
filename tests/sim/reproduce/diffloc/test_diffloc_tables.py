"""`reproduce diffloc-…` on a made-up world of straight paths, with trainings of a few steps."""

import ast
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import straight_world
import torch
from safetensors.torch import save_file

import cli
from fronthaul.payload.diffloc import score_format
from sim.errors import UserError
from sim.learn.diffloc import jobs
from sim.learn.diffloc.evaluate import errors_m
from sim.learn.diffloc.fit import Schedule
from sim.learn.diffloc.job import Job
from sim.learn.diffloc.train import DiffLocTraining, train_diffloc
from sim.plan.weights import load_weights
from sim.records.statistics import sample_statistics
from sim.reproduce import rows, tables
from sim.reproduce.diffloc import (
    baselines,
    bench,
    figures,
    fusion_rows,
    leaky_table,
    maps,
    markdown,
    methods,
)
from sim.reproduce.diffloc.measures import sampled
from sim.reproduce.markdown import metres
from sim.world.scenario import Scenario, load_scenario

ROOT = Path(__file__).resolve().parents[4]
POSITIONS, MORE = 120, 140
ALL, FEW = (0, 1, 2), (0, 2)
NAMES = [name for name, table in tables.TABLES.items() if table.bench is bench.Bench]
STUDIED = "paris-7-random-ct"
"""Trained long enough to have learnt something."""


def scenario() -> Scenario:
    """paris-7 with three sites and 8 taps of few tones."""
    paris = load_scenario("paris-7")
    band = {"subcarriers": 64, "tones": 64, "bandwidth_hz": 64 * 480e3, "subcarrier_spacing_hz": 480e3}
    numerology = dataclasses.replace(paris.numerology, ifft=64, taps=12, **band)
    splits = dataclasses.replace(paris.splits, test=24, validation=24)
    tracing = dataclasses.replace(paris.tracing, positions=POSITIONS)
    return dataclasses.replace(paris, sites=paris.sites[:3], numerology=numerology, splits=splits, tracing=tracing)


def tiny_jobs() -> list[Job]:
    """The trainings, with few base stations and next to no steps."""
    made: dict[str, Job] = {}
    for job in jobs.jobs():
        stations = ALL if len(job.setting.stations) == len(jobs.ALL) else FEW
        setting = dataclasses.replace(job.setting, stations=stations, components=16)
        epochs = 50 if job.name == STUDIED else 1
        schedule = Schedule(epochs=epochs, patience=epochs, batch=48, seed=job.schedule.seed)
        start = None if job.start is None else made[job.start.name]
        made[job.name] = dataclasses.replace(job, setting=setting, schedule=schedule, start=start)
    return list(made.values())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny = scenario()
        patch.setattr(jobs, "load_scenario", lambda _: tiny)
        patch.setattr(methods, "PAPER_STEPS", 4)
        patch.setattr(methods, "AVERAGED", {"steps": 3, "particles": 2, "rules": ("sum", "gauss")})
        for name, value in (("STEPS", 3), ("PARTICLES", 2), ("LOCAL", {"local_steps": 3, "local_particles": 8})):
            patch.setattr(fusion_rows, name, value)
        for name, value in (("DIFFUSION_STEPS", (2, 5)), ("SHORT", 4), ("SUBSETS", 2)):
            patch.setattr(figures, name, value)
        patch.setattr(leaky_table, "STEPS", 3)
        position = straight_world.positions(tiny, MORE)
        wall = ((0.6, 0.8, 0.0), 150.0)
        paths = straight_world.walking(straight_world.trace(tiny, position, [wall]), 4)
        for data, count in (("paris-7", POSITIONS), ("paris-7-fast", POSITIONS), (jobs.DENSE, MORE)):
            paths.select(np.arange(count)).save(Path("data") / data / "paths.npz")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield folder
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def desk(world: Path) -> bench.Bench:
    return bench.Bench(tiny_jobs())


def numbers(value: Any) -> Iterator[float]:
    """All numbers in a JSON value."""
    if isinstance(value, dict):
        for one in value.values():
            yield from numbers(one)
    elif isinstance(value, list):
        for one in value:
            yield from numbers(one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


def texts(value: float) -> set[str]:
    """How a page may write a number."""
    forms = {metres(value), markdown.printed(value), leaky_table.fine(value), f"{value:.2f}", f"{value:g}"}
    return forms | {f"{100 * value:.1f}"}


@pytest.mark.parametrize("name", NAMES)
def test_a_table_is_measured_written_and_resumed(
    desk: bench.Bench, world: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "commit", lambda: "abc")
    page = tables.reproduce(name, world / "out", bench=desk)
    records = json.loads((world / "out" / f"{name}.json").read_text())
    text = page.read_text()
    assert text.startswith(f"<!-- made by `python cli.py reproduce {name}`; do not edit -->\n")
    assert all(record["result"] is not None and record["commit"] == "abc" for record in records)
    assert "not trained" not in text.lower()
    assert (world / "out" / f"{name}.png").is_file() == (tables.TABLES[name].draw is not None)
    known = set().union(*(texts(value) for value in numbers(records)))
    for line in text.splitlines():
        if not line.startswith(("|", "-")):
            continue
        for record in sorted(records, key=lambda one: -len(one["label"])):
            line = line.replace(record["label"], "")
        for word in re.findall(r"(?<![\w.])\d+\.\d+(?:e[+-]\d+)?", line):
            assert word in known, f"{word} of {line!r} is in no record"

    def not_again(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(rows.Row, "run", not_again)
    monkeypatch.setattr(bench.Bench, "train", not_again)
    assert tables.reproduce(name, world / "out", bench=bench.Bench(tiny_jobs())).read_text() == text


@pytest.mark.parametrize("text", ["[" * 100_000, "null", "[3]", '[{"name": "x"}]', "\xff"])
def test_a_damaged_table_or_network_is_one_sentence(world: Path, text: str) -> None:
    store = world / "damaged.json"
    store.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=rf"^The table {store} is damaged \(.*\); restore or remove it\.$"):
        rows.read_records(store)
    path = world / "damaged.safetensors"
    save_file({}, path, metadata={"record": text})
    job = dataclasses.replace(tiny_jobs()[0], name="damaged")
    with pytest.raises(UserError, match=rf"^The network {path} is damaged \(\w+\); remove it, and train it again\.$"):
        jobs.load_fit(job, world)


def test_rows_of_other_networks_or_options_alone_are_measured_again(desk: bench.Bench, world: Path) -> None:
    done = []

    def measure(_: bench.Bench, names: tuple[str, ...], *, value: int) -> dict[str, Any]:
        done.append(names[0])
        return {"value": value}

    first, second = "paris-7-random-regression", "paris-7-random-cnn"
    for name in (first, second):
        desk.train(name)
    store = world / "again.json"

    def made(value: int) -> list[rows.Row]:
        return [rows.Row(name, measure, (name,), {"value": value}) for name in (first, second)]

    def states(value: int = 1) -> list[tuple[str, tuple[str, ...]]]:
        return [(one.state, one.train) for one in rows.planned(desk, made(value), store)]

    assert states() == [("missing", ())] * 2 and not store.exists()
    rows.measure_rows(desk, made(1), store)
    rows.measure_rows(desk, made(1), store)
    assert done == [first, second] and states() == [("measured", ())] * 2
    file = jobs.FITS / f"{second}.safetensors"
    kept = file.read_bytes()
    file.write_bytes(kept + b" ")
    assert states() == [("measured", ()), ("outdated", ())]
    rows.measure_rows(desk, made(1), store)
    assert done == [first, second, second]
    file.unlink()
    assert states() == [("measured", ()), ("outdated", (second,))] and states(2)[1] == ("missing", (second,))
    assert done == [first, second, second]  # a plan measures nothing
    # what is stored stays, where nothing is there to doubt it
    found = rows.measure_rows(desk, made(1), store, train=False)
    assert [one["result"] for one in found] == [{"value": 1}, {"value": 1}]
    found = rows.measure_rows(desk, made(2), store, train=False)
    assert [one["result"] for one in found] == [{"value": 2}, None]
    file.write_bytes(kept)


def test_without_training_rows_say_so(world: Path, tmp_path: Path) -> None:
    bare = bench.Bench(tiny_jobs(), tmp_path / "none")
    for name in NAMES:
        text = tables.reproduce(name, tmp_path / "out", bench=bare, train=False).read_text()
        assert "not trained" in text.lower()
    assert not (tmp_path / "none").exists()


def test_missing_data_names_the_commands_that_make_them(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="trace paris-7`") as caught:
        tables.reproduce("diffloc-table4", tmp_path, bench=bench.Bench(tiny_jobs()))
    assert "`python cli.py trace paris-7 --positions 20000 --output data/paris-7-dense`" in str(caught.value)


def test_the_help_names_every_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reproduce", "--help"]) == 0
    words = set(re.findall(r"\w+", capsys.readouterr().out))
    words |= {f"fig{number}" for number in range(5, 12)} if {"fig5", "fig11"} <= words else set()
    assert [name for name in tables.TABLES if not set(name.split("-")) <= words] == []


def test_a_plan_without_data_says_what_is_stored_and_what_is_lacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")  # room for whole words
    for table, state, last in (
        ("ecc-table2", "not here", "3 rows stay as they are stored: weights or data that they need are not here."),
        ("track", "outdated", "The path data of paris-6-walks are missing: run `python cli.py trace paris-6-walks`."),
    ):
        assert cli.main(["reproduce", table, "--output", str(ROOT / "docs" / "tables"), "--dry-run"]) == 0
        told = capsys.readouterr().out
        assert state in told and "Nothing was done." in told
        assert told.splitlines()[-1] == last
    assert list(tmp_path.iterdir()) == []


def test_shuffled_channels_tell_no_more_than_the_prior(desk: bench.Bench) -> None:
    desk.train(STUDIED)
    asked = {"steps": 2, "rules": ("gauss",), "alone": False}
    own = sampled(desk, [STUDIED], **asked)["fused"]["gauss"]["mean"]
    shuffled = sampled(desk, [STUDIED], shuffled=True, **asked)["fused"]["gauss"]["mean"]
    mean = baselines.prior_mean(desk, [STUDIED])["fused"]["joint"]["mean"]
    drawn = baselines.prior_draw(desk, [STUDIED])["fused"]["joint"]["mean"]
    assert own < 0.7 * mean < mean < drawn
    assert mean * 0.9 < shuffled < drawn * 1.3


def test_the_leak_at_the_least_noise_is_its_own_noise_whatever_the_network(desk: bench.Bench) -> None:
    desk.train(STUDIED)
    for sigma in (0.002, 4e-5):
        found = leaky_table.consistency_leak(desk, [STUDIED], sigma=sigma)
        for one in found["alone"]:
            assert one["mean"] == pytest.approx(1.2533 * sigma * 100, rel=0.35)  # of 24 samples
        assert found["fused"]["mean"]["mean"] == pytest.approx(found["expected_fused_m"], rel=0.35)
        assert found["honest"]["fused"]["mean"] > 10 * found["fused"]["mean"]["mean"]


def test_the_leaky_oracle_is_imported_by_its_table_alone() -> None:
    name = "sim.reproduce.diffloc.leaky_oracle"
    importers, table_importers = set(), set()
    for path in [*ROOT.glob("*.py"), *(p for f in ("sim", "cloud", "edge", "fronthaul", "benchmarks", "tests")
                                       for p in (ROOT / f).rglob("*.py"))]:  # fmt: skip
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                found = {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                found = {alias.name for alias in node.names}
            else:
                continue
            if name in found:
                importers.add(path.relative_to(ROOT).as_posix())
            if "sim.reproduce.diffloc.leaky_table" in found:
                table_importers.add(path.relative_to(ROOT).as_posix())
    assert importers == {"sim/reproduce/diffloc/leaky_table.py"}
    assert table_importers == {"sim/reproduce/tables.py", "tests/sim/reproduce/diffloc/test_diffloc_tables.py"}
    tree = ast.parse((ROOT / "sim/reproduce/diffloc/leaky_oracle.py").read_text())
    functions = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert functions and all(function.lstrip("_").startswith("leaky_") for function in functions)


def test_networks_trained_jointly_are_sent_and_fused_like_others(world: Path) -> None:
    held = []
    for fused in (False, True):
        wanted = DiffLocTraining(fused=fused, epochs=1, budget_s=2.0)
        files, said = train_diffloc(scenario(), None, wanted, world / f"fused-{fused}.safetensors")
        assert ("of each alone" in said) != fused
        assert not list(world.glob("*.pt"))
        held.append(load_weights(files[0]))
    apart, jointly = held
    sizes = [{name: value.shape for name, value in one.tensors.items()} for one in held]
    assert sizes[0] == sizes[1] and apart.config.keys() == jointly.config.keys()
    assert score_format(apart.config, {}, 8).chosen == score_format(jointly.config, {}, 8).chosen


def test_the_grid_is_chosen_on_validation_samples(desk: bench.Bench) -> None:
    names = tuple(f"paris-7-random-grid{spacing:g}" for spacing in jobs.SPACINGS_M)
    for name in names:
        desk.train(name)
    found = baselines.grid_fusion(desk, names)
    best = min(found["validation"], key=lambda one: one["mean"])
    assert found["spacing_m"] == best["spacing_m"]


def test_neighbours_find_a_training_sample_again(desk: bench.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    features = desk.features(STUDIED)
    seen = dataclasses.replace(features.split, test=features.split.train[:5])
    monkeypatch.setattr(desk, "features", lambda _: dataclasses.replace(features, split=seen))
    assert baselines.neighbours(desk, [STUDIED])["fused"]["joint"]["mean"] < 0.1
    assert errors_m(np.zeros((1, 2)), np.array([[0.3, 0.4]])) == pytest.approx(50.0)


def test_intervals_resample_whole_walks(desk: bench.Bench) -> None:
    found = baselines.prior_mean(desk, [STUDIED])["fused"]["joint"]
    walks = desk.features(STUDIED).split.test // 4  # of four snapshots each in this world
    assert (found["samples"], found["clusters"]) == (24, len(set(walks.tolist())))
    assert found["clusters"] < 24
    truth = desk.features(STUDIED).truth("test")
    error = errors_m(np.broadcast_to(desk.features(STUDIED).truth("train").mean(0), truth.shape), truth)
    assert found["ci95_of_mean"] == sample_statistics(error, walks)["ci95_of_mean"]


def test_the_probability_map_of_a_certain_network_covers_one_cell(desk: bench.Bench) -> None:
    names = tuple(f"paris-7-random-grid{spacing:g}" for spacing in jobs.SPACINGS_M)
    for name in names:
        desk.train(name)
    one, all_of_them = maps.mapped(desk, names, stations=[0]), maps.mapped(desk, names)
    assert all_of_them["spacing_m"] == one["spacing_m"] and all_of_them["area_m2"] <= one["area_m2"]
    assert max(map(max, one["map"])) == 255 and 0 <= one["covered"] <= 1
    cells = len(one["map"]) * len(one["map"][0])
    assert one["spacing_m"] ** 2 <= one["area_m2"] <= cells * one["spacing_m"] ** 2


def test_estimates_on_the_map_lie_as_far_from_the_truth_as_their_error(desk: bench.Bench) -> None:
    desk.train(STUDIED)
    found = maps.placed(desk, [STUDIED], rule="gauss", steps=2, shown=10)
    apart = np.linalg.norm(np.array(found["truth"]) - np.array(found["estimate"]), axis=1)
    assert len(apart) == 10 and apart.mean() == pytest.approx(found["shown_m"], abs=0.15)  # places are rounded to 0.1 m
    walks = maps.placed(desk, [STUDIED], rule="gauss", steps=2, walks=2)["walk"]
    assert len(set(walks)) == 2 and walks == sorted(walks)


def test_a_figure_draws_what_runs_away_at_the_edge(tmp_path: Path) -> None:
    fused = {"sum": {"mean": 1e10, "ci95_of_mean": [9e9, 1.1e10]}}
    record = {"label": "CT, 5 steps", "section": "CT", "paper": {}, "about": {"steps": 5}, "result": {"fused": fused}}
    figures.fig8_draw(tmp_path / "fig8.png", [record])
    assert (tmp_path / "fig8.png").stat().st_size > 1000
