"""A scheme as a user's own module, which ends before its time."""

import os
from collections.abc import Callable

from torch import Tensor

from edge.scheme import EdgeScheme, EdgeSetup, Encoded, load_edge_scheme


class Dying:
    """The real scheme, until its process or its code ends."""

    def __init__(self, inner: EdgeScheme, end: Callable[[], None]) -> None:
        self.name, self.format = inner.name, inner.format
        self._inner = inner
        self._end = end
        self._calls = 0

    def encode(self, channel: Tensor) -> Encoded:
        self._calls += 1
        if self._calls > 5:  # the first is the rehearsal
            self._end()
        return self._inner.encode(channel)


def exit_at_once() -> None:
    os._exit(1)


def fail() -> None:
    raise ArithmeticError("no such logarithm")


def build_exiting(setup: EdgeSetup) -> EdgeScheme:
    inner = load_edge_scheme("ecc")(setup)
    return Dying(inner, exit_at_once) if setup.bs == 1 else inner


def build_failing(setup: EdgeSetup) -> EdgeScheme:
    inner = load_edge_scheme("ecc")(setup)
    return Dying(inner, fail) if setup.bs == 2 else inner
