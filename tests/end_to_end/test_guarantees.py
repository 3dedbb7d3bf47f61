"""What is guaranteed, cell by cell (the table of that name), where no other file tests it.

Each docstring names its cell as row × column. The column "same driver, rerun" is in test_run_emulator
(`test_a_rerun_is_exact`, `test_replay_is_exact`), "in process ↔ Ray + ZeroMQ" in test_run_cluster.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import straight_world
import tiny_world
import torch

from cloud.fusion.scheme import OneRound, as_fusion
from fronthaul.codec.bitstream import unpack
from fronthaul.draws import generator
from fronthaul.message.messages import Report, ReportKey
from sim.arithmetic import fixed_arithmetic
from sim.emulate.emulator import emulate
from sim.inspect.replay import logged_reports, replay
from sim.plan import plan as compose
from sim.plan.settings import EmulateSettings
from sim.records.folder import RunFolder, read_configuration
from sim.records.links import read_ledgers
from sim.world import store
from sim.world.channel import pad_paths
from sim.world.radio import Radio

BITS = 4
MOST_FLIPS = 5  # per 1000 reports: "a few"
MILLIMETRE = 1e-3

Reports = dict[ReportKey, Report]
Positions = npt.NDArray[np.float64]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmulateSettings:
    """A tiny run whose encoders spread their latents over all cells, so that indices can flip."""
    monkeypatch.setattr(store, "ASSET_FOLDER", tmp_path / "assets")
    written = tiny_world.write(tmp_path)
    straight_world.ecc(tiny_world.scenario(), BITS, tmp_path)
    weights = tmp_path / "weights.safetensors"
    return dataclasses.replace(written, weights=weights, bits=BITS, snapshots=140, controls=False)


def sent(folder: Path) -> Reports:
    return logged_reports(read_ledgers(RunFolder(folder)))


def require_few_flips(one: Reports, other: Reports) -> None:
    """Unpack all payloads and count the indices that differ; a flip goes to a neighbouring cell."""
    assert one.keys() == other.keys() and len(one) >= 300
    count = 8 * straight_world.SMALL.coefficients
    index = [np.stack([unpack(r[key].payload, BITS, count) for key in one]).astype(int) for r in (one, other)]
    assert len(np.unique(index[0])) == 2**BITS  # or nothing could flip
    differ = np.abs(index[0] - index[1])
    flips = int(np.count_nonzero(differ))
    assert flips * 1000 <= MOST_FLIPS * len(one), f"{flips} flips in {len(one)} reports"
    assert differ.max() <= 1
    gain = [np.array([np.frombuffer(r[key].side, ">f4")[0] for key in one]) for r in (one, other)]
    np.testing.assert_allclose(gain[0], gain[1], rtol=1e-5)


def fused(plan: compose.Plan, reports: Reports, batch: int) -> Positions:
    """Fixes (N, 3) [m] from given reports, so many snapshots at once."""
    fusion = as_fusion(plan.cloud.build(plan.cloud.setup))
    assert isinstance(fusion, OneRound)
    by_snapshot: dict[int, list[Report]] = {}
    for key in sorted(reports, key=lambda key: (key.snapshot, key.bs)):
        by_snapshot.setdefault(key.snapshot, []).append(reports[key])
    groups = list(by_snapshot.values())
    made: list[Sequence[float]] = []
    with torch.inference_mode():
        for begin in range(0, len(groups), batch):
            made += [fix.position for fix in fusion.fuse(groups[begin : begin + batch])]
    return np.array(made)


def require_within_a_millimetre(one: Positions, other: Positions) -> None:
    assert one.shape == other.shape and np.isfinite(one).all()
    assert np.ptp(one, axis=0).max() > 100 * MILLIMETRE  # or fixes would agree whatever was reported
    assert np.linalg.norm(one - other, axis=1).max() <= MILLIMETRE  # false for NaN


def observed(plan: compose.Plan, batch: int) -> Reports:
    """All reports of a plan, its base stations called directly."""
    made: Reports = {}
    for site in plan.sites:
        station = site.station.assemble()
        snapshots = range(plan.settings.snapshots)
        for begin in range(0, len(snapshots), batch):
            part = snapshots[begin : begin + batch]
            received = torch.stack([site.radio.observe(n) for n in part])
            made |= {report.key: report for report in station.reports(part, received)}
    return made


def draws_digest() -> str:
    """One digest of keyed draws of every stream, and of a radio's noise, heard where no signal arrives."""
    made = sha256()
    for stream in ("noise", "loss", "duplication", "corruption", "jitter", "user", "clock", "shuffle"):
        draw = generator(7, stream, 2, 3, 5)
        for part in (draw.uniform(size=50), draw.standard_normal(50), draw.integers(2**62, size=50)):
            made.update(part.tobytes())
        made.update(draw.standard_normal(51, dtype=np.float32).tobytes())
        made.update(draw.permutation(50).tobytes())
    world = tiny_world.scenario()
    traced = tiny_world.paths(world)
    silent = dataclasses.replace(traced, matrix=np.zeros_like(traced.matrix))
    padded = pad_paths(silent, world.numerology.carrier_hz)
    for site in range(len(world.sites)):
        radio = Radio(world, padded.site(site), site, seed=7)
        for snapshot in range(20):
            noise = radio.observe(snapshot)
            assert noise.abs().min() > 0
            made.update(noise.numpy().tobytes())
    return made.hexdigest()


