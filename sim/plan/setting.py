"""Declaration of a setting, once, beside its field; command lines, `--help` and checks follow from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sim.errors import UserError, nearest_hint

Driver = Literal["ray", "process"]
"""``ray``: actors for BSs and cloud, ZeroMQ between them, wall clock. ``process``: everything in one process,
links in memory, simulated clock."""
DRIVERS: tuple[Driver, ...] = get_args(Driver)
RAY: tuple[Driver, ...] = ("ray",)

WHAT, LINKS, TIMING = "What runs", "Links", "Timing"
PLACEMENT, SECURITY, OUTPUT = "Placement", "Security", "Output"
"""Panels of `--help`."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of an emulation.

    Attributes:
        help: what it is, in a phrase.
        panel: panel of `--help`.
        unit: unit of its values; fields in ms have names that end in ``_ms``.
        zero: meaning of 0.
        least: smallest value; None if there are no bounds.
        most: largest value; an integer if values must be whole numbers.
        above: whether values must be above `least`, which is then 0.
        why: reason for the bounds, part of the error message.
        drivers: drivers with which it has an effect.
        names: names of the option, if they do not follow from the field.
        metavar: placeholder of the value in `--help`.
        default: description of a default that is taken from scheme, scenario or machine.
        listed: example of several values as `sweep` takes them; empty if `sweep` takes one value only.
        text: whether the command line takes text, for values that the field's type cannot hold.
        field: field of `EmulateSettings` (filled in there).
        absent: default of the field (filled in there).
    """

    help: str
    panel: str
    unit: str = ""
    zero: str = ""
    least: float | None = None
    most: float = math.inf
    above: bool = False
    why: str = ""
    drivers: tuple[Driver, ...] = DRIVERS
    names: tuple[str, ...] = ()
    metavar: str | None = None
    default: str = ""
    listed: str = ""
    text: bool = False
    field: str = ""
    absent: Any = None

    @property
    def option(self) -> str:
        """Name of its command-line option, without leading dashes."""
        first = self.names[0].split("/")[0].lstrip("-") if self.names else self.field
        return first.removesuffix("_ms").replace("_", "-")

    @property
    def word(self) -> str:
        """Name of its option as a Python parameter."""
        return self.option.replace("-", "_")

    def check(self, value: Any) -> None:
        """Check that a value is within bounds; None always is.

        Raises:
            UserError: it is out of bounds, not a number, or not a whole number where it must be one.
        """
        if self.least is None or value is None:
            return
        whole = isinstance(self.most, int)
        right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if right and math.isfinite(value) and self.least <= value <= self.most and not (self.above and value == 0):
            return
        if whole:
            raise UserError(
                f"--{self.option} must lie in {self.least:.0f}..{self.most:.0f}, it is {value!r}: {self.why}."
            )
        unit = f" {self.unit}" if self.unit else ""
        low = f"above {self.least:g}{unit}" if self.above else "a number that is not negative"
        high = "" if self.most == math.inf else f" and at most {self.most:.0f}{unit}"
        raise UserError(f"--{self.option} must be {low}{high}, it is {value!r}.")

    def require_effect(self, driver: str) -> None:
        """Check that the setting has an effect with a driver.

        Raises:
            UserError: it has none.
        """
        if driver not in self.drivers:
            raise UserError(
                f"--{self.option} has no meaning with --driver {driver}, which starts no processes and opens no "
                "sockets: leave it out."
            )


def require_driver(driver: str) -> None:
    """Check that a driver exists.

    Raises:
        UserError: there is no such driver.
    """
    if driver not in DRIVERS:
        raise UserError(f"There is no driver {driver!r}{nearest_hint(driver, DRIVERS)}.")
