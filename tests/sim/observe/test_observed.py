"""One run with every fault of a link in process: its metrics are those of its ledger, and its log tells each fault."""

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_world

from fronthaul.link.link_file import LinkPlan, with_options
from sim.emulate.emulator import run_plan
from sim.errors import UserError
from sim.observe import metrics
from sim.observe.counting import Counting
from sim.observe.metrics import METRICS, Metric
from sim.plan.outcome import Progress
from sim.plan.plan import load_plan
from sim.plan.settings import EmulateSettings
from sim.world import store


class Observed(NamedTuple):
    settings: EmulateSettings
    folder: Path
    summary: dict[str, Any]
    values: dict[tuple[Metric, tuple[str, ...]], float]
    """Sums of counters, last values of gauges, numbers of observations."""
    most_held: float
    log: list[dict[str, Any]]


def observe(settings: EmulateSettings) -> Observed:
    """Run, and count while the run goes on."""
    values: Counter[tuple[Metric, tuple[str, ...]]] = Counter()
    held: list[float] = []
    counting: list[Counting] = []

    def look(progress: Progress) -> None:
        if progress.folder is not None:
            counting.append(Counting(progress.folder / "links", 0, settings))
        if progress.stage == "start":
            return
        counting[0].read(lambda: (1 << 62) if progress.stage == "write" else 0)
        taken = [*counting[0].take()]
        held.append(sum(value for metric, _, value in taken if metric is metrics.HELD))
        for metric, labels, value in taken:
            assert len(labels) == len(metric.labels)
            if metric.kind == "gauge":
                values[metric, labels] = value
            else:
                values[metric, labels] += 1 if metric.kind == "histogram" else value

    result = run_plan(load_plan(settings), look)
    assert settings.log_json is not None
    lines = [json.loads(line) for line in settings.log_json.read_text().splitlines()]
    mine = [line for line in lines if line["run"] == result.folder.name]
    return Observed(settings, result.folder, result.summary, dict(values), max(held), mine)


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("observed")
    faults = {"loss": "15%", "duplicate": "20%", "corrupt": "15%", "delay": "2ms", "jitter": "4ms", "rate": "1mbit"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "ASSET_FOLDER", folder / "assets")
        patch.setattr("sim.emulate.in_process.PROGRESS_S", 0.0)
        settings = dataclasses.replace(
            tiny_world.write(folder), links=with_options(LinkPlan(), faults), deadline_ms=5.0, interval_ms=6.0,
            minimum_bs=2, snapshots=60, log_json=folder / "log.jsonl",
        )  # fmt: skip
        yield observe(settings)


def total(observed: Observed, metric: Metric, **wanted: str) -> float:
    def fits(labels: tuple[str, ...]) -> bool:
        return wanted.items() <= dict(zip(metric.labels, labels, strict=True)).items()

    return sum(value for (of, labels), value in observed.values.items() if of is metric and fits(labels))


def test_counts_are_those_of_the_ledger(observed: Observed) -> None:
    frames, reports = observed.summary["frames"], observed.summary["reports"]
    assert all(frames[fate] for fate in ("delivered", "duplicate", "corrupt", "dropped")) and reports["late"]
    for bs in range(3):
        table = pq.read_table(observed.folder / f"links/bs-{bs:03d}.parquet").to_pylist()
        assert total(observed, metrics.FRAMES_SENT, bs=str(bs)) == len(table)
        for fate, count in Counter(row["frame_fate"] for row in table if row["frame_fate"] != "dropped").items():
            assert total(observed, metrics.FRAMES_RECEIVED, bs=str(bs), direction="up", fate=fate) == count
        for reason, count in Counter(row["reason"] for row in table if row["frame_fate"] == "dropped").items():
            assert total(observed, metrics.FRAMES_DROPPED, bs=str(bs), reason=reason) == count
        reported = {(row["snapshot"], row["report_fate"]) for row in table}
        for report_fate in ("used", "late"):
            count = sum(fate == report_fate for _, fate in reported)
            assert total(observed, metrics.REPORTS, bs=str(bs), fate=report_fate) == count
    parts = {metric: total(observed, metrics.BYTES_SENT, part=metric) for metric in ("payload", "side", "header")}
    parts["padding"] = total(observed, metrics.BYTES_SENT, part="padding")
    assert parts == {name: observed.summary["bytes"][name] for name in parts} and not observed.summary["bytes"]["curve"]
    assert total(observed, metrics.BYTES_SENT) == sum(link["stream_bytes"] for link in observed.summary["links"])
    assert total(observed, metrics.BYTES_RETURNED) == 0


def test_series_of_what_may_happen_begin_with_zero(observed: Observed) -> None:
    """Prometheus takes the first value of a series for its beginning: an outage's drops would be no increase."""
    seen = {(metric, labels) for metric, labels in observed.values if labels[:1] == ("0",)}
    for reason in ("loss", "queue", "outage", "transport", "disconnected"):
        assert (metrics.FRAMES_DROPPED, ("0", "up", reason)) in seen
    assert (metrics.FRAMES_RECEIVED, ("0", "up", "rejected")) in seen and (metrics.REPORTS, ("0", "late")) in seen
    assert total(observed, metrics.FRAMES_DROPPED, reason="outage") == 0


