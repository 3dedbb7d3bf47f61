"""DiffLoc through the whole emulator: bits, replay, losses, faults, and what may not be asked for."""

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_scores
import tiny_world
import torch
from rich.console import Console
from torch import Tensor

import cli
from edge.score_station import ScoreStation
from fronthaul.link.link_file import link_plan
from sim.commands.summary import show_summary
from sim.emulate.emulator import RunResult, emulate
from sim.errors import UserError
from sim.inspect.audit import audit
from sim.inspect.replay import replay
from sim.plan.settings import EmulateSettings
from sim.plan.weights import Weights, load_weights, save_weights
from sim.records.books import used_reports
from sim.records.folder import RunFolder, read_configuration
from sim.records.links import read_ledgers
from sim.world import store


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmulateSettings:
    monkeypatch.setattr(store, "ASSET_FOLDER", tmp_path / "assets")
    return tiny_scores.write(tmp_path)


def run(settings: EmulateSettings, **options: str | int) -> RunResult:
    return emulate(dataclasses.replace(settings, options=tuple(options.items())))


def rewrite(settings: EmulateSettings, made: Weights) -> EmulateSettings:
    assert settings.weights is not None
    save_weights(settings.weights, made)
    return settings


MODES: list[tuple[dict[str, str | int], int, int, int]] = [  # options; numbers of report, answer, state
    ({}, 0, 2, 2),
    ({"fusion": "sum"}, 0, 2, 2),
    ({"fusion": "jac"}, 0, 5, 2),
    ({"local": 8}, 3, 2, 2),
    ({"particles": 4, "fusion": "mean"}, 0, 8, 8),
    ({"steps": 5, "fusion": "precision"}, 0, 2, 2),
    ({"where": "central", "fusion": "fnpe"}, 64, 0, 0),
    ({"where": "central", "fusion": "exact"}, 64, 0, 0),
    ({"where": "one-shot"}, 18, 0, 0),
]


@pytest.mark.parametrize("bits", [2, 5, None])
@pytest.mark.parametrize(("options", "report", "answer", "state"), MODES, ids=str)
def test_every_bit_is_in_the_ledger_and_a_replay_is_exact(
    settings: EmulateSettings, options: dict[str, Any], report: int, answer: int, state: int, bits: int | None
) -> None:
    result = run(dataclasses.replace(settings, bits=bits, snapshots=3), **options)
    numbers = bits or 16
    rounds = options.get("steps", 2) if answer else 0
    fixes = pq.read_table(result.folder / "fixes.parquet").to_pylist()
    assert [fix["rounds"] for fix in fixes] == 3 * [1 + rounds]
    for bs, ledger in read_ledgers(RunFolder(result.folder)).items():
        if bs is None:
            continue
        found = {"up": [], "down": []}  # type: dict[str, list[tuple[int, int, int]]]
        for row in ledger.to_pylist():
            assert row["frame_fate"] == "delivered" and row["report_fate"] in ("used", None)
            found[row["direction"]].append((row["snapshot"], row["round"], row["payload_bits"]))
        every = [(snapshot, round_) for snapshot in range(3) for round_ in range(rounds + 1)]
        assert sorted(found["up"]) == [(s, r, numbers * (answer if r else report)) for s, r in every]
        assert sorted(found["down"]) == [(s, r, numbers * state) for s, r in every if r]
    total = 3 * 3 * numbers * (report + rounds * (answer + state))
    summary = result.summary
    assert 8 * summary["bytes"]["payload"] == total and summary["conservation"]["ok"]
    assert summary["fusion"] == options.get("fusion", "exact" if options.get("where") == "one-shot" else "gauss")
    assert summary["options"].items() >= options.items() and summary["excluded"] == {}
    again = replay(result.folder)
    assert again.identical == again.compared == again.total == 3
    assert audit(result.folder).ok


