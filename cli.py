"""Command line of the emulator. Commands only: what they do lives in `sim`, and is imported when it is needed."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="cofix",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Emulate cooperative positioning over a limited fronthaul.",
)

USER_ERROR, INTERRUPTED = 2, 130

WHAT, TIMING, PLACES, OUTPUT = "What is emulated", "Timing", "Where it runs", "Output"

ScenarioOption = Annotated[
    str, typer.Option(help="Name of a shipped scenario, or path of a TOML file.", rich_help_panel=WHAT)
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)]


@app.command()
def emulate(
    scenario: ScenarioOption = "paris-6",
    scheme: Annotated[
        str, typer.Option(help="Scheme: ecc, rss, or one of your own.", rich_help_panel=WHAT)
    ] = "ecc",
    bs: Annotated[
        int, typer.Option(help="Base stations: the scenario's first so many sites.", rich_help_panel=WHAT)
    ] = 6,
    bits: Annotated[
        str,
        typer.Option(
            metavar="1…8|lossless", help="Quantiser resolution in bit per coefficient.", rich_help_panel=WHAT
        ),
    ] = "4",
    snapshots: Annotated[
        int, typer.Option(help="Positioning occasions; one fix each.", rich_help_panel=WHAT)
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of all random draws.", rich_help_panel=WHAT)] = 1,
    shuffle_csi: Annotated[
        bool,
        typer.Option(
            "--shuffle-csi", help="Control: give each snapshot another position's CSI.", rich_help_panel=WHAT
        ),
    ] = False,
    controls: Annotated[
        bool,
        typer.Option(
            "--controls/--no-controls",
            help="Evaluate prior, nearest neighbours and error bound on the same snapshots; draw pictures.",
            rich_help_panel=OUTPUT,
        ),
    ] = True,
    weights: Annotated[
        Path | None,
        typer.Option(help="Trained weights (safetensors); default: the shipped ones.", rich_help_panel=WHAT),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(help="Path data of the test positions; default: the scenario's own.", rich_help_panel=WHAT),
    ] = None,
    interval: Annotated[
        float,
        typer.Option(help="Time between snapshots in ms; 0: as fast as it goes.", rich_help_panel=TIMING),
    ] = 30.0,
    deadline: Annotated[
        float,
        typer.Option(help="The cloud waits so many ms from a snapshot's time zero.", rich_help_panel=TIMING),
    ] = 1000.0,
    minimum_bs: Annotated[
        int, typer.Option(help="Reports that a fix needs at least.", rich_help_panel=TIMING)
    ] = 1,
    warmup: Annotated[
        int, typer.Option(help="First snapshots that latency leaves out.", rich_help_panel=TIMING)
    ] = 20,
    batch: Annotated[
        int,
        typer.Option(
            help="Snapshots processed at once; above 1 a fix may change by 1 mm.", rich_help_panel=TIMING
        ),
    ] = 1,
    driver: Annotated[
        str,
        typer.Option(
            metavar="ray|process",
            help="ray: actors, ZeroMQ, wall clock; process: this process, memory links, simulated clock.",
            rich_help_panel=PLACES,
        ),
    ] = "ray",
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="auto, or HOST:PORT of a running Ray cluster; default: start Ray here.", rich_help_panel=PLACES
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Address at which the cloud listens; default: its node's own.", rich_help_panel=PLACES),
    ] = None,
    port: Annotated[
        int, typer.Option(help="TCP port of the cloud; 0: a free one.", rich_help_panel=PLACES)
    ] = 0,
    bs_per_actor: Annotated[
        int, typer.Option(help="Base stations that share one actor process.", rich_help_panel=PLACES)
    ] = 1,
    cpus_per_bs: Annotated[
        float, typer.Option(help="CPU cores that Ray reserves for each base station.", rich_help_panel=PLACES)
    ] = 0.25,
    gpus_per_bs: Annotated[
        float, typer.Option(help="GPUs that Ray reserves for each base station.", rich_help_panel=PLACES)
    ] = 0.0,
    cloud_cpus: Annotated[
        float, typer.Option(help="CPU cores that Ray reserves for the cloud.", rich_help_panel=PLACES)
    ] = 0.5,
    output: Annotated[
        Path, typer.Option(help="Folder in which the run's folder is made.", rich_help_panel=OUTPUT)
    ] = Path("runs"),
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print summary.json and nothing else.", rich_help_panel=OUTPUT),
    ] = False,
) -> None:
    """Run base stations, fronthaul and cloud; report position error, bits and latency."""
    from sim.run.settings import EmulateSettings

    settings = EmulateSettings(
        scenario=scenario,
        scheme=scheme,
        bs=bs,
        bits=parse_bits(bits),
        snapshots=snapshots,
        seed=seed,
        driver=driver,  # type: ignore[arg-type]  # checked by EmulateSettings
        interval_ms=interval,
        deadline_ms=deadline,
        minimum_bs=minimum_bs,
        batch=batch,
        bs_per_actor=bs_per_actor,
        cpus_per_bs=cpus_per_bs,
        gpus_per_bs=gpus_per_bs,
        cloud_cpus=cloud_cpus,
        ray_address=ray_address,
        host=host,
        port=port,
        warmup=warmup,
        weights=weights,
        test=test,
        output=output,
        shuffle_csi=shuffle_csi,
        controls=controls,
    )
    from sim.run.emulator import Progress as RunProgress
    from sim.run.emulator import emulate as run
    from sim.terminal import ProgressBar, show_summary

    stages = {"start": "starting", "run": "positioning", "write": "writing"}
    before = parts_of_runs(output)
    with stoppable(lambda: stopped_run(parts_of_runs(output) - before)), ProgressBar() as bar:

        def advance(progress: RunProgress) -> None:
            bar.update(stages[progress.stage], progress.done, progress.total)

        result = run(settings, advance)
    if as_json:
        print(json.dumps(result.summary, indent=2))
        return
    show_summary(console(), result.summary, result.folder)


@app.command()
def inspect(
    run: RunArgument,
    link: Annotated[
        int | None, typer.Option(help="Only this base station's link; default: all.", show_default=False)
    ] = None,
    frame: Annotated[
        int | None,
        typer.Option(help="One frame of --link by sequence number; default: totals.", show_default=False),
    ] = None,
    recover: Annotated[
        bool, typer.Option("--recover", help="Close the ledgers of a run that was cut, from its journals.")
    ] = False,
) -> None:
    """Show what crossed each link; one frame down to header fields, bytes and indices."""
    from sim.errors import UserError
    from sim.run import inspection
    from sim.terminal import number, show_frame, show_links

    if frame is not None and link is None:
        raise UserError("--frame counts on one link: name it with --link.")
    out = console()
    if frame is not None and link is not None:
        show_frame(out, inspection.frame_view(run, link, frame))
        return
    if recover:
        found = inspection.recover(run)
        links, books = found.links, found.conservation
        out.print(f"recovered {number(books.frames_journaled)} frames of {number(books.reports_journaled)} reports")
    else:
        links = inspection.link_totals(run)
    if link is not None:
        known = [totals.bs for totals in links]
        links = [totals for totals in links if totals.bs == link]
        if not links:
            raise UserError(f"There is no link {link} in {run}: links are {known[0]} to {known[-1]}.")
    show_links(out, links)
    if not recover:
        checked = inspection.check_books(run)
        frames, reports = number(checked.frames_journaled), number(checked.reports_journaled)
        if checked.ok:
            out.print(f"books balance: {frames} frames of {reports} reports, all accounted for")
            return
        for problem in checked.problems:
            out.print(f"books do not balance: {problem}", markup=False, soft_wrap=True)
        raise typer.Exit(1)


@app.command()
def replay(run: RunArgument) -> None:
    """Compute a run's fixes again, from logged payloads, side values and used sets alone."""
    from sim.run.replay import TOLERANCE_M
    from sim.run.replay import replay as replay_run

    result = replay_run(run)
    print(
        f"{result.identical} of {result.compared} fixes are identical to the last bit; "
        f"the largest difference is {result.max_difference_m:.3g} m."
    )
    if result.compared < result.total:
        print(f"{result.total - result.compared} fixes were left out: not all of their reports are in the ledgers.")
    if not result.ok:
        print(f"The replay does not confirm the run: all fixes must come back to within {1e3 * TOLERANCE_M:g} mm.")
        raise typer.Exit(1)


