"""What a report shows of a run, as plain numbers and texts: columns as lists, null where something is unknown.

Positions are rounded to millimetres and times to microseconds. Links of a snapshot are flat lists, base station by base
station. Of a run of more than `MOST_SNAPSHOTS` snapshots or `MOST_LINKS` links of snapshots, evenly spaced ones are
shown; sums, errors and latencies of the summary are of all.
"""

from __future__ import annotations

import base64
import io
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fronthaul.account.conservation import codes
from fronthaul.documents import parse_toml, read_json, read_text
from fronthaul.errors import LocalError
from fronthaul.link.link_file import link_table
from fronthaul.message.fates import ReportFate
from sim.errors import UserError
from sim.plan.options import command_line
from sim.records.fix_table import STAGES
from sim.records.folder import RunConfiguration, RunFolder, read_configuration
from sim.records.links import NO_TRANSPORT, Ledgers, all_totals, numbers, read_table, valid
from sim.records.report_table import link_table as totals_table
from sim.records.report_table import station_reports
from sim.records.stream_bytes import recorded_transport
from sim.toml.write import toml_text
from sim.world.scenario import Scenario
from sim.world.store import load_ground_plan

if TYPE_CHECKING:
    import pyarrow as pa

MOST_SNAPSHOTS, MOST_LINKS = 5000, 100_000
_BINS = 120
_QUANTILES = 101
_MOST_EVENTS = 200
_FATES = [fate.value for fate in ReportFate]
_ROUTINE = ("clock", "connected")
"""Events of every run; a connection that comes back shows as the end of the one before."""

Ints = npt.NDArray[np.int64]


