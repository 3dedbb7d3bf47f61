"""`chaos`: faults on purpose, on a schedule, and the books audited afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.commands import options
from sim.commands.common import FAULTS, console, parse_payload, stoppable
from sim.commands.emulate import parts_of_runs, stopped_run


def chaos(
    minutes: Annotated[float, typer.Option(help="How long the run goes on.", rich_help_panel=FAULTS)] = 5.0,
    seed: Annotated[int, typer.Option(help="Seed of the faults and of all other draws.", rich_help_panel=FAULTS)] = 7,
    bs: options.Stations = None,
    bits: options.Bits = "4",
    scheme: options.Scheme = "ecc",
    interval: options.Interval = 200.0,
    deadline: options.Deadline = 1000.0,
    round_: options.Round = 0.0,
    loss: options.Loss = "1%",
    duplicate: options.Duplicate = "1%",
    corrupt: options.Corrupt = "0.5%",
    delay: options.Delay = "2ms",
    jitter: options.Jitter = "1ms",
    curve: options.Curve = True,
    cpus_per_bs: options.CpusPerBs = 0.15,
    cloud_cpus: options.CloudCpus = 0.25,
    output: options.Output = Path("runs"),
) -> None:
    """Kill, cut and freeze base stations and the cloud on a schedule; audit what is left.

    Exit status 1 if fixes did not resume in time after a fault, or the audit finds anything. Links are encrypted by
    default, for there the frames of an old process that overlaps with its successor arrive, to be rejected.
    """
    from sim.commands.look import show_audit
    from sim.emulate.chaos import markdown, run_chaos
    from sim.errors import UserError
    from sim.inspect.audit import audit
    from sim.plan.outcome import Progress
    from sim.plan.settings import EmulateSettings
    from sim.terminal import ProgressBar

    if minutes <= 0:
        raise UserError(f"--minutes must be above 0, it is {minutes:g}.")
    resolution, forward = parse_payload(bits)
    texts = {"loss": loss, "duplicate": duplicate, "corrupt": corrupt, "delay": delay, "jitter": jitter}
    scenario = options.scenario_of(None, scheme)
    settings = EmulateSettings(
        scenario=scenario,
        scheme=scheme,
        bs=options.stations_of(bs, scenario),
        bits=resolution,
        forward=forward,
        seed=seed,
        interval_ms=interval,
        deadline_ms=deadline,
        round_ms=round_,
        links=options.links_with(options.link_file_plan(None), dict(texts)),
        curve=curve,
        cpus_per_bs=cpus_per_bs,
        cloud_cpus=cloud_cpus,
        output=output,
    )
    before = parts_of_runs(output)
    with stoppable(lambda: stopped_run(parts_of_runs(output) - before)), ProgressBar() as bar:

        def advance(progress: Progress) -> None:
            bar.update({"run": "positioning"}.get(progress.stage, progress.stage), progress.done, progress.total)

        result = run_chaos(settings, 60 * minutes, advance)
    out = console()
    print(markdown(result))
    found = audit(result.folder)
    show_audit(out, found)
    print(f"run folder: {result.folder}")
    if not result.ok:
        print("Fixes did not resume in time after every fault.")
    if not (result.ok and found.ok):
        raise typer.Exit(1)
