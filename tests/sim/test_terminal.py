"""Tables are whole at any width: what does not fit is continued below, beside the first column again."""

import io

import pytest
from rich.console import Console

from sim.terminal import ProgressBar, duration, megabytes, new_table, show_table

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


def test_a_bar_is_seen_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def shown(*, quiet: bool = False) -> str:
        with ProgressBar(quiet=quiet) as bar:
            bar.update("tracing", 3, 4)
            bar.say("a validation error")
        return capsys.readouterr().err

    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert shown() == "a validation error\n"
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes any output for a terminal then
    assert "tracing" in shown() and "ETA" in shown()
    assert shown(quiet=True) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.34, "2.3 s"), (45.0, "45 s"), (150.0, "2.5 minutes"), (1200.0, "20 minutes"), (9e3, "2.5 hours")],
)
def test_times_have_two_digits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_have_two_digits() -> None:
    assert [megabytes(size) for size in (1.0, 2.44e3, 13.1e6, 3.15e9)] == ["0.0 kB", "2.4 kB", "13 MB", "3.1 GB"]
