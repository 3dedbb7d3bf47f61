"""What all pages of measured tables share: records (`sim.reproduce.rows`) in Markdown, lengths in metres."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

Record = dict[str, Any]

NOT_TRAINED = "not trained"
_ASTRAY_M = 1e4


def page(name: str, lines: Iterable[str], records: Sequence[Record]) -> str:
    """A page of these lines, with where it comes from at its top and its end."""
    head = [f"<!-- made by `python cli.py reproduce {name}`; do not edit -->", ""]
    return "\n".join([*head, *lines, *provenance(records)]).rstrip() + "\n"


def picture(name: str) -> list[str]:
    """The picture beside the page."""
    return [f"![{name}]({name}.png)", ""]


def metres(value: float) -> str:
    """A measured length [m]; those of samplers that run away are beyond a plain number's use."""
    return f"{value:.2f}" if value < _ASTRAY_M else f"{value:.1e}"


def with_interval(found: Record, kind: str = "mean", show: Callable[[float], str] = metres) -> str:
    """A mean, or another statistic, with its 95 % interval."""
    return f"{show(found[kind])} ({'–'.join(map(show, found[f'ci95_of_{kind}']))})"


def line(cells: Iterable[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """A table, with an empty line after it; lines that are too short are filled up."""
    rule = "|" + "---|" * len(head)
    return [line(head), rule, *(line([*cells, *[""] * (len(head) - len(cells))]) for cells in lines), ""]


def sectioned(records: Sequence[Record], lines: Callable[[Record], Iterable[list[str]]]) -> list[list[str]]:
    """Lines of a table for each record, a heading above each section."""
    found, section = [], ""
    for record in records:
        if record["section"] != section:
            section = record["section"]
            found.append([f"*{section}*"])
        found += lines(record)
    return found


def listed(head: str, lines: Sequence[str]) -> list[str]:
    """A list under a sentence; nothing without lines."""
    return [head, "", *(f"- {one}" for one in lines), ""] if lines else []


def errors_by_distance(records: Sequence[Record], head: str, *, sections: bool = False) -> list[str]:
    """Mean errors by the distance to the nearest training position, of the records that have them."""
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
    """A sentence on rows without a result."""
    missing = [record["label"] for record in records if record["result"] is None]
    return [f"Not trained: {', '.join(missing)}.", ""] if missing else []


def provenance(records: Sequence[Record]) -> list[str]:
    """When, on which code and on what machine the rows were measured."""
    dates = sorted({one["date"] for one in records if one.get("date")})
    commits = sorted({one["commit"] for one in records if one.get("commit")})
    if not dates:
        return []
    code = f", on {', '.join(commits)}" if commits else ""
    cores = sorted({one["cores"] for one in records if one.get("cores")})
    machine = f", {' and '.join(map(str, cores))} CPU cores" if cores else ""
    return [f"Measured {' to '.join(dict.fromkeys((dates[0], dates[-1])))}{code}{machine}.", ""]
