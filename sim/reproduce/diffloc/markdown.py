"""Tables of records (`rows`) in Markdown; all values are from the records, in metres unless marked otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sim.reproduce.markdown import NOT_TRAINED, Record, metres, sectioned, table, with_interval

HEADS = {
    "sum": "sum (the paper's)",
    "gauss": "gauss",
    "precision": "precision",
    "product": "product of maps",
    "joint": "one estimate from all",
}


def printed(value: float) -> str:
    """Format a length [m] from the paper, which prints tenths of centimetres."""
    return f"{value:.3f}"


def means(records: Sequence[Record]) -> list[str]:
    """Return mean errors: a column for each base station alone and each fusion rule; the paper's lines above ours."""
    numbers = sorted({k for one in records for k in (one["result"] or {}).get("stations", ())})
    numbers = numbers or list(range(1, 1 + max((len(one["paper"].get("alone", ())) for one in records), default=0)))
    rules = [rule for rule in HEADS if any(rule in fused_of(one) for one in records)]

    def lines(record: Record) -> list[list[str]]:
        paper, result = record["paper"], record["result"]
        found = []
        if paper:
            alone = [printed(value) for value in paper["alone"][: len(numbers)]]
            fused = [printed(paper["fused"][rule]) if rule in paper["fused"] else "" for rule in rules]
            found.append([f"*paper:* {record['label']}", *alone, *[""] * (len(numbers) - len(alone)), *fused])
        if result is None:
            return [*found, [record["label"], *[""] * len(numbers), NOT_TRAINED]]
        own = dict(zip(result["stations"], result["alone"], strict=True)) if "alone" in result else {}
        cells = [metres(own[k]["mean"]) if k in own else "" for k in numbers]
        fused = [metres(result["fused"][rule]["mean"]) if rule in result["fused"] else "" for rule in rules]
        return [*found, [record["label"], *cells, *fused]]

    heads = [f"BS {k}" for k in numbers] + [HEADS[rule] for rule in rules]
    return table(["mean error [m]", *heads], sectioned(records, lines))


def fused_of(record: Record) -> dict[str, Any]:
    """Return the errors of a record's fused estimates: measured, or without a result the paper's."""
    fused: dict[str, Any] = (record["result"] or record["paper"]).get("fused", {})
    return fused


def details(records: Sequence[Record]) -> list[str]:
    """Return a table of fused errors with interval, median and 90th percentile."""
    lines = []
    for record in records:
        for rule, found in fused_of(record).items() if record["result"] else ():
            paper = record["paper"].get("fused", {}).get(rule)
            beside = "" if paper is None else printed(paper)
            cells = [with_interval(found), metres(found["median"]), metres(found["p90"]), str(found["samples"])]
            lines.append([record["label"], HEADS[rule], beside, *cells])
    head = ["fused", "by", "paper: mean [m]", "mean [m] (95 %)", "median [m]", "p90 [m]", "samples"]
    return table(head, lines)


def seeds_table(records: Sequence[Record]) -> list[str]:
    """Return a table of fused mean errors of several seeds."""
    lines = []
    for record in records:
        if record["result"] is None:
            lines.append([record["label"], NOT_TRAINED])
            continue
        for rule, found in record["result"]["fused"].items():
            each = ", ".join(metres(value) for value in found["each"])
            lines.append([record["label"], HEADS[rule], each, f"{metres(found['mean'])} ± {metres(found['spread'])}"])
    return table(["", "by", "seeds 0, 1, 2 [m]", "mean ± standard deviation [m]"], lines)
