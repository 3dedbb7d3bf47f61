"""Comparison of fusion rules: error, claimed error, and coverage of the confidence region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fronthaul.payload.score_rules import RULES
from sim.learn.diffloc.evaluate import (
    SHARE,
    Estimate,
    calibration,
    coverage,
    errors_m,
    fuse_mixtures,
    local_covariances,
    sample,
)
from sim.learn.diffloc.features import SCALE_M
from sim.learn.diffloc.trained import CT_STEPS, Trained
from sim.records.statistics import sample_statistics
from sim.reproduce.diffloc.bench import Bench
from sim.reproduce.markdown import Record, measured, metres, page, table, with_interval
from sim.reproduce.rows import Row

STEPS = 50
PARTICLES = 8
LOCAL = {"local_steps": 20, "local_particles": 32}
SHARES = (0.0, 0.03, 0.1, 0.3, 1.0)
"""Shares of Σ_k tried as widening of the components of a base station's mixture."""
HONEST = (0.85, 0.95)
"""Range of coverage of a 90 % region that counts as honest."""
UNET, CT = "paris-7-random-unet", "paris-7-random-ct"


def fusion_rows(_: Bench) -> list[Row]:
    """Make the rows of all rules on DiffLoc-UNet and -CT."""
    rows = []
    for particles in (1, PARTICLES):
        name = f"DiffLoc-UNet, {STEPS} steps, {particles} particle{'s' * (particles > 1)}"
        options = {"steps": STEPS, "particles": particles}
        rules = tuple(RULES) if particles == 1 else ("sum", "gauss")
        rows += [Row(f"{name}: {rule}", by_rule, (UNET,), {"rule": rule} | options, section=name) for rule in rules]
        local = {"rule": "gauss"} | options | LOCAL
        rows.append(Row(f"{name}: gauss, covariances of local samples", by_rule, (UNET,), local, section=name))
    exact = {"shares": SHARES} | LOCAL
    rows.append(Row("DiffLoc-UNet: exact product of local mixtures", exactly, (UNET,), exact, section="one message"))
    name = f"DiffLoc-CT, {CT_STEPS} steps"
    rows += [Row(f"{name}: {rule}", by_rule, (CT,), {"rule": rule, "steps": CT_STEPS}, section=name) for rule in RULES]
    exact = exact | {"local_steps": CT_STEPS}
    rows.append(Row("DiffLoc-CT: exact product of local mixtures", exactly, (CT,), exact, section="one message"))
    return rows


def by_rule(
    bench: Bench,
    jobs: Sequence[str],
    *,
    rule: str,
    steps: int,
    particles: int = 1,
    local_steps: int = 0,
    local_particles: int = 0,
) -> dict[str, Any]:
    """Measure a rule; with `local_steps`, the Σ_k of each test sample are estimated from local samples."""
    trained = bench.trained(jobs[0])

    def estimate(part: str) -> Estimate:
        local = None
        if local_steps:
            local = local_covariances(bench.local_samples(jobs[0], part, local_steps, local_particles))
        return sample(trained.networks(part), rule, steps, particles=particles, local=local)

    return _judged(trained, estimate("validation"), estimate("test"))


def exactly(
    bench: Bench, jobs: Sequence[str], *, local_steps: int, local_particles: int, shares: Sequence[float]
) -> dict[str, Any]:
    """Measure the product of Gaussian mixtures, widened by the share of Σ_k that is best on validation samples."""
    trained = bench.trained(jobs[0])
    truth = trained.truth("validation")
    drawn, tested = (bench.local_samples(jobs[0], p, local_steps, local_particles) for p in ("validation", "test"))
    tried = {share: fuse_mixtures(drawn, share * trained.posterior) for share in shares}
    errors = {share: float(errors_m(one.position, truth).mean()) for share, one in tried.items()}
    best = min(shares, key=lambda share: errors[share])
    return _judged(trained, tried[best], fuse_mixtures(tested, best * trained.posterior)) | {
        "share": best,
        "validation": [{"share": share, "mean": errors[share]} for share in shares],
    }


def _judged(trained: Trained, seen: Estimate, estimate: Estimate) -> dict[str, Any]:
    """Return errors, claimed errors and coverage on test samples; the factor is from validation samples (`seen`)."""
    truth = trained.truth("test")
    factor = calibration(seen, trained.truth("validation"))
    after = coverage(estimate, truth, factor)
    trace = np.trace(estimate.covariance, axis1=1, axis2=2)
    claimed = float(np.sqrt(trace).mean() * SCALE_M)
    return {
        "error": sample_statistics(errors_m(estimate.position, truth), trained.walks("test")),
        "claimed_m": claimed,
        "coverage": coverage(estimate, truth),
        "factor": factor,
        "claimed_after_m": claimed * factor**0.5,
        "coverage_after": after,
        "honest_after": bool(HONEST[0] <= after <= HONEST[1]),
    }


def fusion_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    lines = [
        "2-D errors in metres on test samples of the random split, all seven base stations fused. *Claimed*: mean over "
        "samples of the root of the covariance's trace, to be held against the root mean square error. *Coverage*: "
        f"share of the samples within the {100 * SHARE:.0f} % region that the covariance draws; *after*: covariances "
        "times a factor from validation samples. Under a box prior fnpe is the sum but for its covariance, and for the "
        "positions held within the box as those of the other corrected rules are.",
        "",
    ]
    head = ["rule", "mean error [m] (95 %)", "RMS error [m]", "claimed [m]", "coverage", "factor", "claimed after [m]"]
    lines += table(
        [*head, "coverage after", f"{100 * HONEST[0]:.0f}–{100 * HONEST[1]:.0f} % after"], measured(records, _cells)
    )
    for record in records:
        lines += _remarks(record["label"], record["result"])
    return page(name, [*lines, ""], records)


def _cells(found: Record) -> list[str]:
    error = found["error"]
    shares = [f"{100 * found[key]:.1f} %" for key in ("coverage", "coverage_after")]
    return [
        with_interval(error), metres(error["rmse"]), metres(found["claimed_m"]), shares[0], f"{found['factor']:.2f}",
        metres(found["claimed_after_m"]), shares[1], "yes" if found["honest_after"] else "no",
    ]  # fmt: skip


def _remarks(label: str, found: Record | None) -> list[str]:
    """Return remarks: the claimed error of the paper's rule, and the widening chosen for the exact product."""
    lines = []
    if found is not None and label.endswith(": sum"):
        lines.append(
            f"- The paper's sum ({label.removesuffix(': sum')}) claims {metres(found['claimed_m'])} m; its root mean "
            f"square error is {metres(found['error']['rmse'])} m, and its {100 * SHARE:.0f} % region holds "
            f"{100 * found['coverage']:.1f} % of the samples."
        )
    if found is not None and "share" in found:
        tried = ", ".join(f"{one['share']:g}: {metres(one['mean'])} m" for one in found["validation"])
        lines.append(f"- {label}: widened by {found['share']:g} Σ_k (validation error by share: {tried}).")
    return lines
