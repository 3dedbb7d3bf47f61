"""`reproduce`: measuring a published table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.commands.common import DryRun, Quiet, console, stoppable


def reproduce(
    table: Annotated[
        str,
        typer.Argument(
            help="ecc- with table2, ablations, strategies, baselines, subcarriers, tracking or stage1; "
            "twin-bits, twin-mismatch or twin-ecc; front; track; "
            "diffloc- with table4, table5, table6, fusion, leaky, fig5 to fig11 or bits; "
            "vinloc- with table2, table4, fig7, bits, trps, lost, sync, noise or phase.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder of the table and its figures.")] = Path("docs/tables"),
    train: Annotated[bool, typer.Option(help="Run trainings that are missing (hours); without, rows say so.")] = True,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Measure a published table and show the paper's values beside it; can be resumed."""
    if dry_run:
        return show_plan(table, output)
    from sim.files import require_writable
    from sim.reproduce.tables import reproduce as measure
    from sim.terminal import ProgressBar

    require_writable(output / f"{table}.json")
    told = f"Stopped; finished rows are in {output}, and the same command resumes."
    with stoppable(lambda: told), ProgressBar(quiet=quiet) as bar:
        path = measure(table, output, lambda label, done, total: bar.update(label, done, total), train=train)
    print(path.read_text(encoding="utf-8"))
    print(path)


def show_plan(table: str, output: Path) -> None:
    """Print what `reproduce` would do for each row of a table."""
    from sim.reproduce.tables import plan
    from sim.terminal import new_table, show_table

    rows, lacking = plan(table, output)
    shown = new_table("row", "state", "to train", "measured in [min]")
    for row in rows:
        shown.add_row(row.label, row.state, ", ".join(row.train), "" if row.minutes is None else f"{row.minutes:g}")
    show_table(console(), shown)
    left = [row for row in rows if row.state in ("outdated", "missing")]
    apart = sum(row.state == "not here" for row in rows)
    known = [row.minutes for row in left if row.minutes is not None]
    jobs = {name for row in left for name in row.train}
    print(
        f"{len(left)} of {len(rows)} rows to measure, {len(jobs)} trainings before; "
        f"{len(known)} of these rows took {sum(known):.0f} minutes last time. Nothing was done."
    )
    if lacking:
        print(lacking)
    elif apart:
        print(f"{apart} rows stay as they are stored: weights or data that they need are not here.")
