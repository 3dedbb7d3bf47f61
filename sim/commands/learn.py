"""`trace`, `train` and `reproduce`: ray tracing, training, and measuring published tables."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.commands.common import DryRun, Quiet, console, emulate_command, require_choice, stoppable
from sim.plan.options import parse_bits
from sim.plan.setting import OUTPUT, TIMING, WHAT

if TYPE_CHECKING:
    import torch

    from sim.learn.diffloc.train import DiffLocTraining
    from sim.learn.trainer import Schedule
    from sim.terminal import ProgressBar
    from sim.world.paths import PathSet
    from sim.world.scenario import Scenario


def trace(
    context: typer.Context,
    scenario: Annotated[
        str, typer.Argument(help="Name of a shipped scenario, or path of a TOML file.", show_default=False)
    ],
    positions: Annotated[
        int | None,
        typer.Option(
            help="Number of user positions; default: the scenario's. With a \\[mismatch] that needs a trace: of "
            "test positions; default: all.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the data set; default: data/SCENARIO.", show_default=False)
    ] = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Ray-trace a scenario into a path data set; can be resumed. Test positions are traced again for a mismatch."""
    from dataclasses import replace as changed

    from sim.commands import tracing, tracing_plan
    from sim.errors import UserError
    from sim.terminal import ProgressBar
    from sim.world.scenario import load_scenario
    from sim.world.store import data_folder

    wanted = load_scenario(scenario)
    if positions is not None:
        if positions < 1:
            raise UserError(f"--positions must be at least 1, it is {positions}.")
        if wanted.layouts is not None:
            raise UserError("--positions is not for a scenario with layouts: its [layouts] table says how many users.")
        wanted = changed(wanted, tracing=changed(wanted.tracing, positions=positions))
    folder = output or Path("data") / wanted.data_name
    again = bool(wanted.mismatch.traced())
    known = again and (data_folder(wanted) / "test.npz").is_file()
    if again and output is not None:
        raise UserError("--output is not for a scenario whose [mismatch] needs a trace: `emulate` would not find it.")
    if wanted.is_own:
        raise UserError(f"Scenario {wanted.name!r} was imported: it has no scene that could be traced.")
    if dry_run:
        if known:
            tracing_plan.plan_world(wanted, positions)
        elif wanted.layouts is not None:
            tracing_plan.plan_layouts(wanted, folder)
        elif wanted.factory is not None:
            tracing_plan.plan_factory(wanted, folder)
        else:
            tracing_plan.plan_scene(wanted, folder)
        if again and not known:
            print("Test positions are then traced once more, for the [mismatch], which is not counted.")
        return
    bar = context.with_resource(ProgressBar(quiet=quiet))
    if wanted.layouts is not None:
        tracing.trace_layout_data(wanted, folder, bar)
    elif wanted.factory is not None:
        tracing.draw_factory_data(wanted, folder, bar)
    elif not known:
        tracing.trace_scene_data(wanted, folder, bar)
    if again:
        tracing.trace_world_data(wanted, positions if known else None, bar)


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
    from sim.errors import UserError, nearest_hint

    if dry_run and (queue is not None or quiet):
        raise UserError("--dry-run is for one training, and prints: leave out --queue and --quiet.")
    if queue is not None and scheme is None:
        _work_through(queue, workers)
        return
    if queue is not None or workers is not None or scheme is None:
        raise UserError("Name either a scheme, or a file with --queue (and --workers).")
    trainable = [
        "ecc", "ecc-klt", "ecc-total", "ecc-rd", "rss", "toa", "nrppa", "diffloc", "vinloc", "mfcnet", "adcpm", "music",
    ]  # fmt: skip
    if scheme not in trainable:
        raise UserError(f"There is no training for scheme {scheme!r}{nearest_hint(scheme, trainable)}.")
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
    from sim.terminal import ProgressBar

    bar = context.with_resource(ProgressBar(quiet=quiet))
    if dry_run:
        from sim.commands.rehearsal import Rehearsal, numbers_of

        numbers = numbers_of(scheme) if scheme != "diffloc" else None  # as many networks as base stations, of any kind
        bar = rehearsal = context.with_resource(Rehearsal(f"train {scheme}", numbers))
        output = rehearsal.folder / "weights.safetensors"
    if scheme == "vinloc":
        from sim.commands.vinloc import train_vinloc

        train_vinloc(
            job, scenario, bar, dry_run=dry_run,
            epochs=epochs, batch=batch, rate=rate, seed=seed, output=output,
            budget_s=None if budget is None else 60 * budget, device=device, width=width, further=further,
        )  # fmt: skip
        return
    payloads = [parse_bits(text) for text in bits.split(",")]
    is_diffloc = scheme == "diffloc"
    require_choice("phase", phase, ("none", "slot", "tone"))
    require_choice("split", split, ("random", "block", "user") if is_diffloc else ("random", "block"))
    require_choice("model", model, ("ct", "unet", "mlp"))
    if fused and not (is_diffloc and model == "ct"):
        raise UserError("--fused is for diffloc with --model ct: of other samplers no single step decides.")
    epochs = epochs if epochs is not None else {"diffloc": 60, "nrppa": 50}.get(scheme, 6)
    batch = batch if batch is not None else 32 if is_diffloc else 128
    rate = rate if rate is not None else 1e-3 if scheme in ("diffloc", "ecc-rd", "nrppa") else 2e-3
    from sim.world.scenario import load_scenario

    scenario = scenario or ("paris-7" if is_diffloc else "paris-6")
    wanted = load_scenario(scenario)
    use = partial(emulate_command, scenario, wanted.station_count, scheme)
    if is_diffloc:
        from sim.learn.diffloc.train import DiffLocTraining

        training_of = DiffLocTraining(
            model, split, soft, fused, max(1, round(epochs)), batch, rate,
            average=0.0 if budget is None else 0.1, budget_s=None if budget is None else 60 * budget, seed=seed,
        )  # fmt: skip
        print(use(_train_diffloc(wanted, data, training_of, device, output, bar)))
        return
    from dataclasses import replace as changed

    from sim.files import require_writable
    from sim.learn.device import training_device
    from sim.learn.ecc.train import JITTER_M, EccTraining, train_ecc
    from sim.learn.trainer import Schedule, TrainProgress
    from sim.world.store import CHECKPOINT_FOLDER, load_traced

    folder = CHECKPOINT_FOLDER / wanted.name
    if scheme == "music":
        from sim.learn.music import write_music

        target = output or folder / "music.safetensors"
        write_music(wanted, target)
        print(f"arrays of {wanted.name}: {target}")
        return
    place = training_device(device)
    paths = load_traced(wanted, data)
    jitter_m = JITTER_M if paths.movable else 0.0
    if scheme == "rss":
        from sim.learn.rss import train_rss

        target = output or folder / "rss.safetensors"
        deviation = train_rss(
            wanted, paths, split, target,  # type: ignore[arg-type]  # checked above
            on_progress=partial(bar.update, "observing"),
        )  # fmt: skip
        print(f"path-loss model fitted, residual {deviation:.2f} dB (standard deviation): {target}")
        print(use(target))
        return
    if scheme == "toa":
        from sim.learn.lateration import train_toa

        target = output or folder / "toa.safetensors"
        watched = partial(bar.update, "observing")
        errors = train_toa(wanted, paths, split, target, watched)  # type: ignore[arg-type]  # checked above
        parts = (f"{kind} {freedom:.2f}, {scale:.3g}" for kind, (freedom, scale) in errors.items())
        print(f"Student's t fitted to the errors (freedom, scale): {'; '.join(parts)}: {target}")
        print(use(target))
        return
    if scheme == "nrppa":
        from sim.commands.nrppa import train_reports
        from sim.learn.nrppa import NrppaTraining
        from sim.plan.weights import find_weights

        start = start_from or find_weights(wanted.data_name, "toa", None)
        training_of_reports = NrppaTraining(
            start, split, epochs=max(1, round(epochs)), batch=batch, rate=rate, seed=seed,  # type: ignore[arg-type]
        )  # fmt: skip
        train_reports(wanted, paths, training_of_reports, output or folder / "nrppa.safetensors", bar)
        return
    schedule = Schedule(
        epochs,
        batch,
        rate,
        seed=seed,
        budget_s=None if budget is None else 60 * budget,
        half="all" if place.type == "cpu" else "none",
    )
    if scheme in ("ecc-klt", "ecc-total", "ecc-rd"):
        from sim.commands.rate import train_rate
        from sim.learn.ecc.rate import RateTraining
        from sim.plan.weights import find_weights

        start = start_from or find_weights(wanted.data_name, "ecc" if scheme == "ecc-klt" else "ecc-klt", payloads[0])
        half = "edge" if place.type == "cpu" else "none"
        rates = RateTraining(start, split, jitter_m=jitter_m, schedule=changed(schedule, half=half))  # type: ignore[arg-type]  # checked
        train_rate(scheme, wanted, paths, rates, place, output or folder / f"{scheme}.safetensors", bar)
        return
    if scheme in ("mfcnet", "adcpm"):
        _train_baseline(scheme, wanted, paths, schedule, place, output or folder / f"{scheme}.safetensors", bar)
        return
    if output is not None and len(payloads) > 1 and not dry_run:
        raise UserError("--output is for one payload: with several, each file gets its own name.")
    # A variant's name is its own, so that no training resumes or overwrites another.
    variant = [phase] * (phase != "slot") + [split] * (split != "random") + [f"seed{seed}"] * (seed != 0)
    labels = ["lossless" if resolution is None else f"b{resolution}" for resolution in payloads]
    home = output.parent if dry_run and output else folder
    targets = [home / f"{'-'.join(['ecc', label, *variant])}.safetensors" for label in labels]
    targets = targets if output is None or dry_run else [output]
    for target in targets:
        require_writable(target)
    training = EccTraining(
        phase=phase,  # type: ignore[arg-type]  # checked above
        split=split,  # type: ignore[arg-type]  # checked above
        jitter_m=jitter_m,
        start_from=start_from,
        schedule=schedule,
    )
    if dry_run:  # Stage II takes nearly all of the time
        training = changed(training, stage_one_epochs=0.0)
    trainings = {target: changed(training, bits=bits) for target, bits in zip(targets, payloads, strict=True)}
    checkpoint = folder / f"{'-'.join(['ecc', *labels, *variant])}.pt" if output is None else output.with_suffix(".pt")
    told = f"Stopped; the last finished epoch is in {checkpoint.parent}, and the same command resumes."
    stages = {"local": "Stage I, autoencoders", "train": "Stage II, positions"}
    with stoppable(lambda: told):

        def advance(progress: TrainProgress) -> None:
            stage = stages.get(progress.stage, progress.stage)
            bar.update(stage, progress.step, progress.steps, note=f"loss {progress.loss:.4g}")
            if progress.validation_m is not None:
                error = f"mean 3D error on validation positions {progress.validation_m:.3f} m"
                bar.say(f"{progress.name or 'step'} {progress.step}: {error}")

        with scalar_writer(curves if curves and not dry_run else checkpoint.with_suffix("")) as scalars:
            means = train_ecc(wanted, paths, trainings, advance, checkpoint=checkpoint, scalars=scalars, device=place)
    for written, mean_m in means.items():
        print(f"mean 3D error on validation positions {mean_m:.3f} m: {written}")
    for target, resolution in zip(targets, payloads, strict=True):
        print(use(target, "lossless" if resolution is None else str(resolution)))


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


