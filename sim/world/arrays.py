"""Arrays in NPZ files: written whole or not at all, read without pickle."""

from __future__ import annotations

import bz2
import io
import lzma
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fronthaul.files import whole_file

DAMAGED = (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile)
"""Exceptions raised when reading a missing, truncated or foreign NPZ file."""


def save_arrays(path: Path, *, smallest: bool = False, **named: npt.NDArray[Any]) -> None:
    """Write an NPZ file.

    Args:
        path: where to write the file.
        smallest: compress each array with LZMA or bzip2, whichever does more, instead of Deflate: files are 10 to 33 %
            smaller and take twenty times longer to write.
        named: arrays by name.
    """
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in named.items():
            # A fixed date: equal arrays make equal files.
            member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            member.compress_type = _smallest(array) if smallest else zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)


def _smallest(array: npt.NDArray[Any]) -> int:
    """Return the method of ZIP files that makes an array smallest."""
    data = io.BytesIO()
    np.lib.format.write_array(data, np.asanyarray(array), allow_pickle=False)
    sizes = {
        zipfile.ZIP_LZMA: len(lzma.compress(data.getvalue(), lzma.FORMAT_ALONE)),
        zipfile.ZIP_BZIP2: len(bz2.compress(data.getvalue())),
    }
    return min(sizes, key=sizes.__getitem__)


def load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of an NPZ file.

    Raises:
        Exception: one of `DAMAGED`.
    """
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
