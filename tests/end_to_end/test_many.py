"""Runs of many base stations: nothing but time and memory limits how many there are."""

import dataclasses
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import run_tables
import tiny_world

from sim.emulate.emulator import RunResult, emulate
from sim.inspect.audit import audit
from sim.inspect.replay import replay
from sim.plan.settings import EmulateSettings
from sim.world import store


def settings_of(folder: Path, monkeypatch: pytest.MonkeyPatch, stations: int, snapshots: int) -> EmulateSettings:
    monkeypatch.setattr(store, "ASSET_FOLDER", folder / "assets")
    made = tiny_world.write(folder, stations)
    return dataclasses.replace(made, scheme="rss", bits=8, snapshots=snapshots, controls=False, capture=False)


def require_whole(result: RunResult) -> None:
    settings = result.summary
    assert settings["reports"]["used"] == settings["bs"] * settings["snapshots"] == sum(settings["reports"].values())
    assert audit(result.folder).ok and replay(result.folder).identical == settings["fixes"] == settings["snapshots"]


def test_many_base_stations_in_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = emulate(settings_of(tmp_path, monkeypatch, 256, 2))
    require_whole(result)
    assert pq.read_table(result.folder / "fixes.parquet")["used_bs"].to_pylist() == 2 * [[*range(256)]]


@pytest.mark.ray
def test_many_base_stations_share_a_few_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = settings_of(tmp_path, monkeypatch, 64, 6)
    packed = dataclasses.replace(
        plain, driver="ray", bs_per_actor=32, cpus_per_bs=0.02, interval_ms=300.0, deadline_ms=30_000.0
    )
    on_ray, in_process = emulate(packed), emulate(plain)
    for result in (on_ray, in_process):
        require_whole(result)
    same = ("bs", "snapshot", "seq", "payload", "side", "crc32", "frame_fate", "report_fate")
    assert run_tables.rows(on_ray.folder, same) == run_tables.rows(in_process.folder, same)
    assert run_tables.fixes(on_ray.folder)["x_m"].equals(run_tables.fixes(in_process.folder)["x_m"])
    assert on_ray.summary["bytes_kernel"]["exact"]
