"""The in-process driver by CPU time, which other work on the machine disturbs least, against what it cannot do without.

At batch 32, `ecc` is held against its networks alone: encoders of all base stations and fusion, on tensors that are
ready, in one loop. `rss`, which has no networks, is held against its radios alone, on paris-6 and with the lighter
pilots of `benchmarks.grid`; there also with 16 base stations, which share the cost of a fix. Measured is the run
itself, journals and receive logs included: neither assembly nor closing of the books.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import torch

from benchmarks import grid, world
from benchmarks.timing import Bench, Row, row
from cloud.fusion.cma import CmaFusionNetwork, read_out
from edge.ecc import load_encoder
from fronthaul.clock import SimulatedClock
from sim.emulate.in_process import assemble, drive
from sim.plan.plan import Plan, load_plan
from sim.plan.settings import EmulateSettings
from sim.records.folder import RunFolder

BATCH = 32
Job = Callable[[], None]


def run(bench: Bench) -> list[Row]:
    """Measure rates per second of CPU time."""
    batches = 1 if bench.quick else bench.effort.snapshots // BATCH
    settings = dataclasses.replace(world.settings(bench), batch=BATCH, snapshots=batches * BATCH, capture=False)
    rss = EmulateSettings(
        scheme="rss", bits=8, snapshots=settings.snapshots, batch=BATCH, driver="process", interval_ms=0.0,
        capture=False, output=settings.output,
    )  # fmt: skip
    ecc, paris = load_plan(settings), load_plan(rss)
    snapshots = settings.snapshots
    rows = [
        *_pair(bench, "networks alone", networks(ecc), "ecc", ecc, snapshots, "fixes/s"),
        *_pair(bench, "radios alone", radios(paris), "rss", paris, snapshots * settings.bs, "reports/s"),
    ]
    for name, stations in (("one slot", settings.bs), ("one slot, 16 BSs", 16)):
        light = grid.plan(stations, snapshots, settings.output)
        base, case = f"radios alone, {name}", f"rss, {name}"
        rows += _pair(bench, base, radios(light), case, light, snapshots * stations, "reports/s")
    return rows


def _pair(bench: Bench, base: str, alone: Job, name: str, plan: Plan, count: int, unit: str) -> list[Row]:
    """Time a job and a run in turn; return `count` per second of each, and their ratio."""
    found: dict[str, list[float]] = {base: [], name: []}
    for _ in range(bench.effort.runs):
        found[base].append(count / _cpu_s(alone))
        found[name].append(count / driven_s(plan))
    return [row(base, unit, found[base]), row(name, unit, found[name], base, found[base])]


def networks(plan: Plan) -> Job:
    """Return a loop of the networks of `ecc` over all batches; those of the cloud are untrained, at the same cost."""
    encoders = [load_encoder(site.station.setup) for site in plan.sites]
    shape = plan.weights.config["fusion"]
    fusion = CmaFusionNetwork(**shape).eval()
    slots, antennas, tones = plan.scenario.csi_shape
    stations = int(shape["stations"])
    pilots = torch.randn(BATCH, 2, tones, slots * antennas)
    latents = torch.randn(BATCH, stations, tones, int(shape["coefficients"]))
    gain, present = torch.ones(BATCH, stations), torch.ones(BATCH, stations, dtype=torch.bool)

    @torch.inference_mode()
    def all_batches() -> None:
        for _ in range(plan.settings.snapshots // BATCH):
            for encoder in encoders:
                encoder(pilots)
            read_out(fusion(latents, gain, present), fusion.readout)

    return all_batches


def radios(plan: Plan) -> Job:
    """Return a loop of all radios over all batches."""

    def all_batches() -> None:
        for snapshots in plan.schedule(0).batches():
            plan.sites[0].radio.observe_together([(site.radio, snapshots) for site in plan.sites])

    return all_batches


def driven_s(plan: Plan) -> float:
    """Return the CPU time of driving a plan [s]; its books are left open."""
    folder = RunFolder.create(plan.settings, plan.scenario.name)
    nodes = assemble(plan, folder, SimulatedClock())
    try:
        return _cpu_s(lambda: drive(nodes, plan.schedule(0), lambda _: None))
    finally:
        for node in nodes.edges:
            node.close()
        nodes.cloud.close()


def _cpu_s(job: Callable[[], object]) -> float:
    begin_s = time.process_time()
    job()
    return time.process_time() - begin_s
