"""The paper's figures 5, 6 and 10: estimates on the map, probability maps, the walks of unseen users.

Pictures hold samples that were fixed beforehand, the first of the test samples; figures beside them are of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sim.drawing import COLOURS, GRID, INK
from sim.files import write_picture
from sim.learn.diffloc.evaluate import FloatArray, errors_m, sample
from sim.learn.diffloc.features import SCALE_M
from sim.learn.diffloc.jobs import SPACING_M, SPACINGS_M
from sim.learn.diffloc.trained import CT_STEPS
from sim.records.statistics import sample_statistics
from sim.reproduce.diffloc.baselines import best_grid, grid_chances
from sim.reproduce.diffloc.bench import Bench
from sim.reproduce.markdown import Record, measured, metres, page, picture, table, with_interval
from sim.reproduce.rows import Result, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STEPS = 50
"""Steps of the diffusion, as in figures 9 and 11."""
SHOWN, WALKS = 100, 4
"""Numbers of test samples in figure 5, and of unseen users' walks in figure 10."""
SHARE = 0.9
"""Share of the probability within the area that is measured for figure 6."""
_LEVELS = 255
_RANDOM_GRIDS = tuple(f"paris-7-random-grid{spacing:g}" for spacing in SPACINGS_M)


def fig5_rows(_: Bench) -> list[Row]:
    """Make the rows of estimates on the map, random split."""
    shown = {"shown": SHOWN}
    diffusion = shown | {"rule": "sum", "steps": STEPS}
    return [
        Row("grid fusion", gridded, _RANDOM_GRIDS, shown),
        Row("DiffLoc-MLP, sum", placed, ("paris-7-random-mlp-soft",), diffusion),
        Row("DiffLoc-UNet, sum", placed, ("paris-7-random-unet",), diffusion),
        Row("DiffLoc-CT, gauss", placed, ("paris-7-random-ct",), shown | {"rule": "gauss", "steps": CT_STEPS}),
    ]


def fig10_rows(_: Bench) -> list[Row]:
    """Make the rows of walks of unseen users."""
    shown = {"walks": WALKS}
    diffusion = shown | {"rule": "sum", "steps": STEPS}
    return [
        Row("grid fusion", gridded, (f"paris-7-user-grid{SPACING_M:g}",), shown),
        Row("DiffLoc-UNet, one base station", placed, ("paris-7-user-unet",), diffusion | {"stations": [0]}),
        Row("DiffLoc-UNet, fused by sum", placed, ("paris-7-user-unet",), diffusion),
    ]


def placed(
    bench: Bench, jobs: Sequence[str], *, rule: str, steps: int, shown: int = 0, walks: int = 0,
    stations: Sequence[int] | None = None,
) -> Result:  # fmt: skip
    """Measure a diffusion or consistency model, and keep some of its estimates (see `_shown`)."""
    networks = bench.trained(jobs[0]).networks("test")
    return _shown(bench, jobs[0], sample(networks, rule, steps, stations=stations).position, shown, walks)


def gridded(bench: Bench, jobs: Sequence[str], *, shown: int = 0, walks: int = 0) -> Result:
    """Measure grid fusion at the spacing that is best on validation samples, and keep some of its estimates."""
    best, fused = best_grid(bench, jobs)[:2]
    return _shown(bench, jobs[0], fused, shown, walks) | {"spacing_m": bench.job(best).spacing_m}


def _shown(bench: Bench, name: str, estimate: FloatArray, shown: int, walks: int) -> Result:
    """Return statistics of all test samples; places [m] of the first `shown`, or of the first `walks` walks."""
    features = bench.features(name)
    truth, walk = features.truth("test"), features.walks("test")
    some = np.flatnonzero(np.isin(walk, np.unique(walk)[:walks])) if walks else np.arange(min(shown, len(truth)))
    if walks:  # a walk's samples in the order of time, one walk after the other
        some = some[np.argsort(features.sample[features.split.test][some])]

    def places(position: FloatArray) -> list[list[float]]:
        found: list[list[float]] = np.round(position[some] * SCALE_M + features.centre, 1).tolist()
        return found

    error = errors_m(estimate, truth)
    return {
        "error": sample_statistics(error, walk),
        "shown_m": float(error[some].mean()),
        "truth": places(truth),
        "estimate": places(estimate),
        "walk": walk[some].tolist(),
    }


def fig6_rows(_: Bench) -> list[Row]:
    """Make the rows of probability maps: of one base station, and the product of all."""
    return [
        Row("one base station", mapped, _RANDOM_GRIDS, {"stations": [0]}),
        Row("product of all", mapped, _RANDOM_GRIDS),
    ]


