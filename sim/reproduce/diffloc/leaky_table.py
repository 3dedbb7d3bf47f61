"""DiffLoc's errors if the truth leaked into its sampler, beside the paper's errors and honest ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from sim.learn.diffloc.evaluate import FloatArray, Networks, errors_m, sample
from sim.learn.diffloc.features import SCALE_M
from sim.learn.diffloc.objectives import Consistency
from sim.learn.diffloc.trained import CT_STEPS, Trained
from sim.records.statistics import sample_statistics
from sim.reproduce.diffloc import paper
from sim.reproduce.diffloc.bench import Bench
from sim.reproduce.diffloc.leaky_oracle import (
    leaky_consistency,
    leaky_denoising,
    leaky_fused,
    leaky_start,
    leaky_sum,
)
from sim.reproduce.diffloc.measures import each_statistics, noisy_inputs, sampled_alone
from sim.reproduce.markdown import NOT_TRAINED, Record, page, table
from sim.reproduce.rows import Row

STEPS = 50
"""Steps of honest diffusion sampling, and of sampling from the noised truth."""
DDPM_BAR = 0.13
"""ᾱ_T of DDPM's β from 1e-4 to 0.02 at T = 200."""
SMALL_SIGMA = 0.004 / SCALE_M
"""σ_min of 0.4 cm, normalised, with which each base station's leaky error equals the paper's fused one."""
SNR_DB = 10.0
RAYLEIGH = float(np.sqrt(np.pi / 2))
"""Mean length of a two-dimensional standard normal: 1.25."""
CONSISTENCY, DENOISING, START = (
    "1. DiffLoc-CT evaluated at σ_min on the noised truth",
    "2. DiffLoc-UNet, state made anew from the truth at each step",
    f"3. DiffLoc-UNet, DDIM begun at the noised truth with ᾱ_t near {DDPM_BAR}",
)


def leaky_rows(_: Bench) -> list[Row]:
    """Make the rows of each leak: three data sets, noise, and for the diffusion the number of steps."""
    alone = {"random": (paper.CT, paper.UNET), "fast": ((), ()), "user": (paper.USER_CT, paper.USER_UNET)}
    fused = {"random": (0.5, 11.4), "fast": (0.9, 21.3), "user": (0.6, 11.6)}
    labels = {"random": "random split", "fast": "15–25 m/s", "user": "unseen users"}
    prefix = {"random": "paris-7-random", "fast": "paris-7-fast-random", "user": "paris-7-user"}
    noisy = {"snr_db": SNR_DB}
    rows: list[Row] = []
    for sigma, text in ((Consistency().sigma[0], "as trained"), (SMALL_SIGMA, "0.4 cm")):
        for key, label in labels.items():
            figures = paper.figures("sum", fused[key][0], alone[key][0])
            rows.append(Row(f"σ_min {text}, {label}", consistency_leak, (f"{prefix[key]}-ct",), {"sigma": sigma},
                            section=CONSISTENCY, paper=figures))  # fmt: skip
        rows.append(Row(f"σ_min {text}, noise of {SNR_DB:g} dB", consistency_leak, ("paris-7-random-ct",),
                        {"sigma": sigma} | noisy, section=CONSISTENCY))  # fmt: skip
    for section, measure in ((DENOISING, denoising_leak), (START, start_leak)):
        number = section[0]
        for key, label in labels.items():
            figures = paper.figures("sum", fused[key][1], alone[key][1])
            rows.append(Row(f"{number}. {label}", measure, (f"{prefix[key]}-unet",), section=section, paper=figures))
        figures = paper.figures("sum", 100 * paper.NOISE[SNR_DB])
        rows.append(Row(f"{number}. noise of {SNR_DB:g} dB, in training, too", measure,
                        ("paris-7-unet-snr10-all",), section=section, paper=figures))  # fmt: skip
        rows.append(Row(f"{number}. noise of {SNR_DB:g} dB, training without", measure, ("paris-7-random-unet",),
                        noisy, section=section))  # fmt: skip
        for steps in (2, 50):
            figures = paper.figures("sum", 100 * paper.STEPS[steps])
            rows.append(Row(f"{number}. T = {steps}", measure, (f"paris-7-unet-t{steps}",),
                            section=section, paper=figures))  # fmt: skip
    return rows


