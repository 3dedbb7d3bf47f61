"""Pages of measured tables: what their intervals resample."""

from typing import Any

import numpy as np

from sim.records.statistics import sample_statistics
from sim.reproduce.markdown import page

ERRORS = np.arange(20.0)
OLDER = {name: value for name, value in sample_statistics(ERRORS).items() if name != "clusters"}


def record(label: str, error: dict[str, Any]) -> dict[str, Any]:
    return {"label": label, "section": "", "result": {"fused": {"sum": error}, "alone": [error]}}


def test_a_page_says_what_its_intervals_resample_and_names_the_rows_that_are_older() -> None:
    by_walk = record("by walk", sample_statistics(ERRORS, np.repeat(np.arange(5), 4)))
    text = page("diffloc-table4", [], [by_walk, record("older", OLDER)])
    assert "Intervals resample whole walks (5 of them)." in text
    assert "single samples, not whole walks, and are too narrow in: older." in text
    assert "too narrow.\n" in page("diffloc-table4", [], [record("older", OLDER)])


def test_users_of_a_hall_are_independent() -> None:
    assert "resample" not in page(
        "vinloc-table2", [], [record("older", OLDER), record("now", sample_statistics(ERRORS))]
    )
