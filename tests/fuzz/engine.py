"""One run of libFuzzer over one target, in a process of its own: atheris ends the process it runs in.

`tests.fuzz.__main__` starts this, and reads what it prints: progress by libFuzzer on stderr, and at the end one line of
JSON on stdout.
"""

import importlib
import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType

import atheris

TARGETS = {"decoder": "tests.fuzz.decoder", "collector": "tests.fuzz.collector"}
INSTRUMENTED = ["fronthaul.message.wire", "fronthaul.message.messages", "cloud.collector"]
"""Modules whose branches guide the fuzzer."""
CLOCK_EVERY = 256
"""Inputs between two looks at the clock."""


@dataclass
class Run:
    """Counts what a target is given, and ends the process when that is enough.

    Attributes:
        target: module with `check`.
        inputs, events, seconds: whichever is reached first ends the run; 0 is without that limit.
    """

    target: ModuleType
    inputs: int
    events: int
    seconds: float
    tally: Counter[str] = field(default_factory=Counter)
    executions: int = 0
    played: int = 0
    early_kib: int = 0
    started_s: float = field(default_factory=time.monotonic)

    def one(self, data: bytes) -> None:
        """Run the target once."""
        self.played += self.target.check(data, self.tally)
        self.executions += 1
        if not self.early_kib and self._share() >= 0.1:
            self.early_kib = _peak_kib()
        if self._share() >= 1.0:
            self._end()

    def _share(self) -> float:
        """Return how much of the run is done, from 0 to 1."""
        shares = [
            self.executions / self.inputs if self.inputs else 0.0,
            self.played / self.events if self.events else 0,
        ]
        if self.seconds and self.executions % CLOCK_EVERY == 0:
            shares.append((time.monotonic() - self.started_s) / self.seconds)
        return max(shares)

    def _end(self) -> None:
        seconds = time.monotonic() - self.started_s
        figures = {
            "executions": self.executions,
            "events": self.played,
            "seconds": seconds,
            "early_kib": self.early_kib,
            "peak_kib": _peak_kib(),
            "tally": self.tally,
        }
        print(json.dumps(figures), flush=True)
        os._exit(0)  # libFuzzer knows the number of inputs as the only end


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(arguments: Sequence[str]) -> None:
    """Fuzz: name of the target, inputs, events, seconds, then libFuzzer's own arguments."""
    name, inputs, events, seconds, *options = arguments
    with atheris.instrument_imports(include=INSTRUMENTED):
        target = importlib.import_module(TARGETS[name])
    run = Run(target, int(inputs), int(events), float(seconds))
    atheris.Setup(["fuzz", f"-max_len={target.MAX_BYTES}", *options], run.one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
