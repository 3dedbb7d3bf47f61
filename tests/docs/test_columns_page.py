"""docs/columns.md and the metadata of Parquet files: every column of a run's tables, and what it means."""

import importlib.util
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import cofix
from sim.emulate.emulator import emulate
from sim.plan.settings import EmulateSettings
from sim.records.columns import COLUMNS

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> cofix.Run:
    """A run on shipped data, which has every table and every control."""
    folder = tmp_path_factory.mktemp("columns")
    return cofix.Run(emulate(EmulateSettings(snapshots=4, driver="process", output=folder, capture=False)).folder)


def test_the_page_is_made_of_the_dictionary(run: cofix.Run) -> None:
    spec = importlib.util.spec_from_file_location("describe_columns", DOCS / "describe_columns.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert (DOCS / "columns.md").read_text(encoding="utf-8") == script.markdown(run), "run docs/describe_columns.py"


def test_every_table_of_a_run_describes_its_columns(run: cofix.Run) -> None:
    files = {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*.parquet")}
    assert files == {name for name in COLUMNS if name.endswith(".parquet")} | {
        f"links/bs-00{n}.parquet" for n in range(6)
    }
    for name in files:
        words = COLUMNS["links/bs-000.parquet" if name.startswith("links/bs-") else name]
        schema = pq.read_schema(run.folder / name)
        assert {field.name: field.metadata[b"description"].decode() for field in schema} == dict(words), name
    for name in ("reports", "links"):
        assert run.table(name).column_names == [*COLUMNS[name]]
