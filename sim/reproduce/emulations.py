"""Rows that are emulations with real payloads, identified by a digest of everything that their results depend on."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.plan.outcome import RunResult
from sim.plan.settings import EmulateSettings
from sim.plan.weights import load_weights
from sim.sweep.sweep import Inputs
from sim.world.pilot_store import PilotStore


class Emulations:
    """A bench that trains nothing: settings of emulations, by the name of their row."""

    def __init__(self, settings: Mapping[str, EmulateSettings]) -> None:
        self.settings = settings
        self._inputs = Inputs()
        self._bits_of = functools.cache(lambda path: load_weights(path).config["bits"])
        self._runs: dict[str | None, RunResult] = {}
        self._store = PilotStore()

    def require_data(self, names: Iterable[str]) -> None:
        """Require nothing: a row whose weights or test positions are missing has no identity."""

    def is_trained(self, name: str) -> bool:
        """Return True: nothing is trained here."""
        return True

    def train(self, name: str) -> None:
        """Do nothing."""

    def identity(self, name: str, *, fitted: bool) -> str | None:
        """Return a digest of settings, weights and test positions; None if any is missing or ECC's bits differ."""
        settings = self.settings[name]
        try:
            other = settings.scheme == "ecc" and self._bits_of(self._inputs.weights(settings)) != settings.bits
            return None if other else self._inputs.key(settings)
        except UserError:
            return None

    def run(self, name: str) -> RunResult:
        """Emulate; rows with the same identity are run once."""
        key = self.identity(name, fitted=True)
        if key not in self._runs:
            self._runs[key] = emulate(self.settings[name], store=self._store)
        return self._runs[key]
