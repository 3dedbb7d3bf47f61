"""Sweeps: in-process emulations of every combination of lists of settings, one row per combination.

A row is a run of its own, in a folder named after its combination, with its results in ``row.json``. A row that already
exists for the same settings, weights and test positions is not run again, so a sweep that was stopped resumes, and one
with longer lists runs only the new combinations. All runs use the simulated clock, so rows are reproducible.

An error is known only where a fix was made. A lossy link gives few fixes, perhaps of the easy snapshots only. Errors of
the fixes are therefore reported with the number of fixes, and with a quantile over all snapshots, in which a snapshot
without a fix counts as infinitely far off.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import re
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.scheme import weights_scheme
from fronthaul.documents import read_json
from fronthaul.errors import LocalError
from fronthaul.link.link_file import LinkPlan, link_table
from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.files import write_json, write_text
from sim.plan.outcome import Progress, RunResult
from sim.plan.plan import load_test_set
from sim.plan.scheme_options import scheme_options
from sim.plan.settings import EmulateSettings
from sim.plan.weights import find_weights, load_weights
from sim.records.links import read_table
from sim.sweep.sweep_figure import draw, swept
from sim.world.bound import position_error_bound
from sim.world.paths import load_paths
from sim.world.pilot_store import PilotStore
from sim.world.scenario import Scenario, load_scenario, scenario_table

Row = dict[str, Any]
OnRow = Callable[[str, int, int, bool], None]
"""Called with the row's name, snapshots done, snapshots in total, and whether the first row that really runs starts."""

_NO_OUTCOME = ("output", "driver", "capture", "controls", "report", "node_label", "metrics", "log_json")
"""Settings that do not affect the figures of a row."""
_LATER = (
    "options", "random_subset", "layout", "cloud_gpus", "force", "compact",
    "track", "track_deviation", "track_acceleration",
)  # fmt: skip
"""Settings that were added later; a key leaves them out unset or at their defaults, so that older rows still match."""

PER_REPORT = "payload [bit/report]"
EXPLAINED = (
    "fixes: made, of all snapshots; mean and p90: 3D error of the fixes made, the interval by resampling positions; "
    'p90 of all: of all snapshots, those without a fix counting as infinitely far off ("beyond": too many of them); '
    "payload per fix: of all base stations; crossed: frames that the link did not drop, every overhead on the TCP "
    "stream included, per fix made; late, lost: of all reports."
)


@dataclass(frozen=True)
class Case:
    """One combination.

    Attributes:
        texts: value of each option as given on the command line.
        settings: settings of the run.
        name: name of the row's folder.
    """

    texts: Mapping[str, str]
    settings: EmulateSettings
    name: str


@dataclass(frozen=True)
class Sweep:
    """A finished sweep: its files, and one row per combination."""

    table: Path
    text: Path
    pictures: list[Path]
    rows: list[Row]


def combinations(
    axes: Mapping[str, Sequence[str]],
    settings_of: Callable[[Mapping[str, str]], EmulateSettings],
    output: Path,
    taken: Callable[[Mapping[str, str]], Mapping[str, str] | None] = dict,
) -> list[Case]:
    """Return every combination of the axes' values, checked; the last axis changes fastest.

    Args:
        axes: values of each option, as texts.
        settings_of: returns the settings for one value of each option.
        output: folder of the sweep.
        taken: returns the options of a combination that mean something to its scheme, or None to leave it out;
            combinations that differ in other options only are one.

    Raises:
        UserError: a value is listed twice, or a combination is impossible; nothing has been run.
    """
    for name, values in axes.items():
        if len(set(values)) < len(values):
            raise UserError(f"--{name} lists a value twice: {','.join(values)}.")
    inputs = Inputs()
    varied = [name for name, values in axes.items() if len(values) > 1]
    cases: list[Case] = []
    for chosen in itertools.product(*axes.values()):
        texts = taken(dict(zip(axes, chosen, strict=True)))
        if texts is None or any(case.texts == texts for case in cases):
            continue
        name = "_".join(f"{key}-{_plain_name(texts[key])}" for key in varied if key in texts) or "single"
        try:
            settings = dataclasses.replace(settings_of(texts).in_process(), controls=False, output=output / name)
            settings.require_fits(inputs.scenario(settings))
            scheme_options(settings)
        except UserError as error:
            where = ", ".join(f"--{key} {texts[key]}" for key in varied if key in texts)
            raise UserError(f"{error} (in the combination {where})" if where else str(error)) from error
        cases.append(Case(texts, settings, name))
    return cases


