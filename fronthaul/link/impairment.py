"""Descriptions of link impairments, and kinds of values: how they are read, written and checked.

The impairments themselves are the fields of `link_config.LinkConfig`, each declared with an `Impairment`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, Protocol, get_args

from fronthaul.errors import LocalError

JitterShape = Literal["uniform", "normal", "exponential", "pareto"]
JITTER_SHAPES: tuple[str, ...] = get_args(JitterShape)
MAX_DELAY_S = 3600.0
"""Maximum time that a link may hold a message back [s]; it also keeps times exact in whole nanoseconds."""

_NUMBER_AND_UNIT = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)\s*([^\s0-9.+-]*)")


class Kind(Protocol):
    """A kind of value, and its conversion between link file or command line and `LinkConfig`."""

    @property
    def metavar(self) -> str:
        """Placeholder for a value in `--help`."""

    def parse(self, key: str, value: object) -> Any:
        """Return a value as `LinkConfig` holds it.

        Raises:
            LocalError: it does not parse; the message names `key`.
        """

    def write(self, value: Any) -> Any:
        """Undo `parse`: return a readable text if that is exact, else bare numbers."""

    def check(self, name: str, value: object) -> None:
        """Check a value of `LinkConfig`.

        Raises:
            LocalError: it is out of range; the message names `name`.
        """


@dataclass(frozen=True, slots=True)
class Reported:
    """How an impairment appears in a link report.

    Attributes:
        requested: its key in `LinkReport.requested`.
        of: the attribute of `LinkConfig` that holds the requested value.
        achieved: its key in `LinkReport.achieved`.
        heading: heading of its column, with the unit in brackets.
        scale: factor from the SI unit to the unit of the heading.
        counts: whether the achieved value is a number of frames.
    """

    requested: str
    of: str
    achieved: str
    heading: str
    scale: float = 1.0
    counts: bool = False


@dataclass(frozen=True, slots=True)
class Impairment:
    """One impairment of a link: the single definition that link file, command lines and reports are derived from.

    Attributes:
        key: its key in a link file; on the command line, with "-" for "_".
        kind: kind of its values.
        help: short description.
        default: its default, in words.
        values: example of several values for `sweep`; None if a comma is part of one value.
        optional: whether "none" is also a value.
        needs: keys of which at least one must be set; without them, it has no effect and is rejected as a mistake.
        kernel: the queueing discipline that implements it under `--netns`; None if none does.
        report: how it is reported; None if it is part of another impairment's report.
        field: its field of `LinkConfig` (filled in there).
        absent: the field's default value (filled in there).
    """

    key: str
    kind: Kind
    help: str
    default: str = "none"
    values: str | None = None
    optional: bool = False
    needs: tuple[str, ...] = ()
    kernel: Literal["tbf", "netem"] | None = None
    report: Reported | None = None
    field: str = ""
    absent: Any = None

    def parse(self, value: object) -> Any:
        """Return a value as `LinkConfig` holds it.

        Raises:
            LocalError: it does not parse.
        """
        return self.absent if self.optional and value == "none" else self.kind.parse(self.key, value)

    def write(self, value: Any) -> Any:
        """Undo `parse`."""
        return "none" if value is None else self.kind.write(value)

    def check(self, config: Any) -> None:
        """Check the value in a `LinkConfig`.

        Raises:
            LocalError: it is out of range.
        """
        value = getattr(config, self.field)
        if value is not None or self.absent is not None:
            self.kind.check(self.field, value)

    def is_set(self, config: Any) -> bool:
        """Return whether a `LinkConfig` sets it to something other than the default."""
        return bool(getattr(config, self.field) != self.absent)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with a unit.

    Attributes:
        metavar: placeholder in `--help`.
        units: each unit's size in SI units, largest first.
        example: a text that parses.
        holds: returns whether a number is in range.
        must: the allowed range, in words.
        written: units in which it is written; if empty, it is written as a bare number.
        caseless: whether units are case-insensitive.
        whole: whether it must be a whole number.
    """

    metavar: str
    units: Mapping[str, Decimal]
    example: str
    holds: Callable[[Any], bool]
    must: str
    written: tuple[str, ...] = ()
    caseless: bool = False
    whole: bool = False

    def parse(self, key: str, value: object) -> float:
        """Return a number in SI units, from a text with a unit or from a bare number in TOML."""
        quantity = self._number(key, value)
        if not self.whole:
            return quantity
        if quantity != int(quantity):
            raise LocalError(f"{key} must be whole bytes, not {value!r}")
        return int(quantity)

    def _number(self, key: str, value: object) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            if not abs(value) < math.inf or abs(value) > sys.float_info.max:
                raise LocalError(f"{key} must be a finite number, not {value!r:.40}")
            return float(value)
        names = ", ".join(unit for unit in reversed([*self.units]) if unit)
        match = _NUMBER_AND_UNIT.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise LocalError(f"{key} must be a number with a unit ({names}) such as {self.example!r}, not {value!r}")
        number, unit = match[1], match[2].lower() if self.caseless else match[2]
        if unit not in self.units and not (unit == "" and float(number) == 0.0):
            wrong = f"has an unknown unit{hint(unit, self.units)}" if unit else f"needs a unit ({names})"
            raise LocalError(f"{key} {value!r} {wrong}, such as {self.example!r}")
        # Decimal, so that "3ms" is the float 0.003 and not 3 times the float 0.001.
        quantity = float(Decimal(number) * self.units.get(unit, Decimal(1)))
        if not math.isfinite(quantity):
            raise LocalError(f"{key} must be a finite number, not {value!r:.40}")
        return quantity

    def write(self, value: float) -> str | float:
        """Return a text with a unit if that is exact, else the number."""
        for unit in self.written:
            scale = self.units[unit]
            text = f"{value / float(scale):.12g}{unit}"
            if value >= scale and self._number("", text) == value:
                return text
        return value

    def check(self, name: str, value: object) -> None:
        """Check that a number is in range."""
        if not (is_number(value) and self.holds(value)):
            raise LocalError(f"{name} must be {self.must}, not {value!r}")


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several words."""

    known: tuple[str, ...]

    @property
    def metavar(self) -> str:
        """The allowed words, separated by bars."""
        return "|".join(self.known)

    def parse(self, key: str, value: object) -> str:
        """Return the word."""
        if value not in self.known:
            raise LocalError(f"there is no {key} {value!r}{hint(str(value), self.known)}")
        return str(value)

    def write(self, value: str) -> str:
        """Return the word."""
        return value

    def check(self, name: str, value: object) -> None:
        """Check that the value is one of the allowed words."""
        if value not in self.known:
            raise LocalError(f"{name} must be one of {', '.join(self.known)}, not {value!r}")


@dataclass(frozen=True, slots=True)
class GilbertElliott:
    """Loss in bursts: a two-state Markov chain with one step per frame (Gilbert 1960, Elliott 1963).

    Attributes:
        to_bad: probability of a step from the good state to the bad one.
        to_good: probability of a step back; bad states last 1 / to_good frames on average.
        loss_bad: probability of a loss in the bad state.
        loss_good: probability of a loss in the good state.

    Raises:
        LocalError: a value that is not a probability, or a bad state that never ends.
    """

    to_bad: float
    to_good: float
    loss_bad: float = 1.0
    loss_good: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("to_bad", "to_good", "loss_bad", "loss_good"):
            SHARE.check(f"burst.{name}", getattr(self, name))
        if self.to_good == 0.0:
            raise LocalError("burst.to_good must be above 0, or the bad state never ends")

    @property
    def share_bad(self) -> float:
        """Stationary share of frames in the bad state."""
        return self.to_bad / (self.to_bad + self.to_good)

    @property
    def mean_loss(self) -> float:
        """Stationary probability of a loss."""
        return self.share_bad * self.loss_bad + (1.0 - self.share_bad) * self.loss_good


_BURST_KEYS = tuple(spec.name for spec in dataclasses.fields(GilbertElliott))


@dataclass(frozen=True, slots=True)
class Bursts:
    """The probabilities of a `GilbertElliott` chain."""

    metavar: str = "SHARES"

    def parse(self, key: str, value: object) -> GilbertElliott:
        """Return the chain that a text or a table of probabilities describes."""
        if isinstance(value, Mapping):
            for name in value:
                if name not in _BURST_KEYS:
                    raise LocalError(f"{key} has an unknown key {name!r}{hint(str(name), _BURST_KEYS)}")
            for name in _BURST_KEYS[:2]:
                if name not in value:
                    raise LocalError(f"{key} lacks its key {name!r}")
            return GilbertElliott(**{name: SHARE.parse(f"{key}.{name}", part) for name, part in value.items()})
        parts = value.split() if isinstance(value, str) else []
        if not 2 <= len(parts) <= len(_BURST_KEYS):
            raise LocalError(
                f"{key} must be two to four probabilities (to the bad state, back, loss in the bad state, in the good) "
                f"such as '1% 25%', not {value!r}"
            )
        return GilbertElliott(*(SHARE.parse(key, part) for part in parts))

    def write(self, value: GilbertElliott) -> dict[str, float]:
        """Return the table."""
        return dataclasses.asdict(value)

    def check(self, name: str, value: object) -> None:
        """Do nothing: a chain checks itself when it is created."""


@dataclass(frozen=True, slots=True)
class Times:
    """Pairs of start and end [s], in ascending order."""

    metavar: str = "TIMES"

    def parse(self, key: str, value: object) -> tuple[tuple[float, float], ...]:
        """Return the pairs that a text or a list describes."""
        if isinstance(value, str):
            # The minus sign of an exponent does not separate start and end.
            pairs: list[Any] = [re.split(r"(?<![eE])-", part) for part in value.split(",")]
        elif isinstance(value, list | tuple):
            pairs = list(value)
        else:
            pairs = [None]
        for pair in pairs:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise LocalError(f"{key} must be start and end such as '2s-3s, 8s-8.5s', not {value!r}")
        return tuple((TIME.parse(key, start), TIME.parse(key, end)) for start, end in pairs)

    def write(self, value: tuple[tuple[float, float], ...]) -> list[list[str | float]]:
        """Return the list."""
        return [[TIME.write(edge) for edge in pair] for pair in value]

    def check(self, name: str, value: object) -> None:
        """Check that the pairs are in ascending order and do not overlap."""
        last_end = 0.0
        for outage in value if isinstance(value, tuple) else (value,):
            if not (isinstance(outage, tuple) and len(outage) == 2 and all(is_number(edge) for edge in outage)):
                raise LocalError(f"an outage is a pair of finite numbers of seconds, not {outage!r}")
            start, end = outage
            if start < 0 or end <= start:
                raise LocalError(
                    f"an outage starts at 0 s or later and ends after its start, unlike {start} s to {end} s"
                )
            if start < last_end:
                raise LocalError(
                    f"outages must be in order, without overlap: one starts at {start} s, before {last_end} s"
                )
            last_end = end


def is_number(value: object) -> bool:
    """Return whether a value is a finite number; bool, a subclass of int in Python, is not accepted."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def hint(name: str, known: Iterable[str]) -> str:
    """Return the closest known name in brackets, or all known names if none is close."""
    names = [str(other) for other in known if other]  # not the repr of an enumeration's member
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else f" (known: {', '.join(names)})"


