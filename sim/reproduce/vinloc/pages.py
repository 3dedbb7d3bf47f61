"""Pages and pictures of VIn-Loc's tables; all values are from the records, in metres unless marked otherwise.

MAE is the mean error.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sim.drawing import COLOURS, INK, error_bars, new_axes, save_figure
from sim.reproduce import markdown
from sim.reproduce.markdown import (
    NOT_TRAINED,
    Record,
    errors_by_distance,
    listed,
    measured,
    metres,
    not_trained,
    picture,
    sectioned,
    table,
    with_interval,
)
from sim.reproduce.vinloc.method_rows import THREE_SEEDS

KINDS = """\
RMSE, MAE, median and percentiles are of the distance |p̂ − p| in 3D, of test users that no training saw; in brackets,
95 % bootstrap intervals, which resample users, or whole layouts where there are any. The paper's figures are as
printed: it does not say of which kind of error they are, and they cannot all be of one kind
(`sim/reproduce/vinloc/paper.py`), so that those of single axes stand below."""


DISTANCES = "MAE [m] by distance to the nearest training position (users):"


def table2_page(name: str, records: Sequence[Record]) -> str:
    """Return the page of fixed and variable base stations."""
    text = [
        *KINDS.splitlines(),
        "",
        "The shipped weights were trained on subsets of any size, one set for all rows that name them. A TRP is a base",
        "station; nearest neighbours are on magnitudes of the responses, over the TRPs that both users have.",
        "",
    ]
    seeds = [one for one in records if one["section"] == THREE_SEEDS]
    one_each = [one for one in records if one["section"] != THREE_SEEDS]
    lines = [
        *text,
        *errors_table(one_each),
        *seeds_table(seeds),
        *axes_table(one_each),
        *errors_by_distance(records, DISTANCES, sections=True),
        *chosen(records),
    ]
    return _page(name, lines, records)


def table4_page(name: str, records: Sequence[Record]) -> str:
    """Return the page of held-out layouts."""
    lines = [*KINDS.splitlines(), "", "Each test layout has base stations at places that no training layout has.", ""]
    return _page(name, [*lines, *errors_table(records), *axes_table(records), *over_layouts(records)], records)


def bits_page(name: str, records: Sequence[Record]) -> str:
    """Return the page of error against resolution."""

    def cells(found: Record) -> list[str]:
        size = [str(found["payload_bits"]), str(found["fix_bits"]), f"{100 * found['of_lossless']:.2f} %"]
        return [*size, *_errors(found["errors"])[:4]]

    head = ["", "payload of a TRP [bit]", "of a fix [bit]", "of the response as complex64", *_HEAD[:4]]
    known = [record["result"]["size"] for record in records if record["result"]]
    told = f"{known[0]} TRPs of 18, drawn for each user; the shipped weights, " if known else ""
    text = [*picture(name), f"{told}trained at 1, 2, 3, 4, 8 bit and float at once.", ""]
    return _page(name, [*text, *table(head, measured(records, cells))], records)


def size_page(name: str, records: Sequence[Record]) -> str:
    """Return the page of error against the number of base stations."""
    text = [*picture(name), "TRPs drawn for each user from 18; the shipped weights for all numbers.", ""]
    return _page(name, [*text, *by_section(records, "size", "TRPs"), *monotone(records)], records)


def sync_page(name: str, records: Sequence[Record]) -> str:
    """Return the page of error against synchronisation errors."""
    text = [
        *picture(name),
        "15 TRPs of 18, values float. Each TRP's clock is off by a Gaussian error of the standard deviation σ,",
        "truncated at 2 σ (TR 38.855), one draw for each user and TRP; or the user's clock is, by one error for all",
        "TRPs. Test responses are synthesised again with it.",
        "",
    ]
    return _page(name, [*text, *by_section(records, "sigma_ns", "σ [ns]")], records)


def noise_page(name: str, records: Sequence[Record]) -> str:
    """Return the page of error against noise."""
    text = [
        "15 TRPs of 18, values float. White noise on the 256 taps of each link, so far below its own mean power; the",
        "paper's channels, and those of all trainings here, have none.",
        "",
    ]
    return _page(name, [*text, *by_section(records, "snr_db", "SNR [dB]")], records)


def phase_page(name: str, records: Sequence[Record]) -> str:
    """Return the page of carrier phases."""
    text = [
        "15 TRPs of 18, values float. A path's phase is what TR 38.901 draws for it, alike over ten metres, and what",
        "its way adds, which turns once in a wavelength. *With the way's phase*: both. *Drawn*: uniform instead.",
        "*Initial alone*: TR 38.901 to the letter, where the absolute time of arrival moves the pulse alone.",
        "",
    ]
    return _page(name, [*text, *errors_table(records), *chosen(records)], records)


def lost_page(name: str, records: Sequence[Record]) -> str:
    """Return the page of base stations lost at run time."""
    text = [
        *picture(name),
        "In-process emulations with real payloads: half-way through a run the links of some TRPs, drawn at random, are",
        "cut for good. Errors are of the snapshots after the cut, over all runs of a row.",
        "",
    ]

    def cells(found: Record) -> list[str]:
        made = f"{found['fixes']} of {found['snapshots']}"
        return [str(found["runs"]), made, *_errors(found["errors"])]

    head = ["TRPs", "runs", "fixes after the cut", *_HEAD]
    return _page(name, [*text, *table(head, measured(records, cells))], records)


_HEAD = ["RMSE [m] (95 %)", "MAE [m] (95 %)", "median [m]", "p90 [m]", "p95 [m]", "samples"]


def _errors(found: dict[str, Any]) -> list[str]:
    """Return the cells under `_HEAD`."""
    both = [with_interval(found, kind) for kind in ("rmse", "mean")]
    return [*both, metres(found["median"]), metres(found["p90"]), metres(found["p95"]), str(found["samples"])]


def errors_table(records: Sequence[Record]) -> list[str]:
    """Return a table of the paper's errors beside ours."""

    def line(record: Record) -> list[list[str]]:
        found = record["result"]
        if found is None:
            return [[record["label"], _known(record), "", NOT_TRAINED]]
        payload = str(found["payload_bits"]) if "payload_bits" in found else ""
        return [[record["label"], _known(record), payload, *_errors(found["errors"])]]

    cells = sectioned(records, line)
    head = ["", "paper: RMSE / MAE / p90 [m]", "payload of a TRP [bit]", *_HEAD]
    if not any(record["paper"] for record in records):
        head, cells = head[:1] + head[2:], [row[:1] + row[2:] for row in cells]
    return table(head, cells)


