"""Which format a source has, and reading it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.errors import UserError
from sim.formats.archives import HDF5_ENDINGS, read_hdf5, read_matlab, read_npz
from sim.formats.contract import OwnData, measured, traced
from sim.formats.deepmimo import PARAMETERS, read_deepmimo
from sim.formats.dichasus import read_arrays, thinned
from sim.formats.sionna_cir import cir_to_csi, is_cir
from sim.formats.undescribed import PICKLED, is_caez, is_luvira, read_caez, read_luvira

TFRECORD_ENDINGS = (".tfrecord", ".tfrecords")

_KINDS = {"csi": measured, "delay": traced}


def read_source(
    source: Path,
    name: str,
    more: Mapping[str, Any],
    *,
    every: int = 1,
    tone_every: int = 1,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> OwnData:
    """Read channels or paths of users at known positions.

    Args:
        source: file or folder in one of the formats of `docs/own-data.md`.
        name: of the scenario.
        more: fields of the contract beside those of the source, which they override; a text names a file of numbers.
        every: of so many positions with measured channels, one is taken.
        tone_every: of so many of their tones, one is taken.
        on_progress: called with bytes read, of how many, where a file is read record by record.

    Raises:
        UserError: there is no such source, it has no known format, or something in it is wrong.
    """
    if not source.exists():
        raise UserError(f"There is no {source}.")
    where, given = str(source), {name: _array(name, value) for name, value in more.items()}
    if source.suffix in TFRECORD_ENDINGS:
        fields = read_arrays(source, every, tone_every, on_progress) | given
    else:
        fields = _fields(source) | given
        if is_cir(fields):
            fields = cir_to_csi(fields, where)
        elif is_caez(fields):
            fields = read_caez(fields, where)
        fields = _thinned(fields, every, tone_every)
    if "csi" in fields and "tone_spacing_hz" in fields:
        fields["tone_spacing_hz"] = fields["tone_spacing_hz"] * tone_every
    made = [make for field, make in _KINDS.items() if field in fields]
    if len(made) != 1:
        found = ", ".join(fields) or "nothing"
        raise UserError(f"{where}: just one field has to say what it holds, {' or '.join(_KINDS)}; found: {found}.")
    return made[0](fields, name, where)


def _fields(source: Path) -> dict[str, npt.NDArray[Any]]:
    if source.suffix == ".npz":
        return read_npz(source, but=PICKLED)
    if source.suffix in HDF5_ENDINGS:
        return read_hdf5(source)
    if source.suffix == ".mat":
        arrays = read_matlab(source)
        return read_luvira(arrays) if is_luvira(arrays) and not _KINDS.keys() & arrays.keys() else arrays
    if (source / PARAMETERS).is_file():
        return read_deepmimo(source)
    endings = ", ".join((".npz", *HDF5_ENDINGS, ".mat", *TFRECORD_ENDINGS))
    raise UserError(f"{source} is neither a file that ends in {endings}, nor a DeepMIMO folder with {PARAMETERS}.")


def _thinned(fields: dict[str, npt.NDArray[Any]], every: int, tone_every: int) -> dict[str, npt.NDArray[Any]]:
    if "csi" not in fields or (every, tone_every) == (1, 1):
        return fields
    rows = {name: fields[name][::every] for name in ("csi", "position", "user") if name in fields}
    return fields | rows | {"csi": thinned(rows["csi"], tone_every)}


def _array(name: str, value: Any) -> npt.NDArray[Any]:
    """Return the array that an option gives, or that a file (``.npy``, ``.csv``) holds which it names."""
    try:
        if not isinstance(value, str):
            return np.asarray(value)
        if value.endswith(".npy"):
            found: npt.NDArray[Any] = np.load(value, allow_pickle=False)
            return found
        return np.loadtxt(value, delimiter=",", ndmin=2)
    except (OSError, ValueError) as error:
        raise UserError(f"--field {name} is no array: {str(error).rstrip('.')}.") from error
