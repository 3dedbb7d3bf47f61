"""The index of the papers: every table that can be reproduced stands on it, and no row leaves a question open."""

import re
from pathlib import Path

import pytest

from sim.reproduce.tables import TABLES

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "papers.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_named_by_its_command(name: str) -> None:
    assert f"`reproduce {name}`" in TEXT


def test_links_to_tables_are_beside_the_commands_that_make_them() -> None:
    linked = re.findall(r"\[`reproduce ([\w-]+)`\]\(tables/([\w-]+)\.md\)", TEXT)
    assert linked and all(command == file for command, file in linked)
    assert not [file for _, file in linked if not (DOCS / "tables" / f"{file}.md").is_file()]


def test_no_row_is_empty() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| paper |")]
    assert len(rows) > 50
    for row in rows:
        what, paper, measured, holds, command = (cell.strip() for cell in row.strip("|").split("|"))
        assert what and paper and measured and command, row
        assert holds or what.startswith("*"), row  # what the paper does not have cannot hold
