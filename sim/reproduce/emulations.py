"""Rows that are emulations of their own, with real payloads, told apart by all that their figures depend on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edge.scheme import weights_scheme
from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.plan.outcome import RunResult
from sim.plan.settings import EmulateSettings
from sim.plan.weights import find_weights, load_weights
from sim.sweep.sweep import Inputs
from sim.world.scenario import load_scenario


class Emulations:
    """Settings by the name of their row; a bench that trains nothing."""

    def __init__(self, settings: Mapping[str, EmulateSettings]) -> None:
        self.settings = settings
        self._inputs = Inputs()
        self._runs: dict[str | None, RunResult] = {}

    def require_data(self, names: Iterable[str]) -> None:
        """Ask for nothing: a row whose weights or test positions are missing has no identity."""

    def is_trained(self, name: str) -> bool:
        """Whether there is nothing left to train here."""
        return True

    def train(self, name: str) -> None:
        """Do nothing."""

    def identity(self, name: str, *, fitted: bool) -> str | None:
        """Digest of settings, weights and test positions; None where they are missing, or weights are of other bits."""
        settings = self.settings[name]
        try:
            data = load_scenario(settings.scenario).data_name
            path = settings.weights or find_weights(data, weights_scheme(settings.scheme), settings.bits)
            other = settings.scheme == "ecc" and load_weights(path).config["bits"] != settings.bits
            return None if other else self._inputs.key(settings)
        except UserError:
            return None

    def run(self, name: str) -> RunResult:
        """Emulate; rows that are the same run are run once."""
        key = self.identity(name, fitted=True)
        if key not in self._runs:
            self._runs[key] = emulate(self.settings[name])
        return self._runs[key]
