"""Which format a source has, and reading it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.errors import UserError
from sim.formats.archives import HDF5_ENDINGS, read_hdf5, read_npz
from sim.formats.contract import OwnData, measured, traced
from sim.formats.deepmimo import PARAMETERS, read_deepmimo
from sim.formats.sionna_cir import cir_to_csi, is_cir

_KINDS = {"csi": measured, "delay": traced}


def read_source(source: Path, name: str, more: Mapping[str, Any]) -> OwnData:
    """Read channels or paths of users at known positions.

    Args:
        source: file or folder in one of the formats of `docs/own-data.md`.
        name: of the scenario.
        more: fields of the contract beside those of the source, which they override.

    Raises:
        UserError: there is no such source, it has no known format, or something in it is wrong.
    """
    if not source.exists():
        raise UserError(f"There is no {source}.")
    where = str(source)
    fields = _fields(source) | _arrays(more)
    if is_cir(fields):
        fields = cir_to_csi(fields, where)
    made = [make for field, make in _KINDS.items() if field in fields]
    if len(made) != 1:
        raise UserError(f"{where}: a field is needed that says what it holds, and just one: {' or '.join(_KINDS)}.")
    return made[0](fields, name, where)


def _fields(source: Path) -> dict[str, npt.NDArray[Any]]:
    if source.suffix == ".npz":
        return read_npz(source)
    if source.suffix in HDF5_ENDINGS:
        return read_hdf5(source)
    if (source / PARAMETERS).is_file():
        return read_deepmimo(source)
    raise UserError(
        f"{source} is neither an .npz nor an {' or '.join(HDF5_ENDINGS)} file, nor a DeepMIMO folder with {PARAMETERS}."
    )


def _arrays(more: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    found = {}
    for name, value in more.items():
        try:
            found[name] = np.asarray(value)
        except ValueError as error:
            raise UserError(f"--field {name} is no array: its rows are of different lengths.") from error
    return found