def _known(record: Record) -> str:
    known = record["paper"]
    return f"{known['rmse']:.2f} / {known['mean']:.2f} / {known['p90']:.2f}" if known else ""


def axes_table(records: Sequence[Record]) -> list[str]:
    """Return a table of the same errors in the horizontal plane and along each axis."""
    cells = []
    for record in records:
        if record["result"] is None:
            continue
        found = record["result"]["errors"]
        parts = [found["horizontal"], *(found["axes"][axis] for axis in "xyz")]
        cells.append([record["label"], *(" / ".join(metres(one[k]) for k in ("rmse", "mean", "p90")) for one in parts)])
    head = ["RMSE / MAE / p90 [m]", "horizontal", "x", "y", "z"]
    return table(head, cells) if cells else []


def seeds_table(records: Sequence[Record]) -> list[str]:
    """Return a table of errors of several seeds: mean and standard deviation, and each."""
    cells = []
    for record in records:
        found = (record["result"] or {}).get("seeds")
        cells.append([record["label"], *map(_spread, found.values())] if found else [record["label"], NOT_TRAINED])
    return table(["mean ± standard deviation (each) [m]", "RMSE", "MAE", "p90"], cells) if cells else []


def _spread(found: Mapping[str, Any]) -> str:
    return f"{metres(found['mean'])} ± {metres(found['spread'])} ({', '.join(map(metres, found['each']))})"


def chosen(records: Sequence[Record]) -> list[str]:
    """List the choices made on validation users."""
    lines = []
    for record in records:
        found = (record["result"] or {}).get("chosen")
        if found:
            fit = f", {found['components']} components a TRP, ridge {found['ridge']:g}" if found.get("ridge") else ""
            lines.append(f"{record['label']}: k = {found['neighbours']}, magnitudes by {found['compression']}{fit}")
    return listed("Chosen on validation users:", lines)