def run_sweep(
    cases: Sequence[Case],
    output: Path,
    command: str,
    on_row: OnRow = lambda *_: None,
    workers: int = 1,
    ray_address: str | None = None,
) -> Sweep:
    """Run all missing rows, and write ``sweep.json``, ``sweep.md`` and the pictures to `output`.

    Args:
        cases: result of `combinations`.
        output: folder of the sweep.
        command: command line of the user, for the record.
        on_row: called with the progress, see `OnRow`.
        workers: processes that run rows side by side; with 1, rows run in this process.
        ray_address: of a Ray cluster, on whose nodes the processes run; None is for this machine.

    Raises:
        UserError: weights are missing, a run fails, or `output` cannot be written or holds another sweep; finished rows
            are kept.
    """
    inputs = Inputs()
    keys = [inputs.key(case.settings) for case in cases]  # reads all weights, so that missing ones are reported at once
    _require_own(output, [_finished(output / case.name, key) for case, key in zip(cases, keys, strict=True)])
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write to --output {output}: {error.strerror}.") from error
    rows = {case.name: _finished(output / case.name, key) for case, key in zip(cases, keys, strict=True)}
    missing = [(case, key) for case, key in zip(cases, keys, strict=True) if rows[case.name] is None]
    total = sum(case.settings.snapshots for case in cases)
    done = total - sum(case.settings.snapshots for case, _ in missing)
    for case, _ in missing:
        for part in case.settings.output.glob("*.part"):  # left over if this row was stopped before
            shutil.rmtree(part, ignore_errors=True)

    def one_by_one() -> Generator[tuple[int, RunResult | UserError]]:
        store = PilotStore()
        for number, (case, _) in enumerate(missing):
            advance = functools.partial(_advance, on_row, case.name, done, total, not number)
            try:
                yield number, emulate(case.settings, advance, store=store)
            except UserError as error:
                yield number, error

    if missing and ray_address is not None:
        from sim.emulate.ray_rows import emulated_on_ray

        results = emulated_on_ray([case.settings for case, _ in missing], workers, ray_address)
    elif len(missing) > 1 and workers > 1:
        from sim.sweep.workers import emulated

        results = emulated([case.settings for case, _ in missing], min(workers, len(missing)))
    else:
        results = one_by_one()
    with contextlib.closing(results):
        for number, result in results:
            case, key = missing[number]
            if isinstance(result, UserError):
                raise UserError(f"Row {case.name}: {result}") from result
            row = rows[case.name] = _measured(case, result, inputs.bound_m(case.settings))
            write_json(case.settings.output / "row.json", {"key": key, "row": row})
            done += case.settings.snapshots
            on_row(case.name, done, total, False)
    return write_sweep([row for row in rows.values() if row], output, command)


def finished(cases: Sequence[Case], output: Path) -> list[Row | None]:
    """Return the rows that `run_sweep` would reuse, None for those that it would run.

    Raises:
        UserError: as `run_sweep`.
    """
    inputs = Inputs()
    rows = [_finished(output / case.name, inputs.key(case.settings)) for case in cases]  # reads all weights
    _require_own(output, rows)
    return rows


def write_sweep(rows: Sequence[Row], output: Path, command: str, name: str = "sweep") -> Sweep:
    """Write table, text and pictures of rows to `output`."""
    table, text = output / f"{name}.json", output / f"{name}.md"
    write_json(table, {"command": command, "swept": swept(rows), "rows": rows})
    write_text(text, markdown(rows, command))
    return Sweep(table, text, draw(output / f"{name}.png", rows), list(rows))


