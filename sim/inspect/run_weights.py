"""The weights that a run used, found again."""

from __future__ import annotations

from edge.scheme import weights_scheme
from sim.errors import UserError
from sim.plan.weights import Weights, find_weights, load_weights
from sim.records.folder import RunConfiguration


def run_weights(configuration: RunConfiguration) -> Weights:
    """Return the weights of a run: the shipped ones if it used them, else those of the recorded path.

    Raises:
        UserError: the file is missing, or has changed since.
    """
    return _shipped_weights(configuration) or _recorded_weights(configuration)


def _shipped_weights(configuration: RunConfiguration) -> Weights | None:
    """Return the shipped weights if the run used them, whatever their path was on the machine of the run."""
    settings = configuration.settings
    try:
        path = find_weights(configuration.scenario.data_name, weights_scheme(settings.scheme), settings.bits)
        weights = load_weights(path)
    except UserError:
        return None
    return weights if weights.digest == configuration.weights_digest else None


def _recorded_weights(configuration: RunConfiguration) -> Weights:
    weights = load_weights(configuration.weights_path)
    if weights.digest != configuration.weights_digest:
        raise UserError(
            f"The weights {configuration.weights_path} have changed since the run "
            f"(digest {weights.digest}, then {configuration.weights_digest}): the run cannot be replayed."
        )
    return weights
