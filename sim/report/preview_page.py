"""A preview of a scenario as a picture, and as one HTML file with the picture and what is known in numbers."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sim.drawing import draw_ground
from sim.files import write_picture, write_text
from sim.world.preview import Preview

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PARTS = Path(__file__).parent
_INK, _SITE, _HERE = "#1a1a2e", "#c8553d", "#0b6e99"
_NAMED = 12  # sites whose names a map has room for
_ARROW = 0.1  # of the map's width
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><meta http-equiv="Content-Security-Policy"
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title><style>{style}
img {{ width: 100%; max-width: 900px; cursor: crosshair; background: #fff; }}</style></head><body>
<header><h1>{title}</h1></header><main>
<img id="map" alt="Map from above: sites, buildings, and users' positions" src="data:image/png;base64,{picture}">
<p id="where" class="hint">Point at the map for coordinates.</p>
<h2>{where}</h2>{counts}
<h2>Sites</h2>{sites}
</main><script>
const frame = {frame}, map = document.getElementById("map"), where = document.getElementById("where");
map.addEventListener("pointermove", (event) => {{
  const box = map.getBoundingClientRect();
  const u = ((event.clientX - box.left) / box.width - frame.left) / frame.width;
  const v = (1 - (event.clientY - box.top) / box.height - frame.bottom) / frame.height;
  if (u < 0 || u > 1 || v < 0 || v > 1) return;
  const at = (low, high, share) => (low + share * (high - low)).toFixed(1);
  where.textContent = `x = ${{at(...frame.x, u)}} m, y = ${{at(...frame.y, v)}} m`;
}});
</script></body></html>
"""


def write_preview(preview: Preview, folder: Path) -> list[Path]:
    """Write ``preview.png`` and ``preview.html`` to a folder, and return their paths."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 7.2), layout="constrained")
    axes = figure.add_subplot()
    draw_preview(axes, preview)
    picture, page = folder / "preview.png", folder / "preview.html"
    write_picture(figure, picture)
    box = axes.get_position()  # final once drawn
    frame = {"left": box.x0, "bottom": box.y0, "width": box.width, "height": box.height,
             "x": axes.get_xlim(), "y": axes.get_ylim()}  # fmt: skip
    text = _PAGE.format(
        where=_points(preview).capitalize(),
        title=html.escape(f"Preview: {preview.scenario.name}"),
        style=(_PARTS / "page.css").read_text(encoding="utf-8"),
        picture=base64.b64encode(picture.read_bytes()).decode(),
        counts=_table(("rule", "points"), count_rows(preview)),
        sites=_table(("site", "position [m]", "yaw, pitch [°]", "of the points", "remark"), site_rows(preview)),
        frame=json.dumps(frame),
    )
    write_text(page, text)
    return [picture, page]


def count_rows(preview: Preview) -> list[tuple[str, str]]:
    """Return the number of points that each rule removes, and of those that are left."""
    users = preview.scenario.users
    if preview.heard is not None:
        count = preview.heard.sum(1)
        return [
            (f"positions that were imported, with {preview.links}", str(preview.drawn)),
            (
                f"of these, heard by all {preview.heard.shape[1]} sites",
                str(int((count == preview.heard.shape[1]).sum())),
            ),
            ("of these, heard by no site", str(int((count == 0).sum()))),
        ]
    rows = [("drawn in the box from users.low to users.high", str(preview.drawn))]
    rows += [(f"removed: {rule}", str(count)) for rule, count in preview.removed.items()]
    rows.append(("left: where users may stand", str(len(preview.position))))
    if preview.sure is not None:
        rows.append((f"of these, in sight of users.min_links = {users.min_links} sites", str(preview.sure)))
        rows.append(
            ("of these, left to reflections, which only a trace finds", str(len(preview.position) - preview.sure))
        )
    return rows


def site_rows(preview: Preview) -> list[tuple[str, ...]]:
    """Return a row for each site."""
    rows: list[tuple[str, ...]] = []
    for k, site in enumerate(preview.scenario.sites):
        sees = "–"
        if preview.in_sight is not None and len(preview.position):
            sees = f"sees {100 * preview.in_sight[:, k].mean():.0f} %"
        if preview.heard is not None:
            sees = f"hears {100 * preview.heard[:, k].mean():.0f} %"
        where = ", ".join(f"{value:g}" for value in site.position)
        remark = "a surface is above it: it may stand in a building" if preview.covered[k] else ""
        rows.append((_named(k, site.name), where, f"{site.yaw_deg:g}, {site.pitch_deg:g}", sees, remark))
    return rows


def _named(number: int, name: str) -> str:
    return str(number) if name in ("", f"site-{number}") else f"{number} {name}"


def _points(preview: Preview) -> str:
    return "where users may stand" if preview.heard is None else "positions that were imported"


def draw_preview(axes: Axes, preview: Preview) -> None:
    """Draw the map from above: what stands there, points where users may stand, and sites with their bearing."""
    from matplotlib.patheffects import withStroke

    scenario, ground = preview.scenario, preview.ground
    if ground is not None:
        draw_ground(axes, ground.covered, ground.extent)
    axes.plot(*preview.position[:, :2].T, ".", color=_HERE, markersize=2, alpha=0.5, label=_points(preview))
    low, high = scenario.users.low, scenario.users.high
    x, y = ([low[axis], high[axis]] for axis in (0, 1))
    corners = np.array([(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1]), (x[0], y[0])])
    axes.plot(*corners.T, "--", color=_INK, linewidth=1, label="users.low to users.high")
    site = np.array([one.position for one in scenario.sites])
    yaw = np.radians([one.yaw_deg for one in scenario.sites])
    length = _ARROW * np.ptp(np.concatenate([site[:, :2], corners]), 0).max()
    axes.quiver(
        *site[:, :2].T, length * np.cos(yaw), length * np.sin(yaw), angles="xy", scale_units="xy", scale=1,
        color=_SITE, width=0.005, zorder=4,
    )  # fmt: skip
    axes.plot(
        *site[:, :2].T, "o", color=_SITE, markeredgecolor="#ffffff", markersize=9, zorder=5, label="site, bearing"
    )
    few = len(site) <= _NAMED
    for k, one in enumerate(scenario.sites):
        axes.annotate(
            _named(k, one.name) if few else str(k), one.position[:2], (7, 7), textcoords="offset points",
            fontsize=9, zorder=6, color=_INK, path_effects=[withStroke(linewidth=3, foreground="#ffffff")],
        )  # fmt: skip
    axes.set_aspect("equal")
    axes.set_xlabel("x [m]")
    axes.set_ylabel("y [m]")
    axes.grid(True, color="#c9c9d2", linewidth=0.4)
    axes.set_title(f"{scenario.name}, from above", loc="left", fontsize=11)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.08), ncols=3, frameon=False, fontsize=9, markerscale=1.5)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{cells}</tr>{body}</table></div>'
