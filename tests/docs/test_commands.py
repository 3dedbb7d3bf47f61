"""Commands of the docs: each runs in a small form, or is read to its end where it takes a scene, sockets or hours."""

import importlib.util
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_world
import typer

import cli
from edge.scheme import weights_scheme
from sim.commands import tracing_plan, vinloc
from sim.commands.options import effective, given_options
from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.plan.options import require_effect, settings_of
from sim.plan.scheme_options import known_spec, scheme_options
from sim.plan.weights import find_weights
from sim.reproduce.tables import TABLES
from sim.world.scenario import load_scenario

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"python cli\.py ([^>&\n]+)")

STANDS_FOR = {
    "COMMAND": "doctor", "FOLDER": "keys", "reproduce NAME": "reproduce front", "--job NAME": "--job any",
    "SCENARIO": "paris-6", "SOURCE --name lab": "lab.npz --name again", "new-scheme my-scheme": "new-scheme our-scheme",
    "my-scheme": "rss", "centroid": "rss", "rss-rounds": "rss", "cuda": "cpu", "--link 3": "--link 1",
}  # fmt: skip
"""What a reader puts in the place of words. Schemes of one's own run in the tests of docs/schemes.md."""

READ_ONLY = {
    "bench": "minutes on a machine that does nothing else: tests/test_benchmarks.py",
    "compare": "of sweeps that are done: tests/sim/sweep",
    "chaos": "minutes on Ray: tests/sim/emulate/test_chaos.py",
    "doctor": "traces a ray, in seconds: tests/sim/commands/test_cli_runs.py",
    "preview": "of a scene, which takes seconds to load: tests/sim/world/test_tracer.py",
    "import of others": "their files do not ship: tests/sim/formats",
    "trace of a scene": "compiles for seconds: tests/docs/test_scenarios_page.py",
    "train on a draw": "draws a hall: tests/sim/learn/vinloc",
    "train on own data": "takes seconds: tests/sim/formats/test_measured.py",
    "train --queue": "hours: tests/sim/learn/test_queue.py",
    "reproduce": "needs traced data: tests/sim/reproduce",
    "emulate elsewhere": "on Ray, or with weights or a world that do not belong to the tiny one: tests/sim/plan",
}
"""Commands that are only read: options, names of scenarios, schemes, weights and tables; with the reason."""

NO_DATA = re.compile(r"(path data|sites) (\S+ is|\S+ are) missing; make (it|them) with `python cli.py trace`")
"""How a training ends whose options are right, where nothing was traced."""


def commands() -> list[str]:
    """Return every command of the pages once, from blocks line by line and from code in sentences."""
    found: list[str] = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        parts = re.split(r"^ *```.*\n", text, flags=re.MULTILINE)  # sentences and blocks take turns
        found += COMMAND.findall("\n".join(parts[1::2]))
        rest = "\n\n".join(parts[::2])
        found += [COMMAND.findall(" ".join(span.split()))[0] for span in re.findall(r"`(python cli\.py [^`]+)`", rest)]
    whole = [each.rstrip("'") if each.count("'") % 2 else each for each in found]  # within quotes of a longer line
    return sorted({shlex.join(shlex.split(each.removesuffix(" …"), comments=True)) for each in whole})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A working directory with the files that the pages speak of; what stands for the words of the pages."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(tracing_plan, "FACTORY_SAMPLE", 40)
        settings = tiny_world.write(folder)
        Path("data").symlink_to("assets")  # where data of a scenario are that does not ship
        run = emulate(replace(settings, snapshots=20)).folder
        street = re.search(r"^```toml\n(.*?)^```", (ROOT / "docs/scenarios.md").read_text(), re.M | re.S)
        links = re.search(r"^```toml\n(.*?)^```", (ROOT / "docs/fronthaul.md").read_text(), re.M | re.S)
        assert street and links
        Path("my-street.toml").write_text(street[1])
        Path("links.toml").write_text(links[1].replace("[bs.3]", "[bs.2]"))
        Path("moved.toml").write_text('extends = "paris-6"\n[mismatch]\nwall_m = 0.1\n')
        for name in ("ecc-klt", "ecc-b4", "twin"):
            Path("data/paris-6").mkdir(exist_ok=True)
            shutil.copy(ROOT / f"sim/assets/paris-6/{name}.safetensors", "data/paris-6")
        shutil.copy(ROOT / "sim/assets/paris-6/rss.safetensors", ".")
        Path("checkpoints/lab").mkdir(parents=True)
        for bits in (2, 4):  # in place of trained ones, which are only looked for
            shutil.copy("tiny.safetensors", f"checkpoints/lab/ecc-b{bits}.safetensors")
        shutil.copy(ROOT / "sim/assets/paris-6/toa.safetensors", "checkpoints/lab")
        np.savez("lab.npz", **measured())
        assert cli.main(["import", "lab.npz", "--quiet"]) == 0
        assert cli.main(["train", "rss", "--scenario", "data/lab/lab.toml", "--quiet"]) == 0
        yield STANDS_FOR | {"RUN": str(run)}