def run_data(folder: Path) -> dict[str, Any]:
    """Return what a report shows of a run.

    Raises:
        UserError: the folder is not a run's, or of one that was cut, or a table is damaged.
    """
    run = RunFolder(folder)
    configuration = read_configuration(run)
    if not (run.summary.exists() and run.fixes.exists()):
        raise UserError(f"{folder} is of a run that was cut: `python cli.py inspect` shows what is in it.")
    summary = _summary(run)
    fixes, ledgers = read_table(run.fixes), Ledgers(run)
    settings = configuration.settings
    links = settings.snapshots * len(configuration.stations)
    every = max(-(-settings.snapshots // MOST_SNAPSHOTS), -(-links // MOST_LINKS))
    shown = np.arange(0, settings.snapshots, every)
    reports = {bs: station_reports(ledgers, bs) for bs in ledgers.stations}
    transport = recorded_transport(run) or NO_TRANSPORT
    return {
        "name": folder.name,
        "label": summary["label"],
        "every": every,
        "summary": summary,
        "scene": scene(configuration.scenario),
        "snapshots": _snapshots(configuration, shown, fixes),
        "stations": [*configuration.stations],
        "controls": _controls(run),
        "links": _links(run, configuration, summary, shown, reports),
        "totals": totals_table(all_totals(ledgers, ledgers.stations, transport)).to_pylist(),
        "timeline": _timeline(configuration, summary, fixes, reports),
        "events": _events(run, summary),
        "repeat": _repeat(run, configuration),
    }


def _summary(run: RunFolder) -> dict[str, Any]:
    try:
        summary = read_json(run.summary)
    except (OSError, LocalError) as error:
        raise UserError(f"{run.summary} cannot be read: the file is damaged.") from error
    if not isinstance(summary, dict):
        raise UserError(f"{run.summary} is damaged: it holds no table.")
    return summary


def scene(scenario: Scenario) -> dict[str, Any]:
    """Return sites, and the scene from above as a picture whose dark pixels are covered."""
    ground = load_ground_plan(scenario)
    found: dict[str, Any] = {
        "sites": [{"name": site.name, "at": [round(x, 3) for x in site.position]} for site in scenario.sites],
        "ground": None,
    }
    if ground is not None:
        from PIL import Image

        picture, data = Image.fromarray(255 * ground.covered.T[::-1].astype(np.uint8)), io.BytesIO()
        picture.convert("1").save(data, "png", optimize=True, transparency=0)
        address = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
        found["ground"] = {"picture": address, "extent": ground.extent}
    return found


def _snapshots(configuration: RunConfiguration, shown: Ints, fixes: pa.Table) -> dict[str, Any]:
    """Return number, estimate, truth and latencies of the shown snapshots; null in those without a fix."""
    at, found = _places(shown, numbers(fixes, "snapshot"))

    def column(name: str, digits: int, scale: float = 1.0) -> list[float | None]:
        values = np.full(len(shown), np.nan)
        if name in fixes.column_names:
            values[found] = np.asarray(fixes[name].cast("float64").fill_null(np.nan))[at] * scale
        return _rounded(values, digits)

    covariance = np.full((len(shown), 9), np.nan)
    claimed = fixes["covariance_m2"].combine_chunks()
    valid = np.asarray(claimed.is_valid())
    whole = np.full((len(fixes), 9), np.nan)
    whole[valid] = np.asarray(claimed.drop_null().flatten()).reshape(-1, 9)
    covariance[found] = whole[at]
    return {
        "snapshot": shown.tolist(),
        "sample": (shown % max(1, configuration.users or len(shown))).tolist(),
        **{axis: column(f"{axis}_m", 3) for axis in "xyz"},
        **{f"true_{axis}": column(f"true_{axis}_m", 3) for axis in "xyz"},
        "error": column("error_3d_m", 4),
        "vertical": column("error_vertical_m", 4),
        "covariance": [_rounded(covariance[:, place], 6) for place in (0, 1, 4)] if valid.any() else None,
        "gdop": column("gdop", 2),
        "training": column("training_distance_m", 2),
        "stages": {name: column(f"{name}_ns", 3, 1e-6) for name in STAGES},
    }


def _controls(run: RunFolder) -> dict[str, list[float | None]]:
    """Return the distribution of the error of each control, as quantiles [m]."""
    if not run.controls.exists():
        return {}
    table, found = read_table(run.controls), {}
    for name in table.column_names:
        if name.endswith("_m"):
            values = np.asarray(table[name])
            quantiles = np.quantile(values, np.linspace(0, 1, _QUANTILES), method="inverted_cdf")
            found[name.removesuffix("_m")] = _rounded(quantiles, 4)
    return found


def _links(
    run: RunFolder,
    configuration: RunConfiguration,
    summary: dict[str, Any],
    shown: Ints,
    reports: dict[int, pa.Table],
) -> dict[str, Any]:
    """Return fate and arrival of each shown snapshot's first report from each base station, and what the world says."""
    settings, stations = configuration.settings, list(configuration.stations)
    fate = np.full((len(shown), len(stations)), -1)
    arrival = np.full(fate.shape, np.nan)
    for place, bs in enumerate(stations):
        if bs not in reports:
            continue
        first = reports[bs].filter(_is_zero(reports[bs]["round"]))
        at, found = _places(shown, numbers(first, "snapshot"))
        fate[found, place] = codes(first["report_fate"], _FATES)[at]
        if settings.interval_ns:
            after_ns = numbers(first, "t_received_ns")[at] - summary["t0_ns"] - shown[found] * settings.interval_ns
            came = valid(first, "t_received_ns")[at]
            arrival[found[came], place] = after_ns[came] / 1e6
    links: dict[str, Any] = {"fate": fate.ravel().tolist(), "arrival": _rounded(arrival.ravel(), 3)}
    if not run.positions.exists():
        return links | {"world": None}
    world = read_table(run.positions)
    users = len(world) // max(1, len(stations))
    rows = ((shown % max(1, users))[:, None] * len(stations) + np.arange(len(stations))).ravel()
    rows = np.unique(rows)
    table = world.take(rows)
    digits = {"distance_m": 1, "gain_db": 1, "snr_db": 1}
    values = {
        name: _rounded(np.asarray(table[name].cast("float64").fill_null(np.nan)), digits.get(name, 0))
        for name in ("distance_m", "line_of_sight", "paths", "gain_db", "snr_db")
    }
    row = np.searchsorted(rows[:: len(stations)] // len(stations), shown % max(1, users))
    truth = {f"true_{axis}": _rounded(np.asarray(table[f"true_{axis}_m"])[:: len(stations)][row], 3) for axis in "xyz"}
    return links | {"world": values, "row": row.tolist(), **truth}


def _timeline(
    configuration: RunConfiguration, summary: dict[str, Any], fixes: pa.Table, reports: dict[int, pa.Table]
) -> dict[str, Any]:
    """Return reports by fate, and fixes, in equal intervals of the run; time is that of their snapshots [s].

    In closed loop all snapshots share one time zero: there it is the time at which a report was sent.
    """
    interval_ns, t0_ns = configuration.settings.interval_ns, summary["t0_ns"]
    times, fates = [np.zeros(0)], [np.zeros(0, np.int64)]
    for table in reports.values():
        table = table.filter(_is_zero(table["round"]))
        sent_ns = numbers(table, "snapshot") * interval_ns if interval_ns else numbers(table, "t_sent_ns") - t0_ns
        times.append(sent_ns / 1e9)
        fates.append(codes(table["report_fate"], _FATES))
    time, fate = np.concatenate(times), np.concatenate(fates)
    made = (numbers(fixes, "t_zero_ns") if interval_ns else numbers(fixes, "t_fix_ns")) - t0_ns
    end = max(float(time.max(initial=0.0)), float(made.max(initial=0)) / 1e9, 1e-3)
    bins = min(_BINS, configuration.settings.snapshots)
    if interval_ns:  # as many snapshots in each
        width_s = -(-configuration.settings.snapshots // bins) * interval_ns / 1e9
        bins = max(1, -(-(round(1e9 * end) + 1) // round(1e9 * width_s)))
        end = bins * width_s
    edges = np.linspace(0.0, end * (1 + 1e-9), bins + 1) - (0.5e-9 * interval_ns)
    return {
        "end_s": end,
        "reports": {name: np.histogram(time[fate == n], edges)[0].tolist() for n, name in enumerate(_FATES)},
        "fixes": np.histogram(made / 1e9, edges)[0].tolist(),
    }


def _events(run: RunFolder, summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Return faults: injected ones, restarts, and what either end noted besides the routine; times after zero [s]."""
    t0_ns = summary["t0_ns"]
    found = []
    injected = run.path / "chaos.json"
    if injected.exists():
        for row in read_json(injected)["faults"]:
            fault = row["fault"]
            whom = "cloud" if fault["bs"] is None else f"BS {fault['bs']}"
            found.append(
                (row["t_ns"], f"fault: {fault['kind']}", whom, f"{fault['seconds']:g} s" if fault["seconds"] else "")
            )
    for restart in summary.get("restarts") or ():
        back = restart["t_back_ns"]
        after = "not back at the end" if back is None else f"back after {(back - restart['t_died_ns']) / 1e9:.2f} s"
        found.append(
            (restart["t_died_ns"], "died with its node" if restart.get("node_lost") else "died", restart["name"], after)
        )
    table = read_table(run.events)
    last_ns = max(numbers(table, "t_ns").max(initial=0), t0_ns)
    for row in table.to_pylist():
        ended = row["kind"] == "disconnected" and row["t_ns"] >= last_ns - 1e9
        if row["kind"] not in _ROUTINE and not ended:
            whom = row["peer"] if row["bs"] is None else f"BS {row['bs']}"
            found.append((row["t_ns"], row["kind"], whom, row["detail"] or ""))
    found.sort()
    rows = [{"s": round((t - t0_ns) / 1e9, 3), "kind": kind, "who": who, "detail": detail}
            for t, kind, who, detail in dict.fromkeys(found)]  # fmt: skip
    return rows[:_MOST_EVENTS] + ([{"s": None, "kind": f"{len(rows) - _MOST_EVENTS} more", "who": "", "detail": ""}]
                                  if len(rows) > _MOST_EVENTS else [])  # fmt: skip


def _repeat(run: RunFolder, configuration: RunConfiguration) -> dict[str, Any]:
    """Return everything needed to repeat the run."""
    text = read_text(run.record)
    words = command_line(configuration.settings)
    return {
        "command": f"python cli.py {shlex.join(['emulate', *words])}",
        "links": toml_text(link_table(configuration.settings.links)) if "--links" in words else "",
        "commit": configuration.commit,
        "seed": configuration.settings.seed,
        "configuration": configuration.digest,
        "weights": {"file": configuration.weights_path.name, "digest": configuration.weights_digest},
        "positions": configuration.truth_digest,
        "environment": parse_toml(text).get("environment", {}),
        "toml": text,
    }


def _places(shown: Ints, snapshots: Ints) -> tuple[Ints, Ints]:
    """Return, for the shown snapshots that a table has, its last row of each, and their places among the shown."""
    order = np.argsort(snapshots, kind="stable")
    if not len(order):
        return order, order
    at = np.searchsorted(snapshots[order], shown, side="right") - 1
    found = np.flatnonzero((at >= 0) & (snapshots[order[np.maximum(at, 0)]] == shown))
    return order[at[found]], found


def _is_zero(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    return pc.equal(column, 0)


def _rounded(values: npt.NDArray[np.float64], digits: int) -> list[float | None]:
    """Return numbers with few digits; null for those that are not finite."""
    return [None if not np.isfinite(value) else round(value, digits) if digits else int(value)
            for value in values.tolist()]  # fmt: skip
