"""Whole runs in process: exact reruns, books that balance, and what a user may get wrong."""

import dataclasses
import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_world

from cloud.node import CloudOutcome
from fronthaul.accounting import zmtp_frame_bytes
from fronthaul.clock import SimulatedClock
from fronthaul.messages import Direction
from sim.errors import UserError
from sim.learn.weights import load_weights, save_weights
from sim.run import compose
from sim.run.emulator import Progress, RunResult, close_books, emulate, run_plan
from sim.run.inspection import check_books, frame_view, link_totals, recover
from sim.run.process import assemble, drive, torch_threads
from sim.run.record import RunRecord
from sim.run.replay import replay
from sim.run.results import error_statistics
from sim.run.runfolder import RunFolder, read_configuration, write_configuration
from sim.run.settings import EmulateSettings
from sim.run.tomlfile import toml_text
from sim.world import store
from sim.world.channel import pad_paths

LATENCIES = ["start", "estimate", "encode", "pack", "fronthaul", "wait", "fuse", "total"]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmulateSettings:
    monkeypatch.setattr(store, "ASSET_FOLDER", tmp_path / "assets")
    return tiny_world.write(tmp_path)


def fixes(folder: Path) -> pa.Table:
    table = pq.read_table(folder / "fixes.parquet")
    return table.drop_columns([f"{stage}_ns" for stage in LATENCIES])


def ledgers(folder: Path) -> list[pa.Table]:
    return [pq.read_table(path) for path in sorted(folder.glob("links/bs-*.parquet"))]


def test_a_run_leaves_a_whole_folder(settings: EmulateSettings) -> None:
    seen: list[Progress] = []
    result = emulate(settings, seen.append)
    names = {path.relative_to(result.folder).as_posix() for path in result.folder.rglob("*")}
    links = {f"links/{name}.parquet" for name in ("bs-000", "bs-001", "bs-002", "connections")}
    pictures = {"error-cdf.png", "map.png"}
    assert names == {"run.toml", "fixes.parquet", "controls.parquet", "summary.json", "links", *pictures, *links}
    assert [path.name for path in settings.output.iterdir()] == [result.folder.name]
    assert json.loads((result.folder / "summary.json").read_text()) == result.summary
    assert [seen[0].stage, seen[-1].stage] == ["start", "write"]


def test_the_summary_adds_up(settings: EmulateSettings) -> None:
    summary = emulate(settings).summary
    reports = 3 * settings.snapshots
    assert summary["fixes"] == settings.snapshots
    assert summary["frames"] == {"delivered": reports, "duplicate": 0, "corrupt": 0, "rejected": 0, "dropped": 0}
    assert summary["reports"] == {"used": reports, "unused": 0, "late": 0, "lost": 0}
    assert summary["conservation"] == {"ok": True, "problems": []}
    assert summary["payload_bits_per_report"] == 8 * 4 * 4  # tones, coefficients, bits
    assert summary["payload_ratio"] == pytest.approx(128 / (64 * 4 * 4 * 8))  # slots, antennas, tones
    counted = summary["bytes"]
    assert (counted["payload"], counted["side"], counted["header"]) == (reports * 16, reports * 4, reports * 19)
    assert counted["handshake"] == 3 * (113 + 107)
    stream = sum(counted[name] for name in ("payload", "side", "header", "padding", "zmtp", "curve"))
    assert stream == reports * zmtp_frame_bytes(19 + 4 + 16) == sum(x["stream_bytes"] for x in summary["links"])
    assert summary["bytes_modelled"]["tcpip"] == stream + reports * 52
    assert summary["bytes_modelled"]["ethernet"] == stream + reports * (52 + 14)
    assert set(summary["latency_ms"]) == {"estimate", "encode", "pack", "fuse"}


def test_errors_are_held_against_the_truth(settings: EmulateSettings) -> None:
    folder = emulate(settings).folder
    rows = pq.read_table(folder / "fixes.parquet").to_pylist()
    truth = tiny_world.paths(tiny_world.scenario()).position
    training = np.load(settings.output.parent / "assets/tiny/train-positions.npz")["position"]
    for row in rows:
        assert row["sample"] == row["snapshot"] % tiny_world.USERS
        true = np.array([row[f"true_{axis}_m"] for axis in "xyz"])
        error = np.array([row[f"{axis}_m"] for axis in "xyz"]) - true
        assert np.array_equal(true, truth[row["sample"]])
        assert row["error_3d_m"] == pytest.approx(np.sqrt((error**2).sum()))
        assert row["error_2d_m"] == pytest.approx(np.hypot(*error[:2]))
        assert row["error_vertical_m"] == pytest.approx(abs(error[2]))
        nearest = np.linalg.norm(training - true, axis=1).min()
        assert row["training_distance_m"] == pytest.approx(nearest)


