"""Whole runs in process: exact reruns, books that balance, and ends that leave what there is."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import run_tables
import tiny_world

from cloud.cloud_spec import CloudOutcome
from cloud.fusion.scheme import Fix
from fronthaul.clock import SimulatedClock
from fronthaul.errors import LocalError
from fronthaul.link.link_file import LinkPlan, with_options
from fronthaul.message.messages import Report
from fronthaul.transport.zmtp import ZMTP_NULL
from sim.arithmetic import fixed_arithmetic
from sim.emulate.emulator import Progress, RunResult, close_books, emulate, run_plan
from sim.emulate.in_process import assemble, drive
from sim.errors import UserError
from sim.inspect.audit import audit
from sim.inspect.frames import frame_view, recover
from sim.inspect.replay import replay
from sim.plan import plan as compose
from sim.plan.outcome import RunRecord
from sim.plan.settings import EmulateSettings
from sim.plan.weights import load_weights
from sim.records.books import Books, derive_books
from sim.records.folder import RunFolder, write_configuration
from sim.records.statistics import error_statistics
from sim.world.channel import pad_paths


def test_a_run_leaves_a_whole_folder(settings: EmulateSettings) -> None:
    seen: list[Progress] = []
    result = emulate(dataclasses.replace(settings, controls=True, report=True), seen.append)
    names = {path.relative_to(result.folder).as_posix() for path in result.folder.rglob("*")}
    tables = ("bs-000", "bs-001", "bs-002", "connections", "events", "pings", "sockets", "stages")
    links = {f"links/{name}.parquet" for name in tables} | {f"links/bs-00{bs}.pcapng" for bs in range(3)}
    pictures = {"error-cdf.png", "map.png"}
    files = {"run.toml", "summary.json", "report.html", "manifest.json"}
    files |= {f"{name}.parquet" for name in ("fixes", "positions", "controls")}
    assert names == {"links", *files, *pictures, *links}
    assert [path.name for path in settings.output.iterdir()] == [result.folder.name]
    assert json.loads((result.folder / "summary.json").read_text()) == result.summary
    assert [seen[0].stage, seen[-1].stage] == ["start", "write"]


@pytest.mark.parametrize("taken", ["bs-002-epoch-0-sent.arrow", "bs-002-epoch-0-stages.arrow", "cloud-0-fixes.arrow"])
def test_a_run_that_cannot_open_a_stream_leaves_none_open(settings: EmulateSettings, taken: str) -> None:
    plan = compose.load_plan(settings)
    folder = RunFolder.create(plan.settings, plan.scenario.name)
    (folder.links / taken).touch()
    with pytest.raises(LocalError, match=f"{taken} exists already"):
        assemble(plan, folder, SimulatedClock())
    numbers = Path("/proc/self/fd")
    assert not [n for n in numbers.iterdir() if n.is_symlink() and n.readlink().is_relative_to(folder.path.resolve())]


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
    assert counted["handshake"] == 3 * (124 + 107)
    stream = sum(counted[name] for name in ("payload", "side", "header", "padding", "zmtp", "curve"))
    assert stream == reports * ZMTP_NULL.stream_bytes(19 + 4 + 16) == sum(x["stream_bytes"] for x in summary["links"])
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
    assert run_tables.fixes(first).equals(run_tables.fixes(second))
    assert all(a.equals(b) for a, b in zip(run_tables.ledgers(first), run_tables.ledgers(second), strict=True))


def test_another_seed_draws_other_noise(settings: EmulateSettings) -> None:
    first, second = emulate(settings).folder, emulate(dataclasses.replace(settings, seed=2)).folder
    assert not run_tables.ledgers(first)[0]["payload"].equals(run_tables.ledgers(second)[0]["payload"])


def test_the_order_of_base_stations_changes_nothing(settings: EmulateSettings) -> None:
    plan = compose.load_plan(settings)
    turned = dataclasses.replace(plan, sites=plan.sites[::-1])
    first, second = run_plan(plan).folder, run_plan(turned).folder
    assert run_tables.fixes(first).equals(run_tables.fixes(second))
    assert all(a.equals(b) for a, b in zip(run_tables.ledgers(first), run_tables.ledgers(second), strict=True))


@pytest.mark.parametrize("bundle", [1, 3])
def test_compact_frames_have_the_same_fates_in_fewer_bytes(settings: EmulateSettings, bundle: int) -> None:
    faults = {"loss": "10%", "duplicate": "20%", "corrupt": "20%", "delay": "1ms", "jitter": "90ms", "reorder": "10%"}
    chosen = dataclasses.replace(
        settings, links=with_options(LinkPlan(), faults), snapshots=60, batch=bundle, bundle=bundle, deadline_ms=100.0
    )
    standard, compact = (emulate(dataclasses.replace(chosen, compact=one)) for one in (False, True))
    same = ("seq", "part", "snapshot", "frame_fate", "report_fate", "reason", "crc32", "payload", "t_received_ns")
    assert run_tables.rows(compact.folder, same) == run_tables.rows(standard.folder, same)
    assert all(compact.summary["reports"][fate] > 0 for fate in ("used", "late", "lost"))
    frames = sum(compact.summary["frames"].values())
    assert compact.summary["bytes"]["header"] <= (6 if bundle == 1 else 8) * frames
    assert audit(compact.folder).ok and replay(compact.folder).ok
    view = frame_view(compact.folder, 0, 1)
    assert view.compact is not None and len(view.compact) == len(view.data) - (13 if bundle == 1 else 22)


def test_batches_move_fixes_by_less_than_a_millimetre(settings: EmulateSettings) -> None:
    alone, batched = (run_tables.fixes(emulate(dataclasses.replace(settings, batch=b)).folder) for b in (1, 4))
    step = np.stack([alone[axis].to_numpy() - batched[axis].to_numpy() for axis in ("x_m", "y_m", "z_m")])
    assert np.linalg.norm(step, axis=0).max() <= 1e-3  # false for NaN


def run_without(settings: EmulateSettings, silent: int) -> tuple[CloudOutcome, Books, Callable[[], RunResult]]:
    """Run in process without one base station; return what there is, and what closes the books."""
    plan = compose.load_plan(settings)
    folder = RunFolder.create(settings, plan.scenario.name)
    write_configuration(folder, plan)
    world = assemble(plan, folder, SimulatedClock())
    heard = [node for node in world.edges if node.station.bs != silent]
    with fixed_arithmetic(1):
        t0_ns = drive(dataclasses.replace(world, edges=heard), plan.schedule(0), lambda _: None)
    for node in world.edges:
        node.close()
    world.cloud.close()
    outcome = world.cloud.outcome()
    record = RunRecord(outcome, t0_ns=t0_ns, wall_clock=False, seconds=1.0, address="memory")
    return outcome, derive_books(plan, folder), lambda: close_books(plan, folder, record)


def test_a_silent_base_station_costs_a_deadline_and_no_fix(settings: EmulateSettings) -> None:
    outcome, books, close = run_without(settings, silent=1)
    assert outcome.missing == {1}
    assert len(books.fixes) == settings.snapshots
    for fix in books.fixes.to_pylist():
        assert fix["used_bs"] == [0, 2]
        assert fix["t_fix_ns"] == fix["snapshot"] * settings.interval_ns + settings.deadline_ns
    result = close()
    assert result.summary["missing_bs"] == [1]
    assert result.summary["reports"]["used"] == 2 * settings.snapshots
    assert replay(result.folder).identical == settings.snapshots


def test_too_few_base_stations_leave_reports_unused(settings: EmulateSettings) -> None:
    _, books, close = run_without(dataclasses.replace(settings, minimum_bs=3), silent=0)
    assert len(books.fixes) == 0
    summary = close().summary
    assert summary["reports"]["unused"] == 2 * settings.snapshots
    assert summary["error_3d_m"] is None and summary["conservation"]["ok"]


def test_closed_loop_ends_although_one_is_silent(settings: EmulateSettings) -> None:
    _, books, _ = run_without(dataclasses.replace(settings, interval_ms=0.0), silent=2)
    assert len(books.fixes) == settings.snapshots


def test_shuffled_csi_is_the_same_bits_for_other_users(settings: EmulateSettings) -> None:
    plain = compose.load_plan(settings)
    shuffled = compose.load_plan(dataclasses.replace(settings, shuffle_csi=True))
    assert np.array_equal(plain.truth, shuffled.truth)
    first, second = emulate(settings).folder, run_plan(shuffled).folder
    assert not run_tables.fixes(first)["x_m"].equals(run_tables.fixes(second)["x_m"])
    assert run_tables.fixes(first)["true_x_m"].equals(run_tables.fixes(second)["true_x_m"])


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
        assert list(folder.glob("links/cloud-0-received.arrow")) and list(folder.glob("links/bs-*-sent.arrow"))
        raise UserError("no actor came up")

    monkeypatch.setattr("sim.emulate.in_process.drive", fail)
    with pytest.raises(UserError, match="no actor"):
        emulate(settings)
    assert list(settings.output.iterdir()) == []


class Fragile:
    """The real rule, except that it does not cope with snapshot 3, or does so without a number."""

    def __init__(self, inner: Any, raises: bool) -> None:
        self.inner, self.raises = inner, raises

    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        if groups[0][0].key.snapshot != 3:
            return list(self.inner.fuse(groups))
        if self.raises:
            raise ArithmeticError("no such logarithm")
        return [Fix((float("nan"), 0.0, 0.0))]


def fragile(monkeypatch: pytest.MonkeyPatch, *, raises: bool) -> None:
    load = compose.load_fusion
    monkeypatch.setattr(compose, "load_fusion", lambda name: lambda setup: Fragile(load(name)(setup), raises))


def test_a_fusion_rule_that_raises_fails_the_run_by_name_and_snapshot(
    settings: EmulateSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fragile(monkeypatch, raises=True)
    sentence = r"The cloud failed: snapshot 3 cannot be fused: no such logarithm \(ArithmeticError\)\. What the run"
    with pytest.raises(UserError, match=sentence):
        emulate(settings)
    (folder,) = settings.output.iterdir()
    assert folder.name.endswith(".part")
    assert pq.read_table(folder / "fixes.parquet")["snapshot"].to_pylist() == [0, 1, 2]
    found = recover(folder)
    assert found.conservation.ok and len(found.books.fixes) == 3


def test_a_position_that_is_no_number_is_no_fix_and_is_counted(
    settings: EmulateSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fragile(monkeypatch, raises=False)
    result = emulate(settings)
    summary = result.summary
    assert summary["undetermined"] == 1 and summary["fixes"] == settings.snapshots - 1
    assert summary["reports"]["unused"] == 3 and summary["conservation"]["ok"]
    assert 3 not in run_tables.fixes(result.folder)["snapshot"].to_pylist()
    events = pq.read_table(result.folder / "links" / "events.parquet").to_pylist()
    assert [event["detail"] for event in events if event["kind"] == "fusion"] == [
        "snapshot 3 came to no finite position"
    ]


def test_the_cloud_expects_what_its_base_stations_send(settings: EmulateSettings) -> None:
    plan = compose.load_plan(settings)
    assert (plan.cloud.report, plan.cloud.answer) == (plan.format, plan.answer_format)
    assert [site.station.assemble().format for site in plan.sites] == 3 * [plan.format]


def test_a_damaged_fingerprint_table_costs_the_controls_and_not_the_run(
    settings: EmulateSettings, tmp_path: Path
) -> None:
    (tmp_path / "assets" / "tiny" / "fingerprints.npz").write_text("nothing")
    result = emulate(dataclasses.replace(settings, controls=True))
    (note,) = result.summary["notes"]
    assert "controls are left out" in note and "fingerprints.npz" in note
    assert "controls" not in result.summary and result.summary["fixes"] == settings.snapshots
    assert json.loads((result.folder / "summary.json").read_text()) == result.summary


def test_the_summary_is_written_before_the_controls(settings: EmulateSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sim.emulate.emulator.write_controls", stop)
    with pytest.raises(KeyboardInterrupt):
        emulate(dataclasses.replace(settings, controls=True))
    (folder,) = settings.output.iterdir()
    assert json.loads((folder / "summary.json").read_text())["fixes"] == settings.snapshots


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
