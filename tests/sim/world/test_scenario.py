"""Keys of a scenario: what they make, what is refused, and which of them traced paths depend on."""

import dataclasses
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sim.errors import UserError
from sim.toml.write import toml_text
from sim.world.scenario import Array, LinkBudget, Scenario, Walk, load_scenario, scenario_from_table, scenario_table

DOCS = Path(__file__).resolve().parents[3] / "docs" / "scenarios.md"
DIGESTS = {  # of the paths that are shipped
    "paris-6": "7984388b11699bda",
    "paris-6-bias": "7984388b11699bda",
    "paris-7": "052c6d6f27210925",
    "paris-7-fast": "774faad8eb8eecf5",
}

BASE = """
scene = "etoile"
sites = [{ position = [0.0, 0.0, 20.0] }, { position = [50.0, 0.0, 20.0] }, { position = [0.0, 50.0, 20.0] }]
[users]
low = [0.0, 0.0, 1.5]
high = [50.0, 50.0, 1.5]
speed_mps = 1.0
[numerology]
carrier_hz = 3.6e9
bandwidth_hz = 20e6
subcarrier_spacing_hz = 60e3
[tracing]
positions = 10
"""


def load(folder: Path, more: str = "", base: str = BASE) -> Scenario:
    path = folder / "made.toml"
    path.write_text(base + more)
    return load_scenario(str(path))


def variant(folder: Path, more: str, of: str = "paris-7") -> Scenario:
    path = folder / "variant.toml"
    path.write_text(f'extends = "{of}"\n{more}')
    return load_scenario(str(path))


def test_defaults_are_those_of_before(tmp_path: Path) -> None:
    made = load(tmp_path)
    assert made.user_array == Array(rows=1, columns=1) and made.walk is None
    assert made.csi_shape == (10, 4, 24) and not made.polarized
    assert made.link_budget == LinkBudget() and made.link_budget.noise == "thermal"


def test_a_table_keeps_the_default_of_what_it_leaves_out(tmp_path: Path) -> None:
    made = load(tmp_path, "[user_array]\npolarizations = 2\n")
    assert made.user_array == Array(rows=1, columns=1, polarizations=2)
    assert made.polarized and made.csi_shape == (10, 4 * 2, 24)
    assert load(tmp_path, "[array]\ncolumns = 5\n").array == Array(rows=2, columns=5)


def test_paris_7_is_diffloc_s_setting() -> None:
    paris, fast = load_scenario("paris-7"), load_scenario("paris-7-fast")
    assert paris.csi_shape == (1, 32 * 4, 150) and paris.polarized
    assert len(paris.sites) == 7 and all(24 <= site.position[2] <= 28 for site in paris.sites)
    assert paris.walk == Walk((1.5, 2.5), 10, 1.0) and fast.walk == Walk((15.0, 25.0), 10, 1.0)
    assert paris.numerology.bandwidth_hz == 100e6 and paris.numerology.subcarriers == paris.numerology.tones == 3276
    assert dataclasses.replace(fast, walk=paris.walk, name="paris-7") == paris
    assert (paris.data_name, fast.data_name) == ("paris-7", "paris-7-fast")


@pytest.mark.parametrize("name", DIGESTS)
def test_shipped_paths_stay_valid(name: str) -> None:
    assert load_scenario(name).tracing_digest() == DIGESTS[name]


@pytest.mark.parametrize(
    "more",
    [
        "[array]\npolarizations = 1",
        "[user_array]\ncolumns = 1",
        "[numerology]\ntaps = 20",
        '[link_budget]\nnoise = "snr"\nsnr_db = 10.0',
        "[tracing]\npositions = 20000",
    ],
)
def test_synthesis_does_not_enter_the_digest_of_paths(tmp_path: Path, more: str) -> None:
    made = variant(tmp_path, more)
    assert made.tracing_digest() == load_scenario("paris-7").tracing_digest() and made.data_name == "paris-7"


@pytest.mark.parametrize("more", ["[walk]\nsnapshots = 5", "[walk]\ninterval_s = 2.0", '[users]\narea = "box"'])
def test_walks_and_areas_enter_the_digest_of_paths(tmp_path: Path, more: str) -> None:
    made = variant(tmp_path, more)
    assert made.tracing_digest() != load_scenario("paris-7").tracing_digest() and made.data_name == "variant"


@pytest.mark.parametrize("name", ["paris-6", "paris-7", "paris-7-fast"])
def test_a_record_gives_the_scenario_back(name: str) -> None:
    scenario = load_scenario(name)
    table = scenario_table(scenario)
    assert scenario_from_table(table, "record") == scenario
    assert scenario_from_table(json.loads(json.dumps(table)), "record") == scenario
    assert scenario_from_table(tomllib.loads(toml_text(table)), "record") == scenario


