"""``vinloc-fig7``: a channel of two paths in angle and delay, as the base stations' network sees it.

From the shipped test paths of `paris-block-64`. What the picture shows for one link is measured on all links that have
two paths: whether each stands in the beam of its angle, at the tap of its delay.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from sim.drawing import COLOURS
from sim.files import write_picture
from sim.learn.vinloc.data import synthesise
from sim.learn.vinloc.jobs import tap_s
from sim.reproduce.markdown import NOT_TRAINED, Record, page, picture, table
from sim.reproduce.rows import Result, Row
from sim.reproduce.vinloc.bench import Bench
from sim.world.channel import antenna_positions
from sim.world.paths import PathSet, unit_vector
from sim.world.scenario import Scenario, Site, load_scenario
from sim.world.store import load_test_layout

NAME = "vinloc-fig7"
SCENARIO, LAYOUT = "paris-block-64", 0
APART_TAPS, MOST_DB = 6, 10.0
"""Least distance of the two delays [taps], and largest ratio of the two powers, of the links that are looked at."""
_DRAWN_TAPS, _LEVELS = 128, 255


def fig7_rows(_: Bench) -> list[Row]:
    """Make the row."""
    return [Row("two paths", two_paths, options={"scenario": SCENARIO, "layout": LAYOUT})]


def two_paths(_: Bench, __: Sequence[str], *, scenario: str, layout: int) -> Result:
    """Measure links with two paths that are well apart; keep the map of the first."""
    world, paths = load_test_layout(load_scenario(scenario), layout)
    tap, beam, chosen = _expected(world, paths)
    users, sites = np.nonzero(chosen)
    response = synthesise(world, paths).response()[users, sites]  # (L, A, taps)
    size = world.user_array.columns, world.user_array.rows
    seen = torch.fft.fft2(response.unflatten(1, size), dim=(1, 2)).abs().flatten(1, 2).numpy()
    found = [
        (int(np.argmax(one[:, max(0, at - 1) : at + 2].max(1))) == where)
        for one, taps, beams in zip(seen, tap, beam, strict=True)
        for at, where in zip(taps, beams, strict=True)
    ]
    first = seen[0][:, :_DRAWN_TAPS]
    return {
        "links": len(seen),
        "paths": len(found),
        "in_their_beam": float(np.mean(found)),
        "map": np.rint(_LEVELS * first / first.max()).astype(int).tolist(),
        "tap": tap[0].tolist(),
        "beam": beam[0].tolist(),
    }


def _expected(
    world: Scenario, paths: PathSet
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return taps and beams (L, 2) of the links with two paths, from delays and angles; which links (N, K) those are.

    A beam's number counts rows first, as the antennas do.
    """
    numerology, array = world.numerology, world.user_array
    place = antenna_positions(array, Site((0.0, 0.0, 0.0)), numerology)
    first = paths.offset[:-1].reshape(len(paths), paths.sites)
    two = paths.paths_per_link() == 2
    row = first[two][:, None] + np.arange(2)
    tap = np.rint(paths.delay[row].astype(np.float64) / tap_s(world)).astype(np.int64)
    level = 20 * np.log10(np.abs(paths.matrix[row, 0, 0]).clip(1e-30))
    apart = (np.abs(np.diff(tap))[:, 0] >= APART_TAPS) & (np.abs(np.diff(level))[:, 0] <= MOST_DB)
    apart &= (tap < min(numerology.taps, _DRAWN_TAPS) - 1).all(1)
    phase = 2 * np.pi / numerology.wavelength_m * unit_vector(paths.user_angle[row][apart]) @ place.T  # (L, 2, A)
    grid = np.exp(1j * phase).reshape(-1, 2, array.columns, array.rows)
    beam = np.abs(np.fft.fft2(grid)).reshape(len(grid), 2, -1).argmax(2)
    two[two] = apart
    return tap[apart], beam, two


def fig7_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    text = [
        "A link with two paths of the first test layout: magnitude after the 2-D FFT over the user's 2 × 4 antennas,",
        "by beam and delay; circles: where delays and angles of the traced paths say. The paper draws one such link.",
    ]
    cells = []
    for record in records:
        found = record["result"]
        share = f"{100 * found['in_their_beam']:.0f} %" if found else NOT_TRAINED
        counts = [str(found[key]) if found else "" for key in ("links", "paths")]
        cells.append([record["label"], *counts, share])
    head = ["", "links", "paths", "strongest in the beam of their angle, at their delay"]
    return page(name, [*picture(name), *text, "", *table(head, cells)], records)


def fig7_draw(path: Path, records: Sequence[Record]) -> None:
    """Draw the map of the link."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 2.4), layout="constrained")
    axes = figure.subplots()
    found = records[0]["result"]
    if found is not None:
        axes.imshow(np.array(found["map"]), origin="lower", aspect="auto", cmap="Blues", interpolation="nearest")
        axes.plot(found["tap"], found["beam"], "o", color=COLOURS[1], fillstyle="none", markersize=9)
    axes.set_xlabel("delay [taps of 5 ns]")
    axes.set_ylabel("beam")
    write_picture(figure, path)
