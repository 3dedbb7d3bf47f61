"""A clock for trainings under a budget of time."""


class Ticking:
    """Goes on by a hundredth of a second whenever it is read; stands in for the module `time`."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        """Return the time [s]."""
        self._now += 0.01
        return self._now
