"""Pictures of a run: error distribution with controls, and a map of sites, true positions and estimates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.emulate.controls import Controls
from sim.files import write_picture
from sim.world.scenario import Scenario
from sim.world.store import GroundPlan

_INK, _MUTED = "#1a1a2e", "#8a8a99"
_COLOURS = {"fix": "#0b6e99", "wknn": "#c8553d", "prior": "#8a8a99", "bound": "#3a7d44"}


def error_cdf(path: Path, error_m: npt.NDArray[np.float64], controls: Controls, title: str) -> None:
    """Draw the cumulative distribution of the 3D error [m] on a logarithmic axis, with prior, WKNN and bound."""
    figure, axes = _axes((7.2, 4.4))
    curves = [(title, error_m, _COLOURS["fix"], "-", 2.4)]
    for label, values, colour, style in (
        ("WKNN, unquantised", controls.wknn, _COLOURS["wknn"], "-"),
        ("prior (no information)", controls.prior, _COLOURS["prior"], "-"),
        ("position error bound", controls.bound, _COLOURS["bound"], "--"),
    ):
        if values is not None:
            curves.append((label, values, colour, style, 1.5))
    for label, values, colour, style, width in curves:
        ordered = np.sort(values)
        share = np.arange(1, len(ordered) + 1) / len(ordered)
        finite = np.isfinite(ordered)
        axes.plot(ordered[finite], share[finite], style, color=colour, linewidth=width, label=label)
    axes.set_xscale("log")
    axes.set_xlim(3e-3, 3e2)
    axes.set_ylim(0, 1)
    axes.set_xlabel("3D error [m]")
    axes.set_ylabel("share of fixes")
    axes.grid(True, which="major", color="#e4e4ea", linewidth=0.8)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    write_picture(figure, path)


def position_map(
    path: Path,
    scenario: Scenario,
    sites: int,
    truth: npt.NDArray[np.float64],
    estimate: npt.NDArray[np.float64],
    ground: GroundPlan | None = None,
) -> None:
    """Draw a map of buildings, sites, true positions and estimates [m]; a line joins each pair."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import ListedColormap, LogNorm

    figure, axes = _axes((7.4, 6.4))
    if ground is not None:
        grey = ListedColormap(["#ffffff", "#d9d9e0"])
        axes.imshow(ground.covered.T, origin="lower", extent=ground.extent, cmap=grey, vmin=0, vmax=1, zorder=0)
    pairs = np.stack([truth[:, :2], estimate[:, :2]], 1)
    error = np.linalg.norm(estimate - truth, axis=1)
    axes.add_collection(LineCollection(list(pairs), colors=_COLOURS["wknn"], linewidths=0.8, alpha=0.8))
    colours = LogNorm(0.1, 10.0, clip=True)
    dots = axes.scatter(truth[:, 0], truth[:, 1], c=error, s=9, cmap="viridis", norm=colours, zorder=3)
    position = np.array([site.position for site in scenario.sites])
    axes.scatter(position[:sites, 0], position[:sites, 1], marker="^", s=90, color=_INK, zorder=4)
    axes.scatter(position[sites:, 0], position[sites:, 1], marker="^", s=90, color=_MUTED, alpha=0.5, zorder=4)
    for k, site in enumerate(scenario.sites):
        axes.annotate(
            f"{k} {site.name}".strip(), site.position[:2], (0, 9), textcoords="offset points", ha="center", fontsize=8
        )
    axes.set_aspect("equal")
    around = np.concatenate([position[:, :2], truth[:, :2]])
    axes.set_xlim(around[:, 0].min() - 15, around[:, 0].max() + 15)
    axes.set_ylim(around[:, 1].min() - 15, around[:, 1].max() + 20)
    axes.set_xlabel("x [m]")
    axes.set_ylabel("y [m]")
    bar = figure.colorbar(dots, ax=axes, shrink=0.8, extend="both", ticks=[0.1, 0.3, 1, 3, 10])
    bar.ax.set_yticklabels(["0.1", "0.3", "1", "3", "10"])
    bar.minorticks_off()
    bar.set_label("3D error [m]")
    axes.set_title("true positions, each joined to its estimate", fontsize=10, color=_INK)
    write_picture(figure, path)


def _axes(size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes
