"""Weights, scenarios and link files with one value changed, or a few bytes: a plan of a run, or one sentence."""

import json
import random
import struct
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_scores
import tiny_vinloc
import tiny_world
from fuzzing import cases, one_value_changed, refused

from fronthaul.errors import LocalError
from fronthaul.link.link_file import link_plan, link_table, read_links
from sim.errors import UserError
from sim.plan.plan import load_plan
from sim.plan.settings import EmulateSettings
from sim.toml.write import toml_text
from sim.world import store
from sim.world.made_for import made_for
from sim.world.scenario import SCENARIO_FOLDER, load_scenario, scenario_table


@pytest.fixture(scope="module")
def schemes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, EmulateSettings]]:
    """Assets and settings of each scheme's tiny world."""
    found = {}
    for scheme, tiny in (("ecc", tiny_world), ("rss", tiny_world), ("diffloc", tiny_scores), ("vinloc", tiny_vinloc)):
        folder = tmp_path_factory.mktemp(scheme)
        found[scheme] = folder / "assets", replace(tiny.write(folder), scheme=scheme, bits=4)
    return found


def changed(data: bytes, draw: random.Random) -> tuple[bytes, str]:
    """Change a safetensors file: its header, the configuration within, or a few bytes."""
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    how = draw.choice(["configuration", "configuration", "header", "bytes", "cut"])
    if how == "bytes":
        mutable = bytearray(data)
        for _ in range(draw.choice([1, 4, 40])):
            mutable[draw.choice([draw.randrange(8 + size), draw.randrange(len(data))])] = draw.randrange(256)
        return bytes(mutable), how
    if how == "cut":
        return data[: draw.randrange(len(data))], how
    if how == "header":
        told = one_value_changed(header, draw)
    else:
        config = json.loads(header["__metadata__"]["config"])
        told = one_value_changed(config, draw)
        header["__metadata__"]["config"] = json.dumps(config)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :], f"{how}: {told}"


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors", "ignore::RuntimeWarning")  # of odd numbers
@pytest.mark.parametrize("scheme", ["ecc", "rss", "diffloc", "vinloc"])
def test_any_weights_are_a_plan_or_one_sentence(
    schemes: dict[str, tuple[Path, EmulateSettings]], scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets, settings = schemes[scheme]
    monkeypatch.setattr(store, "ASSET_FOLDER", assets)
    assert settings.weights is not None
    whole, path, refusals = settings.weights.read_bytes(), tmp_path / "changed.safetensors", 0
    for case in cases(40):
        data, told = changed(whole, random.Random(case))
        path.write_bytes(data)
        attempt = replace(settings, weights=path)
        refusals += refused(lambda settings=attempt: load_plan(settings), (UserError,), f"case {case}, {told}")
    assert refusals > len(cases(40)) // 5


def table_of(name: str) -> dict[str, Any]:
    return scenario_table(load_scenario(name))


def test_any_scenario_is_one_or_one_sentence(tmp_path: Path) -> None:
    names = sorted(path.stem for path in SCENARIO_FOLDER.glob("*.toml"))
    tables, path, refusals = {name: table_of(name) for name in names}, tmp_path / "own.toml", 0
    strange = (-1, 0, 3, 1e300, float("nan"), True, "", "x" * 70, [], [1], [[1.0, 2.0]], {}, {"a": 1}, 10**30)
    for case in cases(150):
        draw = random.Random(case)
        table = {key: value for key, value in deepcopy(tables[draw.choice(names)]).items() if value is not None}
        told = one_value_changed(table, draw, strange)
        path.write_text(toml_text(table))

        def attempt() -> object:
            world = load_scenario(str(path))
            return world.tracing_digest(), world.csi_shape, made_for(world), toml_text(scenario_table(world))

        refusals += refused(attempt, (UserError,), f"case {case}, {told}")
    assert refusals > len(cases(150)) // 5


LINKS = {
    "default": {"rate": "10mbit", "delay": "2ms", "queue": "64kB", "jitter": "1ms"},
    "up": {"loss": "1%", "burst": "1% 25%"},
    "down": {"duplicate": 0.1, "corrupt": "2%", "reorder": "1%"},
    "bs": {"3": {"up": {"outage": "2s-3s"}}, "5": {"rate": "1mbit"}},
}


def test_any_link_file_is_a_plan_or_one_sentence() -> None:
    refusals = 0
    for case in cases(300):
        draw, table = random.Random(case), deepcopy(LINKS)
        told = one_value_changed(table, draw, (-1, 0, 3, 1e300, "nan", True, "", "5%", "3ms", "9" * 400 + "ms", {}, []))

        def attempt(text: str = toml_text(table)) -> None:
            plan = read_links(text)
            assert link_plan(link_table(plan)) == plan

        refusals += refused(attempt, (LocalError,), f"case {case}, {told}")
    assert refusals > len(cases(300)) // 5
