"""README.md: each figure with an interval is in the stored table whose command stands above it, rounded once."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = (ROOT / "README.md").read_text(encoding="utf-8").split("## Results")[1].split("## Commands")[0]
FIGURE = re.compile(r"(\d+\.\d+) \((\d+\.\d+)–(\d+\.\d+)\)")


def statistics(tree: Any) -> Iterator[tuple[list[float], list[float]]]:
    """Numbers and intervals that stand beside each other."""
    if isinstance(tree, dict):
        values = list(tree.values())
        numbers = [value for value in values if isinstance(value, float)]
        yield from ((numbers, value) for value in values if isinstance(value, list) and len(value) == 2)
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from statistics(value)


def shown(value: float, as_text: str) -> bool:
    """Return whether a number is shown by a text of so many digits; a half may go either way."""
    digits = len(as_text.split(".")[1])
    return abs(value - float(as_text)) <= 0.5001 * 10**-digits


@pytest.mark.parametrize(
    "part", [p for p in re.split(r"\n(?=\S[^\n]* on scenario|With a map)", RESULTS) if "\n| " in p]
)
def test_figures_with_intervals_are_stored(part: str) -> None:
    words, table = part.split("\n|", 1)
    names = [name for name in re.findall(r"[a-z]+-[a-z]+\d?", words) if (ROOT / f"docs/tables/{name}.json").is_file()]
    stored = [json.loads((ROOT / f"docs/tables/{name}.json").read_text(encoding="utf-8")) for name in names]
    known = list(statistics(stored))
    figures = FIGURE.findall(table.split("\n\n")[0])
    assert len(figures) >= 3
    for mean, low, high in figures:
        assert any(
            isinstance(pair[0], float) and shown(pair[0], low) and shown(pair[1], high)
            and any(shown(number, mean) for number in numbers)
            for numbers, pair in known
        ), f"{mean} ({low}–{high})"  # fmt: skip
