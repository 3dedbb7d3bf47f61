"""Path sets: selecting, joining, saving, and files that are damaged."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import straight_world
from straight_world import assert_same

from sim.errors import UserError
from sim.world.paths import PathSet, concatenate, join_sites, load_paths


def ragged(users: int = 5, seed: int = 0) -> PathSet:
    """A path set whose links hold 0 … 3 paths."""
    draw = np.random.default_rng(seed)
    counts = draw.integers(0, 4, users * 2)
    total = int(counts.sum())
    return PathSet(
        position=draw.standard_normal((users, 3)),
        offset=np.concatenate([[0], np.cumsum(counts)]),
        matrix=draw.standard_normal((total, 2, 2)).astype(np.complex64),
        delay=draw.uniform(1e-7, 1e-6, total).astype(np.float32),
        site_angle=draw.standard_normal((total, 2)).astype(np.float32),
        user_angle=draw.standard_normal((total, 2)).astype(np.float32),
        bounces=draw.integers(0, 5, total).astype(np.uint8),
        mirror=draw.standard_normal((total, 4)).astype(np.float32),
        digest="abc",
    )


def test_selection_takes_each_links_own_paths() -> None:
    paths = ragged()
    users, sites = np.array([3, 0, 3]), [1]
    chosen = paths.select(users, sites)
    assert len(chosen) == 3 and chosen.sites == 1
    np.testing.assert_array_equal(chosen.position, paths.position[users])
    for i, n in enumerate(users):
        own, rows = slice(*chosen.offset[i : i + 2]), slice(*paths.offset[n * 2 + 1 : n * 2 + 3])
        for name in ("matrix", "delay", "mirror", "bounces"):
            np.testing.assert_array_equal(getattr(chosen, name)[own], getattr(paths, name)[rows])


@pytest.mark.parametrize("paths", [ragged(6), straight_world.walking(ragged(6), 3)], ids=["alone", "walks"])
def test_selecting_and_concatenating_are_inverse(paths: PathSet) -> None:
    parts = [paths.select(np.arange(a, b)) for a, b in ((0, 2), (2, 2), (2, 6))]
    assert_same(concatenate([part for part in parts if len(part)]), paths)


def test_paths_of_different_scenarios_are_not_joined() -> None:
    with pytest.raises(UserError):
        concatenate([ragged(), dataclasses.replace(ragged(), digest="other")])


@pytest.mark.parametrize("with_mirror", [True, False])
@pytest.mark.parametrize("with_walks", [True, False])
def test_saving_and_loading(tmp_path: Path, with_mirror: bool, with_walks: bool) -> None:
    paths, file = ragged(), tmp_path / "deeper" / "paths.npz"
    if with_walks:
        paths = straight_world.walking(paths, 2)
    if not with_mirror:  # paths of another tracer may come without
        paths = dataclasses.replace(paths, mirror=np.zeros((0, 4), np.float32))
    paths.save(file)
    back = load_paths(file)
    assert_same(back, paths)
    assert [p.name for p in file.parent.iterdir()] == ["paths.npz"]
    assert_same(back.select(np.array([1])).select(np.array([0])), back.select(np.array([1])))


def test_a_damaged_file_is_the_users_to_restore(tmp_path: Path) -> None:
    file = tmp_path / "paths.npz"
    with pytest.raises(UserError, match="missing"):
        load_paths(file)
    ragged().save(file)
    whole = file.read_bytes()
    for length in (0, 3, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError):
            load_paths(file)


def test_walks_that_are_not_there_leave_no_trace_in_a_file(tmp_path: Path) -> None:
    """Files without walks are those of before there were any, and the other way round."""
    ragged().save(tmp_path / "paths.npz")
    with np.load(tmp_path / "paths.npz") as archive:
        assert not {"user", "velocity"} & set(archive.files)
    back = load_paths(tmp_path / "paths.npz")
    assert back.user.shape == (0,) and back.velocity.shape == (0, 3)


def test_tables_that_do_not_fit_are_refused() -> None:
    paths = straight_world.walking(ragged(), 2)
    cut: list[dict[str, Any]] = [
        {name: getattr(paths, name)[:-1]} for name in ("offset", "delay", "matrix", "user", "velocity")
    ]
    for broken in cut:
        with pytest.raises(UserError):
            dataclasses.replace(paths, **broken)


def test_sites_are_joined_link_by_link() -> None:
    paths = ragged(7)
    parts = [paths.select(np.arange(7), [k]) for k in (1, 0)]
    assert_same(join_sites(parts), paths.select(np.arange(7), [1, 0]))
    assert_same(join_sites([paths, paths]).select(np.arange(7), [2, 3]), paths)
    assert_same(join_sites([paths]), paths)
    bare = dataclasses.replace(paths, mirror=np.zeros((0, 4), np.float32))
    assert len(join_sites([bare, bare]).mirror) == 0


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("position", np.nan, r"position 1 is \(.*nan"),
        ("position", 1e300, r"position 1 is \(.*1e\+300"),
        ("delay", -1.0, r"position 0, BS 1: a path has delay -1"),
        ("delay", np.inf, r"position 0, BS 1: a path has delay inf"),
        ("matrix", np.nan, r"position 0, BS 1: a path has matrix nan"),
        ("matrix", 1e20, r"position 0, BS 1: a path has matrix 1e\+20"),
        ("site_angle", np.nan, r"position 0, BS 1: a path has site_angle nan"),
        ("user_angle", np.inf, r"position 0, BS 1: a path has user_angle inf"),
        ("mirror", np.nan, r"position 0, BS 1: a path has mirror nan"),
    ],
)
def test_impossible_numbers_are_named_with_file_position_and_bs(
    tmp_path: Path, name: str, value: float, told: str
) -> None:
    made = PathSet(
        position=np.zeros((2, 3)),
        offset=np.array([0, 1, 2, 2, 3]),
        matrix=np.zeros((3, 2, 2), np.complex64),
        delay=np.zeros(3, np.float32),
        site_angle=np.zeros((3, 2), np.float32),
        user_angle=np.zeros((3, 2), np.float32),
        bounces=np.zeros(3, np.uint8),
        mirror=np.zeros((3, 4), np.float32),
    )
    made.save(tmp_path / "good.npz")
    load_paths(tmp_path / "good.npz")
    array = getattr(made, name).copy()
    array[1] = value
    dataclasses.replace(made, **{name: array}).save(tmp_path / "bad.npz")
    with pytest.raises(UserError, match=rf"bad\.npz: {told}"):
        load_paths(tmp_path / "bad.npz")


@pytest.mark.parametrize("name", ["position", "offset", "matrix", "delay", "site_angle", "bounces", "mirror", "meta"])
@pytest.mark.parametrize("change", ["gone", "text", "scalar", "flat", "complex"])
def test_a_file_of_other_arrays_is_the_users_to_restore(tmp_path: Path, name: str, change: str) -> None:
    ragged().save(tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    strange: dict[str, Any] = {
        "text": ["x"],
        "scalar": 3,
        "flat": np.zeros(99, np.float32),
        "complex": 1j * np.ones((4, 9)),
    }
    arrays[name] = np.array(strange.get(change, 0))
    if change == "gone":
        del arrays[name]
    np.savez(tmp_path / "p.npz", **arrays)
    if (name, change) == ("mirror", "gone"):
        assert len(load_paths(tmp_path / "p.npz").mirror) == 0
        return
    with pytest.raises(UserError, match=r"p\.npz"):
        load_paths(tmp_path / "p.npz")
