"""A finished run, and a finished sweep: their tables and pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.errors import UserError, nearest_hint

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from matplotlib.axes import Axes

    from sim.inspect.run_tables import RunTables

TABLES = ("fixes", "reports", "links", "positions", "controls", "events", "connections", "sockets", "stages")
"""Names of a run's tables; docs/columns.md describes their columns."""


class Run:
    """A finished run.

    `fixes`, `reports`, `links` and `positions` are pandas DataFrames; `table` returns any table as Arrow, from which
    ``polars.from_arrow`` makes a polars DataFrame.

    Attributes:
        folder: its folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open a run's folder.

        Raises:
            UserError: it is none, or of a run that was cut.
        """
        from sim.inspect.run_tables import RunTables
        from sim.records.folder import RunFolder

        self.folder = Path(folder)
        self._tables: RunTables = RunTables(RunFolder(self.folder))
        if self._tables.was_cut or self._tables.fixes is None:
            raise UserError(f"{self.folder} is of a run that was cut: `python cli.py inspect` shows what is in it.")

    def __repr__(self) -> str:
        error = self.summary["error_3d_m"]
        mean = f", mean 3D error {error['mean']:.3g} m" if error else ""
        return f"<Run {self.folder}: {self.label}, {self.summary['fixes']} fixes{mean}>"

    @property
    def label(self) -> str:
        """Scheme and payload, such as "ecc, B = 4"."""
        return str(self.summary["label"])

    @property
    def options(self) -> dict[str, Any]:
        """Options that repeat the run: ``cofix.emulate(**run.options | {"snapshots": 100})``; see `Options`.

        Links that only a link file can express, and the output folder, are not among them.
        """
        from sim.plan.options import told_by

        found = told_by(self._tables.configuration.settings)
        own = dict(text.split("=", 1) for text in found.pop("option", ()))
        return found | ({"option": own} if own else {})

    @property
    def summary(self) -> Mapping[str, Any]:
        """Content of ``summary.json``: errors [m], bits, bytes, fates, latencies [ms], links.

        Raises:
            UserError: it is missing or damaged.
        """
        if self._tables.summary is None:
            raise UserError(f"{self.folder} has no summary.json.")
        return self._tables.summary

    @property
    def fixes(self) -> pd.DataFrame:
        """One row per fix: true and estimated position, errors, covariance, reports used, latencies."""
        return self.table("fixes").to_pandas()

    @property
    def reports(self) -> pd.DataFrame:
        """One row per report of a base station: times, sizes, and what became of it."""
        return self.table("reports").to_pandas()

    @property
    def links(self) -> pd.DataFrame:
        """One row per link and direction: frames and reports by fate, bits and bytes by name."""
        return self.table("links").to_pandas()

    @property
    def positions(self) -> pd.DataFrame:
        """One row per test position and base station: line of sight, paths, gain and SNR."""
        return self.table("positions").to_pandas()

    def table(self, name: str) -> pa.Table:
        """Return one of the `TABLES` as Arrow.

        Raises:
            UserError: there is no such table, or it is damaged.
        """
        from sim.records.links import read_table
        from sim.records.report_table import link_table, report_table

        if name not in TABLES:
            raise UserError(f"There is no table {name!r}{nearest_hint(name, TABLES)}.")
        if name == "reports":
            return report_table(self._tables.ledgers)
        if name == "links":
            return link_table(self._tables.links)
        path: Path = getattr(self._tables.folder, name)
        if not path.exists():
            raise UserError(f"{self.folder} has no table of {name}.")
        return read_table(path)

    def plot_cdf(self, ax: Axes | None = None) -> Axes:
        """Draw the distribution of the 3D error [m], with the run's controls if it has any; return the axes.

        Args:
            ax: axes to draw on; None makes new ones.
        """
        from sim.emulate.run_pictures import draw_error_cdf

        controls: dict[str, Any] = {}
        if self._tables.folder.controls.exists():
            columns = self.table("controls")
            controls = {name.removesuffix("_m"): columns[name].to_numpy() for name in columns.column_names}
        ax = _axes() if ax is None else ax
        draw_error_cdf(ax, self.table("fixes")["error_3d_m"].to_numpy(), controls, self.label)
        ax.legend(frameon=False)
        return ax

    def plot_map(self, ax: Axes | None = None) -> Axes:
        """Draw sites, true positions and estimates on the scene [m]; return the axes.

        Args:
            ax: axes to draw on; None makes new ones.
        """
        from sim.emulate.run_pictures import draw_position_map
        from sim.records.fix_table import estimated_positions, true_positions
        from sim.world.store import load_ground_plan

        configuration, fixes = self._tables.configuration, self.table("fixes")
        ax = _axes() if ax is None else ax
        truth, estimate = true_positions(fixes), estimated_positions(fixes)
        ground = load_ground_plan(configuration.scenario)
        draw_position_map(ax, configuration.scenario, len(configuration.stations), truth, estimate, ground)
        return ax


class Sweep:
    """A finished sweep.

    Attributes:
        folder: its folder, with ``sweep.json``, ``sweep.md``, the pictures, and a folder per row.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open a sweep's folder.

        Raises:
            UserError: it is none.
        """
        from sim.sweep.joined import sweep_rows

        self.folder = Path(folder)
        self._rows = sweep_rows(self.folder)

    def __repr__(self) -> str:
        return f"<Sweep {self.folder}: {len(self._rows)} runs>"

    @property
    def rows(self) -> pd.DataFrame:
        """One row per run: its options, then its figures, with ``error_3d_m`` spread over columns such as ``p90_m``."""
        import pandas as pd

        return pd.DataFrame([_flat(row) for row in self._rows])

    @cached_property
    def runs(self) -> list[Run]:
        """The runs, in the order of the rows."""
        return [Run(self.folder / row["run"]) for row in self._rows]


def open(folder: str | os.PathLike[str]) -> Run:
    """Open a finished run.

    Raises:
        UserError: `folder` is not a run's, or of one that was cut.
    """
    return Run(folder)


def _axes() -> Axes:
    """Return new axes that a notebook shows."""
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(7.2, 5.2), layout="constrained")[1]


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    error = row["error_3d_m"] or {}
    figures = {f"{name}_m": error.get(name) for name in ("mean", "median", "rmse", "p90", "p95")}
    low, high = error.get("ci95_of_mean") or (None, None)
    figures |= {"mean_low_m": low, "mean_high_m": high}
    others = {name: value for name, value in row.items() if name not in ("settings", "error_3d_m", "notes")}
    return {**row["settings"], **figures, **others}
