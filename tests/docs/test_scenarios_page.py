"""docs/scenarios.md: its example is a scenario that traces, and its tables state the code's own keys and defaults."""

import dataclasses
import re
from pathlib import Path

import pytest

import cli
from sim.world import deployment, mismatch
from sim.world import scenario as world
from sim.world.paths import load_paths
from sim.world.scenario import load_scenario

DOCS = Path(__file__).resolve().parents[2] / "docs" / "scenarios.md"
SECTIONS = {
    "Top level": world.Scenario,
    "`sites`": world.Site,
    "`[users]`": world.Users,
    "`[layouts]`": deployment.Layouts,
    "`[factory]`": deployment.Factory,
    "`[numerology]`": world.Numerology,
    "`[array]`": world.Array,
    "`[tracing]`": world.Tracing,
    "`[link_budget]`": world.LinkBudget,
    "`[clock]`": world.ClockErrors,
    "`[mismatch]`": mismatch.Mismatch,
    "`[splits]`": world.Splits,
}


@pytest.fixture
def street(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = re.search(r"^```toml\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my-street.toml"
    path.write_text(found[1])
    return path


def shown(default: object) -> str:
    if default is dataclasses.MISSING or default is None:
        return "–" if default is dataclasses.MISSING else "none"
    return str(default).lower() if isinstance(default, bool) else str(default)


@pytest.mark.parametrize("title", SECTIONS)
def test_tables_state_every_key_and_its_default(title: str) -> None:
    text = DOCS.read_text().split("\n### " + title)[1].split("\n### ")[0]
    stated = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 6 and cells[1].startswith("`"):
            stated |= {key: cells[3].strip("`").strip('"') for key in re.findall(r"`(\w+)`", cells[1])}
    fields = {f.name: f for f in dataclasses.fields(SECTIONS[title])}
    if title == "Top level":  # tables of their own; the name comes from the file
        fields = {name: fields[name] for name in ("name", "scene", "sites", "phases", "data")}
        assert stated.pop("name") == "the file's name without `.toml"
        assert stated.pop("extends") == ""
        del fields["name"]
    assert stated == {name: shown(field.default) for name, field in fields.items()}


@pytest.mark.parametrize("name", ["paris-street-12", "paris-block-64"])
def test_the_page_states_the_number_of_layouts(name: str) -> None:
    layouts = load_scenario(name).layouts
    assert layouts is not None
    count = layouts.training + layouts.validation + layouts.test
    assert f"| `{name}` | {layouts.sites} on roofs, drawn anew in each of {count} layouts |" in DOCS.read_text()


def test_the_example_is_a_scenario(street: Path) -> None:
    example = load_scenario(str(street))
    assert (example.name, len(example.sites), example.csi_shape) == ("my-street", 3, (10, 4, 24))


@pytest.mark.slow
def test_the_example_traces_into_a_path_data_set(street: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trace", "my-street.toml", "--positions", "50"]) == 0
    assert "data/my-street/paths.npz" in capsys.readouterr().out
    paths = load_paths(Path("data/my-street/paths.npz"))
    example = load_scenario(str(street))
    assert (len(paths), paths.sites, paths.digest) == (50, 3, example.tracing_digest())
    assert ((paths.paths_per_link() > 0).sum(1) >= example.users.min_links).all()
    assert (paths.position >= example.users.low).all() and (paths.position <= example.users.high).all()

    assert len(load_paths(Path("data/my-street/test.npz"))) > 0

    assert cli.main(["trace", "my-street.toml", "--positions", "50"]) == 0  # the shard is there already
    assert (load_paths(Path("data/my-street/paths.npz")).delay == paths.delay).all()

    # … and the path from there to a run: train on it, emulate it.
    weights = "checkpoints/my-street/ecc-b4.safetensors"
    short = ["--epochs", "1", "--batch", "8"]
    assert cli.main(["train", "ecc", "--scenario", "my-street.toml", "--bits", "4", *short]) == 0
    command = ["emulate", "--scenario", "my-street.toml", "--bs", "3", "--driver", "process", "--snapshots", "4"]
    assert cli.main([*command, "--weights", weights]) == 0
    assert cli.main(["train", "rss", "--scenario", "my-street.toml"]) == 0
    assert cli.main([*command, "--scheme", "rss", "--weights", "checkpoints/my-street/rss.safetensors"]) == 0

    # … and the same users with the same weights in a world whose walls stand elsewhere, which needs another trace.
    moved = Path("moved.toml")
    moved.write_text('extends = "my-street.toml"\n[mismatch]\nwall_m = 0.2\nsite_m = 0.05\n')
    wrong = [*command[:2], "moved.toml", *command[3:], "--weights", weights]
    assert cli.main(wrong) == 2
    assert "make it with `python cli.py trace`" in capsys.readouterr().err
    assert cli.main(["trace", "moved.toml", "--output", "elsewhere"]) == 2
    assert cli.main(["trace", "moved.toml", "--positions", "5"]) == 0
    [traced] = Path("data/my-street/worlds").iterdir()
    assert len(load_paths(traced)) == 5
    assert load_paths(traced).digest == load_scenario("moved.toml").world_digest()
    capsys.readouterr()
    assert cli.main(wrong) == 0
    assert "sites 0.05 m off on each axis; mesh parts 0.2 m off on each axis" in capsys.readouterr().out

    runs = sorted(path.name.split("-", 2)[2] for path in Path("runs").iterdir())
    assert runs == ["moved-ecc-b4", "my-street-ecc-b4", "my-street-rss-b4"]
