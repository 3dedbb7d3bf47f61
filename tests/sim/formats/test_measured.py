"""Measured channels: a file of arrays becomes a world without paths, or one sentence says what is wrong with it."""

import json
import shlex
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

import cli
from sim.learn.lateration import first_path_weights
from sim.world.paths import load_paths
from sim.world.scenario import load_scenario
from sim.world.store import load_test_paths

SITES = np.array([[0.0, 0.0, 10.0], [60.0, 0.0, 10.0], [30.0, 50.0, 10.0]])
LAB = "data/lab/lab.toml"
DELAYS, DIRECTIONS = "delays do not follow the distances", "directions do not follow the positions"
BETTER = "delays follow the distances far better with"


def recorded(users: int = 60) -> dict[str, Any]:
    """Free space, in units of a receiver; site 1 did not hear user 3."""
    draw = np.random.default_rng(1)
    position = draw.uniform([5, 5, 1.5], [55, 45, 1.5], (users, 3))
    distance = np.linalg.norm(position[:, None] - SITES, axis=2)[..., None, None]
    tone = (np.arange(12) - 5.5) * 720e3
    csi = 4000 / distance * np.exp(-2j * np.pi * tone * distance / 3e8) * np.exp(6j * draw.random((users, 3, 4, 1)))
    csi[3, 1] = 0
    return {
        "csi": csi.astype(np.complex64),
        "position": position,
        "site_position": SITES,
        "site_yaw_deg": np.array([45.0, 135.0, 270.0]),
        "site_pitch_deg": np.zeros(3),
        "carrier_hz": 3.5e9,
        "bandwidth_hz": 10e6,
        "tone_spacing_hz": 720e3,
        "array": np.array([2, 2, 1]),
    }


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    fields = recorded()
    np.savez("lab.npz", **fields)
    return fields


def test_they_are_trained_on_emulated_and_swept(lab: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["import", "lab.npz"]) == 0
    assert "60 positions, each heard by 3.0 of 3 sites, measured channels: data/lab/lab.toml" in capsys.readouterr().out
    assert cli.main(["train", "rss", "--scenario", LAB]) == 0
    options = ["--scenario", LAB, "--weights", "checkpoints/lab/rss.safetensors", "--snapshots", "15", "--bits", "6"]
    assert cli.main(["emulate", *options, "--scheme", "rss", "--bs", "3", "--driver", "process"]) == 0
    (run,) = Path("runs").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["error_2d_m"]["mean"] < 1.5  # power falls with the square of distance, without exception
    assert "bound" not in pq.read_table(run / "controls.parquet").column_names
    links = pq.read_table(run / "positions.parquet").to_pandas()
    assert links[["line_of_sight", "paths", "snr_db"]].isna().all(axis=None)
    test = load_test_paths(load_scenario(LAB))
    gain_db = 10 * np.log10((np.abs(test.csi) ** 2).mean((2, 3, 4)).ravel())
    assert np.allclose(links["gain_db"], gain_db)
    assert cli.main(["audit", str(run)]) == 0
    assert cli.main(["sweep", *options, "--scheme", "rss", "--bs", "3"]) == 0
    noise = first_path_weights(load_scenario(LAB)).config["noise"]
    assert np.isclose(1000 * noise, (np.abs(lab["csi"][lab["csi"] != 0]) ** 2).mean(), rtol=1e-3)  # 30 dB
    assert cli.main(["train", "ecc", "--scenario", LAB, "--epochs", "0.2", "--batch", "8"]) == 0
    ecc = ["--scheme", "ecc", "--bs", "3", "--driver", "process", "--weights", "checkpoints/lab/ecc-b4.safetensors"]
    assert cli.main(["emulate", "--scenario", LAB, "--snapshots", "3", *ecc]) == 0
    capsys.readouterr()
    assert cli.main(["train", "ecc-klt", "--scenario", LAB]) == 0
    told = capsys.readouterr().out.splitlines()[-1].removeprefix("python cli.py ")
    assert cli.main([*shlex.split(told), "--snapshots", "3", "--driver", "process"]) == 0


