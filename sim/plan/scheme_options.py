"""Options of schemes: what a scheme says it takes (`edge.scheme.SchemeSpec`), held against what the user gave.

A scheme's own check of their values comes later, when it is built.
"""

from __future__ import annotations

from edge.scheme import SchemeSpec, scheme_spec
from sim.errors import UserError
from sim.plan.settings import EmulateSettings


def scheme_options(settings: EmulateSettings) -> dict[str, str | int]:
    """Return the options of a run in the types that its scheme wants.

    Raises:
        UserError: an unknown scheme, an option or a payload that it does not take, or a value that is no whole number.
    """
    name = settings.scheme
    spec = known_spec(name)
    if not (spec.forwards or settings.payload.is_plain):
        raise UserError(f"--forward {settings.forward} is for schemes that send the channel itself, not {name!r}.")
    taken = dict(spec.options or {})
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


def default_scenario(scheme: str) -> str:
    """Return the scenario that a scheme runs in where the user names none.

    Raises:
        UserError: an unknown scheme.
    """
    return known_spec(scheme).scenario


def default_interval_ms(scheme: str) -> float:
    """Return the time between snapshots [ms] that a scheme takes where the user says nothing.

    Raises:
        UserError: an unknown scheme.
    """
    return known_spec(scheme).interval_ms


def known_spec(scheme: str) -> SchemeSpec:
    """Return what a scheme says it is.

    Raises:
        UserError: there is none.
    """
    try:
        return scheme_spec(scheme)
    except LookupError as error:
        raise UserError(str(error.args[0])) from error
