"""Rows of VIn-Loc's tables: the paper's two, and additional studies."""

from __future__ import annotations

from sim.reproduce.rows import Row
from sim.reproduce.vinloc import paper
from sim.reproduce.vinloc.bench import Bench
from sim.reproduce.vinloc.measures import layouts, located, neighbours, prior, resnet, unsynchronised

ALL, SOME = 18, 15
"""Numbers of base stations in the hall, and in the paper's variable case."""
FIXED, VARIABLE, CONTROLS = "fixed: 18 of 18", "variable: 15 of 18, drawn for each user", "controls, 15 of 18"
BITS = 4
"""Resolution of the shipped payload [bit]."""
RESOLUTIONS = (0, 8, 5, 4, 3, 2, 1)
SIZES = (3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 18)
SIGMAS_NS = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
PHASES = {
    "with the way's phase": "inf-dh-18",
    "drawn": "inf-dh-18-phases",
    "initial alone": "inf-dh-18-initial",
}
"""Scenarios of one hall by the phases of its paths (`sim.world.phases`)."""
SHIPPED = ("hall",)
"""The job whose weights are shipped for the hall."""


def table2(_: Bench) -> list[Row]:
    """Make the rows of Table 2: fixed and variable base stations of a factory hall."""
    return [
        Row("ResNet fingerprinting", resnet, ("resnet-fixed",), section=FIXED, paper=paper.FIXED_RESNET),
        Row("VIn-Loc, 18 of 18 (shipped weights, float)", located, SHIPPED, {"size": ALL, "distances": True},
            section=FIXED, paper=paper.FIXED),
        Row(f"VIn-Loc, 18 of 18 (shipped weights, B = {BITS})", located, SHIPPED, {"size": ALL, "bits": BITS},
            section=FIXED),
        Row("weighted nearest neighbours", neighbours, features=SHIPPED, options={"size": ALL}, section=FIXED),
        Row("ResNet fingerprinting, slots in the order of the sites", resnet, ("resnet-packed",), section=VARIABLE,
            paper=paper.VARIABLE_RESNET),
        Row("ResNet fingerprinting, slots in any order", resnet, ("resnet-shuffled",), section=VARIABLE,
            paper=paper.VARIABLE_RESNET),
        Row("ResNet fingerprinting, a row for each TRP", resnet, ("resnet-rows",), section=VARIABLE),
        Row("VIn-Loc (shipped weights, float)", located, SHIPPED, {"size": SOME, "distances": True}, section=VARIABLE,
            paper=paper.VARIABLE),
        Row(f"VIn-Loc (shipped weights, B = {BITS})", located, SHIPPED, {"size": SOME, "bits": BITS}, section=VARIABLE),
        Row("VIn-Loc without TRP positions, 15 of 18", located, ("blind",), {"size": SOME}, section=VARIABLE,
            paper=paper.VARIABLE_BLIND),
        Row("weighted nearest neighbours, 15 of 18", neighbours, features=SHIPPED, options={"size": SOME},
            section=VARIABLE),
        Row("responses shuffled among users, shipped weights", located, SHIPPED, {"size": SOME, "shuffle": True},
            section=CONTROLS),
        Row("prior: mean training position", prior, features=SHIPPED, section=CONTROLS),
    ]  # fmt: skip


def table4(_: Bench) -> list[Row]:
    """Make the rows of Table 4: ray-traced streets, with layouts of base stations held out."""
    rows = []
    for number, (job, known) in enumerate((("street", paper.STREET), ("block", paper.BLOCK)), start=1):
        section, some = f"Scenario {number}", f"Scenario {number}: "
        rows += [
            Row(f"{some}VIn-Loc, float", layouts, (job,), section=section, paper=known),
            Row(f"{some}VIn-Loc, B = {BITS}", layouts, (job,), {"bits": BITS}, section=section),
            Row(f"{some}responses shuffled among users", layouts, (job,), {"shuffle": True}, section=section),
            Row(f"{some}prior: mean training position", prior, features=(job,), section=section),
        ]
    return rows


def bits_rows(_: Bench) -> list[Row]:
    """Make the rows of error against resolution."""
    return [
        Row("float" if bits == 0 else f"B = {bits}", located, SHIPPED, {"size": SOME, "bits": bits})
        for bits in RESOLUTIONS
    ]  # fmt: skip


def size_rows(_: Bench) -> list[Row]:
    """Make the rows of error against the number of base stations."""
    return [
        Row(f"{size} TRPs, B = {BITS}", located, SHIPPED, {"size": size, "bits": BITS}, section=f"B = {BITS}")
        for size in SIZES
    ]


def sync_rows(_: Bench) -> list[Row]:
    """Make the rows of error against synchronisation errors."""
    named = {SHIPPED[0]: "trained with perfect clocks", "sync": "trained with errors up to 50 ns"}
    return [
        Row(f"{section}, {sigma:g} ns", unsynchronised, (job,), {"size": SOME, "sigma_ns": sigma}, section=section)
        for job, section in named.items()
        for sigma in SIGMAS_NS
    ]


def phase_rows(_: Bench) -> list[Row]:
    """Make the rows of error against path phases: with propagation phase, drawn, and initial phases alone."""
    rows = [
        Row(f"shipped weights; positioned with phases {said}", located, SHIPPED, {"size": SOME, "scenario": scenario})
        for said, scenario in PHASES.items()
    ]
    return [*rows, Row("trained on and positioned with phases initial alone", located, ("initial",), {"size": SOME})]
