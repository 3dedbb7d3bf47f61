"""VIn-Loc through the emulator: base stations that hear nothing, and the books that say so."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_vinloc
import tiny_world

from sim.emulate.emulator import run_plan
from sim.inspect.replay import replay
from sim.plan.plan import Plan, compose
from sim.plan.weights import load_weights
from sim.records.folder import RunFolder
from sim.records.links import read_ledgers, read_table

HEARD = np.ones((tiny_world.USERS, 3), bool)
HEARD[1, 0] = HEARD[3, [1, 2]] = HEARD[4] = False
"""Who is heard where: snapshot 1 not at BS 0, snapshot 3 only there, snapshot 4 nowhere."""


def planned(folder: Path, **changes: Any) -> Plan:
    settings = replace(tiny_vinloc.write(folder), **changes)
    world = tiny_vinloc.scenario()
    paths = tiny_vinloc.silenced(tiny_world.paths(world), HEARD)
    assert settings.weights is not None
    return compose(settings, world, paths, load_weights(settings.weights), weights_path=settings.weights)


@pytest.mark.parametrize("bits", [1, 8, None])
@pytest.mark.parametrize("batch", [1, 4])
def test_who_hears_nothing_is_excluded_and_who_is_heard_by_nobody_is_nowhere(
    tmp_path: Path, bits: int | None, batch: int
) -> None:
    result = run_plan(planned(tmp_path, bits=bits, batch=batch))
    summary, folder = result.summary, RunFolder(result.folder)
    assert (summary["fixes"], summary["undetermined"]) == (7, 1)
    assert summary["excluded"] == {"0": 2, "1": 2, "2": 2}
    assert summary["payload_bits_per_report"] == 256 * (bits or 32)
    assert summary["bytes"]["payload"] == 3 * 8 * 32 * (bits or 32) and summary["bytes"]["side"] == 3 * 8
    fixes = read_table(folder.fixes)
    used = dict(zip(fixes["snapshot"].to_pylist(), fixes["used_bs"].to_pylist(), strict=True))
    assert used == {0: [0, 1, 2], 1: [1, 2], 2: [0, 1, 2], 3: [0], **{n: [0, 1, 2] for n in (5, 6, 7)}}
    for bs, ledger in read_ledgers(folder).items():
        if bs is None:
            continue
        rows = [row for row in ledger.to_pylist() if row["report_fate"] is not None]
        for row in rows:
            heard = bool(HEARD[row["snapshot"], bs])
            assert row["side"] == bytes([heard]) and (row["report_fate"] == "used") == heard
            assert heard or not any(row["payload"])
    found = replay(result.folder)
    assert found.ok and found.total == 7 and (batch > 1 or found.identical == 7)


def test_what_shares_a_batch_changes_a_fix_by_rounding_alone(tmp_path: Path) -> None:
    positions = []
    for batch in (1, 3, 8):
        folder = tmp_path / str(batch)
        folder.mkdir()
        table = read_table(RunFolder(run_plan(planned(folder, batch=batch)).folder).fixes)
        positions.append(np.stack([table[f"{axis}_m"].to_numpy() for axis in "xyz"], 1))
    assert np.abs(positions[1] - positions[0]).max() < 1e-3
    assert np.abs(positions[2] - positions[0]).max() < 1e-3
    assert np.ptp(positions[0], 0)[:2].min() > 0.01  # or all fixes would be one