def _train_baseline(
    name: str, scenario: Scenario, paths: PathSet, schedule: Schedule, device: torch.device, output: Path,
    bar: ProgressBar,
) -> None:  # fmt: skip
    from sim.learn.ecc.baselines import train_baselines
    from sim.learn.ecc.train import JITTER_M
    from sim.learn.trainer import TrainProgress

    checkpoint = output.with_suffix(".pt")
    with stoppable(lambda: f"Stopped; the last finished epoch is in {checkpoint}."):

        def advance(progress: TrainProgress) -> None:
            bar.update(f"training {name}", progress.step, progress.steps, note=f"loss {progress.loss:.4g}")

        (error,) = train_baselines(
            scenario, paths, {output: name}, schedule, advance,  # type: ignore[dict-item]  # one of the two
            checkpoint=checkpoint, device=device, jitter_m=JITTER_M if paths.movable else 0.0,
        ).values()  # fmt: skip
    print(f"mean 3D error on validation positions {error:.3f} m: {output}")


def _train_diffloc(
    scenario: Scenario, data: Path | None, training: DiffLocTraining, device: str | None, output: Path | None,
    bar: ProgressBar,
) -> Path:  # fmt: skip
    """Train and say how well; return a file of the weights."""
    from sim.files import require_writable
    from sim.learn.device import training_device
    from sim.learn.diffloc.train import train_diffloc
    from sim.world.store import CHECKPOINT_FOLDER

    model, split, seed = training.model, training.split, training.seed
    variant = ["soft"] * training.soft + [split] * (split != "random") + [f"seed{seed}"] * (seed != 0)
    variant += ["fused"] * training.fused
    name = "-".join(["diffloc", model, *variant])
    target = output or CHECKPOINT_FOLDER / scenario.name / f"{name}.safetensors"
    require_writable(target)
    place = training_device(device)
    told = f"Stopped; the last tenth epoch is in {target.parent}, and the same command resumes."
    with stoppable(lambda: told):

        def advance(done: int, total: int, note: str) -> None:
            bar.update(f"training {model}", done, total, note=note)

        paths, report = train_diffloc(scenario, data, training, target, advance, place)
    print(report)
    print("\n".join(map(str, paths)))
    return paths[0]


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


@contextlib.contextmanager
def scalar_writer(folder: Path) -> Iterator[Any]:
    """Yield a TensorBoard writer for `folder`, or None if TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print("TensorBoard is not installed, so no curves are written: `pip install -e '.[train]'`.", file=sys.stderr)
        yield None
        return
    with SummaryWriter(str(folder)) as writer:
        yield writer
