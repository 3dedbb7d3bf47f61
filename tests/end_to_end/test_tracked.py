"""`--track`: tracks of walks beside the fixes of a run, bridged where a fix failed, made of nothing but the fixes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import straight_world
from pyarrow.parquet import read_table

from cloud.fixlog import fix_schema
from cloud.tracking import Motion, deviation_of, kalman, smooth
from edge.scheme import weights_scheme
from fronthaul.link.link_file import LinkPlan
from sim.emulate.emulator import run_plan
from sim.errors import UserError
from sim.plan.outcome import RunResult
from sim.plan.plan import Plan, compose
from sim.plan.settings import EmulateSettings
from sim.plan.weights import find_weights, load_weights
from sim.world.scenario import Walk, load_scenario

WALKS, STEPS, INTERVAL_S = 3, 12, 0.5
WEIGHTS = {scheme: find_weights("paris-6", scheme, 4) for scheme in ("ecc", "toa")}


def plan_of(folder: Path, **changes: object) -> Plan:
    """A plan of users on straight lines, of which a quarter of the fixes fail for lack of reports."""
    usual = {"driver": "process", "scheme": "toa-aoa", "snapshots": WALKS * STEPS, "minimum_bs": 6, "batch": 12,
             "controls": False, "report": False, "capture": False, "track": True, "output": folder,
             "links": LinkPlan({(None, None): {"loss": 0.05}})}  # fmt: skip
    walk = Walk(speed_mps=(1.0, 2.0), snapshots=STEPS, interval_s=INTERVAL_S)
    world = dataclasses.replace(load_scenario("paris-6"), name="straight", walk=walk)
    draw = np.random.default_rng(4)
    start, heading = draw.uniform(-40, 40, (WALKS, 1, 2)), draw.uniform(0, 2 * np.pi, (WALKS, 1))
    line = 1.5 * INTERVAL_S * np.arange(STEPS)[None, :] * np.exp(1j * heading)
    plane = start + np.stack([line.real, line.imag], -1)
    position = np.concatenate([plane, np.full((WALKS, STEPS, 1), 1.5)], -1).reshape(-1, 3)
    paths = straight_world.walking(straight_world.trace(world, position), STEPS)
    run = EmulateSettings(**usual | changes)  # type: ignore[arg-type]
    path = WEIGHTS[weights_scheme(run.scheme)]
    return compose(run, world, paths, load_weights(path), weights_path=path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return run_plan(plan_of(tmp_path_factory.mktemp("tracked")))


def test_tracks_follow_from_the_fixes_alone(run: RunResult) -> None:
    """Laid out and filtered again from the estimates in the table."""
    table = read_table(run.folder / "fixes.parquet")
    snapshot = table["snapshot"].to_numpy()
    assert 18 < len(snapshot) < WALKS * STEPS and table["covariance_m2"].null_count == 0
    fix = np.full((WALKS * STEPS, 3), np.nan)
    covariance = np.full((WALKS * STEPS, 3, 3), np.nan)
    fix[snapshot] = np.stack([table[f"{axis}_m"].to_numpy() for axis in "xyz"], 1)
    covariance[snapshot] = np.array(table["covariance_m2"].to_pylist()).reshape(-1, 3, 3)
    motion = Motion(INTERVAL_S, 0.1, 2.0)
    filtered = kalman(fix.reshape(WALKS, STEPS, 3), covariance.reshape(WALKS, STEPS, 3, 3), motion)
    for name, states in (("track", filtered.states), ("smooth", smooth(filtered, motion))):
        found = np.stack([table[f"{name}_{axis}_m"].to_numpy() for axis in "xyz"], 1)
        np.testing.assert_allclose(found, states.position.reshape(-1, 3)[snapshot], rtol=1e-9)


def test_the_summary_compares_the_same_fixes_and_counts_the_bridged(run: RunResult) -> None:
    table, track = read_table(run.folder / "fixes.parquet"), run.summary["track"]
    truth = np.stack([table[f"true_{axis}_m"].to_numpy() for axis in "xyz"], 1)
    for name, prefix in (("raw", ""), ("filtered", "track_"), ("smoothed", "smooth_")):
        position = np.stack([table[f"{prefix}{axis}_m"].to_numpy() for axis in "xyz"], 1)
        assert track[name]["mean"] == pytest.approx(np.linalg.norm(position - truth, axis=1).mean())
    assert track["smoothed"]["mean"] < track["raw"]["mean"] == pytest.approx(run.summary["error_3d_m"]["mean"])
    begun = [next(n for n in range(WALKS * STEPS) if n // STEPS == w and n in table["snapshot"].to_pylist()) % STEPS
             for w in range(WALKS)]  # fmt: skip
    assert track["bridged"]["snapshots"] == WALKS * STEPS - len(table) - sum(begun)
    assert track["bridged"]["smoothed"]["mean"] < 1.0


def test_a_scheme_without_covariance_is_given_one_and_the_test_set_may_come_round_again(tmp_path: Path) -> None:
    snapshots = WALKS * STEPS + 8
    kept = run_plan(plan_of(tmp_path, scheme="ecc", track_deviation=0.7, snapshots=snapshots)).summary["track"]
    assert (kept["deviation_m"], kept["walks"]) == (0.7, WALKS + 1)
    result = run_plan(plan_of(tmp_path, scheme="ecc", links=LinkPlan(), snapshots=snapshots))
    table, track = read_table(result.folder / "fixes.parquet"), result.summary["track"]
    fix = np.full(((WALKS + 1) * STEPS, 3), np.nan)
    fix[:snapshots] = np.stack([table[f"{axis}_m"].to_numpy() for axis in "xyz"], 1)
    assert track["deviation_m"] == pytest.approx(deviation_of(fix.reshape(-1, STEPS, 3)))
    assert track["bridged"]["snapshots"] == 0 and track["smoothed"]["mean"] < track["raw"]["mean"]


def test_the_table_of_fixes_that_the_tracker_reads_holds_no_truth() -> None:
    assert not [name for name in fix_schema().names if "true" in name or "error" in name]


def test_without_walks_there_is_nothing_to_track(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"scenario 'paris-6' has none: add a \[walk\] table"):
        compose_again(tmp_path, parts=False)
    with pytest.raises(UserError, match=r"whole walks of 12 snapshots.* give the user split, --test test-user.npz"):
        compose_again(tmp_path, parts=True)


def compose_again(folder: Path, *, parts: bool) -> Plan:
    plan = plan_of(folder)
    world = plan.scenario if parts else load_scenario("paris-6")
    some = plan.paths.select(np.arange(0, WALKS * STEPS, 2))
    return compose(plan.settings, world, some, plan.weights)
