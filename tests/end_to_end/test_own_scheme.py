"""The scheme of docs/schemes.md, installed as a package of its own and run."""

import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_world
import torch

import cli
import sim.plan.plan
import sim.world.store
from cloud.fusion.scheme import CloudSetup, Fix, as_fusion, load_fusion
from edge.base_station import BaseStation
from edge.estimation import LmmseEstimator
from edge.scheme import EdgeSetup, load_edge_scheme
from fronthaul.payload.choice import PayloadChoice

DOCS = Path(__file__).resolve().parents[2] / "docs" / "schemes.md"
SLOTS, ANTENNAS, TONES = 10, 4, 24
STATIONS = {0: (-100.0, 0.0, 25.0), 1: (100.0, 0.0, 25.0), 2: (0.0, 100.0, 25.0)}


def block(language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    return str(found[0])  # further ones are schemes of several rounds


def install(folder: Path) -> None:
    """Put the module and what an installer would write about it into `folder`."""
    project = tomllib.loads(block("toml"))["project"]
    (folder / "centroid.py").write_text(block("python"))
    about = folder / f"{project['name']}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("centroid", None)


def test_the_example_is_under_60_lines() -> None:
    assert len(block("python").splitlines()) + len(block("toml").splitlines()) < 60


@pytest.mark.parametrize("bits", [1, 4, None])
def test_the_example_turns_channels_into_fixes(installed: Path, bits: int | None) -> None:
    torch.set_num_threads(1)
    identity = torch.eye(ANTENNAS, dtype=torch.complex64).expand(TONES, -1, -1)
    estimator = LmmseEstimator(identity, 1e-3, 1.0, torch.ones(TONES, dtype=torch.complex64))
    draw = torch.Generator().manual_seed(1)
    groups = [[], []]  # type: list[list[object]]
    for bs in STATIONS:
        scheme = load_edge_scheme("centroid")(EdgeSetup(bs, PayloadChoice(bits), {}, {}))
        station = BaseStation(bs, 0, estimator, scheme)
        strength = 1e-5 if bs == 0 else 1e-6
        shape = (2, SLOTS, ANTENNAS, TONES)
        for group, report in zip(
            groups,
            station.reports([0, 1], strength * torch.randn(shape, generator=draw, dtype=torch.complex64)),
            strict=True,
        ):
            assert report.payload.bits == (bits or 16)
            group.append(report)

    fusion = as_fusion(load_fusion("centroid")(CloudSetup(STATIONS, PayloadChoice(bits), {}, {})))
    fixes = [fusion.open(0).advance(group) for group in groups]  # type: ignore[arg-type]
    again = [fusion.open(0).advance(list(reversed(group))) for group in groups]  # type: ignore[arg-type]
    assert fixes == again
    for fix in fixes:
        assert isinstance(fix, Fix)
        distance = {bs: np.linalg.norm(np.subtract(fix.position, place)) for bs, place in STATIONS.items()}
        assert np.isfinite(fix.position).all()
        if bits != 1:  # one bit cannot tell these powers apart
            assert min(distance, key=lambda bs: float(distance[bs])) == 0


def test_the_example_is_emulated_and_replayed(
    installed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tiny_world.write(installed)
    for module in (sim.plan.plan, sim.world.store):
        monkeypatch.setattr(module, "ASSET_FOLDER", installed / "assets", raising=False)
    monkeypatch.chdir(installed)
    line = f"emulate --scheme centroid --scenario {settings.scenario} --weights {settings.weights} --bs 3 --bits 5"
    assert cli.main([*line.split(), "--snapshots", "10", "--driver", "process"]) == 0
    out = capsys.readouterr().out
    assert "payload 5 bit per BS and fix" in out
    assert cli.main(["replay", out.split("run folder: ")[1].strip()]) == 0
    assert capsys.readouterr().out.startswith("10 of 10 fixes are identical")


def test_a_half_that_cannot_be_imported_is_named(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (installed / "centroid.py").write_text("class CentroidEdge: ...\n")
    with pytest.raises(LookupError, match=r"cloud's half of scheme 'centroid', centroid:CentroidFusion: .*attribute"):
        load_fusion("centroid")
    sys.modules.pop("centroid")
    (installed / "centroid.py").write_text("import nothing_of_this_name\n")
    importlib.invalidate_caches()
    assert cli.main(["emulate", "--scheme", "centroid"]) == 2
    assert "base station's half of scheme 'centroid', centroid:CentroidEdge: No module" in capsys.readouterr().err


def test_an_unknown_scheme_names_the_installed_ones(installed: Path) -> None:
    with pytest.raises(LookupError, match=r"centroid.*ecc.*rss"):
        load_edge_scheme("nothing")