def straight(fields: dict[str, Any]) -> dict[str, Any]:
    """The same with phases of plane waves on a line of four antennas, and with clocks of users and sites."""
    line = fields["position"][:, None] - SITES
    distance = np.linalg.norm(line, axis=2)
    yaw = np.radians(fields["site_yaw_deg"])
    along = (line[..., 1] * np.cos(yaw) - line[..., 0] * np.sin(yaw)) / distance
    draw = np.random.default_rng(2)
    late = distance + draw.uniform(0, 1000, (len(line), 1)) + draw.uniform(0, 1000, 3)
    tone, antenna = (np.arange(12) - 5.5) * 720e3, np.arange(4)
    phase = np.pi * along[..., None, None] * antenna[:, None] - 2 * np.pi * late[..., None, None] * tone / 3e8
    return fields | {"csi": np.exp(1j * phase).astype(np.complex64), "array": np.array([1, 4, 1])}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"csi": np.conj}, [f"{BETTER} tones", DIRECTIONS]),
        ({"csi": lambda csi: csi[..., ::-1]}, [f"{BETTER} tones"]),
        ({"csi": lambda csi: np.fft.ifftshift(csi, axes=-1)}, ["tones jump in phase"]),
        ({"csi": lambda csi: csi[:, :, ::-1]}, [DIRECTIONS]),
        ({"position": lambda place: place[::-1]}, [DELAYS, DIRECTIONS]),
        (
            {"position": lambda place: 100 * place, "site_position": lambda place: 100 * place},
            [f"{BETTER} all positions read as centimetres"],
        ),
        ({"position": lambda place: 100 * place}, [f"{BETTER} users' positions read as centimetres"]),
        ({"position": lambda place: 1000 * place}, [f"{BETTER} users' positions read as millimetres"]),
        ({"position": lambda place: place[:, [1, 0, 2]]}, [f"{BETTER} x and y of users exchanged"]),
        ({"site_yaw_deg": lambda yaw: yaw - 180}, [DIRECTIONS]),
        (
            {"site_yaw_deg": np.radians},
            ["directions follow the positions far better with site_yaw_deg read as radians"],
        ),
    ],
)
def test_channels_that_do_not_go_with_the_positions_are_noticed(
    change: dict[str, Any],
    said: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    fields = straight(recorded(400))
    np.savez("lab.npz", **fields | {name: how(fields[name]) for name, how in change.items()})
    assert cli.main(["import", "lab.npz"]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Note: ")]
    assert len(notes) == len(said)
    assert all(note.startswith(f"Note: {words}") for note, words in zip(notes, said, strict=True))


def test_pairs_of_real_and_imaginary_parts_and_links_that_are_all_nan_are_read(lab: dict[str, Any]) -> None:
    csi = lab["csi"].copy()
    csi[3, 1] = np.nan  # site 1 did not hear user 3
    np.savez("pairs.npz", **lab | {"csi": np.stack([csi.real, csi.imag], -1)})
    assert cli.main(["import", "lab.npz"]) == cli.main(["import", "pairs.npz"]) == 0
    one, other = (load_paths(Path(f"data/{name}/paths.npz")) for name in ("lab", "pairs"))
    assert np.array_equal(one.csi, other.csi)


def test_a_preview_shows_positions_and_who_hears_them(lab: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["import", "lab.npz", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert cli.main(["preview", LAB]) == 0
    told = capsys.readouterr().out.split("\n")
    assert told[:3] == [
        "    60  positions that were imported, with measured channels",
        "    59  of these, heard by all 3 sites",
        "     0  of these, heard by no site",
    ]
    assert told[4] == "site 1 at (60, 0, 10) m hears 98 % of these points"
    assert Path("data/lab/preview.png").read_bytes().startswith(b"\x89PNG")
    assert "<h2>Positions that were imported</h2>" in Path("data/lab/preview.html").read_text()


def test_what_needs_a_scene_or_paths_says_so(lab: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["import", "lab.npz"]) == 0
    capsys.readouterr()
    assert cli.main(["trace", LAB]) == 2
    assert capsys.readouterr().err == "Scenario 'lab' was imported: it has no scene that could be traced.\n"
    assert cli.main(["twin", LAB]) == 2
    assert capsys.readouterr().err == "Scenario 'lab' has measured channels without paths: no twin describes that.\n"
    Path("off.toml").write_text(f'extends = "{LAB}"\n[mismatch]\nsite_m = 0.1\n')
    assert cli.main(["emulate", "--scenario", "off.toml"]) == 2
    assert "mismatch: it changes paths, and measured channels have none." in capsys.readouterr().err


def test_test_positions_keep_their_own_channels(lab: dict[str, Any]) -> None:
    assert cli.main(["import", "lab.npz"]) == 0
    test = load_test_paths(load_scenario(LAB))
    row = [int(np.argmin(np.abs(lab["position"] - place).sum(1))) for place in test.position]
    assert len(set(row)) == len(row) == 15
    assert np.array_equal(test.csi[:, :, 0], lab["csi"][row])
    assert test.heard.all() == (3 not in row)


def test_hdf5_is_read_as_npz_is(lab: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File("other.h5", "w") as file:
        for name, value in lab.items():
            if np.ndim(value):
                file[name] = value
            else:
                file.attrs[name] = value
    assert cli.main(["import", "lab.npz"]) == cli.main(["import", "other.h5"]) == 0
    one, other = (load_test_paths(load_scenario(f"data/{name}/{name}.toml")) for name in ("lab", "other"))
    assert np.array_equal(one.csi, other.csi)
    assert np.array_equal(one.position, other.position)
    assert cli.main(["import", "lab.npz"]) == 2
    assert "There are data of a scenario 'lab' already" in capsys.readouterr().err
    assert cli.main(["import", "lab.npz", "--name", "paris-6"]) == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"csi": None},
            f"just one field has to say what it holds, csi or delay; found: {', '.join([*recorded()][1:])}",
        ),
        ({"carrier": 3.5e9}, "there is no field 'carrier' (did you mean 'carrier_hz'?)"),
        ({"csi": np.ones((60, 3, 4, 12))}, "csi holds float64, complex numbers are needed"),
        (
            {"csi": np.where(np.arange(12) == 5, np.nan, np.ones((60, 3, 4, 12), complex))},
            "csi[0, 0, 0, 0, 5] is nan+0j, finite numbers are needed, zeros where a site heard nothing",
        ),
        ({"csi": np.ones((60, 12), complex)}, "csi has the shape (60, 12), (N, K, T, A, F) is needed"),
        ({"csi": np.ones((60, 2, 4, 12)) + 0j}, "csi has 2 along its axis K of (N, K, T, A, F), site_position has 3"),
        ({"csi": np.full((60, 3, 4, 12), np.nan + 0j)}, "csi of site 0 is zero or NaN at all positions"),
        ({"csi": np.zeros((60, 3, 4, 12), complex)}, "csi of site 0 is zero or NaN at all positions"),
        ({"csi": np.ones((60, 3, 2, 4, 12)) + 0j}, "the field 'slot_spacing_s' is missing, which csi of 2 slots need"),
        ({"array": np.array([4, 2, 1])}, "csi has 4 antenna pairs, but array and user_array have 8 and 1 antennas"),
        ({"position": np.full((60, 3), 5.2e6)}, "position[0, 0] is 5.2e+06, -100000 to 100000 m are needed"),
        ({"position": np.ones((60, 3))}, "position is the same point in all rows"),
        ({"position": np.ones((60, 2))}, "position has the shape (60, 2), (N, 3) is needed"),
        ({"site_yaw_deg": np.full(3, 1e3)}, "site_yaw_deg[0] is 1000, -360 to 360 ° are needed"),
        ({"carrier_hz": 3.5}, "carrier_hz is 3.5, 1e+06 to 1e+13 Hz are needed"),
        ({"bandwidth_hz": 5e6}, "12 tones at tone_spacing_hz = 720000 do not fit bandwidth_hz = 5e+06"),
        ({"array": np.array([2.5, 2, 1])}, "array holds float64, whole numbers are needed"),
        ({"site_position": SITES[[0, 0, 1]]}, "sites: two sites share one position"),
    ],
)  # fmt: skip
def test_one_sentence_says_what_is_wrong(
    lab: dict[str, Any], change: dict[str, Any], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = {name: value for name, value in (lab | change).items() if value is not None}
    np.savez("bad.npz", **fields)
    assert cli.main(["import", "bad.npz"]) == 2
    assert capsys.readouterr().err == f"bad.npz: {sentence}.\n"
    assert not Path("data").exists() or not any(Path("data").iterdir())


def test_what_is_no_archive_is_refused(lab: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.npz").write_bytes(Path("lab.npz").read_bytes()[:1000])
    Path("bad.h5").write_text("text")
    for source, sentence in {
        "bad.npz": "is no NPZ file of arrays, or damaged", "bad.h5": "is no HDF5 file, or damaged",
        "none.npz": "There is no none.npz", "lab.csv": "There is no lab.csv",
    }.items():  # fmt: skip
        assert cli.main(["import", source]) == 2
        assert sentence in capsys.readouterr().err