def test_batches_flip_few_indices(settings: EmulateSettings) -> None:
    """Payload bits × other batch size: a few index flips per 1000 reports; counted."""
    alone, batched = (emulate(dataclasses.replace(settings, batch=batch)) for batch in (1, 7))
    require_few_flips(sent(alone.folder), sent(batched.folder))


def test_batches_move_fixes_from_given_reports_by_less_than_a_millimetre(settings: EmulateSettings) -> None:
    """Fix from given reports × other batch size: ≤ 1 mm."""
    plan = compose.load_plan(settings)
    reports = observed(plan, 7)
    alone = fused(plan, reports, 1)
    for batch in (7, len(alone)):
        require_within_a_millimetre(alone, fused(plan, reports, batch))


def test_threads_flip_few_indices_and_move_fixes_by_less_than_a_millimetre(settings: EmulateSettings) -> None:
    """Payload bits, and fix from given reports × other threads: a few index flips per 1000 reports; ≤ 1 mm.

    All snapshots in one batch: torch shares smaller ones out to nobody.
    """
    plan = compose.load_plan(dataclasses.replace(settings, snapshots=400))
    reports: list[Reports] = []
    fixes: list[Positions] = []
    for threads in (1, 2):
        with fixed_arithmetic(threads):
            reports.append(observed(plan, 400))
            fixes.append(fused(plan, reports[0], 400))
    require_few_flips(*reports)
    require_within_a_millimetre(*fixes)


def test_threads_and_batches_leave_all_draws_alone(settings: EmulateSettings) -> None:
    """Draws × other batch size or threads: exact; a radio knows no batch, and may be asked in any order."""
    digests = set()
    for threads in (1, 2):
        with fixed_arithmetic(threads):
            digests.add(draws_digest())
    assert len(digests) == 1
    radio = compose.load_plan(settings).sites[1].radio
    forwards = [radio.observe(n) for n in range(9)]
    backwards = [radio.observe(n) for n in reversed(range(9))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))


def elsewhere(folder: Path, assets: Path) -> dict[str, Any]:
    """What the other machine finds: the run in `folder` replayed, made again, and the keyed draws."""
    store.ASSET_FOLDER = assets
    torch.set_num_threads(1)
    settings = read_configuration(RunFolder(folder)).settings
    return {
        "capability": torch.backends.cpu.get_cpu_capability(),
        "replay": dataclasses.asdict(replay(folder)),
        "fixes": fused(compose.load_plan(settings), sent(folder), settings.batch).tolist(),
        "again": str(emulate(settings).folder),
        "draws": draws_digest(),
    }


def test_another_machine(settings: EmulateSettings, tmp_path: Path) -> None:
    """Payload bits, draws, and fix from given reports × other machine: a few index flips; exact; ≤ 1 mm.

    The other machine is a process whose torch, MKL and oneDNN may use none of the wider instructions.
    """
    folder = emulate(settings).folder
    narrow = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    here = Path(__file__).parent
    places = os.pathsep.join(map(str, (here, here.parent / "support", here.parents[1])))
    code = (
        "import json, sys, pathlib, test_guarantees\n"
        "print(json.dumps(test_guarantees.elsewhere(*map(pathlib.Path, sys.argv[1:]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(tmp_path / "assets")],
        env=os.environ | narrow | {"PYTHONPATH": places},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["capability"] == "DEFAULT"
    assert found["draws"] == draws_digest()
    assert found["replay"]["compared"] == found["replay"]["total"] == settings.snapshots
    assert found["replay"]["max_difference_m"] <= MILLIMETRE
    rows = pq.read_table(folder / "fixes.parquet")
    here_m = np.stack([rows[f"{axis}_m"].to_numpy() for axis in "xyz"], 1)
    require_within_a_millimetre(here_m, np.array(found["fixes"]))
    require_few_flips(sent(folder), sent(Path(found["again"])))