@pytest.mark.parametrize("bs", [1, 2, 7])
def test_a_part_of_the_base_stations_makes_fixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bs: int) -> None:
    monkeypatch.setattr(store, "ASSET_FOLDER", tmp_path / "assets")
    settings = dataclasses.replace(tiny_scores.write(tmp_path, 7), bs=bs, snapshots=2)
    for options in ({}, {"where": "central"}, {"where": "one-shot"}):
        result = run(settings, **options)
        assert result.summary["fixes"] == 2 and replay(result.folder).identical == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "payload 16 bit per answer of a later round, none in round 0"),
        ({"local": 8}, "payload 24 bit per BS and fix, 1.17 % of lossless CSI; 16 bit per answer of a later round"),
        ({"where": "one-shot"}, "payload 144 bit per BS and fix, 7.03 % of lossless CSI"),
    ],
)
def test_the_summary_says_what_each_round_carries(
    settings: EmulateSettings, options: dict[str, str | int], said: str
) -> None:
    result = run(settings, **options)
    out = io.StringIO()
    show_summary(Console(file=out, width=120), result.summary, result.folder)
    lines = out.getvalue().splitlines()
    assert [line.strip() for line in lines if line.startswith("payload ")] == [said]


def test_options_are_recorded_and_come_back(settings: EmulateSettings, capsys: pytest.CaptureFixture[str]) -> None:
    asked = dataclasses.replace(settings, options=(("steps", "3"), ("fusion", "jac")))
    result = emulate(asked)
    assert read_configuration(RunFolder(result.folder)).settings == asked
    assert result.summary["options"] == {"steps": 3, "fusion": "jac", "where": "edge", "particles": 1}


