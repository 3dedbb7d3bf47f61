"""Streams on another machine: shipped home by their process, or fetched after it died."""

import tempfile
from pathlib import Path

import pytest

from fronthaul.log.workspace import Workspace, ship_leftovers


def test_the_run_folder_is_used_where_it_is_here(tmp_path: Path) -> None:
    space = Workspace()
    assert space.open(tmp_path, True) == tmp_path
    (tmp_path / "a").write_bytes(b"1")
    assert space.ship() == {} and (tmp_path / "a").exists()


def test_elsewhere_streams_are_shipped_and_those_of_the_dead_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run, other = Path("/runs/one/links"), Path("/runs/two/links")
    alive, dead, stranger = Workspace(), Workspace(), Workspace()
    for space, folder, name in ((alive, run, "a"), (dead, run, "b"), (stranger, other, "c")):
        (space.open(folder, False) / name).write_bytes(name.encode())
    assert alive.ship() == {"a": b"a"} and alive.ship() == {}
    assert ship_leftovers(run) == {"b": b"b"} and ship_leftovers(run) == {}
    assert stranger.ship() == {"c": b"c"}
    assert list(tmp_path.iterdir()) == []
