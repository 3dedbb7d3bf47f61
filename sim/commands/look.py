"""Commands that examine a run: `inspect`, `replay` and `audit`."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.commands.common import JsonOption, RunArgument, console, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from sim.inspect.audit import Audit
    from sim.inspect.frames import Choice, LinkTotals

WHICH, FORM = "Which frames", "Selection"


def inspect(
    run: RunArgument,
    link: Annotated[
        int | None,
        typer.Option(help="Only this base station's link; default: all.", show_default=False, rich_help_panel=WHICH),
    ] = None,
    begin: Annotated[
        float | None,
        typer.Option(
            "--from", metavar="S", help="Sent at or after this time, in seconds after time zero; default: all.",
            show_default=False, rich_help_panel=WHICH,
        ),
    ] = None,
    end: Annotated[
        float | None,
        typer.Option(
            "--to", metavar="S", help="Sent before this time, in seconds after time zero; default: all.",
            show_default=False, rich_help_panel=WHICH,
        ),
    ] = None,
    fate: Annotated[
        list[str] | None,
        typer.Option(
            help="Frames or reports of this fate, such as dropped or late; several: give it again; default: all.",
            show_default=False, rich_help_panel=WHICH,
        ),
    ] = None,
    direction: Annotated[
        str | None,
        typer.Option(
            metavar="up|down", help="Only this direction; default: both (with --frame: up).", show_default=False,
            rich_help_panel=WHICH,
        ),
    ] = None,
    most: Annotated[int, typer.Option(help="Lines of the list of frames.", rich_help_panel=FORM)] = 50,
    timeline: Annotated[
        bool,
        typer.Option(
            "--timeline", help="Frames, fates, bits and fixes of each second; default: off.", show_default=False,
            rich_help_panel=FORM,
        ),
    ] = False,
    frame: Annotated[
        int | None,
        typer.Option(
            help="One frame of --link by sequence number, down to its bits; default: totals.", show_default=False,
            rich_help_panel=FORM,
        ),
    ] = None,
    epoch: Annotated[
        int | None,
        typer.Option(
            help="Start of the base station that sent --frame; default: the last.", show_default=False,
            rich_help_panel=FORM,
        ),
    ] = None,
    recover: Annotated[
        bool,
        typer.Option(
            "--recover", help="Close the ledgers of a run that was cut, from its journals; default: off.",
            show_default=False,
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Show what crossed each link: totals, a list of frames, a timeline, or one frame down to its bits."""
    from sim.errors import UserError
    from sim.inspect import frames as inspection

    if frame is not None and link is None:
        raise UserError("--frame needs --link: sequence numbers count on one link.")
    if epoch is not None and frame is None:
        raise UserError("--epoch needs --frame.")
    if most < 1:
        raise UserError(f"--most must be at least 1 line, it is {most}.")
    if begin is not None and end is not None and not begin < end:
        raise UserError(f"--from {begin:g} must be before --to {end:g}.")
    choice = inspection.Choice(link, begin, end, tuple(fate or ()), direction)
    if frame is not None and (timeline or choice != inspection.Choice(link, direction=direction)):
        raise UserError(
            "--frame selects one frame, with --link, --direction and --epoch; leave out times, fates and --timeline."
        )
    if as_json and recover:
        raise UserError("--recover prints no JSON: recover first, then inspect with --json.")
    if as_json:
        inspect_as_json(run, choice, most, frame, epoch, timeline=timeline)
        return
    out = console()
    if recover:
        print_recovered(out, run)
    if frame is not None and link is not None:
        from fronthaul.message.messages import Direction
        from sim.commands.frames import show_frame

        show_frame(out, inspection.frame_view(run, link, frame, epoch, Direction(direction or "up")))
    elif timeline:
        from sim.commands.frames import show_timeline
        from sim.inspect.timeline import timeline as seconds_of

        show_timeline(out, seconds_of(run, choice))
    elif choice.is_everything:
        show_totals(out, run, choice, balanced=not recover)
    else:
        from sim.commands.frames import show_frames
        from sim.inspect.timeline import time_zero_ns

        t0_ns = time_zero_ns(run)
        rows, count = inspection.chosen_frames(run, choice, t0_ns, most)
        show_frames(out, rows, t0_ns, count)


