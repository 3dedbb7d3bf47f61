"""Pictures of a run: error distribution with controls, and a map of sites, true positions and estimates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sim.drawing import draw_ground
from sim.files import write_picture
from sim.world.scenario import Scenario
from sim.world.store import GroundPlan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]
_INK, _MUTED = "#1a1a2e", "#8a8a99"
_COLOURS = {"fix": "#0b6e99", "wknn": "#c8553d", "prior": "#8a8a99", "bound": "#3a7d44"}


def error_cdf(path: Path, error_m: Floats, controls: Mapping[str, Floats], label: str) -> None:
    """Write a picture of the 3D error's distribution; see `draw_error_cdf`."""
    figure, axes = _axes((7.2, 4.4))
    draw_error_cdf(axes, error_m, controls, label)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    write_picture(figure, path)


def draw_error_cdf(axes: Axes, error_m: Floats, controls: Mapping[str, Floats], label: str) -> None:
    """Draw the cumulative distribution of the 3D error [m] on a logarithmic axis.

    Args:
        axes: to draw on.
        error_m: errors of the fixes (N,) [m].
        controls: errors of the controls by name [m]; prior, WKNN and bound are drawn where they are there.
        label: of the run.
    """
    curves = [(label, error_m, _COLOURS["fix"], "-", 2.4)]
    for name, text, style in (
        ("wknn", "WKNN, unquantised", "-"),
        ("prior", "prior (no information)", "-"),
        ("bound", "position error bound", "--"),
    ):
        if name in controls:
            curves.append((text, controls[name], _COLOURS[name], style, 1.5))
    for text, values, colour, style, width in curves:
        ordered = np.sort(values)
        share = np.arange(1, len(ordered) + 1) / len(ordered)
        finite = np.isfinite(ordered)
        axes.plot(ordered[finite], share[finite], style, color=colour, linewidth=width, label=text)
    axes.set_xscale("log")
    axes.set_xlim(3e-3, 3e2)
    axes.set_ylim(0, 1)
    axes.set_xlabel("3D error [m]")
    axes.set_ylabel("share of fixes")
    axes.grid(True, which="major", color="#e4e4ea", linewidth=0.8)


def position_map(
    path: Path, scenario: Scenario, sites: int, truth: Floats, estimate: Floats, ground: GroundPlan | None = None
) -> None:
    """Write a picture of the map; see `draw_position_map`."""
    figure, axes = _axes((7.4, 6.4))
    draw_position_map(axes, scenario, sites, truth, estimate, ground)
    write_picture(figure, path)


def draw_position_map(
    axes: Axes, scenario: Scenario, sites: int, truth: Floats, estimate: Floats, ground: GroundPlan | None = None
) -> None:
    """Draw a map of buildings, sites, true positions and estimates (N, 3) [m]; a line joins each pair.

    Args:
        axes: to draw on; a colour bar goes beside them.
        scenario: its sites.
        sites: how many of them have base stations, from the first.
        truth: true positions.
        estimate: their estimates.
        ground: the scene seen from above; None leaves it out.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LogNorm

    if ground is not None:
        draw_ground(axes, ground.covered, ground.extent)
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
    margin = min(15.0, max(1.0, 0.1 * float(np.ptp(around, 0).max())))  # [m]
    axes.set_xlim(around[:, 0].min() - margin, around[:, 0].max() + margin)
    axes.set_ylim(around[:, 1].min() - margin, around[:, 1].max() + margin * 4 / 3)  # names stand above the sites
    axes.set_xlabel("x [m]")
    axes.set_ylabel("y [m]")
    bar = axes.figure.colorbar(dots, ax=axes, shrink=0.8, extend="both", ticks=[0.1, 0.3, 1, 3, 10])
    bar.ax.set_yticklabels(["0.1", "0.3", "1", "3", "10"])
    bar.minorticks_off()
    bar.set_label("3D error [m]")
    axes.set_title("true positions, each joined to its estimate", fontsize=10, color=_INK)


def _axes(size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes
