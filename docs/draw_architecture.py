"""Draw docs/architecture.svg: `python docs/draw_architecture.py`. Units of all coordinates: 1/100 inch."""

from __future__ import annotations

import io
import re
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

WIDTH, HEIGHT = 1380, 720
INK, MUTED, PAPER = "#1b2733", "#526170", "#ffffff"
SIM, EDGE, FRONTHAUL, CLOUD = "#72558f", "#1b6f9e", "#b8501a", "#2b7a53"
TINT = {SIM: "#f4f0f8", EDGE: "#eaf3f9", FRONTHAUL: "#fcf0e8", CLOUD: "#eaf6ef"}
TOP, BOTTOM, STAGE, GAP = 700, 222, 60, 20

Point = tuple[float, float]


def label(axes: Axes, x: float, y: float, text: str, size: float = 8.8, colour: str = MUTED) -> None:
    """Write a centred remark."""
    axes.text(x, y, text, color=colour, fontsize=size, ha="center", va="center", linespacing=1.5)


def panel(axes: Axes, x: float, y: float, w: float, h: float, colour: str, title: str, note: str) -> None:
    """Draw a tinted panel whose title names the package that it stands for."""
    style = "round,pad=0,rounding_size=10"
    axes.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, fc=TINT[colour], ec=colour, lw=1.5))
    axes.text(x + 18, y + h - 26, title, color=colour, fontsize=13, weight="bold", va="center")
    axes.text(x + w - 18, y + h - 26, note, color=colour, fontsize=9, ha="right", va="center")


def box(axes: Axes, x: float, y: float, w: float, h: float, colour: str, title: str, detail: str) -> None:
    """Draw one stage: a white box with a title and, below it, a detail in small print."""
    style = "round,pad=0,rounding_size=6"
    axes.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, fc=PAPER, ec=colour, lw=1.1))
    label(axes, x + w / 2, y + h / 2 + 11, title, 10, INK)
    label(axes, x + w / 2, y + h / 2 - 12, detail, 8)


def arrow(axes: Axes, *points: Point, colour: str, width: float = 1.4) -> None:
    """Draw an arrow through `points`, in straight pieces."""
    if len(points) > 2:
        axes.plot(*zip(*points[:-1], strict=True), color=colour, lw=width, solid_joinstyle="round")
    axes.add_patch(
        FancyArrowPatch(points[-2], points[-1], arrowstyle="-|>", mutation_scale=11 + 2 * width, color=colour,
                        lw=width, shrinkA=0, shrinkB=0)
    )  # fmt: skip


def pipeline(axes: Axes, x: float, w: float, colour: str, stages: list[tuple[str, str]], last: int = 5) -> list[float]:
    """Draw `stages` downwards, the first `last` of them chained, and return the height of each one's middle."""
    middles = []
    for number, (title, detail) in enumerate(stages):
        y = TOP - 58 - STAGE - number * (STAGE + GAP)
        box(axes, x, y, w, STAGE, colour, title, detail)
        if 0 < number < last:
            arrow(axes, (x + w / 2, y + STAGE + GAP), (x + w / 2, y + STAGE), colour=colour)
        middles.append(y + STAGE / 2)
    return middles


def draw_world(axes: Axes) -> list[float]:
    """Draw what exists before the run."""
    panel(axes, 20, BOTTOM, 280, TOP - BOTTOM, SIM, "sim/world", "before the run")
    return pipeline(axes, 38, 244, SIM, [
        ("scenario", "one TOML file: scene, sites, users"),
        ("ray tracing", "Sionna RT, once; kept on disk"),
        ("channel synthesis", "paths to slots × antennas × tones"),
        ("radio of each site", "pilots, motion, noise, clock errors"),
        ("true positions", "the driver keeps them to itself"),
    ], last=4)  # fmt: skip


def draw_edge(axes: Axes) -> list[float]:
    """Draw the base stations, one in full and two behind it."""
    style = "round,pad=0,rounding_size=10"
    for shift in (14, 7):
        corner = (360 + shift, BOTTOM + shift)
        axes.add_patch(FancyBboxPatch(corner, 280, TOP - BOTTOM - 14, boxstyle=style, fc=TINT[EDGE], ec=EDGE, lw=1))
    panel(axes, 360, BOTTOM, 280, TOP - BOTTOM - 14, EDGE, "edge", "base stations: Ray actors")
    return pipeline(axes, 378, 244, EDGE, [
        ("LMMSE estimation", "measured spatial covariance"),
        ("gain · normalise · phase", "the gain is side information"),
        ("residual SegNet encoder", "24 tones × 32 coefficients"),
        ("midrise quantiser", "B bits a coefficient, or lossless"),
        ("pack · number · checksum", "768·B payload bits, none rounded"),
    ])  # fmt: skip


