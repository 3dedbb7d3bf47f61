"""A base station's computation of one report: LMMSE, preprocessing, encoder and quantiser, packing; stages and whole.

`radio` synthesises the received signal: a cost of the emulation, which no real base station has.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.timing import Bench, Case, Row, measure
from benchmarks.world import BATCHES, plan
from edge.estimation import LmmseEstimator
from edge.preprocessing import preprocess
from sim.plan.plan import Plan


def run(bench: Bench) -> list[Row]:
    """Measure the time per report at each batch size."""
    made = plan(bench)
    return measure([case for batch in BATCHES for case in _cases(made, batch)], bench.effort)


def _cases(made: Plan, batch: int) -> list[Case]:
    site = made.sites[0]
    parts = site.station
    received = torch.stack([site.radio.observe(snapshot) for snapshot in range(batch)])
    assert parts.covariance is not None
    estimator = LmmseEstimator(parts.covariance, parts.noise_w, parts.power_w, parts.pilots)
    scheme, station = parts.build(parts.setup), parts.assemble()
    channel = estimator.estimate(received)
    phase = parts.setup.config["phase"]
    whole = f"report, batch {batch}"
    stages: dict[str, Callable[[], object]] = {
        "LMMSE": torch.inference_mode()(lambda: estimator.estimate(received)),
        "preprocess": torch.inference_mode()(lambda: preprocess(channel, phase)),
        "preprocess, encode, quantise": lambda: scheme.encode(channel),
    }
    cases = [Case(f"{name}, batch {batch}", call, batch, whole) for name, call in stages.items()]
    first = f"report, batch {BATCHES[0]}"
    cases.append(Case(whole, lambda: station.reports(range(batch), received), batch, None if whole == first else first))
    if batch == 1:
        cases.append(Case("radio (emulated air)", lambda: site.radio.observe(0), reference=whole))
    return cases
