"""What installed packages provide under a group of entry points, such as the two halves of a scheme."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any


def installed(group: str) -> Mapping[str, EntryPoint]:
    """Return the entry points of `group` by name.

    Packages are looked for once for each search path of the process, as reading all their metadata takes 20 ms.
    """
    return _found(group, tuple(sys.path))


def load(group: str, name: str, kind: str, half: str) -> Any:
    """Return what the entry point `name` of `group` names; errors call it a `kind`, the `half` of a scheme.

    Raises:
        LookupError: no installed package provides it (the message lists the installed ones), or it cannot be imported.
    """
    found = installed(group)
    if name not in found:
        raise LookupError(f"There is no {kind} {name!r}; installed are {', '.join(sorted(found)) or 'none'}.")
    try:
        return found[name].load()
    except (ImportError, AttributeError) as error:
        raise LookupError(f"The {half} half of scheme {name!r}, {found[name].value}: {error}.") from error


@cache
def _found(group: str, _: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    return MappingProxyType({point.name: point for point in entry_points(group=group)})