def draw_fronthaul(axes: Axes) -> float:
    """Draw one message with its parts, and return the height of the payload's middle."""
    panel(axes, 710, BOTTOM, 280, TOP - BOTTOM, FRONTHAUL, "fronthaul", "a message each")
    rows = [("ZMTP frame header", "2 or 9 B"), ("header", "15 B"), ("side information", "4 B, the gain"),
            ("payload", "768·B bit"), ("padding", "to a whole byte"), ("CRC-32", "4 B")]  # fmt: skip
    height, middle = 44, 0.0
    for number, (name, size) in enumerate(rows):
        y, strong = TOP - 62 - (number + 1) * height, name == "payload"
        axes.add_patch(FancyBboxPatch((728, y), 244, height - 5, boxstyle="square,pad=0", ec=FRONTHAUL, lw=1,
                                      fc=FRONTHAUL if strong else PAPER))  # fmt: skip
        at, ink = y + (height - 5) / 2, PAPER if strong else INK
        axes.text(740, at, name, color=ink, fontsize=9.6, va="center", weight="bold" if strong else "normal")
        axes.text(960, at, size, color=PAPER if strong else MUTED, fontsize=8.6, ha="right", va="center")
        middle = at if strong else middle
    label(axes, 850, 300, "Each part is counted under its own name.\nLink model: rate, delay, loss, outage.\n"
          "Wall clock: ZeroMQ, and the kernel\ncounts the same. Simulated: memory.")  # fmt: skip
    return middle


def draw_cloud(axes: Axes) -> list[float]:
    """Draw the cloud."""
    panel(axes, 1060, BOTTOM, 300, TOP - BOTTOM, CLOUD, "cloud", "one Ray actor")
    return pipeline(axes, 1078, 264, CLOUD, [
        ("collector", "deadline, duplicates, fate of every report"),
        ("unpack · dequantise", "bits to latents"),
        ("channel-masked attention", "any subset of the base stations"),
        ("LSTM over the tones", "frequency evidence accumulation"),
        ("regression head", "the fix: a position"),
    ])  # fmt: skip


def draw_run(axes: Axes) -> None:
    """Draw what the driver writes."""
    panel(axes, 20, 20, 1340, 166, SIM, "sim/emulate, sim/records", "")
    axes.text(38, 90, "The driver places the actors, starts the\nrun and closes its folder: these files,\n"
              "run.toml, summary.json and plots.", color=MUTED, fontsize=8.6, va="center", linespacing=1.6)  # fmt: skip
    box(axes, 378, 70, 244, 56, SIM, "send journal, capture", "written before each send")
    box(axes, 728, 70, 244, 56, SIM, "links/bs-000.parquet", "every frame: bytes, times, fate")
    box(axes, 1060, 70, 132, 56, SIM, "receive log", "what arrived")
    box(axes, 1210, 70, 132, 56, SIM, "fixes.parquet", "error, latency")
    arrow(axes, (500, BOTTOM), (500, 126), colour=EDGE)
    arrow(axes, (1126, BOTTOM), (1126, 126), colour=CLOUD)
    arrow(axes, (1276, BOTTOM), (1276, 126), colour=CLOUD)
    arrow(axes, (622, 98), (728, 98), colour=SIM)
    arrow(axes, (1060, 98), (972, 98), colour=SIM)


def draw() -> Figure:
    """Return the figure."""
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.axis("off")
    draw_run(axes)
    world, edge, payload, cloud = draw_world(axes), draw_edge(axes), draw_fronthaul(axes), draw_cloud(axes)
    arrow(axes, (282, world[3]), (330, world[3]), (330, edge[0]), (378, edge[0]), colour=SIM)
    arrow(axes, (622, edge[4]), (682, edge[4]), (682, payload), (728, payload), colour=FRONTHAUL, width=2.6)
    arrow(axes, (972, payload), (1026, payload), (1026, cloud[0]), (1078, cloud[0]), colour=FRONTHAUL, width=2.6)
    arrow(axes, (282, world[4]), (330, world[4]), (330, 44), (1276, 44), (1276, 70), colour=SIM)
    axes.text(850, 44, "joined after the run", color=MUTED, fontsize=8.6, ha="center", va="center",
              bbox={"fc": TINT[SIM], "ec": "none", "pad": 3})  # fmt: skip
    return figure


def shortened(text: str) -> str:
    """Return an SVG picture with coordinates rounded to a hundredth, and fonts to take where the first is missing."""
    text = text.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    text = re.sub(r"(\d*[1-9]\d*\.\d\d)\d+", r"\1", text)  # but not scales, which are below 1
    return re.sub(r"\s*\n\s*", "\n", text)


def main() -> None:
    """Write the picture beside this script, the same bytes at every call."""
    matplotlib.rcParams.update({"svg.hashsalt": "architecture", "font.family": "DejaVu Sans", "svg.fonttype": "none"})
    drawn = io.StringIO()
    draw().savefig(drawn, format="svg", metadata={"Date": None})
    Path(__file__).with_name("architecture.svg").write_text(shortened(drawn.getvalue()), encoding="utf-8")


if __name__ == "__main__":
    main()