def consistency_leak(bench: Bench, jobs: Sequence[str], *, sigma: float, snr_db: float | None = None) -> dict[str, Any]:
    """Measure leak 1 with σ_min = `sigma` [normalised]."""
    trained, networks, truth = _at_work(bench, jobs[0], snr_db)
    said = leaky_consistency(networks, truth, sigma)
    expected = RAYLEIGH * sigma * SCALE_M
    fused = {"mean": sample_statistics(errors_m(leaky_fused(said), truth), trained.walks("test"))}
    known = {"expected_m": expected, "expected_fused_m": expected / len(said) ** 0.5}
    return _leak(trained, errors_m(said, truth), fused) | known | _honest(trained, networks, truth, "gauss", CT_STEPS)


def denoising_leak(bench: Bench, jobs: Sequence[str], *, snr_db: float | None = None) -> dict[str, Any]:
    """Measure leak 2."""
    trained, networks, truth = _at_work(bench, jobs[0], snr_db)
    said = leaky_denoising(networks, truth)
    last = networks.levels(trained.fit.job.timesteps)[-1]
    expected = RAYLEIGH * last.ratio * SCALE_M
    fused = {
        "sum": sample_statistics(errors_m(leaky_sum(networks, truth), truth), trained.walks("test")),
        "mean": sample_statistics(errors_m(leaky_fused(said), truth), trained.walks("test")),
    }
    steps = min(STEPS, trained.fit.job.timesteps)
    known = {"expected_m": expected}
    return _leak(trained, errors_m(said, truth), fused) | known | _honest(trained, networks, truth, "sum", steps)


def start_leak(bench: Bench, jobs: Sequence[str], *, snr_db: float | None = None) -> dict[str, Any]:
    """Measure leak 3."""
    trained, networks, truth = _at_work(bench, jobs[0], snr_db)
    each = range(len(networks.posterior))
    said = np.stack([leaky_start(networks.of([k]), truth, DDPM_BAR, "sum", STEPS)[0] for k in each])
    fused, bar = leaky_start(networks, truth, DDPM_BAR, "sum", STEPS)
    steps = min(STEPS, trained.fit.job.timesteps)
    error = sample_statistics(errors_m(fused, truth), trained.walks("test"))
    found = _leak(trained, errors_m(said, truth), {"sum": error})
    return found | {"bar": bar} | _honest(trained, networks, truth, "sum", steps)


def _at_work(bench: Bench, name: str, snr_db: float | None) -> tuple[Trained, Networks, FloatArray]:
    """Return the trained job, its networks on test samples (at `snr_db` if given), and the truth."""
    trained = bench.trained(name)
    z: Tensor | None = None if snr_db is None else noisy_inputs(bench, name, snr_db)
    return trained, trained.networks("test", z=z), trained.truth("test")


def _leak(trained: Trained, alone_m: FloatArray, fused: dict[str, Any]) -> dict[str, Any]:
    stations = [k + 1 for k in trained.fit.job.setting.stations]
    return {"stations": stations, "alone": each_statistics(alone_m, trained.walks("test")), "fused": fused}


def _honest(trained: Trained, networks: Networks, truth: FloatArray, rule: str, steps: int) -> dict[str, Any]:
    """Measure the same networks on the same samples, with sampling started from noise."""
    walk = trained.walks("test")
    found = {
        "rule": rule,
        "steps": steps,
        "alone": each_statistics(errors_m(sampled_alone(networks, steps), truth), walk),
        "fused": sample_statistics(errors_m(sample(networks, rule, steps).position, truth), walk),
    }
    return {"honest": found}


