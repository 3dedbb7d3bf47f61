"""Options of schemes: what a scheme's edge builder says it takes, held against what the user gave.

A builder says in an attribute ``options = {"steps": int, "fusion": str}`` which options it takes and of which type. A
scheme's own check of their values comes later, when it is built.
"""

from __future__ import annotations

from typing import Any

from edge.scheme import load_edge_scheme
from sim.errors import UserError
from sim.plan.settings import EmulateSettings

FORWARDING = ("ecc",)
"""Schemes of this package that forward the channel itself where there are no bits."""
DEFAULT_SCENARIO = "paris-6"
DEFAULT_INTERVAL_MS = 30.0


def scheme_options(settings: EmulateSettings) -> dict[str, str | int]:
    """Return the options of a run in the types that its scheme wants.

    Raises:
        UserError: an unknown scheme, an option that it does not take, a value that is no whole number, or a channel to
            be forwarded by a scheme that forwards none.
    """
    name = settings.scheme
    if settings.forward != "complex64" and not forwards(name):
        raise UserError(f"Scheme {name!r} does not forward the channel itself: leave out --forward {settings.forward}.")
    taken: dict[str, type] = dict(getattr(known_edge_scheme(name), "options", {}))
    chosen: dict[str, str | int] = {}
    for key, value in settings.options:
        if key not in taken:
            takes = f"it takes {', '.join(sorted(taken))}" if taken else "it takes none"
            raise UserError(f"Scheme {name!r} has no option {key!r}; {takes}.")
        if taken[key] is not int:
            chosen[key] = str(value)
        elif str(value).isascii() and str(value).isdecimal():
            chosen[key] = int(value)
        else:
            raise UserError(f"The option {key!r} of scheme {name!r} must be a whole number, it is {value!r}.")
    return chosen


def forwards(scheme: str) -> bool:
    """Return whether a scheme encodes the channel itself as `EdgeSetup.forward` says: its builder's `forwards`.

    Raises:
        UserError: an unknown scheme.
    """
    return scheme in FORWARDING or bool(getattr(known_edge_scheme(scheme), "forwards", False))


def default_scenario(scheme: str) -> str:
    """Return the scenario that a scheme's edge builder names as its own in `scenario`, else paris-6.

    Raises:
        UserError: an unknown scheme.
    """
    return str(getattr(known_edge_scheme(scheme), "scenario", DEFAULT_SCENARIO))


def default_interval_ms(scheme: str) -> float:
    """Return the time between snapshots [ms] that a scheme's edge builder names as its own in `interval_ms`, else 30.

    Raises:
        UserError: an unknown scheme.
    """
    return float(getattr(known_edge_scheme(scheme), "interval_ms", DEFAULT_INTERVAL_MS))


def known_edge_scheme(name: str) -> Any:
    """Return the builder of a scheme's edge half.

    Raises:
        UserError: there is none.
    """
    try:
        return load_edge_scheme(name)
    except LookupError as error:
        raise UserError(str(error.args[0])) from error