def _require_own(output: Path, finished: Sequence[Row | None]) -> None:
    """Check that a table in `output` has no rows but those of this sweep, since it is going to be replaced.

    Raises:
        UserError: it has others.
    """
    table = output / "sweep.json"
    try:
        stored = read_json(table)["rows"] if table.is_file() else []
        others = [row for row in stored if row not in finished]
    except (OSError, LocalError, LookupError, TypeError):  # damaged: there is nothing to keep
        return
    if others:
        raise UserError(
            f"{table} is the table of another sweep ({len(others)} of its {len(stored)} rows are not of this one): "
            "name another --output, or remove the file to have it replaced."
        )


def heading(rows: Sequence[Row]) -> list[str]:
    """Return the column headings of a sweep's table."""
    return [
        *(f"--{name}" for name in swept(rows)),
        "fixes",
        "mean 3D [m] (95 %)",
        "p90 [m]",
        "p90 of all [m]",
        PER_REPORT,
        "payload [bit/fix]",
        "crossed [bit/fix]",
        "late",
        "lost",
    ]


def body(rows: Sequence[Row]) -> list[list[str]]:
    """Return the cells of a sweep's table, one list per row."""
    names = swept(rows)
    lines = []
    for row in rows:
        error = row["error_3d_m"]
        low, high = error["ci95_of_mean"] if error else (None, None)
        cells = [
            *(row["settings"].get(name, "–") for name in names),
            f"{row['fixes']} of {row['snapshots']}",
            f"{_metres(error['mean'])} ({_metres(low)}–{_metres(high)})" if error else "no fix",
            _metres(error["p90"]) if error else "–",
            _metres(row["p90_of_all_m"], "beyond"),
            _count(row["payload_bits_per_report"]),
            _count(row["payload_bits_per_fix"]),
            _count(row["crossed_bits_per_fix"]),
            f"{100 * row['late_share']:.1f} %",
            f"{100 * row['lost_share']:.1f} %",
        ]
        lines.append(cells)
    return lines


def markdown(rows: Sequence[Row], command: str) -> str:
    """Return the table with its command, as Markdown."""
    names = swept(rows)
    lines = [f"`{command}`", ""]
    fixed = {name: value for name, value in rows[0]["settings"].items() if name not in names}
    if fixed:
        lines += ["Every row: " + ", ".join(f"--{name} {value}" for name, value in fixed.items()) + ".", ""]
    head = heading(rows)
    lines += [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(cells)} |" for cells in body(rows)]
    return "\n".join([*lines, "", EXPLAINED]) + "\n"


def _advance(on_row: OnRow, name: str, before: int, total: int, first: bool, progress: Progress) -> None:
    start = progress.stage == "start"
    on_row(name, before + (0 if start else progress.done), total, first and start)


def _measured(case: Case, result: RunResult, bound_m: float | None) -> Row:
    summary = result.summary
    errors = read_table(result.folder / "fixes.parquet")["error_3d_m"].to_numpy()
    snapshots, fixes = summary["snapshots"], summary["fixes"]
    counted = summary["bytes"]
    crossed_bits = 8 * sum(counted[name] for name in ("payload", "side", "header", "padding", "zmtp", "curve"))
    reports = summary["reports"]
    sent = max(1, sum(reports.values()))
    # Measured if there are answers or lengths vary; else every base station reports once per fix.
    payload_bits = summary["bs"] * summary["payload_bits_per_report"]
    if summary["payload_bits_per_answer"] or "payload_bits" in summary:
        payload_bits = 8 * counted["payload"] / snapshots
    return {
        "scenario": summary["scenario"],
        "settings": dict(case.texts),
        "run": f"{case.name}/{result.folder.name}",
        "snapshots": snapshots,
        "fixes": fixes,
        "error_3d_m": summary["error_3d_m"],
        "bound_m": bound_m,
        "p50_of_all_m": quantile_of_all(errors, snapshots, 0.5),
        "p90_of_all_m": quantile_of_all(errors, snapshots, 0.9),
        "payload_bits_per_report": summary["payload_bits_per_report"],
        "payload_bits_per_fix": payload_bits,
        "side_bits_per_fix": 8 * counted["side"] / snapshots,
        "crossed_bits_per_fix": crossed_bits / fixes if fixes else None,
        "late_share": reports["late"] / sent,
        "lost_share": reports["lost"] / sent,
        "unused_share": reports["unused"] / sent,
        "weights_digest": summary["weights_digest"],
        "commit": summary["commit"],
        "notes": summary["notes"],
    }


