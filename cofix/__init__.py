"""Python API of the emulator: run it, open what it has made, compare. See docs/api.md."""

from cofix.emulation import emulate, report, sweep
from cofix.options import Options
from cofix.run import Run, Sweep, open
from sim.errors import UserError

__all__ = ["Options", "Run", "Sweep", "UserError", "emulate", "open", "report", "sweep"]