def mapped(bench: Bench, jobs: Sequence[str], *, stations: Sequence[int] | None = None) -> Result:
    """Measure the area that holds most of the probability, and keep the map of the first test sample.

    The spacing is the best on validation samples.
    """
    best = best_grid(bench, jobs)[0]
    fit, features = bench.fit(best), bench.features(best)
    grid = fit.grid
    assert grid is not None
    each = grid_chances(fit, features, "test")
    chance = torch.softmax((each if stations is None else each[list(stations)]).sum(0), -1)  # (N, cells)
    truth = torch.from_numpy(features.truth("test")).float()
    nearest = torch.cdist(truth, grid.points()).argmin(1, keepdim=True)
    ordered = chance.sort(1, descending=True)
    before = ordered.values.cumsum(1) - ordered.values
    inside = torch.empty_like(before).scatter_(1, ordered.indices, before) < SHARE
    area = inside.sum(1).double().numpy() * bench.job(best).spacing_m ** 2
    first = chance[0] / chance[0].max()
    return {
        "spacing_m": bench.job(best).spacing_m,
        "area_m2": float(np.median(area)),
        "covered": float(inside.gather(1, nearest).double().mean()),
        "samples": len(truth),
        "low": (np.array(grid.low) * SCALE_M + features.centre).round(2).tolist(),
        "map": (_LEVELS * first).round().int().reshape(grid.counts).tolist(),
        "truth": (truth[0].numpy() * SCALE_M + features.centre).round(1).tolist(),
    }


def fig5_page(name: str, records: Sequence[Record]) -> str:
    """Return the page of estimates on the map."""
    text = [
        f"True positions (grey) of the first {SHOWN} test samples of the random split, and lines to their estimates.",
        "The paper draws its DiffLoc-MLP, -UNet and -CT as approaching the truth in this order, to 0.5 cm.",
    ]
    return page(name, [*picture(name), *text, "", *_errors(records)], records)


def fig10_page(name: str, records: Sequence[Record]) -> str:
    """Return the page of unseen users' walks."""
    text = [
        f"The first {WALKS} walks of users held out: true (grey), estimated (coloured). In the paper the grid fails,",
        "one base station's DiffLoc-UNet follows the path's shape, and fusion lies on it.",
    ]
    return page(name, [*picture(name), *text, "", *_errors(records)], records)


def _errors(records: Sequence[Record]) -> list[str]:
    def cells(found: Record) -> list[str]:
        error = found["error"]
        some = [with_interval(error), metres(error["median"]), str(error["samples"]), str(error["clusters"])]
        return [metres(found["shown_m"]), *some]

    head = ["", "mean of those drawn [m]", "mean of all (95 %) [m]", "median [m]", "test samples", "walks"]
    return table(head, measured(records, cells))


def fig6_page(name: str, records: Sequence[Record]) -> str:
    """Return the page of probability maps."""
    text = [
        "Probability maps of the grid network for the first test sample (cross: true position). In the paper, too, a",
        "single base station's map says little, and only the product of all points to a place.",
    ]

    def cells(found: Record) -> list[str]:
        sizes = [f"{found['spacing_m']:g}", f"{found['area_m2']:.0f}", f"{100 * found['covered']:.0f} %"]
        return [*sizes, str(found["samples"])]

    percent = f"{100 * SHARE:.0f} %"
    head = ["", "spacing [m]", f"area with {percent} of the probability, median [m²]", "covers the truth"]
    return page(name, [*picture(name), *text, "", *table([*head, "test samples"], measured(records, cells))], records)


def places_draw(path: Path, records: Sequence[Record]) -> None:
    """Draw true and estimated places, a map for each row; walks as lines."""
    figure, all_axes = _map_axes(len(records))
    for number, (axes, record) in enumerate(zip(all_axes, records, strict=True)):
        found, colour = record["result"], COLOURS[number]
        axes.set_title(record["label"], fontsize=9)
        if found is None:
            continue
        truth, estimate, walk = (np.array(found[key]) for key in ("truth", "estimate", "walk"))
        if len(np.unique(walk)) > WALKS:
            lines = np.stack([truth, estimate], 1)
            axes.plot(*lines.T, color=colour, linewidth=0.6)
        else:
            for one in np.unique(walk):
                axes.plot(*estimate[walk == one].T, "o-", color=colour, markersize=2.5, linewidth=0.9)
                axes.plot(*truth[walk == one].T, "-", color=INK, linewidth=1.6, alpha=0.5)
        axes.plot(*truth.T, "o", color=INK, markersize=2, alpha=0.5)
    write_picture(figure, path)


def fig6_draw(path: Path, records: Sequence[Record]) -> None:
    """Draw the probability maps."""
    figure, all_axes = _map_axes(len(records))
    for axes, record in zip(all_axes, records, strict=True):
        found: dict[str, Any] | None = record["result"]
        axes.set_title(record["label"], fontsize=9)
        if found is None:
            continue
        chance, half = np.array(found["map"]).T, found["spacing_m"] / 2
        low = np.array(found["low"])
        high = low + found["spacing_m"] * (np.array(chance.shape)[::-1] - 1)
        extent = (low[0] - half, high[0] + half, low[1] - half, high[1] + half)
        axes.imshow(chance, origin="lower", extent=extent, cmap="Blues", interpolation="nearest")
        axes.plot(*found["truth"], "x", color=COLOURS[1], markersize=7)
    write_picture(figure, path)


def _map_axes(columns: int) -> tuple[Figure, list[Axes]]:
    """Make maps side by side, with equal scales."""
    from matplotlib.figure import Figure as New

    figure = New(figsize=(2.3 * columns, 2.6), layout="constrained")
    every: list[Axes] = list(figure.subplots(1, columns, squeeze=False, sharex=True, sharey=True)[0])
    for axes in every:
        axes.set_aspect("equal")
        axes.grid(True, color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=7)
        axes.set_xlabel("x [m]", fontsize=8)
    every[0].set_ylabel("y [m]", fontsize=8)
    return figure, every
