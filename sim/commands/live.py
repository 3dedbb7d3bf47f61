"""What `emulate` shows while a run goes on: a progress bar, the live page beside it, or a dashboard in the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar as Bar
from rich.table import Table
from rich.text import Text

from sim.plan.options import run_label
from sim.plan.outcome import OnProgress, Progress
from sim.plan.plan import Plan
from sim.report.following import Following
from sim.report.live import live_page
from sim.terminal import ProgressBar, metres, new_table, number

STAGES = {"start": "starting", "run": "positioning", "write": "writing"}
REFRESH_S = 0.5
"""Least time between two pictures of the dashboard [s]."""
_EDGES_M = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_BAR = 24
_LINK = ("used", "late", "delivered", "duplicate", "corrupt", "rejected", "bytes")


@contextmanager
def silence(_: Plan) -> Iterator[OnProgress]:
    """Show nothing."""
    yield lambda _: None


@contextmanager
def progress_bar(_: Plan) -> Iterator[OnProgress]:
    """Show a progress bar."""
    with ProgressBar() as bar:
        yield lambda progress: bar.update(STAGES[progress.stage], progress.done, progress.total)


@contextmanager
def page(plan: Plan) -> Iterator[OnProgress]:
    """Serve the live page, whose address is printed above the progress bar."""
    with live_page(plan) as served, ProgressBar() as bar:
        bar.say(f"live view: {served.address}")

        def advance(progress: Progress) -> None:
            served.note(progress)
            bar.update(STAGES[progress.stage], progress.done, progress.total)

        yield advance


@contextmanager
def dashboard(plan: Plan, console: Console | None = None) -> Iterator[OnProgress]:
    """Show figures, distribution of the error and links in the terminal; by default on standard error."""
    run, drawn_s = Following(plan.truth, plan.stations), -REFRESH_S
    title = f"{plan.scenario.name} · {run_label(plan.settings, plan.chosen.options)}"
    with Live(console=console or Console(stderr=True), auto_refresh=False) as screen:

        def advance(progress: Progress) -> None:
            nonlocal drawn_s
            run.note(progress)
            now_s = time.monotonic()
            if progress.stage == "write" or now_s - drawn_s >= REFRESH_S:
                run.read()
                screen.update(drawn(title, run), refresh=True)
                drawn_s = time.monotonic()

        yield advance


def drawn(title: str, run: Following) -> Group:
    """Return the dashboard of a run."""
    progress, error = run.progress, np.array(run.error_m)
    assert progress is not None, "the driver has said nothing yet"
    figures = "no fix yet"
    if len(error):
        median, p90 = np.percentile(error, [50, 90])
        figures = f"3D error [m]: mean {metres(error.mean())}, median {metres(median)}, 90 % below {metres(p90)}"
    head = Table.grid(padding=(0, 2))
    state = f"{STAGES[progress.stage]} {number(progress.done)} of {number(progress.total)}"
    head.add_row(Text(title, style="bold"), Text(state), Bar(progress.total, progress.done, width=_BAR))
    return Group(head, Text(f"{number(len(error))} fixes; {figures}"), distribution(run.error_m), links(run))


def distribution(error_m: list[float]) -> Table:
    """Return the running distribution of the 3D error: the share of fixes below some lengths."""
    table = new_table("3D error", "share of fixes below", "")
    for edge_m in _EDGES_M:
        share = float(np.mean(np.array(error_m) < edge_m)) if error_m else 0.0
        table.add_row(f"{edge_m:g} m", f"{100 * share:.1f} %", Bar(1.0, share, width=_BAR))
    return table


def links(run: Following) -> Table:
    """Return the table of reports used and late, and of frames that arrived by fate, from each base station."""
    table = new_table("BS", *_LINK)
    for bs, link in run.links.items():
        table.add_row(str(bs), *(number(link[name]) for name in _LINK))
    return table


VIEWS: Mapping[str | None, Callable[[Plan], AbstractContextManager[OnProgress]]] = {
    None: progress_bar,
    "page": page,
    "terminal": dashboard,
}
"""Values of `--live`."""
