"""Python API of the emulator: run it, open what it has made, compare. See docs/api.md."""

from cofix.emulation import emulate, report, sweep
from cofix.options import Options
from cofix.own_scheme import TrainingChannels, check_scheme, save_weights, training_channels
from cofix.run import Run, Sweep, open
from sim.errors import UserError

__all__ = [
    "Options",
    "Run",
    "Sweep",
    "TrainingChannels",
    "UserError",
    "check_scheme",
    "emulate",
    "open",
    "report",
    "save_weights",
    "sweep",
    "training_channels",
]
