"""Errors that a user can act on."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: one clear sentence that says what is wrong, where, and what to do.

    The command line prints the sentence and exits with status 2; no traceback is shown.
    """


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the known name closest to `name`, or the list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else f" (known: {', '.join(names)})"


def reason(error: OSError) -> str:
    """Return why the system refused something, in its own words: some libraries put their own around them."""
    return os.strerror(error.errno) if error.errno else str(error)
