"""What the paper's figures 7, 8, 9 and 11 show, measured: base stations fused, steps, soft labels, noise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fronthaul.draws import generator
from sim.learn.diffloc.evaluate import Networks, errors_m, sample
from sim.learn.diffloc.jobs import SNRS_DB, STEPS
from sim.learn.diffloc.trained import CT_STEPS, DDIM_STEPS, Trained
from sim.reproduce.diffloc import paper
from sim.reproduce.diffloc.bench import Bench
from sim.reproduce.diffloc.measures import sampled
from sim.reproduce.diffloc.noisy import noisy_inputs
from sim.reproduce.diffloc.statistics import statistics
from sim.reproduce.rows import Row

UNET, CT = "paris-7-random-unet", "paris-7-random-ct"
SUBSETS = 6
"""Of base stations, of each size, for the diffusion; the consistency model is measured on all."""
LADDER = (*STEPS, 200)
SHORT = 50
"""Steps of the diffusion in figures 9 and 11."""
RULES = ("sum", "gauss")


def fig7_rows(_: Bench) -> list[Row]:
    """Error against the number of base stations fused."""
    known = {"sizes": [{"fused": k, "min": low, "max": high} for k, (low, high) in paper.SUBSETS.items()]}
    return [
        Row("DiffLoc-CT by gauss, 2 steps", over_subsets, (CT,), {"rule": "gauss", "steps": CT_STEPS, "most": 0}),
        *(
            Row(f"DiffLoc-UNet by {rule}, {steps} steps", over_subsets, (UNET,),
                {"rule": rule, "steps": steps, "most": SUBSETS}, paper=known if rule == "sum" else {})
            for rule, steps in (("sum", DDIM_STEPS), ("gauss", DDIM_STEPS), ("sum", SHORT))
        ),
    ]  # fmt: skip


def over_subsets(bench: Bench, jobs: Sequence[str], *, rule: str, steps: int, most: int) -> dict[str, Any]:
    """Measure subsets of base stations: all, or at most `most` of each size, drawn by a fixed seed."""
    trained = bench.trained(jobs[0])
    networks, truth = trained.networks("test"), trained.truth("test")
    known = trained.fit.job.setting.stations
    sizes = []
    for size in range(1, len(known) + 1):
        chosen = list(itertools.combinations(range(len(known)), size))
        if most and math.comb(len(known), size) > most:
            drawn = generator(0, "subsets", size).permutation(len(chosen))[:most]
            chosen = [chosen[i] for i in sorted(drawn)]
        means = [float(errors_m(sample(networks.of(some), rule, steps).position, truth).mean()) for some in chosen]
        found = {
            "fused": size,
            "min": min(means),
            "median": float(np.median(means)),
            "max": max(means),
            "subsets": [{"stations": [known[k] + 1 for k in some], "mean": mean}
                        for some, mean in zip(chosen, means, strict=True)],
        }  # fmt: skip
        sizes.append(found)
    return {"rule": rule, "steps": steps, "sizes": sizes}


def fig8_rows(bench: Bench) -> list[Row]:
    """Error against steps."""
    few = bench.stations("paris-7-unet-t2")
    rows = []
    for steps in LADDER:
        figures = paper.figures("sum", 100 * paper.STEPS[steps]) if steps in paper.STEPS else {}
        usual = {"steps": steps, "rules": RULES, "alone": False}
        trained = f"paris-7-unet-t{steps}" if steps in STEPS else UNET
        rows += [
            Row(f"UNet trained for T = 200, {steps} steps", sampled, (UNET,), usual, section="UNet, T = 200",
                paper=figures),
            Row(f"UNet trained for T = 200, {steps} steps, three BSs", sampled, (UNET,), usual | {"stations": few},
                section="UNet, T = 200, three BSs"),
            Row(f"UNet trained for T = {steps}, {steps} steps, three BSs", sampled, (trained,),
                usual | {"stations": few}, section="UNet, T = steps, three BSs", paper=figures),
            Row(f"CT, {steps} steps", sampled, (CT,), usual, section="CT"),
        ]  # fmt: skip
    return sorted(rows, key=lambda row: list(dict.fromkeys(one.section for one in rows)).index(row.section))


def fig9_rows(bench: Bench) -> list[Row]:
    """With dynamic soft labels and without."""
    few = bench.stations("paris-7-random-ct-soft")
    usual = {"steps": SHORT, "rules": RULES}
    three = {"steps": CT_STEPS, "rules": (*RULES, "precision"), "stations": few}
    return [
        Row("MLP, soft labels", sampled, ("paris-7-random-mlp-soft",), usual,
            paper=paper.figures("sum", 113.2, paper.MLP)),
        Row("MLP, hard labels", sampled, ("paris-7-random-mlp",), usual),
        Row("UNet, soft labels", sampled, ("paris-7-random-unet-soft",), usual),
        Row("UNet, hard labels", sampled, (UNET,), usual, paper=paper.figures("sum", 11.4, paper.UNET)),
        Row("CT, soft labels, three BSs", sampled, ("paris-7-random-ct-soft",), three),
        Row("CT, hard labels, three BSs", sampled, (CT,), three),
    ]  # fmt: skip


def fig11_rows(bench: Bench) -> list[Row]:
    """Noisy test samples, three base stations: trained without noise, with all, with the same."""
    few = bench.stations("paris-7-unet-snrmixed")
    rows = []
    for snr_db in SNRS_DB:
        usual = {"snr_db": snr_db, "stations": few, "steps": SHORT}
        own = paper.figures("sum", 100 * paper.NOISE[snr_db]) if snr_db in paper.NOISE else {}
        mixed = paper.figures("sum", 100 * paper.MIXED_M)
        label = f"{snr_db:g} dB"
        rows += [
            Row(f"trained without noise, {label}", under_noise, (UNET,), usual, section="trained without noise"),
            Row(f"trained with all, {label}", under_noise, ("paris-7-unet-snrmixed",), usual,
                section="trained with all", paper=mixed),
            Row(f"trained with the same, {label}", under_noise, (f"paris-7-unet-snr{snr_db:g}",), usual,
                section="trained with the same", paper=own),
        ]  # fmt: skip
    return sorted(rows, key=lambda row: list(dict.fromkeys(one.section for one in rows)).index(row.section))


def under_noise(
    bench: Bench, jobs: Sequence[str], *, snr_db: float, stations: Sequence[int], steps: int
) -> dict[str, Any]:
    """Measure a diffusion on test samples with noise of `snr_db`."""
    trained = bench.trained(jobs[0])
    networks, index = _noisy_networks(bench, jobs[0], trained, snr_db)
    known = trained.fit.job.setting.stations
    networks, truth = networks.of([known.index(k) for k in stations]), trained.truth("test")[index]
    fused = {rule: statistics(errors_m(sample(networks, rule, steps).position, truth)) for rule in RULES}
    return {"stations": [k + 1 for k in stations], "snr_db": snr_db, "fused": fused}


def _noisy_networks(bench: Bench, name: str, trained: Trained, snr_db: float) -> tuple[Networks, slice]:
    """Networks on the test samples of a noise level, and which those are of the job's test samples."""
    levels = trained.fit.job.setting.snr_db
    if snr_db not in levels:
        return trained.networks("test", z=noisy_inputs(bench, name, snr_db)), slice(None)
    count = len(trained.features.split.test) // len(levels)  # copies of all samples follow each other
    first = levels.index(snr_db) * count
    part = slice(first, first + count)
    return trained.networks("test", z=trained.features.z[:, trained.index("test")[part]]), part
