"""Sionna RT at the seam: importing it, and loading a scene, or one sentence on what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sim.errors import UserError

CANDIDATE_SLOTS = 10_000_000
"""Counters a source for candidate paths; see `sim.world.tracer`."""


def import_sionna() -> Any:
    """Import Sionna RT, or say what is missing."""
    try:
        import sionna.rt as rt
        from sionna.rt.path_solvers import sb_candidate_generator
    except ImportError as error:
        if "sionna" in str(error):
            raise UserError(
                "Ray tracing needs Sionna RT, which is not installed: `pip install -e '.[trace]'`."
            ) from error
        raise UserError(_llvm_sentence(error)) from error
    except Exception as error:  # Dr.Jit raises a bare RuntimeError when it finds no LLVM
        raise UserError(_llvm_sentence(error)) from error
    sb_candidate_generator.SBCandidateGenerator.MIN_SPEC_COUNT_SIZE = CANDIDATE_SLOTS
    return rt


def _llvm_sentence(error: Exception) -> str:
    detail = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        "Ray tracing on the CPU needs the LLVM shared library, which was not found: install it (Debian: `apt-get "
        f"install libllvm19`) or point DRJIT_LIBLLVM_PATH at it ({detail})."
    )


def load_scene(rt: Any, name: str) -> Any:
    """Load a scene shipped with Sionna RT by name, or a Mitsuba XML file by path."""
    shipped = getattr(rt.scene, name, None) if name.isidentifier() else None
    if shipped is None and not Path(name).is_file():
        known = sorted(n for n in dir(rt.scene) if not n.startswith("_") and isinstance(getattr(rt.scene, n), str))
        raise UserError(f"There is no scene {name!r}: give a Mitsuba XML file or one of {', '.join(known)}.")
    try:
        return rt.load_scene(shipped or name)
    except Exception as error:  # Dr.Jit and Mitsuba report a missing backend or a broken file as RuntimeError
        if "llvm" in str(error).lower():
            raise UserError(_llvm_sentence(error)) from error
        raise UserError(f"The scene {name!r} cannot be loaded: {str(error).strip().splitlines()[0]}.") from error