@app.command()
def trace(
    scenario: Annotated[
        str, typer.Argument(help="Name of a shipped scenario, or path of a TOML file.", show_default=False)
    ],
    positions: Annotated[
        int | None, typer.Option(help="Number of user positions; default: the scenario's.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the data set; default: data/SCENARIO.", show_default=False)
    ] = None,
) -> None:
    """Ray-trace a scenario into a path data set; stopped at any time, it resumes."""
    from dataclasses import replace as changed

    from sim.errors import UserError
    from sim.learn.splits import write_test_set
    from sim.terminal import ProgressBar
    from sim.world.scenario import load_scenario
    from sim.world.tracer import TraceProgress, trace_ground_plan, trace_scenario

    wanted = load_scenario(scenario)
    if positions is not None:
        if positions < 1:
            raise UserError(f"--positions must be at least 1, it is {positions}.")
        wanted = changed(wanted, tracing=changed(wanted.tracing, positions=positions))
    folder = output or Path("data") / wanted.data_name
    shards = folder / "shards"
    told = f"Stopped; finished shards are in {shards}, and the same command goes on from there."
    with stoppable(lambda: told):
        with ProgressBar() as bar:

            def advance(progress: TraceProgress) -> None:
                bar.update(f"tracing {wanted.name}", progress.done, progress.total, restart=progress.resumed)

            paths = trace_scenario(wanted, shards, advance)
        path = folder / "paths.npz"
        paths.save(path)
        write_test_set(wanted, paths, folder)
        trace_ground_plan(wanted).save(folder / "ground-plan.npz")
        with contextlib.suppress(UserError):  # an area of fewer than three blocks has no block split
            write_test_set(wanted, paths, folder, "block")
    print(f"{len(paths)} positions, {len(paths.delay)} paths to {paths.sites} sites: {path}")
    print(f"test positions of the random split, for `emulate`: {folder / 'test.npz'}")


