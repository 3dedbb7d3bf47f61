"""Tables IV to VI: the paper's methods and the controls beside them."""

from __future__ import annotations

from collections.abc import Sequence

from sim.learn.diffloc.jobs import FUSED_RULE, SEEDS, SPACING_M, SPACINGS_M
from sim.learn.diffloc.trained import CT_STEPS, DDIM_STEPS
from sim.reproduce.diffloc import paper
from sim.reproduce.diffloc.baselines import (
    convolutional,
    grid_fusion,
    joint_regression,
    linear,
    neighbours,
    prior_draw,
    prior_mean,
)
from sim.reproduce.diffloc.bench import Bench
from sim.reproduce.diffloc.markdown import details, means, seeds_table
from sim.reproduce.diffloc.measures import over_seeds, regressed, sampled
from sim.reproduce.markdown import Record, errors_by_distance, listed, metres, page
from sim.reproduce.rows import Row

PAPER_STEPS = 200
"""Steps of DiffLoc-MLP and -UNet, with one particle. DiffLoc Table II."""
PARTICLES = 16
"""Particles averaged at `DDIM_STEPS` steps: the posterior mean has the least squared error. DiffLoc Eq. 6."""
RULES = ("sum", "gauss")
CT_RULES = ("sum", "gauss", "precision")
METHODS, CONTROLS = "the paper's methods", "controls"
BUYS, THREE_SEEDS = "what buys accuracy", "three seeds"
AVERAGED = {"steps": DDIM_STEPS, "particles": PARTICLES, "rules": RULES}
TWO_STEPS = {"steps": CT_STEPS, "rules": CT_RULES}
FUSED = {"steps": CT_STEPS, "rules": (FUSED_RULE,)}


def table4(bench: Bench) -> list[Row]:
    """Make the rows of Table IV: random split of 2000 positions, then more data and other inputs."""
    name = "paris-7-random"
    mlp = _diffusion("DiffLoc-MLP", f"{name}-mlp-soft", paper.figures("sum", 113.2, paper.MLP))
    return [
        Row("supervised MLP", joint_regression, (f"{name}-joint-mlp",), section=METHODS,
            paper=paper.figures("joint", 3328.7)),
        Row("CNN", convolutional, (f"{name}-cnn",), section=METHODS, paper=paper.figures("joint", 1040.1)),
        _grid(name, paper.figures("product", 306.0, paper.GRID), SPACINGS_M),
        *mlp,
        *_diffusion("DiffLoc-UNet", f"{name}-unet", paper.figures("sum", 11.4, paper.UNET)),
        _consistency(f"{name}-ct", paper.figures("sum", 0.5, paper.CT)),
        *_controls(name),
        Row("CSI shuffled among test positions, DiffLoc-UNet", sampled, (f"{name}-unet",),
            {"steps": DDIM_STEPS, "rules": RULES, "alone": False, "shuffled": True}, section=CONTROLS),
        Row("CSI shuffled among test positions, DiffLoc-CT", sampled, (f"{name}-ct",),
            TWO_STEPS | {"alone": False, "shuffled": True}, section=CONTROLS),
        *_accuracy_rows(bench, name),
        *_seeds(name),
    ]  # fmt: skip


def table5(_: Bench) -> list[Row]:
    """Make the rows of Table V: users at 15 to 25 m/s, random split."""
    name = "paris-7-fast-random"
    return [
        Row("supervised MLP", joint_regression, (f"{name}-joint-mlp",), section=METHODS,
            paper=paper.figures("joint", 8032.2)),
        Row("CNN", convolutional, (f"{name}-cnn",), section=METHODS, paper=paper.figures("joint", 7650.1)),
        _grid(name, paper.figures("product", 8019.0)),
        *_diffusion("DiffLoc-UNet", f"{name}-unet", paper.figures("sum", 21.3)),
        _consistency(f"{name}-ct", paper.figures("sum", 0.9)),
        *_controls(name),
        _together(f"{name}-ct"),
    ]  # fmt: skip


def table6(_: Bench) -> list[Row]:
    """Make the rows of Table VI: whole users held out."""
    name = "paris-7-user"
    return [
        _grid(name, paper.figures("product", 501.9, paper.USER_GRID)),
        *_diffusion("DiffLoc-UNet", f"{name}-unet", paper.figures("sum", 11.6, paper.USER_UNET)),
        _consistency(f"{name}-ct", paper.figures("sum", 0.6, paper.USER_CT)),
        *_controls(name),
        Row("joint regression, MLP", joint_regression, (f"{name}-joint-mlp",), section=CONTROLS),
        _together(f"{name}-ct"),
    ]


def _grid(name: str, figures: dict[str, object], spacings: Sequence[float] = (SPACING_M,)) -> Row:
    grids = tuple(f"{name}-grid{spacing:g}" for spacing in spacings)
    return Row("grid fusion", grid_fusion, grids, section=METHODS, paper=figures)


def _diffusion(label: str, job: str, figures: dict[str, object]) -> list[Row]:
    return [
        Row(f"{label}, {PAPER_STEPS} steps, 1 particle", sampled, (job,), {"steps": PAPER_STEPS, "rules": RULES},
            section=METHODS, paper=figures),
        Row(f"{label}, {DDIM_STEPS} steps, mean of {PARTICLES} particles", sampled, (job,), AVERAGED, section=METHODS),
    ]  # fmt: skip


def _consistency(job: str, figures: dict[str, object]) -> Row:
    label = f"DiffLoc-CT, {CT_STEPS} steps"
    return Row(label, sampled, (job,), TWO_STEPS | {"distances": "gauss"}, section=METHODS, paper=figures)


