"""The cloud's computation of one fix: unpacking six payloads to latents, and the fusion network."""

from __future__ import annotations

from functools import partial

from benchmarks.samples import BITS, COEFFICIENTS, STATIONS
from benchmarks.timing import Bench, Case, Row, measure
from benchmarks.world import BATCHES, groups, plan
from cloud.fusion.ecc import EccFusion
from fronthaul.codec.bitstream import unpack


def run(bench: Bench) -> list[Row]:
    """Measure the time per fix at each batch size, and its share for unpacking."""
    made = plan(bench)
    fusion = EccFusion(made.cloud.setup)
    reports = groups(made, max(BATCHES))
    payloads = [report.payload for report in reports[0]]
    first = f"fuse {STATIONS} reports, batch {BATCHES[0]}"
    cases = []
    for batch in BATCHES:
        name = f"fuse {STATIONS} reports, batch {batch}"
        cases.append(Case(name, partial(fusion.fuse, reports[:batch]), batch, None if name == first else first))
    unpacking = Case(
        f"unpack {STATIONS} reports",
        lambda: [unpack(payload, BITS, COEFFICIENTS) for payload in payloads],
        reference=first,
    )
    return measure([*cases, unpacking], bench.effort)
