"""DeepMIMO v4 folders: paths from transmitters, here the sites, to receivers, here the users.

Written from the specification of the files (https://github.com/DeepMIMO/DeepMIMO: docs/resources/specs.md, and
docs/resources/conventions.md): ``params.json``, and one matrix a file, ``NAME_tSET_txINDEX_rSET.mat`` or ``.npz``, with
a row for each receiver and a column for each path, NaN where there is none:

- ``power`` 10 log10 |a|² [dB], ``phase`` ∠a [°] and ``delay`` [s] of the amplitude a, which has the carrier's phase;
- ``aod_az``, ``aod_el``, ``aoa_az``, ``aoa_el`` [°]: azimuth from the x axis, elevation from the z axis;
- ``inter``: one digit for each interaction, 0 for line of sight; ``rx_pos``, ``tx_pos`` [m].

Amplitudes are those between the ray tracer's antennas; they become those between vertical antennas.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.errors import UserError
from sim.formats.archives import read_matlab, read_npz
from sim.world.channel import propagation_phasor

PARAMETERS = "params.json"
_FILE = re.compile(r"power_t(\d+)_tx(\d+)_r(\d+)\.(mat|npz)")
_PER_PATH = ("power", "phase", "delay", "aod_az", "aod_el", "aoa_az", "aoa_el", "inter")

_Array = npt.NDArray[Any]


def read_deepmimo(folder: Path) -> dict[str, _Array]:
    """Return the fields of the contract that a folder has; users without any path are left out.

    Raises:
        UserError: a file is missing or damaged, matrices do not fit each other, or the scenario is dynamic.
    """
    frequency_hz, receivers = _parameters(folder / PARAMETERS)
    names = [match for path in sorted(folder.iterdir()) if (match := _FILE.fullmatch(path.name))]
    links = [match.groups() for match in names if int(match[3]) in receivers]
    if not links:
        raise UserError(f"{folder} has no power_t…_tx…_r… file of a set that is a receiver alone in {PARAMETERS}.")
    sites = sorted({(t, tx) for t, tx, _, _ in links})
    groups = sorted({r for _, _, r, _ in links})
    ending = links[0][3]
    position = np.concatenate([_matrix(folder, "rx_pos", *sites[0], r, ending) for r in groups])
    site = np.concatenate([_matrix(folder, "tx_pos", *own, groups[0], ending)[:1] for own in sites])
    columns: dict[str, list[_Array]] = {name: [] for name in _PER_PATH}
    for own in sites:
        for name in _PER_PATH:
            parts = [_matrix(folder, name, *own, r, ending) for r in groups]
            wide = max(part.shape[1] for part in parts)
            padded = [np.pad(part.astype(float), ((0, 0), (0, wide - part.shape[1])), constant_values=np.nan)
                      for part in parts]  # fmt: skip
            columns[name].append(np.concatenate(padded))
            if columns[name][-1].shape != columns["power"][-1].shape or len(columns[name][-1]) != len(position):
                raise UserError(f"{folder}: {name}_t{own[0]}_tx{own[1]} has another shape than power or rx_pos.")
    wide = max(column.shape[1] for column in columns["power"])
    stacked = {
        name: np.stack([np.pad(c, ((0, 0), (0, wide - c.shape[1])), constant_values=np.nan) for c in parts], 1)
        for name, parts in columns.items()
    }
    there = np.isfinite(stacked["power"]) & np.isfinite(stacked["delay"])  # (N, K, path)
    heard = there.any((1, 2))
    there = there[heard]
    flat = {name: values[heard][there] for name, values in stacked.items()}
    delay = flat["delay"].astype(np.float32)
    amplitude = 10 ** (flat["power"] / 20) * np.exp(1j * np.radians(flat["phase"]))
    matrix = np.zeros((len(delay), 2, 2), np.complex64)
    matrix[:, 0, 0] = amplitude / propagation_phasor(frequency_hz, delay.astype(np.float64))
    code = np.nan_to_num(flat["inter"]).astype(np.int64)
    return {
        "position": position[heard],
        "site_position": site,
        "carrier_hz": np.asarray(frequency_hz),
        "offset": np.concatenate([[0], np.cumsum(there.sum(2))]),
        "matrix": matrix,
        "delay": delay,
        "site_angle": np.radians(np.stack([flat["aod_el"], flat["aod_az"]], 1)),
        "user_angle": np.radians(np.stack([flat["aoa_el"], flat["aoa_az"]], 1)),
        "bounces": np.where(code == 0, 0, np.floor(np.log10(np.maximum(code, 1))).astype(np.int64) + 1),
    }


def _parameters(path: Path) -> tuple[float, set[int]]:
    """Return the carrier frequency [Hz], and the numbers of the sets that receive and do not send."""
    try:
        parameters = json.loads(path.read_text(encoding="utf-8"))
        scenes = int(parameters.get("scene", {}).get("num_scenes", 1))
        sets = parameters["txrx_sets"].values()
        receivers = {int(one["id"]) for one in sets if one["is_rx"] and not one["is_tx"]}
        frequency_hz = float(parameters["rt_params"]["frequency"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no description of a DeepMIMO v4 scenario ({error}).") from error
    if scenes > 1:
        raise UserError(f"{path} is of {scenes} scenes: import the folder of one of them, with its own {PARAMETERS}.")
    return frequency_hz, receivers


def _matrix(folder: Path, name: str, t: str, tx: str, r: str, ending: str) -> _Array:
    path = folder / f"{name}_t{t}_tx{tx}_r{r}.{ending}"
    if not path.is_file():
        raise UserError(f"{path} is missing.")
    arrays = read_npz(path) if ending == "npz" else read_matlab(path)
    found = arrays.get(name, next(iter(arrays.values())) if len(arrays) == 1 else None)
    if found is None or found.ndim != 2:
        raise UserError(f"{path} has no matrix {name}.")
    return found
