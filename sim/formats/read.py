"""Which format a source has, and reading it."""

from __future__ import annotations

from pathlib import Path

from sim.errors import UserError
from sim.formats.archives import HDF5_ENDINGS, read_hdf5, read_npz
from sim.formats.contract import OwnData, measured


def read_source(source: Path, name: str) -> OwnData:
    """Read channels or paths of users at known positions.

    Args:
        source: file or folder in one of the formats of `docs/own-data.md`.
        name: of the scenario.

    Raises:
        UserError: there is no such source, it has no known format, or something in it is wrong.
    """
    if not source.exists():
        raise UserError(f"There is no {source}.")
    where = str(source)
    if source.suffix in (".npz", *HDF5_ENDINGS):
        return measured(read_npz(source) if source.suffix == ".npz" else read_hdf5(source), name, where)
    raise UserError(f"{source} ends neither in .npz nor in {' or '.join(HDF5_ENDINGS)}.")
