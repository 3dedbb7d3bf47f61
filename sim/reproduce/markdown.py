"""Shared parts of the pages of measured tables: records (`sim.reproduce.rows`) as Markdown, lengths in metres."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

Record = dict[str, Any]

NOT_TRAINED = "not trained"
_ASTRAY_M = 1e4
_CLUSTERS = {"diffloc": "walks", "vinloc-table4": "layouts", "track": "walks"}
"""What the test samples of a table come in, by how its name begins."""


def page(name: str, lines: Iterable[str], records: Sequence[Record]) -> str:
    """Return a page with these lines, between a header with the command that makes it and its provenance."""
    head = [f"<!-- made by `python cli.py reproduce {name}`; do not edit -->", ""]
    return "\n".join([*head, *lines, *resampling(name, records), *provenance(records)]).rstrip() + "\n"


def picture(name: str) -> list[str]:
    """Return lines that embed the picture stored beside the page."""
    return [f"![{name}]({name}.png)", ""]


def metres(value: float) -> str:
    """Format a measured length [m]; huge ones, of samplers that diverge, in scientific notation."""
    return f"{value:.2f}" if value < _ASTRAY_M else f"{value:.1e}"


def with_interval(found: Record, kind: str = "mean", show: Callable[[float], str] = metres) -> str:
    """Format a mean, or another statistic, with its 95 % interval."""
    return f"{show(found[kind])} ({'–'.join(map(show, found[f'ci95_of_{kind}']))})"


def line(cells: Iterable[str]) -> str:
    """Return one line of a table."""
    return f"| {' | '.join(cells)} |"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """Return a table, followed by an empty line; short lines are padded."""
    rule = "|" + "---|" * len(head)
    return [line(head), rule, *(line([*cells, *[""] * (len(head) - len(cells))]) for cells in lines), ""]


def measured(records: Sequence[Record], cells: Callable[[Record], Sequence[str]]) -> list[list[str]]:
    """Return a table's line for each record: its label, then the cells of its result, if it has one."""
    return [[one["label"], *(cells(one["result"]) if one["result"] is not None else [NOT_TRAINED])] for one in records]


def sectioned(records: Sequence[Record], lines: Callable[[Record], Iterable[list[str]]]) -> list[list[str]]:
    """Return a table's lines for each record, with a heading above each section."""
    found, section = [], ""
    for record in records:
        if record["section"] != section:
            section = record["section"]
            found.append([f"*{section}*"])
        found += lines(record)
    return found


def listed(head: str, lines: Sequence[str]) -> list[str]:
    """Return a list under a sentence; empty without lines."""
    return [head, "", *(f"- {one}" for one in lines), ""] if lines else []


def errors_by_distance(records: Sequence[Record], head: str, *, sections: bool = False) -> list[str]:
    """List mean errors by the distance to the nearest training position, for the records that have them."""
    lines = []
    for record in records:
        cells = [
            f"from {one['from_m']:g} m: {metres(one['mean'])} ({one['samples']})"
            for one in (record["result"] or {}).get("by_distance", ())
        ]
        if cells:
            lines.append(f"{record['section']}, " * sections + f"{record['label']}: {'; '.join(cells)}")
    return listed(head, lines)


def not_trained(records: Sequence[Record]) -> list[str]:
    """Return a sentence on rows without a result."""
    missing = [record["label"] for record in records if record["result"] is None]
    return [f"Not trained: {', '.join(missing)}.", ""] if missing else []


def resampling(name: str, records: Sequence[Record]) -> list[str]:
    """Return a sentence on what the intervals of a table resample; rows older than that, by sample, are named."""
    kind = next((kind for begin, kind in _CLUSTERS.items() if name.startswith(begin)), "")
    found = {one["label"]: list(_clustered(one["result"])) for one in records if one["result"]}
    counts = {count for each in found.values() for samples, count in each if count is not None and count < samples}
    older = [label for label, each in found.items() if any(count is None for _, count in each)]
    lines = []
    if kind and counts:
        lines.append(f"Intervals resample whole {kind} ({', '.join(map(str, sorted(counts)))} of them).")
    if kind and older:
        where = f" in: {'; '.join(older)}" if counts else ""
        lines.append(f"Intervals resample single samples, not whole {kind}, and are too narrow{where}.")
    return [*lines, ""] if lines else []


def _clustered(value: Any) -> Iterator[tuple[int, int | None]]:
    """Yield the numbers of samples and clusters, None if not known, of all error statistics in a result."""
    if isinstance(value, dict):
        if "ci95_of_mean" in value:
            yield value.get("samples", 0), value.get("clusters")
        for one in value.values():
            yield from _clustered(one)
    elif isinstance(value, list):
        for one in value:
            yield from _clustered(one)


def provenance(records: Sequence[Record]) -> list[str]:
    """Return a sentence on when, with which commit and on what machine the rows were measured."""
    dates = sorted({one["date"] for one in records if one.get("date")})
    commits = sorted({one["commit"] for one in records if one.get("commit")})
    if not dates:
        return []
    code = f", on {', '.join(commits)}" if commits else ""
    cores = sorted({one["cores"] for one in records if one.get("cores")})
    machine = f", {' and '.join(map(str, cores))} CPU cores" if cores else ""
    return [f"Measured {' to '.join(dict.fromkeys((dates[0], dates[-1])))}{code}{machine}.", ""]
