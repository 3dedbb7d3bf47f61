"""NPZ and HDF5 files as named arrays."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.errors import UserError
from sim.world.arrays import DAMAGED

HDF5_ENDINGS = (".h5", ".hdf5")


def read_npz(path: Path, but: Collection[str] = ()) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of an NPZ file, but for those of some names.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name not in but}
    except DAMAGED as error:
        raise UserError(f"{path} is no NPZ file of arrays, or damaged ({error}).") from error


def read_hdf5(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays and attributes at the root of an HDF5 file.

    Complex numbers are h5py's compound type (r, i), or MATLAB's (real, imag).

    Raises:
        UserError: it cannot be read, or h5py is not installed.
    """
    h5 = import_h5py()
    try:
        with h5.File(path) as file:
            arrays = {name: np.asarray(node[()]) for name, node in file.items() if isinstance(node, h5.Dataset)}
            attributes = {name: np.asarray(value) for name, value in file.attrs.items()}
    except (OSError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} is no HDF5 file, or damaged ({error}).") from error
    return {name: _complex(array) for name, array in (attributes | arrays).items()}


def import_h5py() -> Any:
    """Import h5py.

    Raises:
        UserError: it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError("HDF5 files need h5py: `pip install -c constraints.txt -e '.[import]'`.") from error
    return h5py


def _complex(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype.names == ("real", "imag"):
        made: npt.NDArray[Any] = array["real"] + 1j * array["imag"]
        return made
    return array


def read_matlab(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a MATLAB file; those of version 7.3 are HDF5 files, whose axes are in reverse order.

    Raises:
        UserError: it cannot be read, or h5py is needed and not installed.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(path)
    except NotImplementedError:  # version 7.3
        return {name: array.T for name, array in read_hdf5(path).items()}
    except (OSError, ValueError, TypeError, MatReadError) as error:
        raise UserError(f"{path} is no MATLAB file, or damaged ({error}).") from error
    return {name: array for name, array in found.items() if not name.startswith("__")}