def quantile_of_all(error_m: npt.NDArray[np.float64], snapshots: int, share: float) -> float | None:
    """Return the error [m] that at least `share` of all snapshots do not exceed; None where too few have a fix."""
    rank = max(1, math.ceil(share * snapshots))
    return float(np.sort(error_m)[rank - 1]) if rank <= len(error_m) else None


def _finished(folder: Path, key: str) -> Row | None:
    """Return the row if it was run before with the same key, else None."""
    try:
        found = read_json(folder / "row.json")
    except (OSError, LocalError):
        return None
    row: Row | None = found.get("row") if isinstance(found, dict) and found.get("key") == key else None
    return row


class Inputs:
    """Inputs of the combinations: scenarios, weights and test positions, each read once."""

    def __init__(self) -> None:
        self._scenarios: dict[str, Scenario] = {}
        self._texts: dict[tuple[object, ...], str] = {}
        self._bounds: dict[tuple[object, ...], float | None] = {}
        self._read = functools.lru_cache(maxsize=2)(load_paths)  # many scenarios may differ in no traced path

    def scenario(self, settings: EmulateSettings) -> Scenario:
        """Return the scenario of a combination."""
        if settings.scenario not in self._scenarios:
            self._scenarios[settings.scenario] = load_scenario(settings.scenario)
        return self._scenarios[settings.scenario]

    def weights(self, settings: EmulateSettings) -> Path:
        """Return the weights of a combination.

        Raises:
            UserError: there are none.
        """
        scheme = self._once(("scheme", settings.scheme), lambda: weights_scheme(settings.scheme))
        return settings.weights or find_weights(self.scenario(settings).data_name, scheme, settings.bits)

    def key(self, settings: EmulateSettings) -> str:
        """Return a digest of everything that a row's figures depend on, except the program itself."""
        table: dict[str, Any] = {}
        for field in dataclasses.fields(settings):
            value = getattr(settings, field.name)
            if field.name not in _NO_OUTCOME and (field.name not in _LATER or (value and value != field.default)):
                table[field.name] = link_table(value) if isinstance(value, LinkPlan) else value
        scenario = self.scenario(settings)
        path = self.weights(settings)
        table |= {
            "scenario": scenario_table(scenario),
            "weights": self._once(("weights", path), lambda: load_weights(path).digest),
            "test": self._once(
                (settings.scenario, settings.test, settings.layout), lambda: self._digest(scenario, settings)
            ),
        }
        return hashlib.sha256(json.dumps(table, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def bound_m(self, settings: EmulateSettings) -> float | None:
        """Return the mean position error bound of a run's positions [m]; None if it is unknown or differs by snapshot.

        Positions that nothing determines are left out.
        """
        known = (settings.scenario, settings.test, settings.layout, settings.bs, settings.snapshots)
        if settings.random_subset:
            return None
        if known not in self._bounds:
            scenario, paths = load_test_set(self.scenario(settings), settings, self._read)
            shown = paths.select(np.arange(min(len(paths), settings.snapshots)))
            bound = position_error_bound(scenario, shown, settings.bs) if paths.movable else None
            finite = np.empty(0) if bound is None else bound[np.isfinite(bound)]
            self._bounds[known] = float(finite.mean()) if len(finite) else None
        return self._bounds[known]

    def _once(self, name: tuple[object, ...], make: Callable[[], str]) -> str:
        if name not in self._texts:
            self._texts[name] = make()
        return self._texts[name]

    def _digest(self, scenario: Scenario, settings: EmulateSettings) -> str:
        _, paths = load_test_set(scenario, settings, self._read)
        return hashlib.sha256(paths.position.tobytes() + paths.matrix.tobytes() + paths.csi.tobytes()).hexdigest()


def _plain_name(text: str) -> str:
    """Return a text with only characters that are safe in a folder's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text.replace("%", "pct")).strip("-.") or "none"


def _metres(value: float | None, otherwise: str = "–") -> str:
    return otherwise if value is None else f"{value:.3f}"


def _count(value: float | None) -> str:
    return "–" if value is None else f"{round(value):,}".replace(",", " ")
