"""Tables are whole at any width: what does not fit is continued below, beside the first column again."""

import io

import pytest
from rich.console import Console

from sim.terminal import new_table, show_table

HEADINGS = ("link", *(f"counted\n[unit {n}]" for n in range(9)))
ROWS = [[f"BS {bs}", *(f"{bs} 304 {100 + n} 000" for n in range(9))] for bs in range(5)]


def printed(width: int, headings: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    out = io.StringIO()
    table = new_table(*headings)
    for row in rows:
        table.add_row(*row)
    show_table(Console(file=out, width=width, highlight=False), table)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [200, 120, 80, 60, 40])
def test_tables_are_whole_at_any_width(width: int) -> None:
    lines = printed(width, HEADINGS, ROWS)
    assert max(map(len, lines)) <= width and "…" not in "".join(lines)
    for name, *cells in ROWS:
        own = [line for line in lines if line.strip().startswith(name)]
        assert all(sum(cell in line for line in own) == 1 for cell in cells)


def test_a_cell_wider_than_the_screen_is_folded() -> None:
    text = "x" * 100
    lines = printed(60, ("field", "value"), [["some name", text]])
    assert max(map(len, lines)) <= 60 and "".join(lines).count("x") == 100


def test_a_table_that_fits_is_one() -> None:
    assert sum("link" in line for line in printed(200, HEADINGS, ROWS)) == 1
    assert sum("link" in line for line in printed(80, HEADINGS, ROWS)) > 1
    assert [line.strip() for line in printed(80, ("alone",), [["a"]]) if line.strip()][-1] == "a"
