"""One emulation, from settings to the run's folder: build the nodes, drive them, close the books.

    settings -> plan -> driver (in process, or Ray and ZeroMQ) -> ledgers, connections, fixes -> summary

The drivers differ only in clock, links and placement: nodes, payload bytes and fixes are the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from fronthaul.errors import LocalError
from fronthaul.log.sent import read_journal
from fronthaul.log.stream_names import SENT
from fronthaul.message.wire import is_control
from sim.emulate.controls import Controls, compute_controls
from sim.emulate.run_pictures import error_cdf, position_map
from sim.errors import UserError, reason
from sim.files import write_json
from sim.observe.log import json_log, log_stream
from sim.plan.options import run_label
from sim.plan.outcome import OnProgress, Progress, RunRecord, RunResult
from sim.plan.plan import Plan, load_plan
from sim.plan.settings import EmulateSettings
from sim.records.books import derive_books, merge_link_captures
from sim.records.columns import write_table
from sim.records.fix_table import estimated_positions, fix_table, true_positions
from sim.records.folder import RunFolder, read_configuration, write_configuration
from sim.records.manifest import Manifest, signing_key
from sim.records.position_table import position_table
from sim.records.statistics import error_statistics
from sim.records.stream_bytes import byte_problems
from sim.records.summary import summarise
from sim.records.tracks import track_statistics, tracks_of, with_tracks
from sim.report.page import write_report
from sim.world.pilot_store import PilotStore
from sim.world.store import data_folder, load_ground_plan

if TYPE_CHECKING:
    from sim.emulate.ray_driver import OnTick

MOST_REPORTS = 1 << 18
"""Most reports of a run that ends with its page: a run should not end with a wait."""

__all__ = ["EmulateSettings", "Progress", "RunResult", "emulate", "run_plan"]


def emulate(
    settings: EmulateSettings,
    on_progress: OnProgress = lambda _: None,
    on_tick: OnTick = lambda _: None,
    store: PilotStore | None = None,
) -> RunResult:
    """Run an emulation.

    Args:
        settings: what to run.
        on_progress: called with the progress of the run, a few times a second.
        on_tick: called as often with the actors of a run on Ray, for fault injection.
        store: pilots of earlier runs in this process; those of this one, if it is in process, are added.

    Returns:
        The run's folder and summary.

    Raises:
        UserError: the run could not start or failed; what it recorded until then is in a folder whose name ends
            in ``.part``.
    """
    return run_plan(load_plan(settings, store), on_progress, on_tick)


def run_plan(
    plan: Plan,
    on_progress: OnProgress = lambda _: None,
    on_tick: OnTick = lambda _: None,
    source: str | None = None,
) -> RunResult:
    """Run an emulation from a complete plan; see `emulate`. `source` is the commit of code that was sent here."""
    if plan.settings.sign is not None:
        signing_key(plan.settings.sign)  # a key that cannot be read is better known before the run
    with ExitStack() as whole:
        stream = whole.enter_context(log_stream(plan.settings.log_json))
        folder = RunFolder.create(plan.settings, plan.scenario.name)
        with _removed_if_empty(folder):
            log = whole.enter_context(json_log(stream, plan, folder.path))

            def advance(progress: Progress) -> None:
                if log is not None:
                    log.follow()
                on_progress(progress)

            write_configuration(folder, plan, source)
            on_progress(Progress("start", 0, plan.settings.snapshots, folder.path))
            if plan.settings.driver == "process":
                from sim.emulate.in_process import run_in_process

                record = run_in_process(plan, folder, advance)
            else:
                from sim.emulate.ray_driver import run_on_ray

                record = run_on_ray(plan, folder, advance, on_tick)
        if log is not None:
            log.read()
        on_progress(Progress("write", plan.settings.snapshots, plan.settings.snapshots))
        try:
            result = close_books(plan, folder, record)
        except OSError as error:
            raise UserError(
                f"{' '.join([*record.failures, ''])}The books cannot be closed: {reason(error)}. All messages "
                f"until then are in {folder.path}; with room on the disk, `inspect --recover` closes them."
            ) from error
        if log is not None:
            log.end(result.summary)
        return result


def close_books(plan: Plan, folder: RunFolder, record: RunRecord) -> RunResult:
    """Write the tables and summary of a run, check that its books balance, and mark its folder as complete.

    Raises:
        UserError: something failed during the run, or the books do not balance; the folder keeps its ``.part``.
    """
    books = derive_books(plan, folder)
    tracks = tracks_of(plan.settings, plan.scenario, books.fixes) if plan.settings.track else None
    fixes = with_tracks(fix_table(plan, record, books), tracks)
    write_table(fixes, folder.fixes)
    write_table(position_table(plan.scenario, plan.paths, plan.stations), folder.positions)
    checked = books.conservation()
    problems = [*checked.problems, *byte_problems(books.connections)]
    summary = summarise(plan, record, fixes, books, checked, problems, read_configuration(folder))
    if tracks is not None:
        summary["track"] = track_statistics(tracks, plan.truth, plan.settings)
    write_json(folder.summary, summary)
    if plan.settings.controls:  # whatever becomes of them, the run's own figures are written
        try:
            controls = evaluate_controls(plan)
            summary["controls"] = write_controls(plan, folder, fixes, controls)
            summary["notes"] += controls.notes
        except UserError as error:
            summary["notes"].append(f"The controls are left out: {error}")
        write_json(folder.summary, summary)
    if record.failures:
        raise UserError(f"{' '.join(record.failures)} What the run made until then is in {folder.path}.")
    if problems:
        raise UserError(f"The accounts of the run do not balance: {'; '.join(problems)}. See {folder.path}.")
    merge_link_captures(folder, [site.station.bs for site in plan.sites])
    folder.remove_streams()
    whole = folder.finish()
    if plan.settings.report and plan.settings.snapshots * plan.settings.bs <= MOST_REPORTS:
        write_report([whole.path], whole.report)
    sign(plan.settings, whole.path)
    return RunResult(whole.path, summary)


def sign(settings: EmulateSettings, folder: Path) -> None:
    """Write the manifest of a run's folder, signed if the settings name a key.

    Raises:
        UserError: the key cannot be read or made.
    """
    Manifest(folder).write(None if settings.sign is None else signing_key(settings.sign))


def write_controls(plan: Plan, folder: RunFolder, fixes: pa.Table, controls: Controls) -> dict[str, Any]:
    """Write the errors of the controls on the run's users, draw the pictures, and return the statistics [m]."""
    columns = {f"{name}_m": errors for name, errors in controls.items().items()}
    if columns:
        write_table(pa.table({"sample": np.arange(len(plan.truth)), **columns}), folder.controls)
    if len(fixes):
        label = run_label(plan.settings, plan.chosen.options)
        error_cdf(folder.error_cdf, fixes["error_3d_m"].to_numpy(), controls.items(), label)
        truth = true_positions(fixes)
        estimate = estimated_positions(fixes)
        ground = load_ground_plan(plan.scenario)
        position_map(folder.map, plan.scenario, len(plan.stations), truth, estimate, ground)
    statistics: dict[str, Any] = {}
    for name, errors in controls.items().items():
        finite = np.isfinite(errors)
        found = error_statistics(errors[finite], plan.settings.seed, plan.truth[finite])
        statistics[name] = found and {**found, "undetermined": int((~finite).sum())}
    return statistics


def evaluate_controls(plan: Plan) -> Controls:
    """Evaluate the controls; a run with shuffled channels or a test set of the user's own has no look-ups."""
    fingerprints = data_folder(plan.scenario) / "fingerprints.npz"
    own = not plan.settings.shuffle_csi and plan.settings.test is None
    return compute_controls(
        plan.scenario,
        plan.paths,
        plan.weights,
        sites=len(plan.stations),
        seed=plan.settings.seed,
        training=plan.training,
        fingerprints=fingerprints if own else None,
        roster=plan.settings.roster(plan.scenario),
    )


@contextmanager
def _removed_if_empty(folder: RunFolder) -> Iterator[None]:
    """Delete the folder if the driver fails before any frame was sent: there is nothing to recover."""
    try:
        yield
    except BaseException:
        if not any(map(_holds_rows, folder.streams(SENT))):
            shutil.rmtree(folder.path, ignore_errors=True)
        raise


def _holds_rows(journal: Path) -> bool:
    try:
        return not all(map(is_control, read_journal(journal)["message"].to_pylist()))
    except (FileNotFoundError, LocalError):  # never begun
        return False
