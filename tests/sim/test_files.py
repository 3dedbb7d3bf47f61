"""NPZ files: whole or not at all, small where asked for, equal arrays in equal files."""

from pathlib import Path

import numpy as np
import pytest

from sim.files import write_rows
from sim.world.arrays import DAMAGED, load_arrays, save_arrays


@pytest.mark.parametrize("smallest", [False, True])
def test_arrays_come_back_and_equal_ones_make_equal_files(tmp_path: Path, smallest: bool) -> None:
    made = {"a": np.arange(10000.0).reshape(100, 100), "b": np.array("text"), "c": np.zeros((0, 4), np.float32)}
    for name in ("x.npz", "y.npz"):
        save_arrays(tmp_path / "deep" / name, smallest=smallest, **made)
    assert (tmp_path / "deep/x.npz").read_bytes() == (tmp_path / "deep/y.npz").read_bytes()
    found = load_arrays(tmp_path / "deep/x.npz")
    assert found.keys() == made.keys()
    for name, array in made.items():
        assert np.array_equal(found[name], array) and found[name].dtype == array.dtype
    with np.load(tmp_path / "deep/x.npz") as archive:  # NumPy's own reader takes it
        assert np.array_equal(archive["a"], made["a"])


def test_what_is_damaged_raises_what_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    save_arrays(path, a=np.arange(1000))
    data = path.read_bytes()
    for cut in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(DAMAGED):
            load_arrays(path)


def test_rows_stand_one_a_line(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.json", [{"a": 1, "b": [1, 2]}, {"é": None}])
    assert (tmp_path / "a.json").read_text() == '[\n{"a":1,"b":[1,2]},\n{"é":null}\n]\n'
    write_rows(tmp_path / "b.json", {"x": {"y": 1}, "z": []})
    assert (tmp_path / "b.json").read_text() == '{\n"x":{"y":1},\n"z":[]\n}\n'
