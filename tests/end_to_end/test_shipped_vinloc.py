"""VIn-Loc's shipped weights and test data, by a few emulated snapshots each."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import cli
from sim.emulate.emulator import emulate
from sim.plan.settings import EmulateSettings
from sim.world.store import ASSET_FOLDER

HALL = EmulateSettings(
    scenario="inf-dh-18", scheme="vinloc", bs=18, bits=4, snapshots=60, batch=20, driver="process", controls=False,
    capture=False,
)  # fmt: skip


def mean_m(settings: EmulateSettings, output: Path) -> float:
    summary = emulate(dataclasses.replace(settings, output=output)).summary
    mean: float = summary["error_3d_m"]["mean"]
    return mean


def test_weights_of_all_scenarios_stay_below_25_mb() -> None:
    files = list(ASSET_FOLDER.glob("*/vinloc*.safetensors"))
    assert {file.parent.name for file in files} >= {"inf-dh-18", "paris-street-12"}
    assert sum(file.stat().st_size for file in files) < 25e6


def test_the_hall_is_positioned_to_about_a_metre_and_worse_from_fewer_base_stations(tmp_path: Path) -> None:
    whole = mean_m(HALL, tmp_path)
    some = mean_m(dataclasses.replace(HALL, bs=6, random_subset=True), tmp_path)
    assert whole < 1.3  # 0.89 m on all test users
    assert whole < some < 5.0  # 3.34 m


@pytest.mark.parametrize("bits", [1, 8, None])
def test_one_file_of_weights_serves_every_payload(tmp_path: Path, bits: int | None) -> None:
    assert mean_m(dataclasses.replace(HALL, bits=bits, snapshots=20), tmp_path) < 1.7


def test_responses_of_others_tell_nothing(tmp_path: Path) -> None:
    assert mean_m(dataclasses.replace(HALL, shuffle_csi=True), tmp_path) > 35


def test_a_street_is_positioned_in_layouts_that_no_training_has_seen(tmp_path: Path) -> None:
    street = dataclasses.replace(HALL, scenario="paris-street-12", bs=12)
    errors = [mean_m(dataclasses.replace(street, layout=layout), tmp_path) for layout in (0, 7)]
    assert max(errors) < 4  # 1.1 m on all layouts


def test_the_command_line_draws_another_subset_for_each_snapshot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "emulate --scheme vinloc --bs 15 --random-subset --bits 4 --snapshots 20 --batch 20 --interval 10"
    assert cli.main([*words.split(), "--driver", "process", "--json", "--output", str(tmp_path)]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["bs"] == 15
    assert summary["reports"]["used"] == 300
    (run,) = tmp_path.iterdir()
    links = sorted((run / "links").glob("bs-*.parquet"))
    counts = [len(np.unique(pq.read_table(link)["snapshot"].to_numpy())) for link in links]
    assert len(counts) == 18
    assert 0 < min(counts) < 20
