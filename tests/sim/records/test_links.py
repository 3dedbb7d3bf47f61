"""Link models in whole runs in process: what was asked for happens, is accounted for, and happens again."""

import dataclasses
from collections import Counter
from typing import Any

import pyarrow.parquet as pq
import pytest
import run_tables

from fronthaul.link.link_file import link_plan
from sim.emulate.emulator import emulate
from sim.inspect.frames import check_books
from sim.inspect.replay import replay
from sim.plan.settings import EmulateSettings
from sim.records import links
from sim.records.folder import RunFolder

EVERYTHING = {
    "default": {
        "delay": "3ms",
        "jitter": "2ms",
        "loss": "5%",
        "duplicate": "6%",
        "corrupt": "4%",
        "reorder": "3%",
        "outage": "2s-2.5s",
    },
    "bs": {"1": {"up": {"burst": "4% 30%", "jitter_shape": "pareto"}}, "2": {"rate": "1mbit", "queue": "10kB"}},
}


def linked(settings: EmulateSettings, table: dict[str, Any], **changes: Any) -> EmulateSettings:
    return dataclasses.replace(settings, links=link_plan(table), controls=False, **changes)


def test_links_do_what_was_asked_for_and_every_frame_has_its_fate(settings: EmulateSettings) -> None:
    result = emulate(linked(settings, EVERYTHING, snapshots=300))
    summary = result.summary
    assert summary["conservation"] == {"ok": True, "problems": []}
    frames, reports = summary["frames"], summary["reports"]
    assert all(frames[fate] > 10 for fate in ("delivered", "duplicate", "corrupt", "dropped"))
    assert frames["rejected"] == 0 and summary["strays"] == 0
    assert sum(reports.values()) == 3 * 300 and reports["lost"] > 50
    assert sum(frames.values()) == sum(link["frames"] for link in summary["links"]) > 3 * 300
    reasons = Counter(run_tables.rows(result.folder, ["frame_fate", "reason"]))
    assert reasons["dropped", "loss"] > 30 and reasons["dropped", "outage"] > 30
    for link in summary["links"]:
        within = link["within"]
        assert all(within[name] for name in ("delay", "loss", "duplicate", "corrupt", "reorder")), link
        assert False not in within.values(), link
        assert link["requested"]["delay_s"] == 0.005 and link["achieved"]["outage_drops"] > 10
    assert replay(result.folder).identical == summary["fixes"]
    assert check_books(result.folder).ok


def test_a_loaded_line_has_its_rate_and_drops_what_it_cannot_hold(settings: EmulateSettings) -> None:
    """Frames of 145 B on the line come every 0.5 ms in 32s: four times what 600 kbit/s carries."""
    slow = {"up": {"rate": "600kbit", "queue": "20kB"}}
    result = emulate(linked(settings, slow, snapshots=1200, interval_ms=0.5, batch=32, deadline_ms=10_000.0))
    for link in result.summary["links"]:
        assert link["achieved"]["rate_bps"] == pytest.approx(600e3, rel=0.01)
        assert link["within"]["rate"] and link["achieved"]["queue_drops"] > 100
    assert result.summary["conservation"]["ok"] and result.summary["notes"] == []


def test_lines_that_fall_ever_further_behind_are_noted(settings: EmulateSettings) -> None:
    slow = {"default": {"rate": "4mbit"}, "bs": {"1": {"up": {"rate": "600kbit"}}, "2": {"up": {"rate": "1mbit"}}}}
    given = linked(settings, slow, snapshots=300, interval_ms=0.5, batch=32, deadline_ms=10_000.0)
    result = emulate(given)
    (note,) = result.summary["notes"]
    assert "2 of 3 lines" in note and "BS 1 up, was offered 349 % of its 0.6 Mbit/s" in note
    (link,) = (one for one in result.summary["links"] if (one["bs"], one["direction"]) == (1, "up"))
    last_s = 300 * 131 * 8 / 600e3 - (299 - 31) * 0.5e-3  # frames of 131 B; the first batch is due with its last
    assert link["achieved"]["last_wait_s"] == pytest.approx(last_s, abs=0.001) and f"waited {last_s:.3g} s" in note
    closed = dataclasses.replace(given, interval_ms=0.0, deadline_ms=EmulateSettings.deadline_ms)
    assert emulate(closed).summary["notes"] == []


