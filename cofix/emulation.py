"""Emulations and sweeps, as the command line runs them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from cofix.options import Options, listed_words, words_of
from cofix.run import Run, Sweep
from fronthaul.errors import FronthaulError
from sim.cores import respect_quota
from sim.errors import UserError, reason
from sim.plan import options as run_options

if TYPE_CHECKING:
    from sim.terminal import ProgressBar


def emulate(*, progress: bool = False, **options: Unpack[Options]) -> Run:
    """Run base stations, fronthaul and cloud, like ``python cli.py emulate``.

    Args:
        progress: show a progress bar on standard error.
        **options: those of the command line, see `Options`; defaults are the same.

    Returns:
        The run, whose folder is in `output` (by default ``runs``).

    Raises:
        UserError: an option, a file or the run itself is at fault; one sentence, which names options as the command
            line does.
    """
    words = words_of(options)
    with _one_error(), _bar(progress) as bar:
        run_options.require_effect(words, words.get("driver", run_options.default_of("driver")))
        settings = run_options.settings_of(words)
        run_options.require_own_links(settings)
        from sim.emulate.emulator import emulate as run

        result = run(settings, lambda at: bar.update(at.stage, at.done, at.total) if bar else None)
        return Run(result.folder)


def sweep(
    *,
    output: str | os.PathLike[str] = "sweep",
    workers: int = 1,
    ray_address: str | None = None,
    progress: bool = False,
    **options: Any,
) -> Sweep:
    """Emulate every combination of values in process, like ``python cli.py sweep``; rows that are done are kept.

    Args:
        output: folder of the sweep.
        workers: processes that run rows side by side; a script that asks for several keeps its own work under
            ``if __name__ == "__main__":``, as Python's multiprocessing wants it.
        ray_address: of a Ray cluster on whose nodes they run; None is for this machine.
        progress: show a progress bar on standard error.
        **options: as for `emulate`, or a list of values where ``sweep --help`` says "List"; `weights` may be a mapping
            of schemes to files.

    Raises:
        UserError: as for `emulate`, or `output` holds another sweep.
    """
    words = listed_words(options)
    with _one_error(), _bar(progress) as bar:
        from sim.sweep.cases import OPTIONS, cases_of
        from sim.sweep.sweep import run_sweep

        if others := sorted(words.keys() - set(OPTIONS)):
            raise UserError(f"A sweep does not take {others[0]!r}: it runs in process, without controls.")
        cases = cases_of(words, Path(output))
        told = ", ".join(f"{name}={value!r}" for name, value in {"output": str(output), **options}.items())

        def advance(name: str, done: int, total: int, begins: bool) -> None:
            if bar:
                bar.update("sweep", done, total, note=name, restart=begins)

        run_sweep(cases, Path(output), f"cofix.sweep({told})", advance, workers, ray_address)
        return Sweep(Path(output))


def report(runs: Run | Sequence[Run], path: str | os.PathLike[str]) -> Path:
    """Write one HTML file on a run, or on several beside each other, like ``python cli.py report``; return its path.

    Raises:
        UserError: there is no run, one is given twice, or `path` cannot be written.
    """
    from sim.report.page import write_report

    folders = [run.folder for run in ([runs] if isinstance(runs, Run) else runs)]
    if not folders:
        raise UserError("A report needs at least one run.")
    with _one_error():
        write_report(folders, Path(path))
    return Path(path)


@contextlib.contextmanager
def _bar(shown: bool) -> Iterator[ProgressBar | None]:
    """Yield a progress bar, or None if none is wanted."""
    respect_quota()
    if not shown:
        yield None
        return
    from sim.terminal import ProgressBar

    with ProgressBar() as bar:
        yield bar


@contextlib.contextmanager
def _one_error() -> Iterator[None]:
    """Raise what the command line reports in one sentence as one error."""
    try:
        yield
    except FronthaulError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"Cannot use {error.filename}: {reason(error)}.") from error
