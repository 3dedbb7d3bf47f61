"""Paths that something else traced: a file of arrays, or the files of other tools, become a world with paths."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from scipy.io import savemat

import cli
from sim.plan.plan import padded_paths
from sim.world.channel import Motion, Synthesizer
from sim.world.scenario import load_scenario
from sim.world.store import load_traced

USERS, C = 40, 299_792_458.0
SITES = np.array([[0.0, 0.0, 10.0], [60.0, 0.0, 12.0]])
RADIO = {
    "site_position": SITES, "site_yaw_deg": np.array([30.0, 150.0]), "site_pitch_deg": np.array([5.0, 0.0]),
    "carrier_hz": 3.5e9, "bandwidth_hz": 10e6, "tone_spacing_hz": 1e6, "array": np.array([1, 2, 1]),
}  # fmt: skip


def positions() -> np.ndarray:
    return np.random.default_rng(2).uniform([5, 5, 1.5], [55, 45, 1.5], (USERS, 3))


def angles(vector: np.ndarray) -> np.ndarray:
    return np.stack([np.arccos(vector[..., 2] / np.linalg.norm(vector, axis=-1)),
                     np.arctan2(vector[..., 1], vector[..., 0])], -1)  # fmt: skip


def straight(phase: float = 0.3) -> dict[str, Any]:
    """A straight path of each link, but for that of user 0 to site 1."""
    position = positions()
    way = (position[:, None] - SITES).reshape(-1, 3)
    keep = np.arange(len(way)) != 1
    length = np.linalg.norm(way, axis=1)[keep]
    matrix = np.zeros((len(length), 2, 2), complex)
    matrix[:, 0, 0] = np.exp(1j * phase) / length / 100
    return RADIO | {
        "position": position, "offset": np.concatenate([[0], np.cumsum(keep)]), "matrix": matrix, "delay": length / C,
        "site_angle": angles(way[keep]), "user_angle": angles(-way[keep]), "bounces": np.zeros(len(length), int),
    }  # fmt: skip


def channel(name: str) -> np.ndarray:
    """Channels (N, K, antenna, tone) of a scenario's paths."""
    scenario = load_scenario(f"data/{name}/{name}.toml")
    paths = padded_paths(scenario, load_traced(scenario))
    still = Motion(torch.zeros(USERS, 3), torch.zeros(USERS, 2), torch.zeros(USERS, 2, 1))
    found: np.ndarray = Synthesizer(scenario).response(paths, still)[:, :, 0].numpy()
    return found