def test_a_snapshot_without_a_report_in_time_is_over_at_its_deadline(observed: Observed, tmp_path: Path) -> None:
    counting = Counting(tmp_path, 1_000_000_000, observed.settings)  # interval 6 ms, deadline 5 ms, 60 snapshots
    over = []
    for closed, now_ms in ((0, 0), (2, 1004), (2, 1011), (3, 1012), (60, 1012), (59, 9999)):
        counting.look(closed, 1, now_ms * 1_000_000)
        over.append(sum(value for metric, _, value in counting.take() if metric is metrics.SNAPSHOTS))
    assert over == [0, 2, 0, 1, 57, 0]
    closed_loop = dataclasses.replace(observed.settings, interval_ms=0.0, deadline_ms=EmulateSettings.deadline_ms)
    counting = Counting(tmp_path, 0, closed_loop)
    counting.look(7, 1, 1 << 62)
    assert [value for metric, _, value in counting.take() if metric is metrics.SNAPSHOTS] == [7]


def test_states_of_the_cloud_are_counted_downwards(observed: Observed) -> None:
    links = with_options(LinkPlan(), {"loss": "10%", "delay": "1ms"})
    rounds = observe(
        dataclasses.replace(observed.settings, scheme="rss-rounds", links=links, deadline_ms=60.0, snapshots=12)
    )
    ways = {(link["bs"], link["direction"]): link for link in rounds.summary["links"]}
    assert {way for _, way in ways} == {"up", "down"}
    for (bs, way), link in ways.items():
        of = {"bs": str(bs), "direction": way}
        assert total(rounds, metrics.FRAMES_SENT, **of) == link["frames"] > 0
        assert total(rounds, metrics.BYTES_SENT, **of) == link["stream_bytes"]
    for fate in ("delivered", "duplicate", "rejected"):
        assert total(rounds, metrics.FRAMES_RECEIVED, fate=fate) == rounds.summary["frames"][fate]
    assert total(rounds, metrics.FRAMES_DROPPED) == rounds.summary["frames"]["dropped"] > 0
    assert total(rounds, metrics.REPORTS, fate="used") == rounds.summary["reports"]["used"]
    assert {line["direction"] for line in rounds.log if line["event"] == "dropped"} == {"up", "down"}


def test_fixes_latencies_and_queues(observed: Observed) -> None:
    fixes = observed.summary["fixes"]
    assert total(observed, metrics.FIXES) == fixes < observed.settings.snapshots
    assert total(observed, metrics.FIX) == total(observed, metrics.FUSE) == fixes
    assert total(observed, metrics.ARRIVAL) == observed.summary["frames"]["delivered"]
    assert total(observed, metrics.EVENTS, end="edge", event="connected") == 3
    assert observed.most_held > 0  # seen while the run went on
    assert total(observed, metrics.IN_FLIGHT) == total(observed, metrics.HELD) == 0


def test_every_line_of_the_log_says_what_when_and_where(observed: Observed) -> None:
    log = observed.log
    for line in log:
        assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)
        assert datetime.now(UTC) - datetime.fromisoformat(line["time"]) < timedelta(hours=1)
        assert line["run"] == observed.folder.name and line["level"] in ("INFO", "WARNING") and "message" in line
    events = Counter(line["event"] for line in log)
    frames = observed.summary["frames"]
    assert {name: events[name] for name in ("corrupt", "duplicate", "dropped", "fix")} == {
        **{name: frames[name] for name in ("corrupt", "duplicate", "dropped")},
        "fix": observed.summary["fixes"],
    }
    assert events["connected"] == 6 and events["late"] >= observed.summary["reports"]["late"] > 0
    assert (log[0]["event"], log[-1]["event"]) == ("started", "finished")
    assert [line["message"] for line in log if line["event"] == "note"] == observed.summary["notes"]
    for line in log:
        if line["event"] in ("dropped", "late", "duplicate"):
            assert {"bs", "snapshot", "direction"} <= line.keys()
    times = [line["run_s"] for line in log if "run_s" in line]
    assert max(times) > 0.3


def test_what_fails_is_logged_and_nothing_is_left_behind(
    observed: Observed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = list(logging.getLogger().handlers)
    settings = dataclasses.replace(observed.settings, log_json=Path("-"), output=observed.folder.parent / "failed")

    def fail(progress: Progress) -> None:
        if progress.stage == "run" and progress.done:
            logging.getLogger("some.library").warning("it is %s", "late")
            raise UserError("It cannot go on.")

    with pytest.raises(UserError):
        run_plan(load_plan(settings), fail)
    log = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["level"], line["event"], line["message"]) for line in log if line["level"] == "ERROR"] == [
        ("ERROR", "failed", "It cannot go on.")
    ]
    assert ("some.library", "it is late") in [(line["event"], line["message"]) for line in log]
    assert log[-1]["event"] == "failed" and logging.getLogger().handlers == handlers
    nowhere = dataclasses.replace(settings, log_json=observed.folder)
    with pytest.raises(UserError, match=r"--log-json .* cannot be written: Is a directory"):
        run_plan(load_plan(nowhere))
    assert len([*nowhere.output.iterdir()]) == 1  # of the run that failed


def test_names_and_labels_are_ones_that_prometheus_takes() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith("cofix_") and metric.name.isidentifier()
        assert all(label.isidentifier() for label in metric.labels) and "snapshot" not in metric.labels


def test_quantiles_read_from_buckets_are_close() -> None:
    rng = np.random.default_rng(1)
    for median_ms in (0.4, 7.0, 42.0, 900.0):
        values = median_ms * rng.lognormal(0, 0.4, 1000)
        bounds = np.array([0.0, *metrics.BOUNDS_MS])
        below = np.searchsorted(np.sort(values), bounds, "right")
        for quantile in (0.5, 0.95):
            read = np.interp(quantile * len(values), below, bounds)  # as histogram_quantile of Prometheus
            assert abs(read / np.quantile(values, quantile) - 1) < 0.13
