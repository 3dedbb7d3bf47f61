"""docs/own-data.md: its tables state the fields of the contract, with their axes and units."""

import re
from pathlib import Path

import pytest

from sim.formats.contract import MEASURED_FIELDS, PATH_FIELDS, Field

DOCS = Path(__file__).resolve().parents[2] / "docs" / "own-data.md"


def stated(title: str) -> dict[str, list[str]]:
    text = DOCS.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[1:] for row in rows}


@pytest.mark.parametrize(
    ("title", "fields"),
    [
        ("Measured channels", MEASURED_FIELDS),
        ("Paths", {name: field for name, field in PATH_FIELDS.items() if name not in MEASURED_FIELDS}),
    ],
)
def test_tables_state_every_field(title: str, fields: dict[str, Field]) -> None:
    found = stated(title)
    assert set(found) == set(fields)
    for name, field in fields.items():
        axes, unit, meaning = found[name]
        shape = f"({', '.join(map(str, field.axes))}{',' * (len(field.axes) == 1)})" if field.axes else ""
        assert axes.replace("N·K + 1", "L").startswith(shape) and bool(axes) == bool(shape), name
        assert unit == field.unit or name == "csi", name
        assert field.needed or re.match(r"optional", meaning) or "needed where" in meaning, name