@app.command()
def train(
    scheme: Annotated[
        str, typer.Argument(help="ecc, or rss (a fit: of the options, only data and split matter).", show_default=False)
    ],
    scenario: ScenarioOption = "paris-6",
    data: Annotated[
        Path | None,
        typer.Option(help="Path data set; default: data/SCENARIO/paths.npz.", show_default=False, rich_help_panel=WHAT),
    ] = None,
    bits: Annotated[
        str,
        typer.Option(metavar="1…8|lossless", help="Quantiser resolution in bit per coefficient.", rich_help_panel=WHAT),
    ] = "4",
    phase: Annotated[
        str,
        typer.Option(metavar="none|slot|tone", help="Phase stabilisation of the channel.", rich_help_panel=WHAT),
    ] = "slot",
    split: Annotated[
        str, typer.Option(metavar="random|block", help="How test positions are held out.", rich_help_panel=WHAT)
    ] = "random",
    start_from: Annotated[
        Path | None,
        typer.Option(
            help="Weights of another payload to start from; default: none.", show_default=False, rich_help_panel=WHAT
        ),
    ] = None,
    epochs: Annotated[
        float, typer.Option(help="Passes over the training positions.", rich_help_panel=TIMING)
    ] = 6.0,
    batch: Annotated[int, typer.Option(help="Snapshots in a step.", rich_help_panel=TIMING)] = 128,
    rate: Annotated[float, typer.Option(help="Peak learning rate, per step.", rich_help_panel=TIMING)] = 2e-3,
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
) -> None:  # fmt: skip
    """Train a scheme's weights on a path data set, on the GPU if there is one; stopped at any time, it resumes."""
    from sim.errors import UserError, nearest_hint

    if scheme not in ("ecc", "rss"):
        raise UserError(f"There is no training for scheme {scheme!r}{nearest_hint(scheme, ['ecc', 'rss'])}.")
    resolution = parse_bits(bits)
    from sim.world.scenario import load_scenario

    wanted = load_scenario(scenario)
    # A variant's name is its own, so that no training resumes or overwrites another.
    variant = [phase] * (phase != "slot") + [split] * (split != "random") + [f"seed{seed}"] * (seed != 0)
    payload = "lossless" if resolution is None else f"b{resolution}"
    name = scheme if scheme == "rss" else "-".join(["ecc", payload, *variant])
    target = output or Path("checkpoints") / wanted.name / f"{name}.safetensors"
    require_choice("phase", phase, ("none", "slot", "tone"))
    require_choice("split", split, ("random", "block"))
    if not (epochs > 0 and batch >= 1 and rate > 0):
        raise UserError("--epochs and --rate must be above 0, --batch at least 1.")
    from sim.learn.train_ecc import EccTraining, train_ecc
    from sim.learn.trainer import Schedule, TrainProgress
    from sim.terminal import ProgressBar
    from sim.world.paths import load_paths

    paths = load_paths(data or Path("data") / wanted.data_name / "paths.npz")
    if paths.digest != wanted.tracing_digest():
        raise UserError(f"The path data were traced for another scenario than {wanted.name!r}: trace it again.")
    if scheme == "rss":
        from sim.learn.train_rss import train_rss

        deviation = train_rss(wanted, paths, split, target)  # type: ignore[arg-type]  # checked above
        print(f"path-loss model fitted, residual {deviation:.2f} dB (standard deviation): {target}")
        return
    training = EccTraining(
        bits=resolution,
        phase=phase,  # type: ignore[arg-type]  # checked above
        split=split,  # type: ignore[arg-type]  # checked above
        start_from=start_from,
        schedule=Schedule(epochs=epochs, batch=batch, rate=rate, seed=seed),
    )
    told = f"Stopped; the last finished epoch is in {target.parent}, and the same command goes on from there."
    stages = {"local": "Stage I, autoencoders", "train": "Stage II, positions"}
    with stoppable(lambda: told), ProgressBar() as bar:

        def advance(progress: TrainProgress) -> None:
            stage = stages.get(progress.stage, progress.stage)
            bar.update(stage, progress.step, progress.steps, note=f"loss {progress.loss:.4g}")
            if progress.validation_m is not None:
                bar.say(f"step {progress.step}: mean 3D error on validation positions {progress.validation_m:.3f} m")

        with scalar_writer(curves or target.with_suffix("")) as scalars:
            error = train_ecc(wanted, paths, training, target, advance, checkpoints=target.parent, scalars=scalars)
    print(f"mean 3D error on validation positions {error:.3f} m: {target}")


