"""`reproduce vinloc-…` on a made-up hall of straight paths, with trainings of a few steps."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_hall
import torch

from sim.errors import UserError
from sim.learn.vinloc.evaluate import Network, hidden, late_clocks, noisy, positions_of, shuffled
from sim.learn.vinloc.jobs import run_job
from sim.reproduce import markdown, tables
from sim.reproduce.rows import Row
from sim.reproduce.vinloc import angles, bench, lost, pages
from sim.reproduce.vinloc import method_rows as methodrows
from sim.world import store

NAMES = [name for name in tables.TABLES if name.startswith("vinloc") and name != angles.NAME]
TRAINED = "hall"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bench.Bench]:
    folder = tmp_path_factory.mktemp("vinloc")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(store, "ASSET_FOLDER", folder / "assets")
        files = tiny_hall.write(folder)
        for name, value in (
            ("ALL", tiny_hall.SITES), ("SOME", tiny_hall.KEPT), ("SIZES", (3, 5, 6)), ("RESOLUTIONS", (0, 4, 1)),
            ("SIGMAS_NS", (0.0, 20.0)), ("USER_SIGMAS_NS", (20.0,)), ("SNRS_DB", (20.0, 0.0)),
            ("PHASES", {"its own": files["tiny-hall"], "drawn": files["tiny-drawn"]}),
        ):  # fmt: skip
            patch.setattr(methodrows, name, value)
        for name, value in (("LOST", (0, 2)), ("SNAPSHOTS", 20), ("BATCH", 5)):
            patch.setattr(lost, name, value)
        yield bench.Bench(*tiny_hall.trainings(files, patch))
    torch.set_num_threads(threads)


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


@pytest.mark.parametrize("name", NAMES)
def test_a_table_is_measured_written_and_resumed(desk: bench.Bench, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Path("out")
    monkeypatch.setattr(tables, "commit", lambda: "abc")
    text = tables.reproduce(name, output, bench=desk).read_text()
    records = json.loads((output / f"{name}.json").read_text())
    assert text.startswith(f"<!-- made by `python cli.py reproduce {name}`; do not edit -->\n")
    assert f"![{name}]({name}.png)" in text or not (output / f"{name}.png").exists()
    assert all(record["result"] is not None and record["commit"] == "abc" for record in records)
    assert markdown.NOT_TRAINED not in text.lower() and "CPU cores" in text
    known = {form for value in numbers(records) for form in (markdown.metres(value), f"{100 * value:.2f}")}
    for line in (line for line in text.splitlines() if line.startswith(("|", "-"))):
        for record in sorted(records, key=lambda one: -len(one["label"])):
            line = line.replace(record["label"], "")
        for word in re.findall(r"(?<![\w.])\d+\.\d+(?:e[+-]\d+)?", line):
            assert word in known, f"{word} of {line!r} is in no record"

    def not_again(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(Row, "run", not_again)
    monkeypatch.setattr(bench.Bench, "train", not_again)
    assert tables.reproduce(name, output, bench=desk).read_text() == text


def test_all_are_commands() -> None:
    wanted = {f"vinloc-{name}" for name in ("table2", "table4", "bits", "trps", "lost", "sync", "noise", "phase")}
    assert wanted == set(NAMES)


def test_without_training_rows_say_so(desk: bench.Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "DATA_FOLDER", tmp_path)
    monkeypatch.setattr(bench.Bench, "is_trained", lambda *_: False)
    for name in NAMES:
        text = tables.reproduce(name, tmp_path / "out", bench=desk, train=False).read_text()
        assert "Not trained: " in text or markdown.NOT_TRAINED in text


def test_missing_data_name_the_command(desk: bench.Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"tiny-street are missing: run `python cli.py trace tiny-street`"):
        tables.reproduce("vinloc-table4", tmp_path, bench=desk)


def test_a_changed_schedule_is_not_what_was_trained(desk: bench.Bench) -> None:
    desk.train(TRAINED)
    assert desk.is_trained(TRAINED)
    job = desk.job(TRAINED)
    longer = dataclasses.replace(job, schedule=dataclasses.replace(job.schedule, epochs=2))
    assert not bench.Bench({TRAINED: longer}, {}).is_trained(TRAINED)  # type: ignore[dict-item]
    assert bench.Bench({TRAINED: longer}, {}).identity(TRAINED, fitted=True) is None  # type: ignore[dict-item]


def test_averaged_weights_are_those_of_the_end_of_the_training(desk: bench.Bench) -> None:
    job = desk.job(TRAINED)
    job = dataclasses.replace(job, name="averaged", schedule=dataclasses.replace(job.schedule, average=0.5))
    made = bench.Bench({"averaged": job}, {})
    scenario = made.scenario("averaged")
    users = made.users(scenario)
    trained = run_job(job, store.DATA_FOLDER / scenario.data_name / "vinloc")
    found = positions_of(made.network("averaged"), hidden(users.test), 4)
    assert torch.equal(found, positions_of(Network(trained.eval(), users.train.scale), hidden(users.test), 4))


def test_shipped_weights_say_what_the_checkpoint_says(desk: bench.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.train(TRAINED)
    users = desk.users(desk.scenario(TRAINED)).test
    own = positions_of(desk.network(TRAINED), hidden(users), 4)
    file = desk.weights_file(TRAINED)
    assert file.parent.name == "vinloc"
    target = store.ASSET_FOLDER / "tiny-hall" / "vinloc.safetensors"
    target.parent.mkdir(parents=True)
    file.rename(target)
    try:
        assert desk.is_trained(TRAINED) and desk.weights_file(TRAINED) == target
        shipped = positions_of(desk.network(TRAINED), hidden(users), 4)
    finally:
        target.unlink()
    assert (shipped - own).norm(dim=1).max() < 0.5  # half precision of weights, over 120 m
    assert (shipped - own).norm(dim=1).mean() > 0


def test_an_estimate_is_made_without_the_truth(desk: bench.Bench) -> None:
    desk.train(TRAINED)
    users = desk.users(desk.scenario(TRAINED)).test
    network = desk.network(TRAINED)
    assert torch.equal(positions_of(network, hidden(users), 4), positions_of(network, users, 4))
    other = shuffled(users)
    assert torch.equal(other.position, users.position)
    assert not (other.cir == users.cir).flatten(1).all(1).any()


def test_clocks_without_error_change_nothing_and_others_do(desk: bench.Bench) -> None:
    scenario = desk.scenario(TRAINED)
    users = desk.users(scenario).test
    assert torch.equal(late_clocks(scenario, users, 0.0).cir, users.cir)
    late = late_clocks(scenario, users, 30.0)
    assert late.scale == users.scale
    moved = (late.response().abs().argmax(-1) - users.response().abs().argmax(-1)).abs()
    assert float(moved.float().mean()) > 1 and int(moved.max()) <= 12 + 1  # 60 ns are 12 taps


def test_a_users_clock_moves_all_its_responses_together(desk: bench.Bench) -> None:
    scenario = desk.scenario(TRAINED)
    users = desk.users(scenario).test
    late = late_clocks(scenario, users, 30.0, "user")
    moved = (late.response().abs().argmax(-1) - users.response().abs().argmax(-1)).float().squeeze(-1)
    there = users.present.all(1)
    assert float(moved[there].std(0).mean()) > 2  # taps of 5 ns, over users
    early = moved[there].mean(1) > 2  # none of them has left the window at its beginning
    assert float(moved[there][early].std(1).mean()) < 1


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_noise_lies_as_far_below_the_power_of_a_link_as_it_says(desk: bench.Bench, snr_db: float) -> None:
    scenario = desk.scenario(TRAINED)
    users = desk.users(scenario).test
    clean, made = users.response(), noisy(scenario, users, snr_db).response()
    power = clean.abs().square().mean((2, 3))[users.present]
    noise = (made - clean).abs().square().mean((2, 3))[users.present]
    assert float(10 * torch.log10((power / noise).mean())) == pytest.approx(snr_db, abs=0.7)


def record(section: str, size: int, mae: float, low: float, high: float) -> dict[str, Any]:
    errors = {"mean": mae, "ci95_of_mean": [low, high]}
    return {"section": section, "result": {"size": size, "errors": errors}}


def test_the_page_says_whether_more_base_stations_help() -> None:
    falls = [record("a", n, 10.0 / n, 9.0 / n, 11.0 / n) for n in (3, 4, 5)]
    assert pages.monotone(falls)[0] == "- a: the MAE falls with every TRP."
    wavers = [*falls, record("a", 6, 2.05, 1.9, 2.2)]
    assert "but for rises within the interval at 6 TRPs" in pages.monotone(wavers)[0]
    rises = [*falls, record("a", 6, 2.5, 2.3, 2.7)]
    assert "with 6 TRPs the MAE is above the interval" in pages.monotone(rises)[0]


def test_cut_links_carry_nothing_from_the_middle_on() -> None:
    plan = lost.cut_links([1, 4], 20)
    assert {bs for bs, _ in plan.layers} == {1, 4}
    begin, end = np.array(plan.layers[1, None]["outage"][0]) * 1e3 / lost.INTERVAL_MS
    assert 9 < begin < 10 and end > 20
    assert not lost.cut_links([], 20).layers
