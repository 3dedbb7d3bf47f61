"""`train`: the weights of a scheme, or a file of commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sim.commands.common import DryRun, Quiet, require_choice, stoppable
from sim.plan.options import parse_bits
from sim.plan.setting import OUTPUT, TIMING, WHAT


def train(
    context: typer.Context,
    scheme: Annotated[
        str | None,
        typer.Argument(
            help="ecc, diffloc, vinloc; ecc-klt (a fit to weights of ecc) and ecc-rd, which send any number of bits; "
            "ecc-total (a fit to weights of ecc-klt); nrppa (learned fusion of standard reports); mfcnet and adcpm, "
            "baselines of ecc; rss and toa (fits: of the "
            "options, only data and split matter; toa serves all classical schemes); music (nothing is trained: the "
            "arrays are written).",
            show_default=False,
        ),
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option(
            help="Name of a shipped scenario, or path of a TOML file; default: the scheme's own, or the --job's.",
            show_default=False, rich_help_panel=WHAT,
        ),
    ] = None,
    job: Annotated[
        str,
        typer.Option(
            help="vinloc: which training, such as any, more, fixed, blind, initial, sync, street, block, resnet-fixed; "
            "beside it, scenario, timing, seed and output matter.",
            rich_help_panel=WHAT,
        ),
    ] = "any",
    data: Annotated[
        Path | None,
        typer.Option(help="Path data set; default: data/SCENARIO/paths.npz.", show_default=False, rich_help_panel=WHAT),
    ] = None,
    bits: Annotated[
        str,
        typer.Option(
            metavar="1…8|lossless",
            help="Quantiser resolution in bit per coefficient; several, with commas between them, are trained on the "
            "same snapshots.",
            rich_help_panel=WHAT,
        ),
    ] = "4",
    phase: Annotated[
        str,
        typer.Option(metavar="none|slot|tone", help="Phase stabilisation of the channel.", rich_help_panel=WHAT),
    ] = "slot",
    split: Annotated[
        str,
        typer.Option(
            metavar="random|block|user",
            help="How test positions are held out; user, for diffloc: whole walks.", rich_help_panel=WHAT,
        ),
    ] = "random",
    model: Annotated[
        str,
        typer.Option(metavar="ct|unet|mlp", help="diffloc: which of the paper's networks.", rich_help_panel=WHAT),
    ] = "ct",
    soft: Annotated[
        bool,
        typer.Option("--soft", help="diffloc: with dynamic soft labels; default: off.", show_default=False,
                     rich_help_panel=WHAT),
    ] = False,
    fused: Annotated[
        bool,
        typer.Option("--fused", help="diffloc: then train all networks further, jointly, by the error of their fused "
                     "estimate; default: off.", show_default=False, rich_help_panel=WHAT),
    ] = False,
    start_from: Annotated[
        Path | None,
        typer.Option(
            help="Weights to start from: of another payload; for ecc-klt of ecc, for ecc-total and ecc-rd of "
            "ecc-klt, for nrppa of toa; default: none, for these four the shipped ones.",
            show_default=False, rich_help_panel=WHAT,
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            help="Passes over the training positions; default: 6, for nrppa 50, for diffloc at most 60, for vinloc the "
            "job's.",
            show_default=False, rich_help_panel=TIMING,
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES", show_default=False, rich_help_panel=TIMING,
            help="ecc, ecc-rd, vinloc, diffloc: time to spend, instead of --epochs, on as many steps as fit; default: "
            "off.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="cpu|cuda", help="ecc, vinloc, diffloc: where to train; default: on a CUDA device if there is one.",
            show_default=False, rich_help_panel=TIMING,
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(
            help="vinloc: width of the cloud's encoder; default: the job's.", show_default=False, rich_help_panel=WHAT
        ),
    ] = None,
    further: Annotated[
        int | None,
        typer.Option(
            help="vinloc, in an indoor factory: draw the users on the device instead of loading them, and so many "
            "further ones to train on; default: the job's.",
            show_default=False, rich_help_panel=WHAT,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            help="Snapshots in a step; default: 128, for diffloc 32, for vinloc the job's.",
            show_default=False, rich_help_panel=TIMING,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Peak learning rate, per step; default: 0.002, for diffloc, ecc-rd and nrppa 0.001, for vinloc the "
            "job's.",
            show_default=False, rich_help_panel=TIMING,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random draws.", rich_help_panel=WHAT)] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Weights file; default: checkpoints/SCENARIO/NAME.safetensors.",
            show_default=False, rich_help_panel=OUTPUT,
        ),
    ] = None,
    curves: Annotated[
        Path | None,
        typer.Option(
            help="Folder of TensorBoard curves; default: beside the weights.",
            show_default=False, rich_help_panel=OUTPUT,
        ),
    ] = None,
    queue: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a scheme: work through this file, with a command (trace, train, twin, reproduce) on each "
            "line; those without an empty line between them may run side by side. Resumes; CPU times go to QUEUE.log; "
            "default: none.",
            show_default=False, rich_help_panel=WHAT,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Commands of the --queue at a time; default: as many as there are cores.",
            show_default=False, rich_help_panel=TIMING,
        ),
    ] = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Train a scheme's weights on a path data set, on the GPU if there is one; can be resumed."""
    from sim.commands.trainings import TRAININGS, Training
    from sim.errors import UserError, nearest_hint
    from sim.terminal import ProgressBar
    from sim.world.scenario import load_scenario

    if dry_run and (queue is not None or quiet):
        raise UserError("--dry-run is for one training, and prints: leave out --queue and --quiet.")
    if queue is not None and scheme is None:
        _work_through(queue, workers)
        return
    if queue is not None or workers is not None or scheme is None:
        raise UserError("Name either a scheme, or a file with --queue (and --workers).")
    names = [*TRAININGS, "vinloc"]
    if scheme not in names:
        raise UserError(f"There is no training for scheme {scheme!r}{nearest_hint(scheme, names)}.")
    if any(value is not None and value <= 0 for value in (epochs, batch, rate, budget, width)):
        raise UserError("--epochs, --budget and --rate must be above 0, --batch and --width at least 1.")
    if further is not None and further < 0:
        raise UserError(f"--further must be at least 0, it is {further}.")
    if scheme in ("rss", "toa", "nrppa", "music", "ecc-klt", "ecc-total") and any(
        value is not None for value in (budget, device)
    ):
        raise UserError(f"--budget and --device are not for {scheme}: it takes little time.")
    if scheme != "vinloc" and any(value is not None for value in (width, further)):
        raise UserError("--width and --further are for vinloc.")
    bar = context.with_resource(ProgressBar(quiet=quiet))
    if dry_run:
        from sim.commands.rehearsal import Rehearsal, numbers_of

        numbers = numbers_of(scheme) if scheme != "diffloc" else None  # as many networks as base stations, of any kind
        bar = rehearsal = context.with_resource(Rehearsal(f"train {scheme}", numbers))
        output = rehearsal.folder / "weights.safetensors"
    budget_s = None if budget is None else 60 * budget
    if scheme == "vinloc":
        from sim.commands.vinloc import train_vinloc

        train_vinloc(
            job, scenario, bar, dry_run=dry_run,
            epochs=epochs, batch=batch, rate=rate, seed=seed, output=output,
            budget_s=budget_s, device=device, width=width, further=further,
        )  # fmt: skip
        return
    payloads = [parse_bits(text) for text in bits.split(",")]
    is_diffloc = scheme == "diffloc"
    require_choice("phase", phase, ("none", "slot", "tone"))
    require_choice("split", split, ("random", "block", "user") if is_diffloc else ("random", "block"))
    require_choice("model", model, ("ct", "unet", "mlp"))
    if fused and not (is_diffloc and model == "ct"):
        raise UserError("--fused is for diffloc with --model ct: of other samplers no single step decides.")
    named = scenario or ("paris-7" if is_diffloc else "paris-6")
    asked = Training(
        scheme=scheme, named=named, scenario=load_scenario(named), data=data, payloads=payloads,
        phase=phase, split=split,  # type: ignore[arg-type]  # checked above
        model=model, soft=soft, fused=fused, start_from=start_from,
        epochs=epochs if epochs is not None else {"diffloc": 60, "nrppa": 50}.get(scheme, 6),
        batch=batch if batch is not None else 32 if is_diffloc else 128,
        rate=rate if rate is not None else 1e-3 if scheme in ("diffloc", "ecc-rd", "nrppa") else 2e-3,
        budget_s=budget_s, device=device, seed=seed, output=output, curves=curves, dry_run=dry_run,
    )  # fmt: skip
    TRAININGS[scheme](asked, bar)


def _work_through(queue: Path, workers: int | None) -> None:
    from sim.cores import cores
    from sim.errors import UserError
    from sim.learn.queue import run_queue

    if workers is not None and workers < 1:
        raise UserError(f"--workers must be at least 1, it is {workers}.")
    with stoppable(lambda: f"Stopped; what ended is in {queue}.log, and the same command resumes."):
        entries = run_queue(queue, workers or cores(), lambda line: print(line, flush=True))
    succeeded = {entry.command for entry in entries if entry.status == 0}
    failed = sorted({entry.command for entry in entries} - succeeded)
    print(f"{len(succeeded)} succeeded, with {sum(entry.cpu_seconds for entry in entries):.0f} s of CPU time in all")
    if failed:
        print(f"Failed, see {queue}.*.txt: {'; '.join(failed)}.", file=sys.stderr)
        raise typer.Exit(1)
