"""What `train` does for each scheme: which weights it begins with, where those that it makes go, and what it prints."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.commands.common import emulate_command, stoppable
from sim.errors import UserError

if TYPE_CHECKING:
    import torch

    from edge.preprocessing import Phase
    from sim.learn.splits import SplitName
    from sim.learn.trainer import Half, Schedule, TrainProgress
    from sim.terminal import ProgressBar
    from sim.world.paths import PathSet
    from sim.world.scenario import Scenario


@dataclass(frozen=True)
class Training:
    """What was asked for; attributes without a comment are options of `train`.

    Attributes:
        scheme: one of `TRAININGS`.
        named: the scenario's name or file, as the user gave it.
        scenario: the scenario itself.
        payloads: bits per coefficient, None for lossless.
    """

    scheme: str
    named: str
    scenario: Scenario
    data: Path | None
    payloads: Sequence[int | None]
    phase: Phase
    split: SplitName
    model: str
    soft: bool
    fused: bool
    start_from: Path | None
    epochs: float
    batch: int
    rate: float
    budget_s: float | None
    device: str | None
    seed: int
    output: Path | None
    curves: Path | None
    dry_run: bool

    def paths(self) -> PathSet:
        """Return the path data."""
        from sim.world.store import load_traced

        return load_traced(self.scenario, self.data)

    def place(self) -> torch.device:
        """Return the device to train on."""
        from sim.learn.device import training_device

        return training_device(self.device)

    def schedule(self, half: Half) -> Schedule:
        """Return the schedule; `half` says what is computed in half precision."""
        from sim.learn.trainer import Schedule

        return Schedule(self.epochs, self.batch, self.rate, seed=self.seed, budget_s=self.budget_s, half=half)

    @property
    def folder(self) -> Path:
        """Where weights go that no output is named for."""
        from sim.world.store import CHECKPOINT_FOLDER

        return CHECKPOINT_FOLDER / self.scenario.name

    @property
    def target(self) -> Path:
        """The weights file to write, of a scheme with one."""
        return self.output or self.folder / f"{self.scheme}.safetensors"

    def start(self, scheme: str, bits: int | None) -> Path:
        """Return the weights to start from, by default those found of `scheme`."""
        from sim.plan.weights import find_weights

        return self.start_from or find_weights(self.scenario.data_name, scheme, bits)

    def show_use(self, weights: Path, bits: str | None = None, *, scheme: str | None = None) -> None:
        """Print the command that emulates with weights."""
        print(emulate_command(self.named, self.scenario.station_count, scheme or self.scheme, weights, bits))


def _music(asked: Training, bar: ProgressBar) -> None:
    from sim.learn.music import write_music

    write_music(asked.scenario, asked.target)
    print(f"arrays of {asked.scenario.name}: {asked.target}")


def _rss(asked: Training, bar: ProgressBar) -> None:
    from sim.learn.rss import train_rss

    watched = partial(bar.update, "observing")
    deviation = train_rss(asked.scenario, asked.paths(), asked.split, asked.target, on_progress=watched)
    print(f"path-loss model fitted, residual {deviation:.2f} dB (standard deviation): {asked.target}")
    asked.show_use(asked.target)


def _toa(asked: Training, bar: ProgressBar) -> None:
    from sim.learn.lateration import train_toa

    watched = partial(bar.update, "observing")
    errors = train_toa(asked.scenario, asked.paths(), asked.split, asked.target, watched)
    parts = (f"{kind} {freedom:.2f}, {scale:.3g}" for kind, (freedom, scale) in errors.items())
    print(f"Student's t fitted to the errors (freedom, scale): {'; '.join(parts)}: {asked.target}")
    asked.show_use(asked.target)


def _nrppa(asked: Training, bar: ProgressBar) -> None:
    from sim.files import require_writable
    from sim.learn.nrppa import NrppaTraining, train_nrppa

    paths = asked.paths()
    training = NrppaTraining(
        asked.start("toa", None), asked.split,
        epochs=max(1, round(asked.epochs)), batch=asked.batch, rate=asked.rate, seed=asked.seed,
    )  # fmt: skip
    target, checkpoint = asked.target, asked.target.with_suffix(".pt")
    require_writable(target)
    told = f"Stopped; reports and the last finished epoch are in {checkpoint.parent}, and the same command resumes."
    with stoppable(lambda: told):

        def advance(stage: str, done: int, total: int, note: str) -> None:
            bar.update(stage, done, total, note=note)

        errors = train_nrppa(asked.scenario, paths, training, target, advance, checkpoint)
    for name, error in errors.items():
        print(f"mean 3D error on validation positions from reports of nrppa-{name} {error:.3f} m")
    print(target)
    asked.show_use(target, scheme="nrppa-path-learned")


def _rate(asked: Training, bar: ProgressBar) -> None:
    """Fit or train ECC at any number of bits."""
    from sim.files import require_writable
    from sim.learn.ecc.rate import RateTraining, fit_klt, fit_total, train_rd

    place, paths = asked.place(), asked.paths()
    start = asked.start("ecc" if asked.scheme == "ecc-klt" else "ecc-klt", asked.payloads[0])
    schedule = asked.schedule("edge" if place.type == "cpu" else "none")
    training = RateTraining(start, asked.split, jitter_m=_jitter_m(paths), schedule=schedule)
    target = asked.target
    require_writable(target)
    if asked.scheme == "ecc-klt":
        fit_klt(asked.scenario, paths, training, target, partial(bar.update, "observing"))
        print(f"transforms of {start}: {target}")
    elif asked.scheme == "ecc-total":
        fit_total(asked.scenario, paths, training, target, partial(bar.update, "observing"))
        print(f"allocation for {start}: {target}")
    else:
        checkpoint = target.with_suffix(".pt")
        with stoppable(lambda: _resumes(checkpoint)):

            def advance(progress: TrainProgress) -> None:
                bar.update("training ecc-rd", progress.step, progress.steps, note=f"loss {progress.loss:.4g}")
                if progress.validation_m is not None:
                    bar.say(f"step {progress.step}: mean 3D error at 64 bit, validation, {progress.validation_m:.3f} m")

            errors = train_rd(asked.scenario, paths, training, target, advance, checkpoint=checkpoint, device=place)
        for bits, error in errors.items():
            print(f"mean 3D error on validation positions at {bits} bit {error:.3f} m")
        print(target)
    asked.show_use(target)


def _baseline(asked: Training, bar: ProgressBar) -> None:
    from sim.learn.ecc.baselines import train_baselines

    place, paths = asked.place(), asked.paths()
    schedule = asked.schedule("all" if place.type == "cpu" else "none")
    target, checkpoint = asked.target, asked.target.with_suffix(".pt")
    with stoppable(lambda: _resumes(checkpoint)):

        def advance(progress: TrainProgress) -> None:
            bar.update(f"training {asked.scheme}", progress.step, progress.steps, note=f"loss {progress.loss:.4g}")

        (error,) = train_baselines(
            asked.scenario, paths, {target: asked.scheme}, schedule, advance,  # type: ignore[dict-item]  # one of two
            checkpoint=checkpoint, device=place, jitter_m=_jitter_m(paths),
        ).values()  # fmt: skip
    print(f"mean 3D error on validation positions {error:.3f} m: {target}")


def _ecc(asked: Training, bar: ProgressBar) -> None:
    from sim.files import require_writable
    from sim.learn.ecc.train import EccTraining, train_ecc

    place, paths = asked.place(), asked.paths()
    output, payloads, dry_run = asked.output, asked.payloads, asked.dry_run
    if output is not None and len(payloads) > 1 and not dry_run:
        raise UserError("--output is for one payload: with several, each file gets its own name.")
    # A variant's name is its own, so that no training resumes or overwrites another.
    variant = [asked.phase] * (asked.phase != "slot") + _variant(asked)
    labels = ["lossless" if bits is None else f"b{bits}" for bits in payloads]
    home = output.parent if dry_run and output else asked.folder
    targets = [home / f"{'-'.join(['ecc', label, *variant])}.safetensors" for label in labels]
    targets = targets if output is None or dry_run else [output]
    for target in targets:
        require_writable(target)
    training = EccTraining(
        phase=asked.phase,
        split=asked.split,
        jitter_m=_jitter_m(paths),
        start_from=asked.start_from,
        schedule=asked.schedule("all" if place.type == "cpu" else "none"),
    )
    if dry_run:  # Stage II takes nearly all of the time
        training = replace(training, stage_one_epochs=0.0)
    trainings = {target: replace(training, bits=bits) for target, bits in zip(targets, payloads, strict=True)}
    named = asked.folder / f"{'-'.join(['ecc', *labels, *variant])}.pt"
    checkpoint = named if output is None else output.with_suffix(".pt")
    told = f"Stopped; the last finished epoch is in {checkpoint.parent}, and the same command resumes."
    stages = {"local": "Stage I, autoencoders", "train": "Stage II, positions"}
    with stoppable(lambda: told):

        def advance(progress: TrainProgress) -> None:
            stage = stages.get(progress.stage, progress.stage)
            bar.update(stage, progress.step, progress.steps, note=f"loss {progress.loss:.4g}")
            if progress.validation_m is not None:
                error = f"mean 3D error on validation positions {progress.validation_m:.3f} m"
                bar.say(f"{progress.name or 'step'} {progress.step}: {error}")

        curves = asked.curves if asked.curves and not dry_run else checkpoint.with_suffix("")
        with scalar_writer(curves) as scalars:
            means = train_ecc(
                asked.scenario, paths, trainings, advance, checkpoint=checkpoint, scalars=scalars, device=place
            )
    for written, mean_m in means.items():
        print(f"mean 3D error on validation positions {mean_m:.3f} m: {written}")
    for target, bits in zip(targets, payloads, strict=True):
        asked.show_use(target, "lossless" if bits is None else str(bits))


def _diffloc(asked: Training, bar: ProgressBar) -> None:
    from sim.files import require_writable
    from sim.learn.diffloc.train import DiffLocTraining, train_diffloc

    training = DiffLocTraining(
        asked.model, asked.split, asked.soft, asked.fused, max(1, round(asked.epochs)), asked.batch, asked.rate,
        average=0.0 if asked.budget_s is None else 0.1, budget_s=asked.budget_s, seed=asked.seed,
    )  # fmt: skip
    name = "-".join(["diffloc", asked.model, *["soft"] * asked.soft, *_variant(asked), *["fused"] * asked.fused])
    target = asked.output or asked.folder / f"{name}.safetensors"
    require_writable(target)
    place = asked.place()
    told = f"Stopped; the last tenth epoch is in {target.parent}, and the same command resumes."
    with stoppable(lambda: told):

        def advance(done: int, total: int, note: str) -> None:
            bar.update(f"training {asked.model}", done, total, note=note)

        files, report = train_diffloc(asked.scenario, asked.data, training, target, advance, place)
    print(report)
    print("\n".join(map(str, files)))
    asked.show_use(files[0])


TRAININGS: Mapping[str, Callable[[Training, ProgressBar], None]] = {
    "ecc": _ecc, "ecc-klt": _rate, "ecc-total": _rate, "ecc-rd": _rate, "rss": _rss, "toa": _toa, "nrppa": _nrppa,
    "diffloc": _diffloc, "mfcnet": _baseline, "adcpm": _baseline, "music": _music,
}  # fmt: skip
"""What trains a scheme; VIn-Loc has named jobs instead of options (`sim.commands.vinloc`)."""


def _variant(asked: Training) -> list[str]:
    return [asked.split] * (asked.split != "random") + [f"seed{asked.seed}"] * (asked.seed != 0)


def _jitter_m(paths: PathSet) -> float:
    from sim.learn.ecc.train import JITTER_M

    return JITTER_M if paths.movable else 0.0


def _resumes(checkpoint: Path) -> str:
    return f"Stopped; the last finished epoch is in {checkpoint}, and the same command resumes."


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