def expected(phase: float = 0.3) -> np.ndarray:
    """By hand: two antennas half a wavelength apart, beside each other as seen along the bearing."""
    way = positions()[:, None] - SITES
    length = np.linalg.norm(way, axis=2)
    tone = (np.arange(10) - 4.5) * 1e6
    yaw = np.radians(RADIO["site_yaw_deg"])
    left = np.stack([-np.sin(yaw), np.cos(yaw), np.zeros(2)], 1)
    offset = np.array([-1, 1]) * C / 3.5e9 / 4
    ahead = np.einsum("nki,ki->nk", way / length[..., None], left)[..., None] * offset
    turn = -2j * np.pi * 3.5e9 * (length[..., None] - ahead) / C
    made = np.exp(1j * phase) / length[..., None] / 100 * np.exp(turn)
    made = made[..., None] * np.exp(-2j * np.pi * tone * length[..., None, None] / C)
    made[0, 1] = 0
    return made


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_paths_make_the_channels_of_their_geometry(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("own.npz", **straight())
    assert cli.main(["import", "own.npz"]) == 0
    assert "each heard by 2.0 of 2 sites, 79 paths: data/own/own.toml" in capsys.readouterr().out
    assert np.abs(channel("own") - expected()).max() < 1e-3 * np.abs(expected()).max()  # delays in single precision
    assert cli.main(["train", "rss", "--scenario", "data/own/own.toml"]) == 0
    assert cli.main(["preview", "data/own/own.toml"]) == 0
    assert "40  positions that were imported, with 79 paths" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"offset": np.arange(80)}, "offset has 80 rows, N·K + 1 = 81 are needed"),
        ({"offset": np.arange(81)}, "A path data set has an offset table that does not fit its paths"),
        ({"offset": np.zeros(81, int)}, "A path data set has an offset table that does not fit its paths"),
        ({"delay": np.full(79, 100.0)}, "delay[0] is 100, 0 to 1 s are needed"),
        ({"site_angle": np.full((79, 2), 45.0)}, "site_angle[0, 0] is 45, -7 to 7 rad are needed"),
        ({"delay": straight()["delay"] * 1e-3}, "delay[0] is not that of the straight line from site 0 to position 0, "
         "which bounces = 0 says the path is"),
        ({"site_angle": straight()["user_angle"]}, "site_angle[0] is not that of the straight line from site 0 to "
         "position 0, which bounces = 0 says the path is"),
        ({"array": None}, "the field 'array' is missing; it may also be given by --field"),
        ({"matrix": np.full((79, 2, 2), 2e3 + 0j)}, "matrix has amplitude gains above 1000"),
        ({"bounces": np.zeros(78, int)}, "bounces has 78 along its axis P of (P,), delay has 79"),
        ({"bounces": np.full(79, 300)}, "bounces[0] is 300, 0 to 255 are needed"),
        ({"bounces": np.full(79, 0.5)}, "bounces holds float64, whole numbers are needed"),
        ({"matrix": np.zeros((79, 2, 2))}, "matrix holds float64, complex numbers are needed"),
        (
            {"csi": np.zeros(3)},
            f"just one field has to say what it holds, csi or delay; found: {', '.join(straight())}, csi",
        ),
    ],
)  # fmt: skip
def test_one_sentence_says_what_is_wrong(
    change: dict[str, Any], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("bad.npz", **{name: value for name, value in (straight() | change).items() if value is not None})
    assert cli.main(["import", "bad.npz"]) == 2
    assert capsys.readouterr().err == f"bad.npz: {sentence}.\n"
    assert not Path("data").exists() or not any(Path("data").iterdir())


def test_a_matlab_file_holds_them_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    savemat("own.mat", straight())
    assert cli.main(["import", "own.mat"]) == 0
    assert f"{2 * USERS - 1} paths" in capsys.readouterr().out


def flags() -> list[str]:
    """What files of others do not have, for the command line."""
    names = ("site_yaw_deg", "site_pitch_deg", "bandwidth_hz", "tone_spacing_hz", "array")
    return [word for name in names for word in ("--field", f"{name}={np.asarray(RADIO[name]).tolist()}")]


def write_deepmimo(folder: Path, ending: str) -> None:
    """Two base stations and a grid of users, of which one stands where nothing arrives; columns of no path are NaN."""
    folder.mkdir()
    sets = {
        "txrx_set_0": {"id": 0, "is_tx": False, "is_rx": True},
        "txrx_set_1": {"id": 1, "is_tx": True, "is_rx": True},
    }
    parameters = {"rt_params": {"frequency": 3.5e9}, "txrx_sets": sets, "scene": {"num_scenes": 1}}
    (folder / "params.json").write_text(json.dumps(parameters))
    position = np.concatenate([positions(), [[30.0, 20.0, 1.5]]])
    for k, site in enumerate(SITES):
        way = position - site
        length = np.linalg.norm(way, axis=1)
        departure, arrival = np.degrees(angles(way)), np.degrees(angles(-way))
        rows = {
            "power": -20 * np.log10(length * 100), "phase": np.mod(np.degrees(0.3) - 360 * 3.5e9 * length / C, 360),
            "delay": length / C, "aod_el": departure[:, 0], "aod_az": departure[:, 1], "aoa_el": arrival[:, 0],
            "aoa_az": arrival[:, 1], "inter": np.zeros(len(way)),
        }  # fmt: skip
        none = np.arange(len(way)) == len(way) - 1
        if k == 1:
            none[0] = True
        for name, values in rows.items():
            matrix = np.full((len(way), 3), np.nan, np.float32 if name != "delay" else np.float64)
            matrix[~none, 0] = values[~none]
            save(folder / f"{name}_t001_tx{k:03d}_r000.{ending}", name, matrix)
        save(folder / f"rx_pos_t001_tx{k:03d}_r000.{ending}", "rx_pos", position)
        save(folder / f"tx_pos_t001_tx{k:03d}_r000.{ending}", "tx_pos", site[None])
        save(folder / f"power_t001_tx{k:03d}_r001.{ending}", "power", np.zeros((2, 1)))


def save(path: Path, name: str, array: np.ndarray) -> None:
    if path.suffix == ".npz":
        np.savez(path, **{name: array})
    else:
        savemat(path, {name: array})


@pytest.mark.parametrize("ending", ["mat", "npz"])
def test_a_deepmimo_folder_is_read(ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_deepmimo(Path("asu"), ending)
    assert cli.main(["import", "asu", *flags()]) == 0
    assert "40 positions, each heard by 2.0 of 2 sites, 79 paths" in capsys.readouterr().out
    assert np.abs(channel("asu") - expected()).max() < 1e-3 * np.abs(expected()).max()


def test_a_deepmimo_folder_that_is_damaged_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    write_deepmimo(Path("asu"), "mat")
    (Path("asu") / "phase_t001_tx001_r000.mat").unlink()
    assert cli.main(["import", "asu", *flags()]) == 2
    assert capsys.readouterr().err == "asu/phase_t001_tx001_r000.mat is missing.\n"
    (Path("asu") / "phase_t001_tx001_r000.mat").write_text("text")
    assert cli.main(["import", "asu", *flags()]) == 2
    assert "asu/phase_t001_tx001_r000.mat is no MATLAB file, or damaged" in capsys.readouterr().err
    (Path("asu") / "params.json").write_text("{}")
    assert cli.main(["import", "asu", *flags()]) == 2
    assert "no description of a DeepMIMO v4 scenario ('txrx_sets')" in capsys.readouterr().err


@pytest.mark.parametrize("order", ["uplink", "downlink", "batch"])
def test_a_sionna_impulse_response_is_read(order: str, capsys: pytest.CaptureFixture[str]) -> None:
    way = positions()[:, None] - SITES
    tau = np.linalg.norm(way, axis=2)[..., None] / C  # (user, site, path)
    tone = (np.arange(10) - 4.5) * 1e6
    a = (expected()[..., :1] * np.exp(2j * np.pi * tone[0] * tau)[..., None])[..., None]  # (user, site, antenna, 1, 1)
    fields = RADIO | {"position": positions(), "tau": {"uplink": tau.swapaxes(0, 1)}.get(order, tau)}
    if order == "uplink":  # [rx = site, rx antenna, tx = user, tx antenna, path, time]
        fields["a"] = a.transpose(1, 2, 0, 3, 4)[:, :, :, None]
    elif order == "downlink":  # [rx = user, rx antenna, tx = site, tx antenna, path, time]
        fields["a"] = a[:, None]
    else:  # [batch = user, rx = site, rx antenna, tx, tx antenna, path, time]
        fields["a"], fields["tau"] = a[:, :, :, None, None], tau[:, :, None]
    with h5py.File("cir.h5", "w") as file:
        for name, value in fields.items():
            file[name] = value
    assert cli.main(["import", "cir.h5"]) == 0
    assert "40 positions, each heard by 2.0 of 2 sites, measured channels" in capsys.readouterr().out
    assert np.abs(channel("cir") - expected()).max() < 1e-5 * np.abs(expected()).max()
    with h5py.File("cir.h5", "r+") as file:
        del file["position"]
        file["position"] = positions()[:20]
    assert cli.main(["import", "cir.h5", "--name", "other"]) == 2
    assert "which do not fit 20 positions and 2 sites" in capsys.readouterr().err
