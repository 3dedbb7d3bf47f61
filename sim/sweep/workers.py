"""Emulations in several processes of this machine. A run computes with one thread, so it gives the same in each.

A process keeps what radios have received for its next runs.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.plan.outcome import RunResult
from sim.plan.settings import EmulateSettings
from sim.world.pilot_store import STORE_BYTES, of_this_process


def emulated(settings: Sequence[EmulateSettings], workers: int) -> Generator[tuple[int, RunResult | UserError]]:
    """Run emulations in processes of their own; yield each one's number and result as it ends.

    Processes that still run when the caller goes away are stopped.

    Raises:
        UserError: a process died, as where memory runs out.
    """
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_leave_stopping_to_caller)
    try:
        share = STORE_BYTES // workers
        futures = {executor.submit(_emulated_here, each, share): number for number, each in enumerate(settings)}
        for future in as_completed(futures):
            try:
                yield futures[future], future.result()
            except UserError as error:
                yield futures[future], error
            except BrokenProcessPool as error:
                raise UserError("A process of the sweep died; fewer --workers take less memory.") from error
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()


def _emulated_here(settings: EmulateSettings, store_bytes: int) -> RunResult:
    return emulate(settings, store=of_this_process(store_bytes))


def _leave_stopping_to_caller() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