def inspect_as_json(
    run: Path, choice: Choice, most: int, frame: int | None, epoch: int | None, *, timeline: bool
) -> None:
    """Print what `inspect` shows as JSON: a frame, seconds, frames, or totals and whether the books balance.

    Raises:
        typer.Exit: they do not balance.
    """
    from fronthaul.message.messages import Direction
    from sim.inspect import frames as inspection
    from sim.inspect.timeline import time_zero_ns
    from sim.inspect.timeline import timeline as seconds_of
    from sim.records.report_table import link_table

    if frame is not None and choice.link is not None:
        direction = Direction(choice.direction or "up")
        view = dataclasses.asdict(inspection.frame_view(run, choice.link, frame, epoch, direction))
        for report in view["reports"]:
            report["index"] = report["index"].tolist()
        print_json(view)
    elif timeline:
        print_json({"seconds": [vars(second) for second in seconds_of(run, choice)]})
    elif choice.is_everything:
        links = of_link(inspection.link_totals(run), choice.link, run)
        books = inspection.check_books(run)
        told = {"balance": books.ok, "frames": books.frames_journaled, "reports": books.reports_journaled}
        print_json({"links": link_table(links).to_pylist(), "books": told | {"problems": list(books.problems)}})
        if not books.ok:
            raise typer.Exit(1)
    else:
        rows, count = inspection.chosen_frames(run, choice, time_zero_ns(run), most)
        print_json({"frames": rows, "count": count})


def print_recovered(out: Console, run: Path) -> None:
    """Close the ledgers of a run that was cut, and print what was in its journals."""
    from sim.inspect import frames as inspection
    from sim.terminal import number

    books = inspection.recover(run).conservation
    out.print(f"recovered {number(books.frames_journaled)} frames of {number(books.reports_journaled)} reports")
    for problem in books.problems:
        out.print(f"books do not balance: {problem}", markup=False, soft_wrap=True)


def show_totals(out: Console, run: Path, choice: Choice, *, balanced: bool) -> None:
    """Print the totals of links and, if `balanced`, whether the books balance.

    Raises:
        typer.Exit: they do not balance.
    """
    from sim.commands.frames import show_links
    from sim.inspect import frames as inspection
    from sim.terminal import number

    show_links(out, of_link(inspection.link_totals(run), choice.link, run))
    if not balanced:
        return
    checked = inspection.check_books(run)
    if checked.ok:
        frames, reports = number(checked.frames_journaled), number(checked.reports_journaled)
        out.print(f"books balance: {frames} frames of {reports} reports, all accounted for")
        return
    for problem in checked.problems:
        out.print(f"books do not balance: {problem}", markup=False, soft_wrap=True)
    raise typer.Exit(1)


def of_link(links: list[LinkTotals], link: int | None, run: Path) -> list[LinkTotals]:
    """Return the totals of one link, or of all links if `link` is None.

    Raises:
        UserError: there is no such link.
    """
    from sim.errors import UserError

    if link is None:
        return links
    mine = [totals for totals in links if totals.bs == link]
    if not mine:
        raise UserError(f"There is no link {link} in {run}: links are {links[0].bs} to {links[-1].bs}.")
    return mine


def replay(run: RunArgument, as_json: JsonOption = False) -> None:
    """Compute a run's fixes again, from logged payloads, side values and used sets alone."""
    from sim.inspect.replay import TOLERANCE_M
    from sim.inspect.replay import replay as replay_run
    from sim.terminal import ProgressBar

    with ProgressBar() as bar:
        result = replay_run(run, partial(bar.update, "replaying"))
    if as_json:
        numbers = dataclasses.asdict(result).items()
        told = {name: value if math.isfinite(value) else None for name, value in numbers}  # JSON has no infinity
        print_json({"ok": result.ok, "tolerance_m": TOLERANCE_M, **told})
        raise typer.Exit(0 if result.ok else 1)
    print(
        f"{result.identical} of {result.compared} fixes are identical to the last bit; "
        f"the largest difference is {result.max_difference_m:.3g} m, "
        f"of standard deviations {result.max_sigma_difference_m:.3g} m."
    )
    if result.compared < result.total:
        print(f"{result.total - result.compared} fixes were left out: not all of their reports are in the ledgers.")
    if not result.ok:
        print(f"The replay does not confirm the run: all fixes must come back to within {1e3 * TOLERANCE_M:g} mm.")
        raise typer.Exit(1)


def audit(
    run: RunArgument,
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Key with which the run was signed; default: signature left out.",
                     show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Check a run's folder: files as written, and everything derived computed again from what was recorded."""
    from sim.inspect.audit import audit as audit_run
    from sim.records.manifest import read_key

    found = audit_run(run, None if key is None else read_key(key))
    if as_json:
        print_json({"holds": found.ok, "findings": [dataclasses.asdict(finding) for finding in found.findings]})
    else:
        show_audit(console(), found)
    if not found.ok:
        raise typer.Exit(1)


def show_audit(out: Console, audit: Audit) -> None:
    """Print one line per check, and whether the whole audit passes."""
    colours = {"holds": "green", "fails": "red", "left out": "yellow"}
    width = max(len(finding.name) for finding in audit.findings)
    for finding in audit.findings:
        colour = colours[finding.state]
        out.print(f"[{colour}]{finding.state:8s}[/{colour}]  {finding.name:{width}s}  ", end="", soft_wrap=True)
        out.print(finding.detail, markup=False, soft_wrap=True)
    if audit.ok:
        out.print("The run holds.")
    else:
        out.print(f"The audit failed: {audit.failed} of {len(audit.findings)} checks failed.")
