"""`trace` of an indoor factory: what it writes, and that it goes on where it was stopped."""

from pathlib import Path

import numpy as np
import pytest

import cli
from sim.world.paths import load_paths
from sim.world.scenario import load_scenario
from sim.world.store import load_ground_plan, load_test_paths, load_training_positions

TINY = """
extends = "inf-dh-18"
name = "hall"
sites = [{ position = [10.0, 10.0, 8.0] }, { position = [110.0, 50.0, 8.0] }]
[tracing]
positions = 40
[splits]
test = 8
validation = 4
"""


def test_a_factory_is_drawn_into_the_files_of_every_scenario(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hall.toml").write_text(TINY)
    assert cli.main(["trace", "hall.toml"]) == 0
    assert "40 positions, " in (said := capsys.readouterr().out) and " paths to 2 sites: data/hall/paths.npz" in said
    hall = load_scenario("hall.toml")
    paths, test, known = load_paths(Path("data/hall/paths.npz")), load_test_paths(hall), load_training_positions(hall)
    assert (len(paths), len(test), paths.sites) == (40, 8, 2) and paths.digest == hall.tracing_digest()
    assert known is not None and known.shape == (28, 3)
    assert (paths.position >= hall.users.low).all() and (paths.position <= hall.users.high).all()
    assert load_ground_plan(hall) is None  # a statistical channel has no map

    shards = sorted(Path("data/hall/shards").iterdir())
    written = [shard.stat().st_mtime_ns for shard in shards]
    assert cli.main(["trace", "hall.toml"]) == 0
    assert [shard.stat().st_mtime_ns for shard in shards] == written and len(shards) == 2
    np.testing.assert_array_equal(load_paths(Path("data/hall/paths.npz")).delay, paths.delay)
