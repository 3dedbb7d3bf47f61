"""Options of schemes: check the user's options against those that a scheme declares (`edge.scheme.SchemeSpec`).

The scheme itself checks their values later, when it is built.
"""

from __future__ import annotations

from edge.scheme import SchemeSpec, scheme_spec
from sim.errors import UserError
from sim.plan.settings import EmulateSettings


def scheme_options(settings: EmulateSettings) -> dict[str, str | int]:
    """Return the options of a run in the types that its scheme declares.

    Raises:
        UserError: the scheme is unknown, does not take an option or the payload, or a value is not a whole number.
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


def known_spec(scheme: str) -> SchemeSpec:
    """Return the declaration of a scheme.

    Raises:
        UserError: the scheme is unknown.
    """
    try:
        return scheme_spec(scheme)
    except LookupError as error:
        raise UserError(str(error.args[0])) from error