def _controls(name: str) -> list[Row]:
    any_job = (f"{name}-ct",)
    return [
        Row("regression, same body as DiffLoc-UNet and -CT", regressed, (f"{name}-regression",), {"distances": True},
            section=CONTROLS),
        Row("joint regression, UNet", joint_regression, (f"{name}-joint-unet",), section=CONTROLS),
        Row("weighted k nearest neighbours", neighbours, features=any_job, section=CONTROLS),
        Row("local linear regression on fingerprints", linear, features=any_job, section=CONTROLS),
        Row("prior: mean training position", prior_mean, features=any_job, section=CONTROLS),
        Row("prior: a training position drawn at random", prior_draw, features=any_job, section=CONTROLS),
    ]  # fmt: skip


def _together(job: str, label: str = "") -> Row:
    """Make the row of consistency networks that are trained further by the error of their fused estimate."""
    return Row(f"{label}trained further by the fused error: DiffLoc-CT", sampled, (f"{job}-fused",), FUSED,
               section=BUYS)  # fmt: skip


def _accuracy_rows(bench: Bench, name: str) -> list[Row]:
    few = bench.stations("dense-ct")
    some = {"stations": few}

    def three(label: str, prefix: str, options: dict[str, object]) -> list[Row]:
        return [
            Row(f"{label}: regression", regressed, (f"{prefix}-regression",), options | {"distances": True},
                section=BUYS),
            Row(f"{label}: DiffLoc-UNet, {DDIM_STEPS} steps, {PARTICLES} particles", sampled, (f"{prefix}-unet",),
                options | AVERAGED, section=BUYS),
            Row(f"{label}: DiffLoc-CT", sampled, (f"{prefix}-ct",), options | TWO_STEPS | {"distances": "gauss"},
                section=BUYS),
            Row(f"{label}: neighbours", neighbours, (), options, features=(f"{prefix}-ct",), section=BUYS),
        ]  # fmt: skip

    def variant(label: str, prefix: str) -> list[Row]:
        return [
            Row(f"{label}: regression", regressed, (f"{prefix}-regression",), {"distances": True}, section=BUYS),
            Row(f"{label}: DiffLoc-CT", sampled, (f"{prefix}-ct",), TWO_STEPS | {"distances": "gauss"}, section=BUYS),
            Row(f"{label}: neighbours", neighbours, features=(f"{prefix}-ct",), section=BUYS),
        ]

    return [
        _together(f"{name}-ct"),
        Row("trained further, each by its own error: DiffLoc-CT", sampled, (f"{name}-ct-apart",), FUSED, section=BUYS),
        *three("2000 positions", name, dict(some)),
        *three("20 000 positions", "dense", {}),
        *variant("log-levels of beams", "paris-7-beams"),
        _together("paris-7-beams-ct", "log-levels of beams, "),
        *variant("block split", "paris-7-block"),
    ]


def _seeds(name: str) -> list[Row]:
    def row(label: str, model: str, options: dict[str, object], further: str = "") -> Row:
        job = f"{name}-{model}"
        names = (f"{job}{further}", *(f"{job}-seed{seed}{further}" for seed in SEEDS))
        return Row(f"seeds: {label}", over_seeds, names, options, section=THREE_SEEDS)

    return [
        row("regression", "regression", {}),
        row(f"DiffLoc-CT, {CT_STEPS} steps", "ct", TWO_STEPS),
        row("DiffLoc-CT, trained further by the fused error", "ct", FUSED, "-fused"),
        row(
            f"DiffLoc-UNet, {DDIM_STEPS} steps, mean of {PARTICLES} particles",
            "unet",
            FUSED | {"steps": DDIM_STEPS, "particles": PARTICLES},
        ),
    ]


def method_page(name: str, records: Sequence[Record]) -> str:
    """Return the page of a table of methods."""
    usual = [one for one in records if one["section"] not in (BUYS, THREE_SEEDS)]
    buys = [one for one in records if one["section"] == BUYS]
    seeds = [one for one in records if one["section"] == THREE_SEEDS]
    lines = ["2-D errors in metres on test samples; everything that is tuned is tuned on validation samples.", ""]
    lines += means(usual)
    if buys:
        lines += means(buys)
    lines += details([*usual, *buys])
    if seeds:
        lines += seeds_table(seeds)
    told = "Mean fused error [m] by distance to the nearest training position (test samples):"
    return page(name, [*lines, *errors_by_distance(records, told), *_chosen(records)], records)


def _options(chosen: Record) -> str:
    """Return the options of a look-up in words."""
    fit = f", ridge {chosen['ridge']:g}, {chosen['components']} components" if "ridge" in chosen else ""
    return f"k = {chosen['neighbours']}{fit}"


def _chosen(records: Sequence[Record]) -> list[str]:
    """List the choices made on validation samples."""
    lines = []
    for record in records:
        result = record["result"] or {}
        if "spacing_m" in result:
            tried = ", ".join(f"{one['spacing_m']:g} m: {metres(one['mean'])} m" for one in result["validation"])
            spacing = f"{result['spacing_m']:g} m"
            lines.append(f"{record['label']}: spacing {spacing} (validation error by spacing: {tried})")
        if "chosen" in result:
            alone = ", ".join(_options(one) for one in result["chosen"].get("alone", ()))
            told = f"{record['label']}: {_options(result['chosen']['joint'])}"
            lines.append(f"{told}; of single base stations {alone}" if alone else told)
    return listed("Chosen on validation samples:", lines)
