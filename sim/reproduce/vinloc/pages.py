"""Pages of VIn-Loc's tables in Markdown; every figure is one of a record's, in metres unless it says otherwise."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from sim.reproduce.markdown import NOT_TRAINED, Record, header, metres, not_trained, provenance, table

KINDS = """\
RMSE, MAE, median and percentiles are of the distance |p̂ − p| in 3D, of test users that no training saw; in brackets,
95 % bootstrap intervals. The paper's figures are as printed: it does not say of which kind of error they are, and they
cannot all be of one kind (`sim/reproduce/vinloc/paper.py`), so that those of single axes stand below."""


def table2_page(name: str, records: Sequence[Record]) -> str:
    """Fixed and variable base stations."""
    text = [
        *KINDS.splitlines(),
        "",
        "The shipped weights were trained on subsets of any size, one set for all rows that name them. A TRP is a base",
        "station; nearest neighbours are on magnitudes of the responses, over the TRPs that both users have.",
        "",
    ]
    lines = [*text, *errors_table(records), *axes_table(records), *distances(records), *chosen(records)]
    return _page(name, lines, records)


def table4_page(name: str, records: Sequence[Record]) -> str:
    """Layouts held out."""
    lines = [*KINDS.splitlines(), "", "Each test layout has base stations at places that no training layout has.", ""]
    return _page(name, [*lines, *errors_table(records), *axes_table(records), *over_layouts(records)], records)


def bits_page(name: str, records: Sequence[Record]) -> str:
    """Error against resolution."""
    cells = []
    for record in records:
        found = record["result"]
        if found is None:
            cells.append([record["label"], NOT_TRAINED, *[""] * 6])
            continue
        size = [str(found["payload_bits"]), str(found["fix_bits"]), f"{100 * found['of_lossless']:.2f} %"]
        cells.append([record["label"], *size, *_errors(found["errors"])[:4]])
    head = ["", "payload of a TRP [bit]", "of a fix [bit]", "of the response as complex64", *_HEAD[:4]]
    known = [record["result"]["size"] for record in records if record["result"]]
    told = f"{known[0]} TRPs of 18, drawn for each user; the shipped weights, " if known else ""
    text = [_picture(name), "", f"{told}trained at 1, 2, 3, 4, 8 bit and float at once.", ""]
    return _page(name, [*text, *table(head, cells)], records)


def size_page(name: str, records: Sequence[Record]) -> str:
    """Error against base stations."""
    text = [_picture(name), "", "TRPs drawn for each user from 18; the shipped weights for all numbers.", ""]
    return _page(name, [*text, *by_section(records, "size", "TRPs"), *monotone(records)], records)


def sync_page(name: str, records: Sequence[Record]) -> str:
    """Error against synchronisation errors."""
    text = [
        _picture(name),
        "",
        "15 TRPs of 18, values float. Each TRP's clock is off by a Gaussian error of the standard deviation σ,",
        "truncated at 2 σ (TR 38.855), one draw for each user and TRP; test responses are synthesised again with it.",
        "",
    ]
    return _page(name, [*text, *by_section(records, "sigma_ns", "σ [ns]")], records)


def phase_page(name: str, records: Sequence[Record]) -> str:
    """Carrier phases."""
    text = [
        "15 TRPs of 18, values float. A path's phase is what TR 38.901 draws for it, alike over ten metres, and what",
        "its way adds, which turns once in a wavelength. *With the way's phase*: both. *Drawn*: uniform instead.",
        "*Initial alone*: TR 38.901 to the letter, where the absolute time of arrival moves the pulse alone.",
        "",
    ]
    return _page(name, [*text, *errors_table(records), *chosen(records)], records)


def lost_page(name: str, records: Sequence[Record]) -> str:
    """Base stations lost at run time."""
    text = [
        _picture(name),
        "",
        "In-process emulations with real payloads: half-way through a run the links of some TRPs, drawn at random, are",
        "cut for good. Errors are of the snapshots after the cut, over all runs of a row.",
        "",
    ]
    cells = []
    for record in records:
        found = record["result"]
        if found is None:
            cells.append([record["label"], NOT_TRAINED, *[""] * 7])
            continue
        made = f"{found['fixes']} of {found['snapshots']}"
        cells.append([record["label"], str(found["runs"]), made, *_errors(found["errors"])])
    head = ["TRPs", "runs", "fixes after the cut", *_HEAD]
    return _page(name, [*text, *table(head, cells)], records)


_HEAD = ["RMSE [m] (95 %)", "MAE [m] (95 %)", "median [m]", "p90 [m]", "p95 [m]", "samples"]


def _errors(found: dict[str, Any]) -> list[str]:
    """Cells under `_HEAD`."""
    both = [f"{metres(found[kind])} ({_span(found[f'ci95_of_{kind}'])})" for kind in ("rmse", "mae")]
    return [*both, metres(found["median"]), metres(found["p90"]), metres(found["p95"]), str(found["samples"])]


def errors_table(records: Sequence[Record]) -> list[str]:
    """The paper's figures beside ours."""
    cells = []
    section = ""
    for record in records:
        if record["section"] != section:
            section = record["section"]
            cells.append([f"*{section}*", *[""] * (len(_HEAD) + 2)])
        found = record["result"]
        if found is None:
            cells.append([record["label"], _known(record), "", NOT_TRAINED, *[""] * (len(_HEAD) - 1)])
            continue
        payload = str(found["payload_bits"]) if "payload_bits" in found else ""
        cells.append([record["label"], _known(record), payload, *_errors(found["errors"])])
    head = ["", "paper: RMSE / MAE / p90 [m]", "payload of a TRP [bit]", *_HEAD]
    if not any(record["paper"] for record in records):
        head, cells = head[:1] + head[2:], [row[:1] + row[2:] for row in cells]
    return table(head, cells)