def test_a_rerun_is_exact(settings: EmulateSettings) -> None:
    first, second = emulate(settings).folder, emulate(settings).folder
    assert first != second
    assert fixes(first).equals(fixes(second))
    assert all(a.equals(b) for a, b in zip(ledgers(first), ledgers(second), strict=True))


def test_another_seed_draws_other_noise(settings: EmulateSettings) -> None:
    first, second = emulate(settings).folder, emulate(dataclasses.replace(settings, seed=2)).folder
    assert not ledgers(first)[0]["payload"].equals(ledgers(second)[0]["payload"])


def test_the_order_of_base_stations_changes_nothing(settings: EmulateSettings) -> None:
    plan = compose.load_plan(settings)
    turned = dataclasses.replace(plan, sites=plan.sites[::-1])
    first, second = run_plan(plan).folder, run_plan(turned).folder
    assert fixes(first).equals(fixes(second))
    assert all(a.equals(b) for a, b in zip(ledgers(first), ledgers(second), strict=True))


@pytest.mark.parametrize(("scheme", "bits"), [("ecc", 2), ("rss", 4), ("rss", None)])
def test_replay_is_exact(settings: EmulateSettings, scheme: str, bits: int | None) -> None:
    result = replay(emulate(dataclasses.replace(settings, scheme=scheme, bits=bits)).folder)
    assert result.total == result.compared == result.identical == settings.snapshots
    assert result.max_difference_m == 0.0


def test_replay_of_a_batched_run_is_exact(settings: EmulateSettings) -> None:
    result = replay(emulate(dataclasses.replace(settings, batch=7)).folder)
    assert result.identical == result.total == settings.snapshots


def test_batches_move_fixes_by_less_than_a_millimetre(settings: EmulateSettings) -> None:
    alone, batched = (fixes(emulate(dataclasses.replace(settings, batch=b)).folder) for b in (1, 4))
    step = np.stack([alone[axis].to_numpy() - batched[axis].to_numpy() for axis in ("x_m", "y_m", "z_m")])
    assert np.linalg.norm(step, axis=0).max() <= 1e-3  # false for NaN


def test_replay_refuses_other_weights(settings: EmulateSettings) -> None:
    folder = emulate(settings).folder
    assert settings.weights is not None
    other = tiny_world.weights(tiny_world.scenario())
    other.tensors["cloud.path_loss"] = other.tensors["cloud.path_loss"] + 1
    save_weights(settings.weights, other)
    with pytest.raises(UserError, match="have changed since the run"):
        replay(folder)


