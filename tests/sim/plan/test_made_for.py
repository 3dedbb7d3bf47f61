"""Weights and fingerprints on a scenario that they were not made for: a note, or no run without --force."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny_world

from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.learn.data import SnapshotSource, measure_covariance
from sim.learn.fingerprints import FingerprintTable
from sim.plan.plan import compose, load_plan, weights_notes
from sim.plan.settings import EmulateSettings
from sim.plan.weights import Weights, find_weights, load_weights, save_weights
from sim.toml.write import toml_text
from sim.world.channel import pad_paths
from sim.world.made_for import differences, made_for
from sim.world.scenario import Scenario, load_scenario, scenario_table


def on(settings: EmulateSettings, changes: Mapping[str, Mapping[str, Any]], **further: Any) -> EmulateSettings:
    """Return settings with the tiny scenario, some keys of its tables changed, on the same paths."""
    world = tiny_world.scenario()
    tables = {name: dataclasses.replace(getattr(world, name), **keys) for name, keys in changes.items()}
    path = Path(settings.scenario).with_name("other.toml")
    path.write_text(toml_text(scenario_table(dataclasses.replace(world, **tables))))
    return dataclasses.replace(settings, scenario=str(path), **further)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"link_budget": {"tx_power_dbm": -10.0}}, "another link budget (tx_power_dbm = 23.0) than the"),
        ({"numerology": {"tone_stride": 18}}, "another numerology (tone_stride = 36) than the"),
        ({"array": {"spacing_wavelengths": 0.7}}, "another array (spacing_wavelengths = 0.5)"),
        ({"clock": {"bs_sigma_ns": 3.0}}, "other clock errors (bs_sigma_ns = 0.0)"),
    ],
)
def test_what_differs_is_named_in_the_notes(
    settings: EmulateSettings, changes: Mapping[str, Mapping[str, Any]], said: str
) -> None:
    (note,) = emulate(on(settings, changes)).summary["notes"]
    assert note.startswith("The weights were trained for ") and said in note


def test_another_shape_and_other_sites_run_only_if_forced(settings: EmulateSettings) -> None:
    shape = on(settings, {"numerology": {"slots": 2}})
    with pytest.raises(UserError, match=r"another shape of the channel \(\[4, 4, 8\]\) than .* or run .* by --force"):
        load_plan(shape)
    with pytest.raises(UserError, match="do not fit scheme"):  # the networks refuse it
        load_plan(dataclasses.replace(shape, force=True))
    assert settings.weights is not None
    weights = load_weights(settings.weights)
    world = tiny_world.scenario()
    assert differences(weights.made_for, dataclasses.replace(world, sites=world.sites[:2])) == {}
    moved = dataclasses.replace(world, sites=world.sites[::-1])
    assert differences(weights.made_for, moved) == {"sites": "other sites than the scenario's"}
    there = dataclasses.replace(world, scene="elsewhere")
    assert set(differences(weights.made_for, there)) == {"scene"}


def test_a_plan_composed_by_hand_is_checked_too(settings: EmulateSettings) -> None:
    assert settings.weights is not None
    weights, world = load_weights(settings.weights), tiny_world.scenario()
    moved = dataclasses.replace(world, sites=world.sites[::-1])
    with pytest.raises(UserError, match=r"trained for other sites than the scenario's: train weights .* by --force"):
        compose(settings, moved, tiny_world.paths(moved), weights)
    forced = dataclasses.replace(settings, force=True)
    assert "other sites" in weights_notes(compose(forced, moved, tiny_world.paths(moved), weights))[0]


def test_forced_runs_say_so(settings: EmulateSettings, tmp_path: Path) -> None:
    """rss takes channels of any shape, on least-squares estimates."""
    weights = tiny_world.rss_weights(tiny_world.scenario())
    weights.config["made_for"] = made_for(tiny_world.scenario())
    changed = on(settings, {"numerology": {"slots": 2}}, scheme="rss", weights=tmp_path / "rss.safetensors")
    save_weights(tmp_path / "rss.safetensors", weights)
    with pytest.raises(UserError, match="another shape"):
        load_plan(changed)
    notes = weights_notes(load_plan(dataclasses.replace(changed, force=True)))
    assert ["another shape" in notes[0], "another numerology (slots = 4)" in notes[1], len(notes)] == [True, True, 2]


SHIPPED = [("paris-6", "ecc"), ("paris-6", "rss"), ("paris-7", "diffloc"), ("paris-street-12", "vinloc")]


@pytest.mark.parametrize(("name", "scheme"), SHIPPED)
def test_shipped_weights_are_known_by_their_scenario(name: str, scheme: str) -> None:
    weights = load_weights(find_weights(name, scheme, 4))
    assert differences(weights.made_for, load_scenario(name)) == {}
    for other in {name for name, _ in SHIPPED} - {name}:
        assert {"sites", "shape"} & differences(weights.made_for, load_scenario(other)).keys()


def test_what_nobody_wrote_down_is_not_compared() -> None:
    world = load_scenario("paris-6")
    assert Weights({"scenario": "my own"}, {}).made_for == {}
    shape = {"scenario": "paris-6", "slots": 1, "antennas": 4, "tones": 24}  # a variant of it
    assert set(differences(Weights(shape, {}).made_for, world)) == {"shape"}
    for odd in ({"sites": 3}, {"sites": [], "clock": [], "scene": None}, {"numerology": {"tones": {}, "no": 1}}):
        assert set(differences(Weights({"made_for": odd}, {}).made_for, world)) == set(odd)


def test_fingerprints_of_another_grid_are_left_out(settings: EmulateSettings, tmp_path: Path) -> None:
    settings = dataclasses.replace(settings, controls=True)
    table = fingerprints(tiny_world.scenario())
    table.save(tmp_path / "assets" / "tiny" / "fingerprints.npz")
    plain = emulate(settings).summary
    assert "wknn" in plain["controls"] and plain["notes"] == []
    quiet = emulate(on(settings, {"link_budget": {"tx_power_dbm": -10.0}})).summary
    assert {"wknn", "linear"} <= quiet["controls"].keys()
    assert quiet["notes"][1].startswith("The fingerprints were made for another link budget (tx_power_dbm = 23.0)")
    narrow = emulate(on(settings, {"numerology": {"tone_stride": 18}})).summary
    assert not {"wknn", "linear"} & narrow["controls"].keys() and "prior" in narrow["controls"]
    assert narrow["notes"][1].endswith("(tone_stride = 18): look-ups of fingerprints are left out.")


def fingerprints(world: Scenario) -> FingerprintTable:
    paths = tiny_world.paths(world)
    padded = pad_paths(paths, world.numerology.carrier_hz)
    source = SnapshotSource(world, padded, paths.position, measure_covariance(world, padded))
    return FingerprintTable.build(source, dimensions=4)