def _known(record: Record) -> str:
    known = record["paper"]
    return f"{known['rmse']:.2f} / {known['mae']:.2f} / {known['p90']:.2f}" if known else ""


def axes_table(records: Sequence[Record]) -> list[str]:
    """The same errors, horizontal and of each axis."""
    cells = []
    for record in records:
        if record["result"] is None:
            continue
        found = record["result"]["errors"]
        parts = [found["horizontal"], *(found["axes"][axis] for axis in "xyz")]
        cells.append([record["label"], *(" / ".join(metres(one[k]) for k in ("rmse", "mae", "p90")) for one in parts)])
    head = ["RMSE / MAE / p90 [m]", "horizontal", "x", "y", "z"]
    return table(head, cells) if cells else []


def distances(records: Sequence[Record]) -> list[str]:
    """Mean errors by the distance to the nearest training position."""
    lines = []
    for record in records:
        bins = (record["result"] or {}).get("by_distance")
        if bins:
            cells = [f"from {one['from_m']:g} m: {metres(one['mae'])} ({one['samples']})" for one in bins]
            lines.append(f"- {record['section']}, {record['label']}: {'; '.join(cells)}")
    head = "MAE [m] by distance to the nearest training position (users):"
    return [head, "", *lines, ""] if lines else []


def chosen(records: Sequence[Record]) -> list[str]:
    """What was chosen on validation users."""
    lines = []
    for record in records:
        found = (record["result"] or {}).get("chosen")
        if found:
            lines.append(f"- {record['label']}: k = {found['neighbours']}, magnitudes by {found['compression']}")
    return ["Chosen on validation users:", "", *lines, ""] if lines else []


def over_layouts(records: Sequence[Record]) -> list[str]:
    """Spread over test layouts."""
    lines = []
    for record in records:
        found = (record["result"] or {}).get("layouts")
        if found:
            rmse, mae = ("–".join(metres(end(found[kind])) for end in (min, max)) for kind in ("rmse", "mae"))
            count = f"{len(found['rmse'])} layouts of {found['users']} users"
            lines.append(f"- {record['label']}: {count}, RMSE {rmse} m, MAE {mae} m")
    return ["From the best to the worst test layout:", "", *lines, ""] if lines else []


def by_section(records: Sequence[Record], key: str, named: str) -> list[str]:
    """A line for each value of `key`, columns for each section."""
    sections = list(dict.fromkeys(record["section"] for record in records))
    found = {(one["section"], one["result"][key]): one["result"]["errors"] for one in records if one["result"]}
    values = sorted({value for _, value in found})
    lines = []
    for value in values:
        cells = [f"{value:g}"]
        for section in sections:
            one = found.get((section, value))
            cells += [*_errors(one)[:2], metres(one["p90"])] if one else ["", NOT_TRAINED, ""]
        lines.append(cells)
    heads = [f"{section}: {kind}" for section in sections for kind in ("RMSE [m] (95 %)", "MAE [m] (95 %)", "p90 [m]")]
    return table([named, *heads], lines) if lines else []


def monotone(records: Sequence[Record]) -> list[str]:
    """Say whether more base stations ever cost accuracy."""
    lines = []
    for section in dict.fromkeys(record["section"] for record in records):
        points = sorted(
            (one["result"]["size"], one["result"]["errors"])
            for one in records
            if one["section"] == section and one["result"]
        )
        if len(points) < 2:
            continue
        rises = [(n, one, two) for (_, one), (n, two) in itertools.pairwise(points) if two["mae"] > one["mae"]]
        beyond = [str(n) for n, one, two in rises if two["mae"] > one["ci95_of_mae"][1]]
        if beyond:
            told = f"with {', '.join(beyond)} TRPs the MAE is above the interval of one TRP less"
        elif rises:
            least = ", ".join(str(n) for n, _, _ in rises)
            told = f"the MAE falls with every TRP, but for rises within the interval at {least} TRPs"
        else:
            told = "the MAE falls with every TRP"
        lines.append(f"- {section}: {told}.")
    return [*lines, ""] if lines else []


def _span(ends: Sequence[float]) -> str:
    return "–".join(metres(end) for end in ends)


def _picture(name: str) -> str:
    return f"![{name}]({name}.png)"


def _page(name: str, lines: Sequence[str], records: Sequence[Record]) -> str:
    ends = [*not_trained(records), *provenance(records)]
    return "\n".join([*header(name), *lines, *ends]).rstrip() + "\n"
