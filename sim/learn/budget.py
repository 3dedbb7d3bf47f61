"""Length of a training: a number of steps, or a budget of wall-clock time."""

from __future__ import annotations

import time
from typing import Any


class Length:
    """Number of steps of a training; with a budget, those that it allows at the pace so far.

    A schedule that takes step / `steps(step)` for its progress is then at elapsed / budget, so that a cosine ends when
    the time does, however fast the machine is. Time between a checkpoint and its resumption does not count.
    """

    def __init__(self, steps: int, budget_s: float | None = None) -> None:
        """Take the number of steps, which a budget [s] replaces."""
        self._steps, self._budget_s = steps, budget_s
        self._spent_s, self._since = 0.0, time.monotonic()

    def start(self) -> None:
        """Begin to count time."""
        self._since = time.monotonic()

    def seconds(self) -> float:
        """Return the time spent so far [s], that before a resumption included."""
        return self._spent_s + time.monotonic() - self._since

    def steps(self, step: int) -> int:
        """Return the number of steps in all, as expected after `step` steps; `step` itself at the end of the budget."""
        if self._budget_s is None:
            return self._steps
        spent = self.seconds()
        if spent >= self._budget_s:
            return step
        return max(step + 1, round(step * self._budget_s / max(spent, 1e-9)))

    def state_dict(self) -> dict[str, Any]:
        """Return the time spent, for checkpoints."""
        return {"seconds": self.seconds()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`'s result."""
        self._spent_s = state["seconds"]
        self.start()