def fine(value: float) -> str:
    """Format a length [m], to tenths of millimetres if below a metre."""
    return f"{value:.4f}" if value < 1 else f"{value:.2f}"


def _range(values: Sequence[float]) -> str:
    return "" if not values else f"{fine(min(values))}–{fine(max(values))}"


def leaky_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    lines = [
        "**Nothing called leaky here is an estimate:** those samplers were handed the true position of each test "
        "sample. *Honest* are the same networks on the same samples, begun at noise. Mean 2-D errors in metres.",
        "",
        "That something of the kind happened in the paper's evaluation is a hypothesis. It is supported by the "
        "likenesses below; they are no proof.",
        "",
    ]
    for section in dict.fromkeys(record["section"] for record in records):
        lines += [f"**{section}**", ""]
        head = ["", "leaky: each BS", "paper: each BS", "leaky: fused", "paper: fused", "honest: each BS"]
        cells = [_cells(record) for record in records if record["section"] == section]
        lines += table([*head, "honest: fused"], cells) + _known(section, records)
    lines += [
        "What is alike: under leak 1 all base stations are equally good wherever they stand, fusing K gains √K, and "
        "speed, unseen users and noise change nothing, as the network has no part in the result. With σ_min of 0.4 cm "
        "each base station has the 0.5 cm of the paper's fused DiffLoc-CT; the 1.1 to 2.0 cm that six of its seven "
        "have alone would take 0.9 to 1.6 cm, and the ratio of 2.2 to 4 between the two is not far from √7. Under leak "
        "2 base stations are about equal, too, and speed and unseen users hardly matter.",
        "",
        "What is not alike: the size of leak 2 depends on a scale and a β_1 that the paper does not give; it does not "
        "depend on T, where the paper has metres at two steps; it suffers from noise that training lacked, as the "
        "paper's does; the sum makes it worse, not better. Leak 3 is next to no leak at this scale, as x_t holds "
        "little of a position of order one. Honest figures differ between base stations, and get worse with unseen "
        "users and with noise.",
        "",
    ]
    return page(name, lines, records)


def _cells(record: Record) -> list[str]:
    figures, found = record["paper"], record["result"]
    paper_alone = _range(figures.get("alone", []))
    paper_fused = "".join(fine(value) for value in figures.get("fused", {}).values())
    if found is None:
        return [record["label"], NOT_TRAINED, paper_alone, "", paper_fused, "", ""]
    fused = [f"{fine(value['mean'])} ({rule})" for rule, value in found["fused"].items()]
    honest = found["honest"]
    return [
        record["label"],
        _range([one["mean"] for one in found["alone"]]),
        paper_alone,
        ", ".join(fused),
        paper_fused,
        _range([one["mean"] for one in honest["alone"]]),
        f"{fine(honest['fused']['mean'])} ({honest['rule']})",
    ]


def _known(section: str, records: Sequence[Record]) -> list[str]:
    """Return a sentence on the size of a leak that theory predicts, or on its starting level."""
    found = [(one["label"], one["result"]) for one in records if one["section"] == section and one["result"]]
    if section == CONSISTENCY:
        sizes: dict[str, list[str]] = {}
        for label, result in found:
            text = f"{fine(result['expected_m'])} m, and {fine(result['expected_fused_m'])} m fused"
            sizes.setdefault(text, []).append(label)
        told = "; ".join(f"{text} ({labels[0].split(',')[0]})" for text, labels in sizes.items())
        return [f"f(x) = x at σ_min, so each error is 1.25 σ_min, whatever the network: {told}.", ""] if told else []
    if section == DENOISING:
        told = "; ".join(dict.fromkeys(f"{fine(result['expected_m'])} m" for _, result in found))
        return [f"A network that said nothing (ε̂ = 0) at t = 1 would be off by {told}.", ""] if told else []
    told = ", ".join(dict.fromkeys(f"{result['bar']:.2f}" for _, result in found))
    return [f"ᾱ_t of the levels begun at: {told}.", ""] if told else []
