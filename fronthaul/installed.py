"""What installed packages provide under a group of entry points, such as the two halves of a scheme."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType


def installed(group: str) -> Mapping[str, EntryPoint]:
    """Return the entry points of `group` by name.

    Packages are looked for once for each search path of the process, as reading all their metadata takes 20 ms.
    """
    return _found(group, tuple(sys.path))


@cache
def _found(group: str, _: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    return MappingProxyType({point.name: point for point in entry_points(group=group)})
