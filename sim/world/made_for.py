"""What trained weights and derived tables were made for: the parts of a scenario that they depend on.

Every such file holds them as a JSON table, ``made_for``, so that a run on another scenario can say what differs. Files
older than that name their scenario; if it is shipped, its present parts stand for what they were made for.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from sim.world.scenario import SCENARIO_FOLDER, Scenario, load_scenario

WORDS = {
    "scene": "another scene",
    "sites": "other sites",
    "shape": "another shape of the channel",
    "array": "another array",
    "user_array": "another array of the user",
    "numerology": "another numerology",
    "link_budget": "another link budget",
    "clock": "other clock errors",
    "phases": "other carrier phases",
    "users": "another service area",
}
"""Parts, as sentences name a difference."""
PLACE = frozenset({"scene", "sites", "shape"})
"""Parts without which nothing of what was learnt holds."""
GRID = PLACE | {"array", "user_array", "numerology", "phases"}
"""Parts on which a table of channels depends, apart from noise."""

_TABLES = ("array", "user_array", "numerology", "link_budget", "clock")
_LAYOUTS = ("region", "least_roof_m", "above_roof_m")


def made_for(scenario: Scenario) -> dict[str, Any]:
    """Return the parts of a scenario, by the names of `WORDS`, as JSON values in the units of their classes."""
    sites: Any = [[*site.position, site.yaw_deg, site.pitch_deg] for site in scenario.sites]
    if scenario.layouts is not None:  # a training saw many layouts
        sites = {name: value for name, value in asdict(scenario.layouts).items() if name in _LAYOUTS}
    parts = {
        "scene": {"name": scenario.scene, "factory": scenario.factory and asdict(scenario.factory)},
        "sites": sites,
        "shape": scenario.csi_shape,
        **{name: asdict(getattr(scenario, name)) for name in _TABLES},
        "phases": scenario.phases,
        "users": {"low": scenario.users.low, "high": scenario.users.high},
    }
    plain: dict[str, Any] = json.loads(json.dumps(parts))
    return plain


def made_for_shipped(name: Any) -> dict[str, Any]:
    """Return the parts of a shipped scenario; none if no scenario of that name is shipped."""
    shipped = {path.stem for path in SCENARIO_FOLDER.glob("*.toml")}
    return made_for(load_scenario(name)) if isinstance(name, str) and name in shipped else {}


def differences(there: Mapping[str, Any], scenario: Scenario, parts: Collection[str] = WORDS) -> dict[str, str]:
    """Return a phrase for each of `parts` in which a scenario differs from what a file was made for.

    Parts and keys that the file does not hold are not compared. Fewer sites than in training are no difference.

    Returns:
        By part: such as "another link budget (tx_power_dbm = 23.0) than the scenario's (tx_power_dbm = -10.0)".
    """
    found = {}
    for part, here in made_for(scenario).items():
        if part not in parts or part not in there:
            continue
        known = there[part]
        if part == "sites":
            if (known[: len(here)] if isinstance(known, list) and isinstance(here, list) else known) != here:
                found[part] = f"{WORDS[part]} than the scenario's"
        elif isinstance(known, Mapping) and isinstance(here, Mapping):
            keys = [key for key in known if key in here and known[key] != here[key]]
            if keys:
                said, meant = (", ".join(f"{key} = {table[key]}" for key in keys) for table in (known, here))
                found[part] = f"{WORDS[part]} ({said}) than the scenario's ({meant})"
        elif known != here:
            found[part] = f"{WORDS[part]} ({known}) than the scenario's ({here})"
    return found