def test_the_command_line_passes_options_on(
    settings: EmulateSettings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = f"--scheme diffloc --scenario {settings.scenario} --weights {settings.weights} --snapshots 2 --bits 6"
    line = f"emulate {words} --driver process --no-controls --output {settings.output} --json"
    extra = "--steps 4 --fusion mean --where edge --option particles=2"
    assert cli.main([*line.split(), *extra.split()]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["options"] == {"steps": 4, "fusion": "mean", "where": "edge", "particles": 2}
    assert (summary["fusion"], summary["bs"], summary["payload_bits_per_answer"]) == ("mean", 3, 6 * 2 * 2)
    assert cli.main([*f"sweep {words} --output {tmp_path / 'sweep'}".split()[:-2], "--bits", "4,6", "--steps", "3",
                     "--output", str(tmp_path / "sweep")]) == 0  # fmt: skip
    rows = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["rows"]
    assert [row["payload_bits_per_fix"] for row in rows] == [3 * 3 * 4 * bits for bits in (4, 6)]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"options": (("stepps", 3),)}, "has no option 'stepps'; it takes fusion, local, particles, steps, where"),
        ({"options": (("steps", "many"),)}, "option 'steps' of scheme 'diffloc' must be a whole number, it is 'many'"),
        ({"options": (("steps", 1), ("steps", 2))}, "is given twice: steps, steps"),
        (
            {"options": (("steps", 0),)},
            "Scheme 'diffloc' cannot run: consistency sampling takes 1 to 200 steps",
        ),
        (
            {"options": (("fusion", "exact"),)},
            r"Scheme 'diffloc' cannot run: --fusion exact .* one-shot\.$",
        ),
        (
            {"options": (("where", "central"), ("local", 5))},
            "cannot run: the option local is for --where edge",
        ),
        ({"bits": 1}, "cannot run: --bits 1 is too few"),
    ],
)
def test_what_cannot_be_asked_for_is_one_sentence(
    settings: EmulateSettings, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        emulate(dataclasses.replace(settings, **change))
    assert not settings.output.exists()


@pytest.mark.parametrize("scheme", ["ecc", "rss", "rss-rounds"])
def test_other_schemes_take_no_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setattr(store, "ASSET_FOLDER", tmp_path / "assets")
    settings = dataclasses.replace(tiny_world.write(tmp_path), scheme=scheme, options=(("steps", 2),))
    with pytest.raises(UserError, match=f"Scheme '{scheme}' has no option 'steps'; it takes none"):
        emulate(settings)


def test_weights_of_fewer_base_stations_are_one_sentence(settings: EmulateSettings) -> None:
    rewrite(settings, tiny_scores.weights(2))
    sentence = "The weights hold nothing of base station 2: they were trained for fewer sites"
    with pytest.raises(UserError, match=sentence):
        emulate(settings)
    assert emulate(dataclasses.replace(settings, bs=2)).summary["fixes"] == settings.snapshots


def test_weights_without_covariance_need_to_ask_for_least_squares(settings: EmulateSettings) -> None:
    made = tiny_scores.weights(3)
    del made.config["estimator"]
    with pytest.raises(UserError, match="hold no covariance of site 0"):
        emulate(rewrite(settings, made))


def test_weights_in_shards_run_and_replay(settings: EmulateSettings) -> None:
    assert settings.weights is not None
    whole = emulate(settings)
    made = load_weights(settings.weights)
    paths = save_weights(settings.weights, made, limit_bytes=2_000_000)
    assert len(paths) == 3 and not settings.weights.exists()
    parts = emulate(settings)
    one, other = (pq.read_table(result.folder / "fixes.parquet")["x_m"].to_pylist() for result in (whole, parts))
    assert one == other
    assert replay(parts.folder).identical == settings.snapshots


def test_shuffled_csi_changes_what_is_heard_and_nothing_else(settings: EmulateSettings) -> None:
    plain, shuffled = (emulate(dataclasses.replace(settings, shuffle_csi=flag)) for flag in (False, True))
    tables = [pq.read_table(result.folder / "fixes.parquet") for result in (plain, shuffled)]
    assert tables[0]["true_x_m"].equals(tables[1]["true_x_m"]) and not tables[0]["x_m"].equals(tables[1]["x_m"])
    assert shuffled.summary["bytes"]["payload"] == plain.summary["bytes"]["payload"]
    assert replay(shuffled.folder).identical == settings.snapshots


# Silence and faults


def far(settings: EmulateSettings, steps: int, **changes: Any) -> EmulateSettings:
    """Links of 1 ms, two steps in 4 ms, and time enough for two hundred."""
    rewrite(settings, tiny_scores.weights(3, "diffusion"))
    links: dict[str, Any] = {"default": {"delay": "1ms"}} | changes.pop("links", {})
    return dataclasses.replace(
        settings, snapshots=2, interval_ms=2000.0, deadline_ms=1900.0, links=link_plan(links),
        options=(("steps", steps), ("fusion", "mean")), **changes,
    )  # fmt: skip


def test_two_hundred_steps_go_on_without_a_base_station_that_falls_silent(settings: EmulateSettings) -> None:
    silent = {"bs": {"1": {"up": {"delay": "1ms", "outage": "0.1s-1000s"}}}}
    result = emulate(far(settings, 200, round_ms=20.0, links=silent))
    first, second = pq.read_table(result.folder / "fixes.parquet").to_pylist()
    assert first["rounds"] == second["rounds"] == 201
    heard = {round_ for bs, round_ in zip(first["used_bs"], first["used_round"], strict=True) if bs == 1}
    assert heard == set(range(len(heard))) and 45 < len(heard) < 55
    assert not any(bs == 1 for bs in second["used_bs"])
    # Three rounds of 20 ms each, and two milliseconds for the others.
    took = [(fix["t_fix_ns"] - fix["t_zero_ns"]) / 1e6 for fix in (first, second)]
    assert took[0] == pytest.approx(200 * 2 + 3 * 20, abs=30) and took[1] == pytest.approx(200 * 2 + 4 * 20, abs=30)
    assert result.summary["conservation"]["ok"] and audit(result.folder).ok
    assert replay(result.folder).identical == 2


def test_without_a_time_for_rounds_a_silent_base_station_costs_the_rest_of_the_rounds(
    settings: EmulateSettings,
) -> None:
    silent = {"bs": {"1": {"up": {"delay": "1ms", "outage": "0.1s-1000s"}}}}
    result = emulate(far(settings, 200, links=silent))
    first = pq.read_table(result.folder / "fixes.parquet").to_pylist()[0]
    assert 45 < first["rounds"] < 60 and (first["t_fix_ns"] - first["t_zero_ns"]) / 1e6 == pytest.approx(1900, abs=1)
    assert replay(result.folder).identical == result.summary["fixes"]


def test_lost_frames_cost_steps_and_no_fixes(settings: EmulateSettings) -> None:
    lossy = {"default": {"delay": "1ms", "loss": "5%"}}
    result = emulate(far(settings, 50, round_ms=4.0, links=lossy))
    fixes = pq.read_table(result.folder / "fixes.parquet")
    assert len(fixes) == 2 and set(fixes["rounds"].to_pylist()) == {51}
    assert all(len(keys) < 3 * 51 for _, keys in used_reports(fixes).by_fix())
    assert result.summary["reports"]["lost"] > 0 and audit(result.folder).ok
    assert replay(result.folder).identical == 2


def broken(made: Weights, bs: int) -> Weights:
    tensors = {name: value.clone() for name, value in made.tensors.items()}
    tensors[f"edge.{bs}.network.body.head.bias"] += torch.nan
    return dataclasses.replace(made, tensors=tensors)


@pytest.mark.parametrize("options", [{}, {"fusion": "jac"}, {"where": "central"}, {"where": "one-shot"}], ids=str)
def test_a_base_station_that_is_not_finite_is_unused_and_written_down(
    settings: EmulateSettings, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(rewrite(settings, broken(tiny_scores.weights(3), 2)), **options)
    fixes = pq.read_table(result.folder / "fixes.parquet")
    assert len(fixes) == settings.snapshots
    assert all({key.bs for key in keys} == {0, 1} for _, keys in used_reports(fixes).by_fix())
    rows = read_ledgers(RunFolder(result.folder))[2].to_pylist()
    assert {row["report_fate"] for row in rows if row["direction"] == "up"} == {"unused"}
    assert result.summary["excluded"] == {"2": settings.snapshots} and result.summary["undetermined"] == 0
    events = pq.read_table(result.folder / "links" / "events.parquet").to_pylist()
    told = [(event["bs"], event["detail"]) for event in events if event["kind"] == "excluded"]
    assert [bs for bs, _ in told] == settings.snapshots * [2] and "not finite" in told[0][1]
    assert audit(result.folder).ok and replay(result.folder).identical == settings.snapshots


def test_a_network_that_runs_away_half_way_is_used_until_then(
    settings: EmulateSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = far(settings, 20)
    whole: Callable[..., Any] = ScoreStation.raw

    def raw(self: ScoreStation, embedding: Tensor, x: Any, level: Any) -> Any:
        away = self._bs == 0 and level.time < 0.5
        return whole(self, embedding, x, level) * (np.nan if away else 1.0)

    monkeypatch.setattr(ScoreStation, "raw", raw)
    result = emulate(settings)
    for fix in pq.read_table(result.folder / "fixes.parquet").to_pylist():
        used = {round_ for bs, round_ in zip(fix["used_bs"], fix["used_round"], strict=True) if bs == 0}
        assert fix["rounds"] == 21 and used == set(range(11))
    assert result.summary["excluded"] == {"0": 2} and result.summary["conservation"]["ok"]
    assert audit(result.folder).ok and replay(result.folder).identical == 2


def test_nobody_of_use_is_no_fix(settings: EmulateSettings) -> None:
    made = tiny_scores.weights(3)
    for bs in range(3):
        made = broken(made, bs)
    result = emulate(rewrite(settings, made))
    summary = result.summary
    assert summary["fixes"] == 0 and summary["undetermined"] == settings.snapshots
    assert summary["excluded"] == {str(bs): settings.snapshots for bs in range(3)}
    assert summary["reports"]["used"] == 0 and audit(result.folder).ok


@pytest.mark.ray
def test_ray_gives_the_same_payloads_and_fixes(settings: EmulateSettings) -> None:
    chosen = dataclasses.replace(settings, deadline_ms=30_000.0)
    placed = dataclasses.replace(chosen, driver="ray", cpus_per_bs=0.1)
    on_ray, in_process = emulate(placed), emulate(chosen)
    names = ["snapshot", "x_m", "y_m", "z_m", "used_bs", "used_round", "rounds"]
    tables = [pq.read_table(r.folder / "fixes.parquet", columns=names).to_pylist() for r in (on_ray, in_process)]
    assert tables[0] == tables[1]
    sent = []
    for result in (on_ray, in_process):
        ledgers = read_ledgers(RunFolder(result.folder))
        sent.append({bs: sorted((r["direction"], r["snapshot"], r["round"], r["payload"]) for r in ledger.to_pylist())
                     for bs, ledger in ledgers.items() if bs is not None})  # fmt: skip
    assert sent[0] == sent[1]
    assert replay(on_ray.folder).identical == chosen.snapshots and audit(on_ray.folder).ok
