"""`twin` beside ECC: a report at the base station, a fix at the cloud, in processor time, which bears other load."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from benchmarks.samples import STATIONS
from benchmarks.timing import Bench, Case, Row, measure
from benchmarks.world import groups, settings
from cloud.center import FusionCenter
from cloud.collector import Gathered
from sim.plan.plan import Plan, load_plan

BATCHES = (1, 32)
LENGTHS = (64, 128)


def run(bench: Bench) -> list[Row]:
    """Measure the time per report and per fix at each batch size; ECC's is the yardstick."""
    common = replace(settings(bench), snapshots=max(BATCHES))
    ecc = load_plan(common)
    plans = {
        f"twin {bits} bit": load_plan(
            replace(common, scheme="twin", weights=None, options=(("bits_per_report", bits),))
        )
        for bits in LENGTHS
    }
    cases = []
    for batch in BATCHES:
        for kind, work in (("report", _report), ("fix", _fix)):
            yardstick = f"ecc: {kind}, batch {batch}"
            cases.append(Case(yardstick, work(ecc, batch), batch))
            cases += [
                Case(f"{name}: {kind}, batch {batch}", work(plan, batch), batch, yardstick)
                for name, plan in plans.items()
            ]
    effort = bench.effort if bench.quick else dataclasses.replace(bench.effort, repetitions=7)  # a fix takes long
    return measure(cases, effort, time.process_time)


def _report(plan: Plan, batch: int) -> Callable[[], object]:
    site = plan.sites[0]
    received = torch.stack([site.radio.observe(snapshot) for snapshot in range(batch)])
    return partial(site.station.assemble().reports, range(batch), received)


def _fix(plan: Plan, batch: int) -> Callable[[], object]:
    center = FusionCenter(plan.cloud.build(plan.cloud.setup))
    closed = [Gathered(n, 0, tuple(group), 0, STATIONS - 1) for n, group in enumerate(groups(plan, batch))]
    return torch.inference_mode()(lambda: center.advance([(center.open(one.snapshot), one) for one in closed]))