def test_replay_falls_back_to_shipped_weights(
    settings: EmulateSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.learn.weights.ASSET_FOLDER", tmp_path / "assets")
    folder = emulate(settings).folder
    assert settings.weights is not None
    shipped = tmp_path / "assets" / "tiny" / "ecc-b4.safetensors"
    settings.weights.rename(shipped)
    assert replay(folder).identical == settings.snapshots
    cut(shipped)
    with pytest.raises(UserError, match=r"tiny.safetensors are missing"):
        replay(folder)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_damaged_tables_are_one_sentence(settings: EmulateSettings) -> None:
    whole = emulate(settings).folder
    for name, readers in (
        ("links/bs-001.parquet", (replay, link_totals, check_books)),
        ("fixes.parquet", (replay, check_books)),
    ):
        folder = whole.with_name(Path(name).stem)
        shutil.copytree(whole, folder)
        cut(folder / name)
        for read in readers:
            with pytest.raises(UserError, match=rf"{name} cannot be read"):
                read(folder)
    (whole / "run.toml").write_bytes(b'"\xff" = 1\n')
    with pytest.raises(UserError, match=r"run\.toml is damaged"):
        link_totals(whole)


def test_the_books_are_checked_against_the_fixes(settings: EmulateSettings) -> None:
    folder = emulate(settings).folder
    books = check_books(folder)
    assert books.ok and books.reports_journaled == 3 * settings.snapshots
    whole = pq.read_table(folder / "fixes.parquet")
    pq.write_table(whole.slice(1), folder / "fixes.parquet")
    assert check_books(folder).problems == (
        "used reports that no fix lists: 3, first ReportKey(bs=0, epoch=0, snapshot=0, round=0)",
    )
    (folder / "fixes.parquet").unlink()
    assert "the run was cut" in check_books(folder).problems[0]


def run_without(settings: EmulateSettings, silent: int) -> tuple[CloudOutcome, Callable[[], RunResult]]:
    """Run in process without one base station; return the outcome, and what closes the books."""
    plan = compose.load_plan(settings)
    folder = RunFolder.create(settings, plan.scenario.name)
    write_configuration(folder, plan)
    clock = SimulatedClock()
    edges, cloud = assemble(plan, folder, clock)
    heard = [node for node in edges if node.station.bs != silent]
    with torch_threads(1):
        drive(heard, cloud, clock, plan.schedule(0), lambda _: None)
    for node in edges:
        node.close()
    cloud.close()
    outcome = cloud.outcome()
    outcomes = {node.station.bs: node.outcome() for node in heard}
    record = RunRecord(outcomes, outcome, t0_ns=0, wall_clock=False, seconds=1.0, address="memory")
    return outcome, lambda: close_books(plan, folder, record)


def test_a_silent_base_station_costs_a_deadline_and_no_fix(settings: EmulateSettings) -> None:
    outcome, close = run_without(settings, silent=1)
    assert outcome.missing == {1}
    assert len(outcome.fixes) == settings.snapshots
    for fix in outcome.fixes:
        assert [key.bs for key in fix.used] == [0, 2]
        assert fix.t_fix_ns == fix.snapshot * settings.interval_ns + settings.deadline_ns
    result = close()
    assert result.summary["missing_bs"] == [1]
    assert result.summary["reports"]["used"] == 2 * settings.snapshots
    assert replay(result.folder).identical == settings.snapshots


def test_too_few_base_stations_leave_reports_unused(settings: EmulateSettings) -> None:
    outcome, close = run_without(dataclasses.replace(settings, minimum_bs=3), silent=0)
    assert outcome.fixes == []
    summary = close().summary
    assert summary["reports"]["unused"] == 2 * settings.snapshots
    assert summary["error_3d_m"] is None and summary["conservation"]["ok"]


def test_closed_loop_ends_although_one_is_silent(settings: EmulateSettings) -> None:
    outcome, _ = run_without(dataclasses.replace(settings, interval_ms=0.0), silent=2)
    assert len(outcome.fixes) == settings.snapshots


def test_shuffled_csi_is_the_same_bits_for_other_users(settings: EmulateSettings) -> None:
    plain = compose.load_plan(settings)
    shuffled = compose.load_plan(dataclasses.replace(settings, shuffle_csi=True))
    assert np.array_equal(plain.truth, shuffled.truth)
    first, second = emulate(settings).folder, run_plan(shuffled).folder
    assert not fixes(first)["x_m"].equals(fixes(second)["x_m"])
    assert fixes(first)["true_x_m"].equals(fixes(second)["true_x_m"])


@pytest.mark.parametrize("users", [2, 3, 16])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_shuffled_csi_leaves_nobody_their_own_channel(settings: EmulateSettings, users: int, seed: int) -> None:
    world = tiny_world.scenario()
    paths = tiny_world.paths(world).select(np.arange(users))
    shuffled = dataclasses.replace(settings, shuffle_csi=True, seed=seed)
    assert settings.weights is not None
    plan = compose.compose(shuffled, world, paths, load_weights(settings.weights))
    heard = plan.sites[0].radio._paths.distance
    own = pad_paths(paths.select(np.arange(users), range(3)), world.numerology.carrier_hz).site(0).distance
    assert sorted(heard.tolist()) == sorted(own.tolist())
    assert not (heard == own).any()


def test_nothing_that_goes_to_a_node_holds_a_users_position(settings: EmulateSettings) -> None:
    plan = compose.load_plan(settings)

    def numbers(value: object) -> list[float]:
        """All floats in a tree of objects."""
        if isinstance(value, float):
            return [value]
        if isinstance(value, np.ndarray) or hasattr(value, "numpy"):
            return [float(x) for x in np.asarray(value).real.ravel()]
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list | tuple):
            return [x for item in value for x in numbers(item)]
        return numbers(vars(value)) if hasattr(value, "__dict__") else []

    truth = set(plan.truth.ravel().tolist()) | set(plan.truth.astype(np.float32).ravel().tolist())
    assert not truth & set(numbers(plan.sites))
    assert not truth & set(numbers(plan.cloud))


def test_the_configuration_comes_back(settings: EmulateSettings) -> None:
    folder = emulate(settings).folder
    read = read_configuration(RunFolder(folder))
    assert read.settings == settings
    assert read.scenario == tiny_world.scenario()
    table = tomllib.loads((folder / "run.toml").read_text())
    assert table["environment"]["threads"] == 1 and table["environment"]["packages"]["torch"]


