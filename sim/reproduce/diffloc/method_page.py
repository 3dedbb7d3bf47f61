"""Pages of Tables IV to VI in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from sim.reproduce.diffloc.markdown import details, distances, means, over_seeds
from sim.reproduce.diffloc.method_rows import BUYS, SEEDS
from sim.reproduce.markdown import Record, header, metres, provenance


def method_page(name: str, records: Sequence[Record]) -> str:
    """Return the page of a table of methods."""
    usual = [one for one in records if one["section"] not in (BUYS, SEEDS)]
    buys = [one for one in records if one["section"] == BUYS]
    seeds = [one for one in records if one["section"] == SEEDS]
    lines = header(name)
    lines += ["2-D errors in metres on test samples; everything that is tuned is tuned on validation samples.", ""]
    lines += means(usual)
    if buys:
        lines += means(buys)
    lines += details([*usual, *buys])
    if seeds:
        lines += over_seeds(seeds)
    lines += distances(records) + _chosen(records) + provenance(records)
    return "\n".join(lines).rstrip() + "\n"


def _chosen(records: Sequence[Record]) -> list[str]:
    """What was chosen on validation samples."""
    lines = []
    for record in records:
        result = record["result"] or {}
        if "spacing_m" in result:
            tried = ", ".join(f"{one['spacing_m']:g} m: {metres(one['mean'])} m" for one in result["validation"])
            spacing = f"{result['spacing_m']:g} m"
            lines.append(f"- {record['label']}: spacing {spacing} (validation error by spacing: {tried})")
        if "neighbours" in result:
            alone = ", ".join(str(k) for k in result["neighbours"]["alone"])
            lines.append(f"- {record['label']}: k = {result['neighbours']['joint']}; of single base stations {alone}")
    return ["Chosen on validation samples:", "", *lines, ""] if lines else []