def measured() -> dict[str, Any]:
    """Free space between 30 users and three sites."""
    draw = np.random.default_rng(1)
    position = draw.uniform([5, 5, 1.5], [55, 45, 1.5], (30, 3))
    site = np.array([[0.0, 0.0, 10.0], [60.0, 0.0, 10.0], [30.0, 50.0, 10.0]])
    distance = np.linalg.norm(position[:, None] - site, axis=2)[..., None, None]
    csi = 4000 / distance * np.exp(-2j * np.pi * np.arange(12) * 720e3 * distance / 3e8) * np.ones((30, 3, 4, 1))
    return {
        "csi": csi.astype(np.complex64), "position": position, "site_position": site, "carrier_hz": 3.5e9,
        "site_yaw_deg": np.array([45.0, 135.0, 270.0]), "site_pitch_deg": np.zeros(3), "bandwidth_hz": 10e6,
        "tone_spacing_hz": 720e3, "array": np.array([2, 2, 1]),
    }  # fmt: skip


def meant(command: str, place: dict[str, str]) -> list[str]:
    """Return the words of a command with what stands for those of the page."""
    for word, other in place.items():
        command = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", other, command)
    return shlex.split(command)


def read(words: list[str]) -> tuple[str, typer.Context, dict[str, Any]]:
    """Return the name, the context and the values of a command; whatever it does not know is an error."""
    group = typer.main.get_command(cli.app)
    with group.make_context("cofix", list(words), obj=words) as above:
        name, command, rest = group.resolve_command(above, [*above._protected_args, *above.args])  # type: ignore[attr-defined]
        with command.make_context(name, rest, parent=above) as context:
            return name, context, context.params


SMALL = {
    "emulate": shlex.split(
        "--driver process --scenario tiny.toml --weights tiny.safetensors --bs 3 --snapshots 4 --no-report "
        "--no-capture --no-controls"
    ),
    "sweep": ["--dry-run"],
    "trace": ["--dry-run"],
}
"""Options that make a command small."""


def form(command: str, place: dict[str, str]) -> str | tuple[list[str], int]:
    """Read a command; return how it is run here, with its exit status, or why it is not."""
    words = meant(command, place)
    name, context, given = read(words)
    scenario = None if given.get("scenario") is None else load_scenario(given["scenario"])
    if name in ("bench", "chaos", "compare", "doctor") or (name == "preview" and scenario and not scenario.is_own):
        return name
    if name == "reproduce":
        assert given["table"] in TABLES
        return name
    if name == "import" and given["source"] != Path("lab.npz"):
        return "import of others"
    if name == "trace":
        assert scenario
        return "trace of a scene" if scenario.factory is None else ([*words, *SMALL[name]], 0)
    if name == "train" and given["queue"]:
        assert (ROOT / given["queue"]).is_file()
        return "train --queue"
    if name == "train" and given["scheme"] == "vinloc" and getattr(vinloc._find(given["job"]), "further", None):
        return "train on a draw"
    if name in ("train", "twin"):
        if scenario is not None and scenario.is_own and given.get("scheme") != "rss":
            return "train on own data"
        done = given.get("scheme") == "music" or given.get("learned") or (scenario is not None and scenario.is_own)
        return words, 0 if done else 2
    if name == "emulate":
        settings = settings_of(effective(context, given))
        settings.require_fits(load_scenario(settings.scenario))
        scheme_options(settings)
        if settings.weights is None:
            source, obtained = weights_scheme(settings.scheme), known_spec(settings.scheme).obtained
            find_weights(load_scenario(settings.scenario).data_name, source, settings.bits, obtained)
        try:
            require_effect(given_options(context), "process")
        except UserError:
            return "emulate elsewhere"
        foreign = scenario is not None or settings.scheme != "ecc" or settings.bits is None
        if given["from_run"] is None and foreign:
            return "emulate elsewhere"
    return [*words, *SMALL.get(name, ())], 0


FORMS: dict[str, str | tuple[list[str], int]] = {}


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_docs_runs(place: dict[str, str], command: str, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = FORMS[command] = form(command, place)
    if isinstance(chosen, str):
        assert chosen in READ_ONLY
        return
    words, status = chosen
    assert cli.main(words) == status
    if status:
        assert NO_DATA.search(capsys.readouterr().err)


def test_every_reason_to_read_alone_holds_for_a_command(place: dict[str, str]) -> None:
    """Runs after the others, whose forms it looks at."""
    forms = [FORMS.get(each) or form(each, place) for each in commands()]
    assert {one for one in forms if isinstance(one, str)} == READ_ONLY.keys()
    assert sum(not isinstance(one, str) for one in forms) > 40


MODULES = sorted(set(re.findall(r"python -m ((?:sim|benchmarks)[\w.]*)", "\n".join(p.read_text() for p in PAGES))))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_of_the_docs_is_there(module: str) -> None:
    name = module if "." in module else f"{module}.__main__"
    assert importlib.util.find_spec(name) is not None