BAD = {
    "[array]\npolarizations = 3": "array and user_array: polarizations must be 1 or 2",
    "[user_array]\ncolumns = 0": "array and user_array: columns must be >= 1",
    "[user_array]\nrows = 0": "array and user_array: rows must be >= 1",
    "[user_array]\nspacing_wavelengths = 0.0": "array and user_array: spacing_wavelengths must be positive",
    "[user_array]\ncolumn = 2": "Unknown key 'column' .*did you mean 'columns'",
    "[array]\npolarization = 2": "Unknown key 'polarization' .*did you mean 'polarizations'",
    '[link_budget]\nnoise = "white"': "link_budget.noise must be 'thermal', 'none' or 'snr'",
    '[link_budget]\nsnr_db = "20"': "snr_db must be float",
    "[walk]\nsnapshots = 10": "The key 'speed_mps' is missing",
    "[walk]\nspeed_mps = 2.0": "speed_mps must be a list",
    "[walk]\nspeed_mps = [1.0]": "speed_mps must have 2 entries",
    "[walk]\nspeed_mps = [2.0, 1.0]": "walk.speed_mps must be two speeds, the lower one first",
    "[walk]\nspeed_mps = [1.0, 2.0]\nsnapshots = 0": "walk.snapshots must lie between 1 and 1000",
    "[walk]\nspeed_mps = [1.0, 2.0]\nsnapshots = 1001": "walk.snapshots must lie between 1 and 1000",
    "[walk]\nspeed_mps = [1.0, 2.0]\ninterval_s = 0.0": "walk.interval_s must be positive",
    "[walk]\nspeed_mps = [1.0, 2.0]\nsteps = 3": "Unknown key 'steps'",
}


@pytest.mark.parametrize("more", BAD)
def test_bad_keys_are_one_sentence(tmp_path: Path, more: str) -> None:
    with pytest.raises(UserError, match=BAD[more]) as caught:
        load(tmp_path, more)
    require_one_sentence(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("60e3\n", "60e3\ntaps = 10\n", "taps and ifft must both be given, or neither"),
        ("60e3\n", "60e3\nifft = 512\n", "taps and ifft must both be given, or neither"),
        ("60e3\n", "60e3\nifft = 512\ntaps = 10\n", "numerology.taps: neighbouring tones are needed, tone_stride = 1"),
        ("60e3\n", "60e3\nifft = 512\ntaps = -1\n", "taps and ifft must both be given, or neither"),
        ("60e3\n", "60e3\nifft = 16\ntaps = 10\ntone_stride = 1\n", "numerology.ifft must not be below tones or taps"),
        ("60e3\n", "60e3\nifft = 32\ntaps = 33\ntone_stride = 1\n", "numerology.ifft must not be below tones or taps"),
        ("speed_mps = 1.0", 'speed_mps = 1.0\narea = "disc"', "users.area must be 'box' or 'hull'"),
        ("sites", "walk = 3\nsites", "walk must be a table"),
        ("sites", "user_array = [1, 2]\nsites", "user_array must be a table"),
    ],
)
def test_bad_values_are_one_sentence(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        load(tmp_path, base=BASE.replace(old, new, 1))
    require_one_sentence(caught.value)


NAMES = [
    "x/../../../ESCAPED",
    "..",
    ".hidden",
    "-rf",
    "a b",
    "bell\a",
    "two\nlines",
    "nul\0",
    "\x1b[2Jcleared",
    "é",
    "",
]
"""What names no file, leads elsewhere, or does something to a terminal."""


@pytest.mark.parametrize("name", [*NAMES, "x" * 65, "x" * 300])
def test_what_names_files_stays_within_its_folder(tmp_path: Path, name: str) -> None:
    for key in ("name", "data"):
        if name or key == "name":
            with pytest.raises(UserError, match=f"{key}: .* must consist of letters") as caught:
                load(tmp_path, f"{key} = {json.dumps(name)}\n" + BASE, base="")
            assert str(caught.value).isprintable() and len(str(caught.value)) < 400
    with pytest.raises(UserError, match=r"There is no scenario|Cannot read the scenario file"):
        load_scenario(name)
    assert load(tmp_path, 'name = "A-b_c.9"\n' + BASE, base="").name == "A-b_c.9"


def test_a_site_is_named_on_one_short_line(tmp_path: Path) -> None:
    for name in ("two\nlines", "\x1b[2J", "x" * 65):
        with pytest.raises(UserError, match="sites: a name is one short line"):
            load(tmp_path, base=BASE.replace("20.0] }]", f"20.0], name = {json.dumps(name)} }}]"))


def test_a_hull_needs_three_sites_that_span_one(tmp_path: Path) -> None:
    hull = BASE.replace("speed_mps = 1.0", 'speed_mps = 1.0\narea = "hull"')
    with pytest.raises(UserError, match="a hull needs three sites that do not stand in one line"):
        load(tmp_path, base=hull.replace("[0.0, 50.0, 20.0]", "[75.0, 0.0, 20.0]"))
    assert load(tmp_path, base=hull).users.area == "hull"


def require_one_sentence(error: UserError) -> None:
    text = str(error)
    assert text.endswith((".", "?")) and "\n" not in text


# docs/scenarios.md, beside what tests/docs/test_scenarios_page.py looks at


@pytest.mark.parametrize(
    ("title", "wanted"),
    [
        ("`[walk]`", {"speed_mps": "–", "snapshots": 10, "interval_s": 1.0}),
        ("`[user_array]`", dataclasses.asdict(Array(rows=1, columns=1))),
    ],
)
def test_the_page_states_the_keys_of_walks_and_user_arrays(title: str, wanted: dict[str, Any]) -> None:
    text = DOCS.read_text().split("\n### " + title)[1].split("\n### ")[0]
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| (\S+) \|", text, re.MULTILINE)
    assert dict(rows) == {name: str(value) for name, value in wanted.items()}


def test_the_pages_variant_with_noise_shares_the_paths(tmp_path: Path) -> None:
    found = re.search(r'^```\n(extends = "paris-7"\n.*?)^```$', DOCS.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    (tmp_path / "noisy.toml").write_text(found[1])
    made = load_scenario(str(tmp_path / "noisy.toml"))
    assert (made.data_name, made.link_budget.noise, made.link_budget.snr_db) == ("paris-7", "snr", 20.0)