def test_a_link_slower_than_the_deadline_makes_reports_late(settings: EmulateSettings) -> None:
    result = emulate(linked(settings, {"bs": {"2": {"up": {"delay": "40ms"}}}}, deadline_ms=35.0))
    reports = result.summary["reports"]
    assert (reports["late"], reports["used"], reports["lost"]) == (20, 40, 0)
    assert result.summary["arrivals"] == {"early": 0, "on_time": 40, "late": 20}
    assert result.summary["frames"]["delivered"] == 60  # a late report's frame is delivered
    fixes = pq.read_table(result.folder / "fixes.parquet")
    assert fixes["used_bs"].to_pylist() == [[0, 1]] * 20


def test_reports_before_the_window_are_early(settings: EmulateSettings) -> None:
    delays = {"bs": {"0": {"up": {"delay": "5ms"}}, "1": {"up": {"delay": "15ms"}}, "2": {"up": {"delay": "45ms"}}}}
    result = emulate(linked(settings, delays, window_ms=10.0, deadline_ms=40.0))
    assert result.summary["arrivals"] == {"early": 20, "on_time": 20, "late": 20}
    assert result.summary["reports"]["used"] == 40


def test_links_do_the_same_in_a_rerun(settings: EmulateSettings) -> None:
    chosen = linked(settings, EVERYTHING, snapshots=120)
    first, second = emulate(chosen).folder, emulate(chosen).folder
    assert run_tables.fixes(first).equals(run_tables.fixes(second))
    for one, other in zip(run_tables.ledgers(first), run_tables.ledgers(second), strict=True):
        assert one.equals(other)
    third = emulate(dataclasses.replace(chosen, seed=2)).folder
    columns = ("bs", "seq", "reason")
    assert run_tables.rows(first, columns) != run_tables.rows(third, columns)


def test_bundles_give_the_same_fixes_for_fewer_bytes(settings: EmulateSettings) -> None:
    alone, bundled = (emulate(dataclasses.replace(settings, batch=5, bundle=n)) for n in (1, 5))
    assert run_tables.fixes(alone.folder).equals(run_tables.fixes(bundled.folder))
    reports = ("bs", "snapshot", "report_fate", "payload_bits", "side", "payload")
    assert sorted(run_tables.rows(alone.folder, reports)) == sorted(run_tables.rows(bundled.folder, reports))
    assert alone.summary["frames"]["delivered"] == 60 and bundled.summary["frames"]["delivered"] == 12
    before, after = alone.summary["bytes"], bundled.summary["bytes"]
    assert (after["payload"], after["side"]) == (before["payload"], before["side"])
    assert after["header"] == 12 * (11 + 5 * 5 + 4) < before["header"] == 60 * (15 + 4)
    assert after["zmtp"] == 12 * 2 < before["zmtp"]
    for kind in ("tcpip", "ethernet", "ecpri_ethernet"):
        assert bundled.summary["bytes_modelled"][kind] < alone.summary["bytes_modelled"][kind]
    assert replay(bundled.folder).identical == 20


def test_a_lost_bundle_loses_all_its_reports(settings: EmulateSettings) -> None:
    lossy = {"up": {"loss": 0.3}}
    result = emulate(linked(settings, lossy, snapshots=60, batch=5, bundle=5))
    reports, frames = result.summary["reports"], result.summary["frames"]
    assert frames["dropped"] > 3 and reports["lost"] == 5 * frames["dropped"]
    assert result.summary["conservation"]["ok"]
    assert replay(result.folder).ok


def test_a_small_ledger_is_read_once_and_a_large_one_column_by_column(
    settings: EmulateSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = emulate(settings).folder
    opened: list[Any] = []
    monkeypatch.setattr(pq, "ParquetFile", lambda path: opened.append(path) or _parquet_file(path))
    whole = run_tables.ledgers(folder)
    for most_rows, times in ((links._KEPT_ROWS, 1), (0, 3)):
        monkeypatch.setattr(links, "_KEPT_ROWS", most_rows)
        ledgers = links.Ledgers(RunFolder(folder))
        opened.clear()
        for columns in (["seq", "bs"], ["payload"], None):
            for bs, table in zip(ledgers, whole, strict=True):
                assert ledgers.table(bs, columns).equals(table if columns is None else table.select(columns))
        assert len(opened) == times * len(whole) == times * 3


_parquet_file = pq.ParquetFile
