"""TFRecord files of DICHASUS (University of Stuttgart) and ESPARGOS: channels measured by several antenna arrays.

Written from what their loaders do (https://dichasus.inue.uni-stuttgart.de/tutorials/, https://espargos.net/datasets/,
https://github.com/Jeija/ESPARGOS-Passive-ChannelCharting: espargos_0007.py). Features of a record are tensors:

- DICHASUS: ``csi`` (antenna, subcarrier, 2) float32, real and imaginary part, subcarriers in the order of an FFT, and
  ``pos-tachy`` (3,) [m]. ``spec.json`` beside the file says which antennas an array has (``assignments``, by rows), and
  ``reftx-offsets-NAME.json``, if it is there, by which phases the antennas are calibrated (``sto``, ``cpo``).
- ESPARGOS: ``csi`` (array, row, column, subcarrier) complex64, subcarriers ascending, scaled by ``rssi`` [dB], and
  ``pos`` (3,) [m].

In both, ``spec.json`` has each array's ``location`` [m] and, where they are known, ``upvector`` and ``rightvector``; an
array faces along rightvector × upvector. Rows go downwards and columns along ``rightvector``. DICHASUS's has the
``bandwidth`` [Hz] of all subcarriers.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.errors import UserError
from sim.formats.tfrecord import parse_tensor, read_examples

_POSITIONS = ("pos-tachy", "pos")
_VECTORS = ("rightvector", "upvector")

_Array = npt.NDArray[Any]


def read_arrays(
    path: Path, every: int, tone_every: int, on_progress: Callable[[int, int], None] = lambda *_: None
) -> dict[str, _Array]:
    """Return the fields of the contract that a file and the ``spec.json`` beside it have.

    Args:
        path: the TFRecord file.
        every: of so many records the first is taken.
        tone_every: of so many subcarriers one is taken.
        on_progress: called with bytes read, of how many.

    Raises:
        UserError: a file is missing or damaged, or a record has no channel or no position.
    """
    spec = _described(path.with_name("spec.json"))
    antennas = spec["antennas"]
    offsets = _offsets(path.with_name(f"reftx-offsets-{path.stem}.json"))
    channels: list[_Array] = []
    positions: list[_Array] = []
    for record in itertools.islice(read_examples(path, on_progress), 0, None, every):
        named = [name for name in _POSITIONS if name in record]
        if "csi" not in record or not named:
            raise UserError(
                f"{path}: a record has the features {', '.join(record)}, csi and {' or '.join(_POSITIONS)} are needed."
            )
        try:
            csi, place = parse_tensor(record["csi"]), parse_tensor(record[named[0]])
            made = _espargos(csi, record) if csi.ndim == 4 else _dichasus(csi, antennas, offsets, path)
        except (ValueError, IndexError, TypeError) as error:
            raise UserError(f"{path}: record {len(channels) * every} is damaged ({error}).") from error
        channels.append(thinned(made, tone_every))
        positions.append(place.astype(float))
    if not channels:
        raise UserError(f"{path} has no record.")
    fields = {"csi": np.stack(channels), "position": np.stack(positions)}
    fields["site_position"] = np.array([antenna["location"] for antenna in antennas], float)
    if all(name in antenna for name in _VECTORS for antenna in antennas):
        right, up = (np.array([antenna[name] for antenna in antennas], float) for name in _VECTORS)
        ahead = np.cross(right, up)
        ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
        fields["site_yaw_deg"] = np.degrees(np.arctan2(ahead[:, 1], ahead[:, 0]))
        fields["site_pitch_deg"] = -np.degrees(np.arcsin(ahead[:, 2]))
    if csi.ndim == 3 and isinstance(spec.get("bandwidth"), int | float):
        fields["bandwidth_hz"] = np.array(float(spec["bandwidth"]))
        # A hair less, so that rounding does not make the tones wider than the band.
        fields["tone_spacing_hz"] = np.nextafter(fields["bandwidth_hz"] / csi.shape[1], 0)
    shape = csi.shape[1:3] if csi.ndim == 4 else np.shape(antennas[0]["assignments"])
    return fields | {"array": np.array([*shape, 1])}


def thinned(csi: _Array, every: int) -> _Array:
    """Return one of `every` tones (…, F), as symmetrically around the carrier as they allow."""
    count = 1 + (csi.shape[-1] - 1) // every
    first = (csi.shape[-1] - 1 - (count - 1) * every) // 2
    return csi[..., first::every]


def _espargos(csi: _Array, record: dict[str, bytes]) -> _Array:
    """Return (array, antenna, subcarrier)."""
    if "rssi" in record:
        csi = csi * 10 ** (parse_tensor(record["rssi"])[..., None] / 20)
    return csi.swapaxes(1, 2).reshape(len(csi), -1, csi.shape[-1])


def _dichasus(csi: _Array, antennas: list[dict[str, Any]], offsets: dict[str, _Array] | None, path: Path) -> _Array:
    """Return (array, antenna, subcarrier)."""
    if csi.ndim != 3 or csi.shape[2] != 2:
        raise ValueError(f"csi has the shape {csi.shape}")
    shifted = np.fft.fftshift(csi[..., 0] + 1j * csi[..., 1], axes=1)
    if offsets is not None:
        ramp = 2 * np.pi * np.arange(shifted.shape[1]) / shifted.shape[1]
        shifted = shifted * np.exp(1j * (np.outer(offsets["sto"], ramp) + offsets["cpo"][:, None]))
    try:
        order = np.stack([np.array(antenna["assignments"]).T.ravel() for antenna in antennas])
    except (KeyError, ValueError) as error:
        raise UserError(f"{path.with_name('spec.json')}: arrays of equal size need their assignments.") from error
    found: _Array = shifted[order]
    return found


def _described(path: Path) -> dict[str, Any]:
    try:
        spec: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not spec["antennas"] or not all("location" in antenna for antenna in spec["antennas"]):
            raise ValueError("an array without a location")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not say where the arrays are ({error}).") from error
    return spec


def _offsets(path: Path) -> dict[str, _Array] | None:
    if not path.is_file():
        return None
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {name: np.array(table[name], float) for name in ("sto", "cpo")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} has no offsets sto and cpo ({error}).") from error
