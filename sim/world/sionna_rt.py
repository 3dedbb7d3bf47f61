"""Access to Sionna RT: test that it works, import it, load a scene; errors name what is missing."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.errors import UserError, nearest_hint
from sim.world import llvm

CANDIDATE_SLOTS = 10_000_000
"""Number of counters per source for candidate paths; see `sim.world.tracer`."""

_ONE_RAY = Path(__file__).with_name("one_ray.py")
_TRIAL_TIMEOUT_S = 300.0  # it takes 3 s on a CPU; a GPU's driver may compile for a minute when first used


@dataclass(frozen=True)
class Trial:
    """Result of tracing one ray in a separate process.

    Attributes:
        engine: LLVM with version and path, or the GPU; empty if the process failed before printing it.
        problem: how the process failed, without a full stop; empty if the ray was traced.
        advice: what to do about it, without a full stop.
    """

    engine: str
    problem: str = ""
    advice: str = ""


@functools.cache
def trial() -> Trial:
    """Choose the LLVM library for this process and trace one ray with it in another; the result is cached.

    An LLVM that is too old for Dr.Jit's code aborts the process that traces, hence the separate process.
    """
    llvm.choose()
    command = [sys.executable, "-P", str(_ONE_RAY)]  # -P: do not search the script's folder for modules
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_TRIAL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Trial("", f"Tracing one ray took more than {_TRIAL_TIMEOUT_S:g} s", "look at the machine's load")
    engine = done.stdout.strip()
    if done.returncode == 0:
        return Trial(engine)
    said = _gist(done.stderr, done.returncode)
    if engine.startswith("LLVM"):
        return Trial(engine, f"Tracing one ray with {engine} ended in {said!r}", llvm.ADVICE)
    if engine:
        return Trial(engine, f"Tracing one ray with {engine} ended in {said!r}", "look at its driver")
    if "llvm" in said.lower():
        wanted = f"the LLVM shared library, version {llvm.MINIMUM} or newer, which was not found"
        return Trial("", f"Ray tracing on the CPU needs {wanted} ({said})", llvm.ADVICE)
    return Trial(
        "",
        f"Ray tracing needs Sionna RT, which cannot be imported ({said})",
        "install it with `pip install -c constraints.txt -e '.[trace]'`",
    )


def import_sionna() -> Any:
    """Import Sionna RT, after checking that it can trace a ray in another process.

    Raises:
        UserError: it is not installed, or cannot trace here.
    """
    tried = trial()
    if tried.problem:
        raise UserError(f"{tried.problem}: {tried.advice}.")
    import sionna.rt as rt
    from sionna.rt.path_solvers import sb_candidate_generator

    sb_candidate_generator.SBCandidateGenerator.MIN_SPEC_COUNT_SIZE = CANDIDATE_SLOTS
    return rt


def load_scene(rt: Any, name: str, *, merge: bool = True) -> Any:
    """Load a scene shipped with Sionna RT by name, or a Mitsuba XML file by path.

    Args:
        rt: the module.
        name: of the scene, or path.
        merge: join mesh parts of the same material, which makes tracing faster; only apart can they be moved.

    Raises:
        UserError: there is no such scene, or it is broken.
    """
    shipped = getattr(rt.scene, name, None) if name.isidentifier() else None
    if shipped is None and not Path(name).is_file():
        known = [n for n in dir(rt.scene) if not n.startswith("_") and isinstance(getattr(rt.scene, n), str)]
        raise UserError(f"There is no scene {name!r}{nearest_hint(name, known)}; a Mitsuba XML file will do, too.")
    try:
        return rt.load_scene(shipped or name, merge_shapes=merge)
    except Exception as error:  # Mitsuba reports a broken file as RuntimeError
        raise UserError(f"The scene {name!r} cannot be loaded: {str(error).strip().splitlines()[0]}.") from error


def _gist(stderr: str, status: int) -> str:
    """Return the error message of a failed process as one short line."""
    lines = [line for line in stderr.splitlines() if line.strip()] or [f"status {status}"]
    fatal = [line for line in lines if line.startswith("LLVM ERROR")]
    if status < 0 and not fatal:
        return f"signal {-status}"
    # Dr.Jit's message comes before Python's traceback.
    said = fatal[0] if fatal else lines[-1] if lines[0].startswith("Traceback") else lines[0]
    said = re.sub(r" 0x[0-9a-f]+:?", "", said.partition(". ")[0]).rstrip(".!")
    return textwrap.shorten(said, 160, placeholder=" …")
