"""Measured channels in files that do not describe themselves: CAEZ-5G (ETH Zurich) and LuViRa (Lund University)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sim.errors import UserError
from sim.formats.contract import Fields

CAEZ = {"carrier_hz": 3.45e9, "bandwidth_hz": 100e6, "tone_spacing_hz": 30e3}
"""Radio of CAEZ-5G: 273 resource blocks in 100 MHz of the band n78 (https://github.com/IIP-Group/neural-positioning)."""
PICKLED = ("oru_pos_dict",)
"""Array of CAEZ-5G's files that is a pickled object, which is not read."""

_Array = npt.NDArray[Any]


def is_caez(fields: Fields) -> bool:
    """Return whether fields are of a CAEZ-5G file."""
    return "H" in fields and "pos" in fields


def read_caez(fields: Fields, where: str) -> dict[str, _Array]:
    """Return the fields of the contract that a CAEZ-5G file has.

    ``H`` is (sample, radio unit, antenna, layer, subcarrier, DMRS symbol) complex and ``pos`` (sample, 2) [m], as
    https://github.com/IIP-Group/neural-positioning: gen_dataset.py writes them with its features switched off
    (`absolute_before_downsampling` and `mean_absolutes` False, `downsampling_factor` -1).

    Raises:
        UserError: the file has features without phases instead of channels, or the field `height_m` is missing.
    """
    channel, place = np.asarray(fields["H"]), np.asarray(fields["pos"])
    if channel.ndim != 6 or channel.dtype.kind != "c":
        raise UserError(
            f"{where} has H and pos, as CAEZ-5G has: H holds {channel.dtype} of shape {channel.shape}, where complex "
            "channels (sample, radio unit, antenna, layer, subcarrier, DMRS symbol) are needed, not features of them."
        )
    if place.ndim != 2 or place.shape[1] != 2:
        raise UserError(f"{where}: pos has the shape {place.shape}, (sample, 2) is needed.")
    if "height_m" not in fields:
        raise UserError(f"{where}: the field 'height_m' is missing, of the user above the floor; give it by --field.")
    csi = channel[:, :, :, 0].mean(-1)  # the symbols of a slot lie within half a millisecond
    height = np.full((len(place), 1), float(np.asarray(fields["height_m"])))
    own = ("H", "pos", "height_m", "noise_var", "H_max_sc", "timestamps", "bounding_box")
    rest = {name: value for name, value in fields.items() if name not in own}
    radio = {name: np.asarray(value) for name, value in CAEZ.items()}
    return radio | rest | {"csi": csi, "position": np.concatenate([place, height], 1)}


def is_luvira(arrays: Fields) -> bool:
    """Return whether arrays are of a radio file of LuViRa: one is complex, (time, frequency, antenna)."""
    return len(_radio(arrays)) == 1


def read_luvira(arrays: Fields) -> dict[str, _Array]:
    """Return the field of the contract that a radio file of LuViRa has: `csi`.

    Its one array is (time, frequency, antenna) (https://github.com/ilaydayaman/LuViRA_Dataset: README.md); positions
    come from the ground truth in other files, one row for each time.
    """
    (found,) = _radio(arrays)
    return {"csi": found.swapaxes(1, 2)[:, None]}


def _radio(arrays: Fields) -> list[_Array]:
    return [value for value in arrays.values() if value.ndim == 3 and value.dtype.kind == "c"]
