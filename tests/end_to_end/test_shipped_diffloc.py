"""What is shipped for DiffLoc works: data, weights, the headline command, and the control against leaking truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.emulate.emulator import emulate
from sim.inspect.replay import replay
from sim.plan.settings import EmulateSettings
from sim.plan.weights import find_weights, load_weights
from sim.world.scenario import load_scenario
from sim.world.store import ASSET_FOLDER, load_test_paths, load_training_positions

SNAPSHOTS = 60
STATIONS, AXES = 7, 2


def run(tmp_path: Path, *, bits: int | None = 8, **changes: Any) -> tuple[Path, dict[str, Any]]:
    options = tuple(sorted(changes.pop("options", {"steps": 2}).items()))
    settings = EmulateSettings(
        scenario="paris-7", scheme="diffloc", bs=STATIONS, bits=bits, snapshots=SNAPSHOTS, driver="process",
        output=tmp_path, options=options, **({"controls": False} | changes),
    )  # fmt: skip
    result = emulate(settings)
    return result.folder, result.summary


def mean_2d(summary: dict[str, Any]) -> float:
    return float(summary["error_2d_m"]["mean"])


def test_weights_stay_small_and_test_positions_are_held_out() -> None:
    assert sum(path.stat().st_size for path in (ASSET_FOLDER / "paris-7").glob("diffloc*")) < 50e6
    scenario = load_scenario("paris-7")
    paths, training = load_test_paths(scenario), load_training_positions(scenario)
    assert training is not None and (len(paths), len(training)) == (400, 1200)
    known = {tuple(row) for row in training.astype(np.float32)}
    assert not any(tuple(row) in known for row in paths.position.astype(np.float32))
    config = load_weights(find_weights("paris-7", "diffloc", 8)).config
    assert config["model"] == "ct" and config["record"]["positions"] == len(training)


def test_headline(tmp_path: Path) -> None:
    folder, summary = run(tmp_path, controls=True)
    assert (summary["fusion"], summary["bs"]) == ("gauss", STATIONS)
    assert mean_2d(summary) < 16.0
    assert mean_2d(summary) < 0.3 * summary["controls"]["prior"]["mean"]
    assert summary["error_vertical_m"]["mean"] == pytest.approx(0.0, abs=1e-5)
    again = replay(folder)
    assert again.compared == again.total == SNAPSHOTS


@pytest.mark.parametrize("where", ["central", "one-shot"])
def test_the_networks_may_stand_elsewhere(where: str, tmp_path: Path) -> None:
    _, summary = run(tmp_path, options={"where": where})
    assert mean_2d(summary) < 18.0


def test_the_weighted_mean_is_there_beside_the_default(tmp_path: Path) -> None:
    _, summary = run(tmp_path, options={"steps": 2, "fusion": "precision"})
    assert summary["fusion"] == "precision"
    assert mean_2d(summary) < 18.0


def test_shuffled_csi_is_worth_no_more_than_a_guess(tmp_path: Path) -> None:
    """The control of evaluation rule 1: with another position's channels the error rises to the prior's."""
    _, summary = run(tmp_path, shuffle_csi=True, controls=True)
    assert mean_2d(summary) > summary["controls"]["prior"]["mean"]
