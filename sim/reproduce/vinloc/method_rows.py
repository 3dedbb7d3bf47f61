"""Rows of VIn-Loc's tables: the paper's two, and additional studies."""

from __future__ import annotations

from collections.abc import Sequence

from sim.learn.vinloc.jobs import EQUAL_EPOCHS, SEEDS
from sim.reproduce.rows import Row
from sim.reproduce.vinloc import paper
from sim.reproduce.vinloc.bench import Bench
from sim.reproduce.vinloc.measures import (
    in_noise,
    layouts,
    linear,
    located,
    neighbours,
    over_seeds,
    prior,
    resnet,
    unsynchronised,
)

ALL, SOME = 18, 15
"""Numbers of base stations in the hall, and in the paper's variable case."""
EQUAL = f"from scratch, {EQUAL_EPOCHS:g} epochs over 17 500 users each"
FIXED, VARIABLE, CONTROLS = "fixed: 18 of 18", "variable: 15 of 18, drawn for each user", "controls, 15 of 18"
THREE_SEEDS = "three seeds"
BITS = 4
"""Resolution of the shipped payload [bit]."""
RESOLUTIONS = (0, 8, 5, 4, 3, 2, 1)
SIZES = (3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 18)
SIGMAS_NS = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
USER_SIGMAS_NS = (2.0, 10.0, 50.0)
"""Standard deviations of the user's clock error, which all base stations see alike."""
SNRS_DB = (40.0, 30.0, 20.0)
"""Signal-to-noise ratios of a link's 256 taps; the path data have no noise."""
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
        Row("local linear regression", linear, features=SHIPPED, options={"size": ALL}, section=FIXED),
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
        Row("local linear regression, 15 of 18", linear, features=SHIPPED, options={"size": SOME}, section=VARIABLE),
        *_equally_trained(),
        *(
            Row(f"{size} of 18: VIn-Loc, short, seeds 0, 1, 2", over_seeds,
                (job, *(f"{job}-seed{seed}" for seed in SEEDS)), {"size": size}, section=THREE_SEEDS)
            for size, job in ((ALL, "short-fixed"), (SOME, "short"))
        ),
        Row("responses shuffled among users, shipped weights", located, SHIPPED, {"size": SOME, "shuffle": True},
            section=CONTROLS),
        Row("prior: mean training position", prior, features=SHIPPED, section=CONTROLS),
    ]  # fmt: skip


def _equally_trained() -> list[Row]:
    """Make rows of networks from scratch, with the same users, optimizer and number of epochs."""
    return [
        Row("18 of 18: VIn-Loc, short", located, ("short-fixed",), {"size": ALL}, section=EQUAL, paper=paper.FIXED),
        Row("18 of 18: VIn-Loc without TRP positions, short", located, ("short-fixed-blind",), {"size": ALL},
            section=EQUAL, paper=paper.FIXED_BLIND),
        Row("18 of 18: ResNet, short", resnet, ("resnet-short-fixed",), section=EQUAL, paper=paper.FIXED_RESNET),
        Row("15 of 18: VIn-Loc, short", located, ("short",), {"size": SOME}, section=EQUAL, paper=paper.VARIABLE),
        Row("15 of 18: VIn-Loc without TRP positions, short", located, ("short-blind",), {"size": SOME},
            section=EQUAL, paper=paper.VARIABLE_BLIND),
        Row("15 of 18: ResNet, a row for each TRP, short", resnet, ("resnet-short-rows",), section=EQUAL,
            paper=paper.VARIABLE_RESNET),
    ]  # fmt: skip


def table4(_: Bench) -> list[Row]:
    """Make the rows of Table 4: ray-traced streets, with layouts of base stations held out."""
    rows = []
    for number, (job, known) in enumerate((("street-longer", paper.STREET), ("block", paper.BLOCK)), start=1):
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
    named: dict[str, tuple[str, Sequence[float], dict[str, str]]] = {
        "trained with perfect clocks": (SHIPPED[0], SIGMAS_NS, {}),
        "the user's clock, trained with perfect ones": (SHIPPED[0], USER_SIGMAS_NS, {"whose": "user"}),
        "trained with errors up to 50 ns": ("sync", SIGMAS_NS, {}),
    }
    return [
        Row(f"{section}, {sigma:g} ns", unsynchronised, (job,), {"size": SOME, "sigma_ns": sigma, **whose},
            section=section)
        for section, (job, sigmas, whose) in named.items()
        for sigma in sigmas
    ]  # fmt: skip


def noise_rows(_: Bench) -> list[Row]:
    """Make the rows of error against noise, which no training had."""
    return [
        Row(f"{snr_db:g} dB", in_noise, SHIPPED, {"size": SOME, "snr_db": snr_db}, section="trained without noise")
        for snr_db in SNRS_DB
    ]


def phase_rows(_: Bench) -> list[Row]:
    """Make the rows of error against path phases: with propagation phase, drawn, and initial phases alone."""
    rows = [
        Row(f"shipped weights; positioned with phases {said}", located, SHIPPED, {"size": SOME, "scenario": scenario})
        for said, scenario in PHASES.items()
    ]
    return [*rows, Row("trained on and positioned with phases initial alone", located, ("initial",), {"size": SOME})]