def over_layouts(records: Sequence[Record]) -> list[str]:
    """List the range of errors over test layouts."""
    lines = []
    for record in records:
        found = (record["result"] or {}).get("layouts")
        if found:
            rmse, mae = ("–".join(metres(end(found[kind])) for end in (min, max)) for kind in ("rmse", "mean"))
            count = f"{len(found['rmse'])} layouts of {found['users']} users"
            lines.append(f"{record['label']}: {count}, RMSE {rmse} m, MAE {mae} m")
    return listed("From the best to the worst test layout:", lines)


def by_section(records: Sequence[Record], key: str, named: str) -> list[str]:
    """Return a table with a line for each value of `key` and columns for each section."""
    sections = list(dict.fromkeys(record["section"] for record in records))
    found = {(one["section"], one["result"][key]): one["result"]["errors"] for one in records if one["result"]}
    values = sorted({value for _, value in found})
    untrained = {record["section"] for record in records if not record["result"]}
    lines = []
    for value in values:
        cells = [f"{value:g}"]
        for section in sections:
            one = found.get((section, value))
            missing = NOT_TRAINED if section in untrained else ""
            cells += [*_errors(one)[:2], metres(one["p90"])] if one else ["", missing, ""]
        lines.append(cells)
    heads = [f"{section}: {kind}" for section in sections for kind in ("RMSE [m] (95 %)", "MAE [m] (95 %)", "p90 [m]")]
    return table([named, *heads], lines) if lines else []


def monotone(records: Sequence[Record]) -> list[str]:
    """Report whether the error ever rises with more base stations."""
    lines = []
    for section in dict.fromkeys(record["section"] for record in records):
        points = sorted(
            (one["result"]["size"], one["result"]["errors"])
            for one in records
            if one["section"] == section and one["result"]
        )
        if len(points) < 2:
            continue
        rises = [(n, one, two) for (_, one), (n, two) in itertools.pairwise(points) if two["mean"] > one["mean"]]
        beyond = [str(n) for n, one, two in rises if two["mean"] > one["ci95_of_mean"][1]]
        if beyond:
            told = f"with {', '.join(beyond)} TRPs the MAE is above the interval of one TRP less"
        elif rises:
            least = ", ".join(str(n) for n, _, _ in rises)
            told = f"the MAE falls with every TRP, but for rises within the interval at {least} TRPs"
        else:
            told = "the MAE falls with every TRP"
        lines.append(f"- {section}: {told}.")
    return [*lines, ""] if lines else []


def _page(name: str, lines: Sequence[str], records: Sequence[Record]) -> str:
    return markdown.page(name, [*lines, *not_trained(records)], records)


LABEL = "mean 3D error [m], 95 % interval"


def bits_draw(path: Path, records: Sequence[Record]) -> None:
    """Draw error against payload bits of a base station; float as a horizontal line."""
    figure, (axes,) = new_axes()
    found = [one["result"] for one in records if one["result"]]
    points = [(one["payload_bits"], one["errors"]) for one in found if one["bits"]]
    error_bars(axes, points, "quantised values", COLOURS[0])
    for one in found:
        if not one["bits"]:
            label = f"float, {one['payload_bits']} bit"
            axes.axhline(one["errors"]["mean"], color=INK, linestyle=":", label=label)
    axes.set_xscale("log", base=2)
    ticks = sorted(bits for bits, _ in points)
    axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("payload of a base station [bit]")
    axes.set_ylabel(LABEL)
    save_figure(figure, path, logarithmic=False)


def _draw_sections(path: Path, records: Sequence[Record], *, key: str, label: str) -> None:
    """Draw error against `key` of the results, a line for each section."""
    figure, (axes,) = new_axes()
    for number, section in enumerate(dict.fromkeys(record["section"] for record in records)):
        some = [one["result"] for one in records if one["section"] == section and one["result"]]
        error_bars(axes, [(one[key], one["errors"]) for one in some], section, COLOURS[number % len(COLOURS)])
    axes.set_xlabel(label)
    axes.set_ylabel(LABEL)
    save_figure(figure, path)


size_draw = partial(_draw_sections, key="size", label="base stations of 18")
sync_draw = partial(_draw_sections, key="sigma_ns", label="standard deviation of the clocks' errors [ns]")
lost_draw = partial(_draw_sections, key="lost", label="base stations of 18 whose links are cut")
