"""How a setting is declared: once, beside its field, for the command lines, `--help` and the checks to follow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sim.errors import UserError, nearest_hint

Driver = Literal["ray", "process"]
"""``ray``: actors for BSs and cloud, ZeroMQ between them, wall clock. ``process``: everything in this one,
memory links, simulated clock."""
DRIVERS: tuple[Driver, ...] = get_args(Driver)
RAY: tuple[Driver, ...] = ("ray",)

WHAT, LINKS, TIMING = "What runs", "Links", "Timing"
PLACEMENT, SECURITY, OUTPUT = "Placement", "Security", "Output"
"""Panels of help."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of an emulation.

    Attributes:
        help: what it is, in a phrase.
        panel: of `--help`.
        unit: of its values; a field in ms is named so.
        zero: what 0 means.
        least: smallest value; None where it has no bounds.
        most: largest value.
        above: whether `least` itself is too small.
        why: what to say to one who is out of bounds.
        drivers: with which it has an effect.
        names: of the option, where they do not follow from the field.
        metavar: what `--help` shows for a value.
        default: in words, what it is where nothing is said: found from scheme, scenario or machine.
        listed: several values as `sweep` takes them; empty where it takes one.
        text: whether the command line takes a text that stands for more than the field's type can hold.
        field: of `EmulateSettings` (filled in there).
        absent: the field's default (filled in there).
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
        """Its option on the command line, without dashes before it."""
        first = self.names[0].split("/")[0].lstrip("-") if self.names else self.field
        return first.removesuffix("_ms").replace("_", "-")

    @property
    def word(self) -> str:
        """Its option as the name of a parameter."""
        return self.option.replace("-", "_")

    def check(self, value: Any) -> None:
        """Check the bounds of a value; None is in bounds where it is a value at all.

        Raises:
            UserError: it is out of bounds, no number, or a fraction where the bounds are whole numbers.
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
        """Check that the setting has an effect with a driver, for one who asks for it.

        Raises:
            UserError: it has none.
        """
        if driver not in self.drivers:
            raise UserError(
                f"--{self.option} has no meaning with --driver {driver}, which starts no processes and opens no "
                "sockets: leave it out."
            )


def require_driver(driver: str) -> None:
    """Check that there is such a driver.

    Raises:
        UserError: there is none.
    """
    if driver not in DRIVERS:
        raise UserError(f"There is no driver {driver!r}{nearest_hint(driver, DRIVERS)}.")