def test_inspection_shows_totals_and_single_frames(settings: EmulateSettings) -> None:
    folder = emulate(settings).folder
    totals = link_totals(folder)
    assert [link.bs for link in totals] == [0, 1, 2]
    assert totals[0].payload_bits == settings.snapshots * 128
    view = frame_view(folder, link=2, frame=5)
    assert (view.bs, view.snapshot, view.seq, view.direction) == (2, 5, 5, Direction.UP)
    assert len(view.data) == 15 + 4 + 16 + 4 and view.data[-4:] == view.crc32.to_bytes(4, "big")
    assert view.index.shape == (32,) and view.index.max() < 16
    assert len(view.side_values) == 1
    assert view.hex == view.data.hex()
    for link, frame in ((9, 0), (0, 20)):
        with pytest.raises(UserError, match="There is no"):
            frame_view(folder, link, frame)
    with pytest.raises(UserError, match="not a run's folder"):
        link_totals(folder / "links")


def test_a_run_that_is_cut_can_be_recovered(settings: EmulateSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = compose.load_plan(settings)

    def interrupt(progress: Progress) -> None:
        if progress.stage == "run":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_plan(plan, interrupt)
    (folder,) = settings.output.iterdir()
    assert folder.name.endswith(".part") and not (folder / "summary.json").exists()
    found = recover(folder)
    assert found.conservation.frames_journaled == sum(sum(link.frames.values()) for link in found.links) >= 3
    assert link_totals(folder) == found.links


def test_a_run_that_never_began_leaves_nothing(settings: EmulateSettings) -> None:
    def refuse(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        emulate(settings, refuse)
    assert list(settings.output.iterdir()) == []


def test_a_run_that_fails_before_its_first_frame_leaves_nothing(
    settings: EmulateSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        (folder,) = settings.output.iterdir()
        assert (folder / "received.arrow").exists() and list(folder.glob("links/*.arrow"))
        raise UserError("no actor came up")

    monkeypatch.setattr("sim.run.process.drive", fail)
    with pytest.raises(UserError, match="no actor"):
        emulate(settings)
    assert list(settings.output.iterdir()) == []


def test_a_damaged_fingerprint_table_costs_the_controls_and_not_the_run(
    settings: EmulateSettings, tmp_path: Path
) -> None:
    (tmp_path / "assets" / "tiny" / "fingerprints.npz").write_text("nothing")
    result = emulate(settings)
    (note,) = result.summary["notes"]
    assert "controls are left out" in note and "fingerprints.npz" in note
    assert "controls" not in result.summary and result.summary["fixes"] == settings.snapshots
    assert json.loads((result.folder / "summary.json").read_text()) == result.summary


def test_the_summary_is_written_before_the_controls(
    settings: EmulateSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sim.run.emulator.write_controls", stop)
    with pytest.raises(KeyboardInterrupt):
        emulate(settings)
    (folder,) = settings.output.iterdir()
    assert json.loads((folder / "summary.json").read_text())["fixes"] == settings.snapshots


def test_notes_name_what_the_weights_were_not_trained_for(settings: EmulateSettings) -> None:
    plan = compose.load_plan(settings)
    assert compose.weights_notes(plan) == []
    record = {"clock": {"ue_bias_ns": 50.0, "bs_sigma_ns": 0.0, "per_slot_phase": True}}
    plan.weights.config.update(record=record, bits=None)
    clock, payload = compose.weights_notes(plan)
    assert "other clock errors (ue_bias_ns = 50.0" in clock and "scenario's (ue_bias_ns = 0.0" in clock
    assert payload == "The weights were trained for lossless payloads, the run sends 4 bit per coefficient."
    record["clock"] |= dataclasses.asdict(plan.scenario.clock)
    plan.weights.config["bits"] = 4
    assert compose.weights_notes(plan) == []
    plan.weights.config["record"] = "random"
    assert compose.weights_notes(plan) == []


@pytest.mark.parametrize("change", [{"tones": 16}, {"slots": 3}])
def test_weights_of_another_shape_are_one_sentence(settings: EmulateSettings, change: dict[str, int]) -> None:
    world = tiny_world.scenario()
    other = dataclasses.replace(world, numerology=dataclasses.replace(world.numerology, **change))
    assert settings.weights is not None
    with pytest.raises(UserError, match="do not fit scheme 'ecc' with 4 bits"):
        compose.compose(settings, other, tiny_world.paths(world), load_weights(settings.weights))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"bits": 9}, r"--bits must lie in 1\.\.8"),
        ({"bits": 0}, r"--bits must lie in 1\.\.8"),
        ({"bs": 0}, "--bs must lie"),
        ({"bs": 4, "minimum_bs": 1}, "more than the 3 sites"),
        ({"minimum_bs": 4}, "--minimum-bs"),
        ({"interval_ms": -1.0}, "--interval"),
        ({"deadline_ms": 0.0}, "--deadline"),
        ({"deadline_ms": float("nan")}, "--deadline"),
        ({"interval_ms": 1e9}, "milliseconds"),
        ({"batch": 100}, "use a smaller batch"),
        ({"port": 70000, "driver": "ray"}, "--port"),
        ({"port": 4000}, "no meaning with --driver process"),
        ({"ray_address": "auto"}, "no meaning with --driver process"),
        ({"driver": "rai"}, "did you mean 'ray'"),
        ({"scheme": "nonsense"}, "There is no scheme 'nonsense'"),
        ({"scheme": "nonsense", "weights": None}, "There is no scheme 'nonsense'"),
        ({"scenario": "nonsense"}, "There is no scenario 'nonsense'"),
        ({"weights": Path("nowhere.safetensors")}, "weights nowhere.safetensors are missing"),
        ({"bits": 5}, "do not fit scheme 'ecc' with 5 bits"),
    ],
)
def test_bad_input_is_one_sentence(settings: EmulateSettings, change: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        emulate(dataclasses.replace(settings, **change))  # type: ignore[arg-type]
    assert not settings.output.exists()


def test_output_must_be_a_folder(settings: EmulateSettings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output"):
        emulate(dataclasses.replace(settings, output=tmp_path / "file"))


def test_paths_of_another_scenario_are_refused(settings: EmulateSettings) -> None:
    paths = dataclasses.replace(tiny_world.paths(tiny_world.scenario()), digest="another")
    paths.save(settings.output.parent / "assets" / "tiny" / "test.npz")
    with pytest.raises(UserError, match="another version"):
        emulate(settings)


def test_a_users_own_test_paths(settings: EmulateSettings, tmp_path: Path) -> None:
    own = tiny_world.paths(tiny_world.scenario()).select(np.arange(3, 8))
    own.save(tmp_path / "own.npz")
    folder = emulate(dataclasses.replace(settings, test=tmp_path / "own.npz")).folder
    rows = pq.read_table(folder / "fixes.parquet")
    assert rows["true_x_m"].to_pylist()[:5] == own.position[:, 0].tolist()
    assert rows["training_distance_m"].null_count == len(rows)
    assert read_configuration(RunFolder(folder)).settings.test == tmp_path / "own.npz"


def test_training_positions_are_those_beside_the_users_own_test_paths(
    settings: EmulateSettings, tmp_path: Path
) -> None:
    own = tiny_world.paths(tiny_world.scenario()).select(np.arange(3, 8))
    own.save(tmp_path / "test-block.npz")
    np.savez(tmp_path / "train-positions-block.npz", position=own.position + np.array([0.0, 3.0, 4.0]))
    result = emulate(dataclasses.replace(settings, test=tmp_path / "test-block.npz"))
    distance = pq.read_table(result.folder / "fixes.parquet")["training_distance_m"].to_numpy()
    assert distance.max() <= 5.0 + 1e-9 and distance.min() > 0
    assert "prior" in result.summary["controls"]


def test_error_statistics_against_numpy() -> None:
    error = np.random.default_rng(1).exponential(2.0, 500)
    found = error_statistics(error, seed=1)
    assert found is not None and found == error_statistics(error, seed=1)
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)))
    assert found["p95"] == pytest.approx(np.quantile(error, 0.95))
    low, high = found["ci95_of_mean"]
    half = 1.96 * error.std() / np.sqrt(500)  # the central limit theorem's interval
    assert low == pytest.approx(error.mean() - half, rel=0.03)
    assert high == pytest.approx(error.mean() + half, rel=0.03)


def test_toml_comes_back() -> None:
    table = {
        "text": 'quotes " and \\ and µ\n',
        "numbers": [1, 2.5, 1e-9],
        "yes": True,
        "rows": [{"a": 1, "b": [1.0, 2.0]}, {"a": 2}],
        "sub": {"x": 1, "empty": {}, "a key": {"y": "z"}},
    }
    assert tomllib.loads(toml_text(table | {"nothing": None})) == table
    with pytest.raises(TypeError, match="object"):
        toml_text({"a": object()})