RATE = Quantity(
    "RATE",
    {"gbit": Decimal("1e9"), "mbit": Decimal("1e6"), "kbit": Decimal("1e3"), "bit": Decimal(1)},
    "10mbit",
    lambda bps: bps > 0,
    "a finite number above 0 bit/s",
    written=("gbit", "mbit", "kbit", "bit"),
    caseless=True,
)
TIME = Quantity(
    "TIME",
    {"s": Decimal(1), "ms": Decimal("1e-3"), "us": Decimal("1e-6"), "ns": Decimal("1e-9")},
    "2ms",
    lambda seconds: 0 <= seconds <= MAX_DELAY_S,
    f"0 to {MAX_DELAY_S:g} s",
    written=("s", "ms", "us", "ns"),
)
SIZE = Quantity(
    "SIZE",
    {
        "MiB": Decimal(1 << 20),
        "MB": Decimal("1e6"),
        "KiB": Decimal(1 << 10),
        "kB": Decimal("1e3"),
        "B": Decimal(1),
    },
    "64kB",
    lambda size: isinstance(size, int) and size >= 1,
    "a whole number of bytes above 0",
    written=("MB", "kB", "B"),
    whole=True,
)
SHARE = Quantity(
    "SHARE",
    {"%": Decimal("0.01"), "": Decimal(1)},
    "1%",
    lambda share: 0.0 <= share <= 1.0,
    "a probability from 0 to 1",
)
SHAPE, BURSTS, TIMES = Choice(JITTER_SHAPES), Bursts(), Times()
