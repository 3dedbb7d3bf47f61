"""Coverage: whether the covariances of fixes mean what they say."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_scores
import tiny_world
from rich.console import Console
from scipy.stats import chi2

from sim.commands.summary import error_table
from sim.emulate.emulator import emulate
from sim.records.coverage import coverage_90, within_region
from sim.world import store


@pytest.fixture(autouse=True)
def _assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ASSET_FOLDER", tmp_path / "assets")


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_true_covariances_cover_nine_in_ten_whatever_their_rank(rank: int) -> None:
    draw = np.random.default_rng(rank)
    root = draw.normal(size=(20000, 3, rank)) * [30.0, 1.0, 0.05][:rank]
    error = np.einsum("nij,nj->ni", root, draw.standard_normal((20000, rank)))
    covariance = root @ root.swapaxes(1, 2)
    assert within_region(error, covariance).mean() == pytest.approx(0.9, abs=0.01)
    claimed_too_much = chi2.cdf(chi2.ppf(0.9, rank) / 4, rank)
    assert within_region(error, covariance / 4).mean() == pytest.approx(claimed_too_much, abs=0.01)


def test_without_variance_in_height_the_horizontal_error_counts() -> None:
    flat = np.diag([4.0, 1.0, 0.0])
    radius = np.sqrt(chi2.ppf(0.9, 2))
    error = np.array([[2 * 0.999 * radius, 0.0, 50.0], [2 * 1.001 * radius, 0.0, 0.0], [0.0, 0.999 * radius, 0.0]])
    assert within_region(error, np.tile(flat, (3, 1, 1))).tolist() == [True, False, True]


def test_a_covariance_that_claims_a_point_covers_nothing() -> None:
    assert not within_region(np.zeros((1, 3)), np.zeros((1, 3, 3))).any()


def test_fixes_without_covariance_do_not_count() -> None:
    def table(covariance: list[list[float] | None]) -> pa.Table:
        count = len(covariance)
        columns = {f"{axis}_m": np.zeros(count) for axis in "xyz"}
        columns |= {f"true_{axis}_m": np.arange(count, dtype=np.float64) * 100 for axis in "xyz"}
        return pa.table({**columns, "covariance_m2": pa.array(covariance, pa.list_(pa.float64(), 9))})

    one = np.eye(3).ravel().tolist()
    assert coverage_90(table([None, None])) is None and coverage_90(table([])) is None
    assert coverage_90(table([one, one, None, None])) == 0.5


def test_a_run_says_how_much_its_regions_cover(tmp_path: Path) -> None:
    result = emulate(tiny_scores.write(tmp_path))
    fixes = pq.read_table(result.folder / "fixes.parquet").to_pylist()
    inside = 0
    for fix in fixes:  # two dimensions, independently of the code
        covariance = np.array(fix["covariance_m2"]).reshape(3, 3)
        assert not covariance[2].any()
        error = np.array([fix["x_m"] - fix["true_x_m"], fix["y_m"] - fix["true_y_m"]])
        inside += bool(error @ np.linalg.inv(covariance[:2, :2]) @ error <= -2 * np.log(0.1))
    written = json.loads((result.folder / "summary.json").read_text())
    assert written["coverage_90"] == result.summary["coverage_90"] == inside / len(fixes)


def test_rss_has_regions_and_ecc_has_none(tmp_path: Path) -> None:
    settings = tiny_world.write(tmp_path)
    ecc, rss = (emulate(dataclasses.replace(settings, scheme=scheme)) for scheme in ("ecc", "rss"))
    assert ecc.summary["coverage_90"] is None and 0 <= rss.summary["coverage_90"] <= 1
    shown = {name: _shown(result.summary) for name, result in (("ecc", ecc), ("rss", rss))}
    assert "90 % region covers" not in shown["ecc"]
    assert f"90 % region covers {100 * rss.summary['coverage_90']:.1f} %" in " ".join(shown["rss"].split())


def _shown(summary: dict[str, object]) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(error_table(summary))
    return capture.get()