@app.command()
def reproduce(
    table: Annotated[str, typer.Argument(help="ecc-table2.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Folder of the table and its figures.")] = Path("docs/tables"),
) -> None:
    """Measure a published table, the paper's figures beside; stopped at any time, it resumes."""
    from sim.run.tables import reproduce as measure
    from sim.terminal import ProgressBar

    told = f"Stopped; finished rows are in {output}, and the same command goes on from there."
    with stoppable(lambda: told), ProgressBar() as bar:
        path = measure(table, output, lambda label, done, total: bar.update(label, done, total))
    print(path.read_text())
    print(path)


@app.command()
def doctor() -> None:
    """Say what is installed, what is missing, and what to do about it."""
    from rich.table import Table

    from sim.doctor import examine

    table = Table(box=None, pad_edge=False, show_header=False)
    for overflow in (False, False, True, True):
        table.add_column(no_wrap=not overflow, overflow="fold")
    colours = {"ok": "green", "missing": "yellow", "broken": "red"}
    fatal = 0
    for finding in examine():
        colour = "red" if finding.required and finding.state != "ok" else colours[finding.state]
        table.add_row(f"[{colour}]{finding.state}[/{colour}]", finding.name, finding.detail, finding.advice)
        fatal += finding.required and finding.state != "ok"
    out = console()
    out.print(table)
    if fatal:
        out.print(f"[red]`emulate` cannot run: {fatal} required thing(s) above are not as they should be.[/red]")
        raise typer.Exit(1)
    out.print("[green]`emulate` can run.[/green]")


def parse_bits(text: str) -> int | None:
    """Return B, or None for lossless.

    Raises:
        UserError: neither a number of 1 … 8 nor ``lossless``.
    """
    if text == "lossless":
        return None
    if text not in {"1", "2", "3", "4", "5", "6", "7", "8"}:
        from sim.errors import UserError

        raise UserError(f"--bits must be a whole number of 1 to 8 bit, or 'lossless'; it is {text!r}.")
    return int(text)


def console() -> Console:
    """Return standard output, wide enough for the tables where it is no terminal."""
    from rich.console import Console

    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=110)


@contextlib.contextmanager
def scalar_writer(folder: Path) -> Iterator[Any]:
    """Open TensorBoard curves in `folder`, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print("TensorBoard is not installed, so no curves are written: `pip install -e '.[train]'`.", file=sys.stderr)
        yield None
        return
    with SummaryWriter(str(folder)) as writer:
        yield writer


def require_choice(option: str, value: str, known: tuple[str, ...]) -> None:
    """Check that `value` is one of the `known` ones.

    Raises:
        UserError: it is not.
    """
    from sim.errors import UserError, nearest_hint

    if value not in known:
        raise UserError(f"There is no --{option} {value!r}{nearest_hint(value, known)}.")


@contextlib.contextmanager
def stoppable(sentence: Callable[[], str]) -> Iterator[None]:
    """Turn Ctrl-C into a sentence, which says what is on disk, and exit status 130."""
    try:
        yield
    except KeyboardInterrupt:
        print(sentence(), file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def parts_of_runs(output: Path) -> set[Path]:
    """Return folders of runs that are going on or were cut."""
    return set(output.glob("*.part"))


def stopped_run(parts: set[Path]) -> str:
    """Say what a run that was stopped has left in `parts`."""
    if not parts:
        return "Stopped before anything was sent; nothing is on disk."
    return f"Stopped; every frame sent until then is journaled in {', '.join(sorted(map(str, parts)))}."


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 (something does not hold), 2 (bad input) or 130 (Ctrl-C)."""
    from fronthaul.errors import FronthaulError
    from sim.errors import UserError

    try:
        return int(app(arguments, prog_name="cofix", standalone_mode=False) or 0)
    except (UserError, FronthaulError) as error:
        print(one_sentence(str(error)), file=sys.stderr)
    except typer.TyperException as error:  # unknown command or option, a value of the wrong type
        print(one_sentence(error.format_message()), file=sys.stderr)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return INTERRUPTED
    return USER_ERROR


def one_sentence(text: str) -> str:
    """Return `text` on one line."""
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
