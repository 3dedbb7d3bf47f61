"""Rows of a paper's table: each is measured from trained jobs and stored with the digests of its inputs.

A table's JSON file holds a record for each row: the paper's values, the measured ones (``result``), and under ``key``
the options and the digests of the data and networks it was measured with. An interrupted table resumes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from fronthaul.documents import read_json
from fronthaul.errors import LocalError
from sim.cores import cores
from sim.errors import UserError
from sim.files import write_rows
from sim.reproduce.bench import Bench

REVISION = 2
"""Revision of the measurements; raise it when fusion rules, samplers or measurements change so that results move."""

Result = dict[str, Any]
Record = dict[str, Any]
OnRow = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        label: its first cell, unique in a table.
        measure: function that measures it, called with the bench, the names of the jobs, and `options`.
        jobs: names of the jobs whose networks it needs, or of its run.
        options: keyword arguments of the measurement.
        features: names of the jobs of which it needs only the features.
        section: heading above it.
        paper: the paper's values.
        about: values that place it in a picture or on a page, such as its number of steps.
    """

    label: str
    measure: Callable[..., Result]
    jobs: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    section: str = ""
    paper: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> str:
        """Return everything that the result depends on beside data and networks, as JSON."""
        parts = REVISION, self.measure.__name__, self.jobs or self.features, self.options
        return json.dumps(parts)

    def run(self, bench: Bench) -> Result:
        """Measure the row."""
        return self.measure(bench, self.jobs or self.features, **self.options)


def measure_rows(
    bench: Bench,
    rows: Sequence[Row],
    store: Path,
    *,
    train: bool = True,
    commit: str | None = None,
    on_row: OnRow = lambda *_: None,
) -> list[Record]:
    """Measure the rows whose stored results are missing or outdated; write `store` after each.

    Args:
        bench: jobs or runs.
        rows: rows of the table.
        store: JSON file.
        train: run missing trainings; if False, their rows, and those whose path data are missing, keep a stored result
            or have none.
        commit: commit of the code, recorded.
        on_row: called with label, number of rows done, number of all rows.

    Raises:
        UserError: path data are missing and `train` is set, or `store` is damaged.
    """
    if train:
        require_data(bench, rows)
    records = stored_records(rows, read_records(store) if store.is_file() else {})
    for number, (row, record) in enumerate(zip(rows, records, strict=True)):
        for name in row.jobs:
            if train and not bench.is_trained(name):
                on_row(f"training {name}", number, len(rows))
                bench.train(name)
        on_row(row.label, number, len(rows))
        identity = _identity(bench, row)
        if None in identity.values() or _is_current(record, identity):
            continue
        begin = time.monotonic()
        record["result"] = row.run(bench)
        record["key"] = {"settings": row.settings(), "digests": identity}
        record |= {"commit": commit, "date": datetime.now(UTC).date().isoformat(), "cores": cores()}
        record["minutes"] = round((time.monotonic() - begin) / 60, 2)
        write_records(store, records)
    write_records(store, records)
    on_row("done", len(rows), len(rows))
    return list(read_records(store).values())


def require_data(bench: Bench, rows: Sequence[Row]) -> None:
    """Check that the path data of rows exist, else raise `UserError`."""
    bench.require_data(name for row in rows for name in (*row.jobs, *row.features))


@dataclass(frozen=True)
class Planned:
    """What `measure_rows` would do for a row.

    Attributes:
        label: the row's label.
        state: ``measured``: nothing; ``outdated``: measure it again, as its networks or data have changed or its
            networks are trained before; ``missing``: measure it for the first time; ``not here``: leave it as it is
            stored, if it is, as weights or data that it needs are not here and are not made.
        train: jobs that would be trained before.
        minutes: how long the stored measurement took [min]; None if unknown.
    """

    label: str
    state: Literal["measured", "outdated", "missing", "not here"]
    train: tuple[str, ...]
    minutes: float | None


def planned(bench: Bench, rows: Sequence[Row], store: Path) -> list[Planned]:
    """Return what `measure_rows` would do; nothing is trained, measured or written.

    Raises:
        UserError: `store` is damaged.
    """
    records = stored_records(rows, read_records(store) if store.is_file() else {})
    found = []
    for row, record in zip(rows, records, strict=True):
        train = tuple(name for name in row.jobs if not bench.is_trained(name))
        identity = _identity(bench, row)
        state: Literal["measured", "outdated", "missing", "not here"]
        if not train and None in identity.values():
            state = "not here"
        elif not train and _is_current(record, identity):
            state = "measured"
        else:
            state = "missing" if record["result"] is None else "outdated"
        found.append(Planned(row.label, state, train, record.get("minutes")))
    return found


def _identity(bench: Bench, row: Row) -> dict[str, str | None]:
    """Return the digests of what a row is measured with; None for what is not trained or has no data."""
    fitted = {name: bench.identity(name, fitted=True) for name in row.jobs}
    return fitted | {name: bench.identity(name, fitted=False) for name in row.features}


def _is_current(record: Record, identity: Mapping[str, str | None]) -> bool:
    return record["result"] is not None and record["key"]["digests"] == identity


def write_records(store: Path, records: Sequence[Record]) -> None:
    """Write the records of a table, numbers to six significant digits: no page shows more."""
    write_rows(store, [rounded(record) for record in records])


def rounded(value: Any) -> Any:
    """Return a value of JSON with its numbers to six significant digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else value


def read_records(store: Path) -> dict[str, Record]:
    """Return the records of a table's file by their labels.

    Raises:
        UserError: it is damaged.
    """
    try:
        return {record["label"]: record for record in read_json(store)}
    except (OSError, LocalError, LookupError, TypeError) as error:
        raise UserError(f"The table {store} is damaged ({error}); restore or remove it.") from error


def stored_records(rows: Sequence[Row], stored: Mapping[str, Record]) -> list[Record]:
    """Return a record for each row: the stored one if measured with the same options, else one without a result."""
    return [_blank(row) | _known(stored.get(row.label), row) for row in rows]


def _blank(row: Row) -> Record:
    shown = {"label": row.label, "section": row.section, "paper": dict(row.paper), "about": dict(row.about)}
    return {**shown, "key": None, "result": None}


def _known(record: Record | None, row: Row) -> Record:
    """Return the stored fields of a row if it was measured with the same options, else none."""
    key = None if record is None else record.get("key")
    if record is None or not isinstance(key, dict) or key.get("settings") != row.settings() or "digests" not in key:
        return {}
    kept = ("key", "result", "commit", "date", "cores", "minutes")
    return {name: record[name] for name in kept if name in record}
