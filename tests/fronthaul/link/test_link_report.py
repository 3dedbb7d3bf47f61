"""Requested against achieved: true links agree, and each kind of untrue one is found out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from whole_ledger import close_ledger

from fronthaul.account.ledger import ledger_schema
from fronthaul.account.used import UsedReports
from fronthaul.errors import LocalError
from fronthaul.link.link_model import GilbertElliott, LinkConfig, LinkModel
from fronthaul.link.link_report import LinkReport, link_report, share_interval
from fronthaul.log.received import Arrival, Received, ReceiveLog
from fronthaul.log.sent import Journal, SendJournal, corrupted
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Direction, Goodbye, Payload, Report, ReportKey
from fronthaul.sender.outbox import Outbox
from fronthaul.transport.zmtp import ZMTP_NULL

MS, SECOND = 1_000_000, 1_000_000_000
START = 1_700_000_000 * SECOND

PAYLOAD_BITS = 3072
STREAM_BYTES = 384 + 4 + 19 + 9

Row = dict[str, Any]


def row(seq: int, snapshot: int, t_sent_ns: int) -> Row:
    return {
        "bs": 3,
        "epoch": 0,
        "snapshot": snapshot,
        "round": 0,
        "seq": seq,
        "part": 0,
        "direction": "up",
        "t_sent_ns": t_sent_ns,
        "t_release_ns": t_sent_ns,
        "t_received_ns": t_sent_ns,
        "payload_bits": PAYLOAD_BITS,
        "side_bits": 32,
        "header_bytes": 19,
        "padding_bits": 0,
        "zmtp_bytes": 9,
        "curve_bytes": 0,
        "frame_fate": "delivered",
        "reason": None,
    }


def run(
    config: LinkConfig,
    frames: int = 3000,
    gap_ns: int = 10 * MS,
    arrival: Callable[[int], int] = lambda t_release_ns: t_release_ns,
) -> list[Row]:
    """The ledger's rows of a link that does what its model says, but for `arrival`."""
    link = LinkModel(config, seed=4, bs=3, direction=Direction.UP, epoch=0, t0_ns=START)
    rows: list[Row] = []
    for snapshot in range(frames):
        now = START + snapshot * gap_ns
        copy = False
        while True:
            entry = row(len(rows), snapshot, now)
            passage = (link.copy if copy else link.frame)(len(rows), STREAM_BYTES, PAYLOAD_BITS, now)
            entry |= {"t_release_ns": passage.t_release_ns, "reason": passage.drop_reason}
            entry["frame_fate"] = "corrupt" if passage.flipped else "duplicate" if copy else "delivered"
            entry["t_received_ns"] = arrival(passage.t_release_ns)
            if passage.drop_reason:
                entry |= {"frame_fate": "dropped", "t_received_ns": None}
            rows.append(entry)
            if not passage.duplicate:
                break
            copy = True
    return rows


def table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, ledger_schema())


def report(config: LinkConfig | None, rows: list[Row], **clock: int) -> LinkReport:
    return link_report(table(rows), config, **clock)


EVERYTHING = LinkConfig(
    rate_bps=20e6,
    delay_s=0.002,
    jitter_s=0.001,
    jitter="pareto",
    loss=0.02,
    burst=GilbertElliott(0.02, 0.3),
    duplicate=0.04,
    reorder=0.1,
    corrupt=0.06,
    outages=((0.5, 0.6),),
    queue_bytes=5000,
)


@pytest.mark.parametrize("shape", ["uniform", "normal", "exponential", "pareto"])
def test_a_true_link_is_within_everything(shape: Any) -> None:
    config = replace(EVERYTHING, jitter=shape)
    rows = run(config)
    found = report(config, rows)
    assert found.requested["delay_s"] == pytest.approx(0.003)
    assert found.requested["loss"] == pytest.approx(1 - 0.98 * (1 - 1 / 16))
    names = ("loss", "duplicate", "reorder", "corrupt", "delay")
    assert {name: found.within[name] for name in names} == dict.fromkeys(names, True)
    assert found.within["rate"] is None  # never loaded
    assert found.achieved["frames"] == len(rows)
    assert found.achieved["outage_drops"] == sum(entry["reason"] == "outage" for entry in rows) >= 10
    assert found.achieved["delay_mean_s"] == pytest.approx(found.achieved["planned_delay_mean_s"])
    assert found.within["outage"] is None and found.within["queue"] is None
    json.dumps([found.requested, found.achieved, found.within], allow_nan=False)


def test_a_link_without_a_model_has_no_drops_and_is_not_judged_by_its_delay() -> None:
    found = report(None, run(LinkConfig(), 100, arrival=lambda t: t + 300_000))
    assert found.achieved["delay_mean_s"] == pytest.approx(300e-6)
    assert found.within == {
        "rate": None,
        "delay": None,
        "loss": True,
        "duplicate": True,
        "reorder": None,
        "corrupt": True,
        "order": True,
        "outage": True,
        "queue": True,
    }


def test_an_empty_ledger_tells_nothing() -> None:
    found = report(EVERYTHING, [])
    assert set(found.within.values()) == {None}
    assert found.achieved["frames"] == 0 and found.achieved["delay_mean_s"] is None


# -------------------------------------------------------------------------------------------------------------- delay


@pytest.mark.parametrize(("extra_ns", "within"), [(0, True), (190_000, True), (400_000, False), (-400_000, False)])
def test_the_delay_must_be_within_five_per_cent(extra_ns: int, within: bool) -> None:
    config = LinkConfig(rate_bps=20e6, delay_s=0.004)
    found = report(config, run(config, 500, arrival=lambda t: t + extra_ns))
    assert found.achieved["delay_mean_s"] == pytest.approx(0.004 + extra_ns * 1e-9)
    assert found.within["delay"] is within


def test_waiting_and_serialisation_are_left_out_of_the_delay() -> None:
    config = LinkConfig(rate_bps=1e6, delay_s=0.05)
    found = report(config, run(config, 300, gap_ns=MS))
    assert found.achieved["delay_mean_s"] == pytest.approx(0.05)
    assert found.achieved["delay_p50_s"] == found.achieved["delay_p99_s"] == pytest.approx(0.05)


def test_few_frames_with_jitter_have_room_for_chance() -> None:
    """99 % of short runs are within, however far 5 % is from their means."""
    config = LinkConfig(delay_s=0.001, jitter_s=0.002, jitter="exponential")
    rows = run(config, 2000)
    short = [report(config, rows[at : at + 20]) for at in range(0, 2000, 20)]
    assert sum(found.within["delay"] is False for found in short) <= 4
    assert sum(found.within["delay"] is True for found in short) >= 80
    means = [found.achieved["delay_mean_s"] for found in short]
    assert sum(abs((mean or 0) - 0.003) > 0.05 * 0.003 for mean in means) > 50


def test_the_offset_of_clocks_is_taken_off() -> None:
    config = LinkConfig(delay_s=0.004)
    rows = run(config, 100, arrival=lambda t: t + 7 * SECOND + 500_000)
    assert report(config, rows).within["delay"] is False
    known = report(config, rows, receiver_ahead_ns=7 * SECOND)
    assert known.achieved["delay_mean_s"] == pytest.approx(0.0045) and known.within["delay"] is False
    assert report(config, rows, receiver_ahead_ns=7 * SECOND, uncertainty_ns=400_000).within["delay"] is True


def test_frames_that_hold_each_other_back_leave_the_delay_open() -> None:
    config = LinkConfig(delay_s=0.001, jitter_s=0.01, jitter="exponential")
    found = report(config, run(config, 500, gap_ns=MS))
    assert found.achieved["held_back"] and found.achieved["held_back"] > 100
    assert found.within["delay"] is None and found.within["order"] is True


# ------------------------------------------------------------------------------------------------------ rate and order


@pytest.mark.parametrize(("slower", "within"), [(1.0, True), (1.04, True), (1.1, False), (0.9, False)])
@pytest.mark.parametrize("jitter_s", [0.0, 0.002])
def test_the_rate_is_measured_where_the_line_was_loaded(slower: float, within: bool, jitter_s: float) -> None:
    config = LinkConfig(rate_bps=2e6, delay_s=0.01, jitter_s=jitter_s, loss=0.05)
    rows = run(config, 2000, gap_ns=MS // 2, arrival=lambda t: START + round((t - START) * slower))
    found = report(config, rows)
    assert found.achieved["rate_bps"] == pytest.approx(2e6 / slower, rel=0.005)
    assert found.within["rate"] is within


def test_several_busy_times_make_one_rate() -> None:
    config = LinkConfig(rate_bps=2e6, queue_bytes=40_000)
    rows = run(config, 3000, gap_ns=MS // 10)
    later = [entry | {"seq": entry["seq"] + 3000, "snapshot": entry["snapshot"] + 3000} for entry in rows]
    for entry in later:
        for name in ("t_sent_ns", "t_release_ns", "t_received_ns"):
            entry[name] = entry[name] and entry[name] + 100 * SECOND
    found = report(config, rows + later)
    assert found.achieved["rate_bps"] == pytest.approx(2e6, rel=1e-3)
    assert found.achieved["queue_drops"] and found.within["queue"] is None


def test_a_burst_too_short_for_the_timers_has_no_rate() -> None:
    config = LinkConfig(rate_bps=100e6)
    assert report(config, run(config, 5, gap_ns=0)).achieved["rate_bps"] is None


@pytest.mark.parametrize(
    "config", [LinkConfig(rate_bps=2e6, loss=1.0), LinkConfig(rate_bps=2e6, delay_s=0.01, reorder=1.0)]
)
def test_a_line_from_which_nothing_arrived_in_its_turn_has_no_rate(config: LinkConfig) -> None:
    found = report(config, run(config, 20, gap_ns=0))
    assert found.achieved["rate_bps"] is None and found.within["rate"] is None


def test_order_is_counted_by_arrival() -> None:
    config = LinkConfig(delay_s=0.01)
    rows = run(config, 10)
    rows[3]["t_received_ns"], rows[4]["t_received_ns"] = rows[4]["t_received_ns"], rows[3]["t_received_ns"]
    found = report(config, rows)
    assert found.achieved["out_of_order"] == 1 and found.within["order"] is False


@pytest.mark.parametrize(
    "config",
    [
        LinkConfig(jitter_s=1e-9, jitter="exponential"),
        LinkConfig(jitter_s=2e-7, jitter="exponential"),
        LinkConfig(jitter_s=1e-4),
        LinkConfig(delay_s=1e-7),
        LinkConfig(delay_s=1e-9, jitter_s=1e-8, rate_bps=50e6),
    ],
)
def test_short_delays_are_no_reordering(config: LinkConfig) -> None:
    found = report(config, run(config, 3000))
    assert (found.achieved["reorder"], found.within["reorder"], found.within["order"]) == (0.0, True, True)


@pytest.mark.parametrize("jitter_s", [1e-5, 1e-4])
def test_reordering_beside_short_jitter_is_found(jitter_s: float) -> None:
    config = LinkConfig(jitter_s=jitter_s, reorder=0.02)
    rows = run(config, 4000)
    found = report(config, rows)
    assert found.within["reorder"] is True and found.achieved["reorder"] == pytest.approx(0.02, abs=0.006)
    unasked = report(replace(config, reorder=0.0), run(config, 4000, gap_ns=1_000))
    assert unasked.within["reorder"] is False


def test_reordering_is_found_in_the_journal() -> None:
    config = LinkConfig(rate_bps=50e6, delay_s=0.05, reorder=0.2)
    rows = run(config)
    assert report(config, rows).within["reorder"] is True
    assert report(replace(config, reorder=0.3), rows).within["reorder"] is False
    assert report(config, rows).achieved["out_of_order"]


# ------------------------------------------------------------------------------------------------------------- shares


@pytest.mark.parametrize(("hits", "trials"), [(0, 50), (1, 50), (25, 50), (50, 50), (3, 6000), (600, 6000)])
def test_intervals_are_clopper_and_pearsons(hits: int, trials: int) -> None:
    exact = stats.binomtest(hits, trials).proportion_ci(0.99, method="exact")
    assert share_interval(hits, trials) == pytest.approx((exact.low, exact.high))


def test_no_trials_tell_nothing() -> None:
    assert share_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("option", ["loss", "duplicate", "corrupt"])
def test_a_wrong_share_is_found(option: str) -> None:
    change: dict[str, Any] = {option: 0.05}
    true = replace(LinkConfig(delay_s=0.001), **change)
    rows = run(true)
    found = report(true, rows)
    assert found.within[option] is True
    share, low, high = (found.achieved[name] for name in (option, f"{option}_low", f"{option}_high"))
    assert share is not None and low is not None and high is not None and low < share < high
    assert abs(share - 0.05) < 0.012
    for wrong in (0.0, 0.1):
        change[option] = wrong
        assert report(replace(true, **change), rows).within[option] is False


@pytest.mark.slow
def test_bursts_widen_the_interval_as_much_as_they_scatter() -> None:
    """Over many short links, 99 % are within; intervals for independent losses would miss a tenth."""
    config = LinkConfig(burst=GilbertElliott(0.05, 0.2, loss_bad=0.9), loss=0.01)
    reports = []
    for bs in range(300):
        link = LinkModel(config, seed=9, bs=bs, direction=Direction.UP, epoch=0)
        rows = [row(seq, seq, START + seq * MS) for seq in range(400)]
        for entry in rows:
            if link.frame(entry["seq"], STREAM_BYTES, PAYLOAD_BITS, entry["t_sent_ns"]).drop_reason:
                entry |= {"frame_fate": "dropped", "reason": "loss", "t_received_ns": None}
        reports.append(report(config, rows))
    assert np.mean([found.within["loss"] for found in reports]) >= 0.98
    independent = [
        share_interval(round(400 * (found.achieved["loss"] or 0)), 400)[0] <= config.mean_loss for found in reports
    ]
    assert np.mean(independent) < 0.96


def test_drops_of_the_transport_are_not_the_links() -> None:
    """A full queue of the transport is journaled as "queue", too, but the frame was on the modelled line before."""
    config = LinkConfig(rate_bps=2e6, delay_s=0.001)
    rows = run(config, 100)
    rows[7] |= {"reason": "queue", "frame_fate": "dropped", "t_received_ns": None}
    found = report(config, rows)
    assert found.within["queue"] is False and found.achieved["queue_drops"] == 1
    assert found.within["loss"] is True and found.within["delay"] is True


# -------------------------------------------------------------------------------------------------- shape of a ledger


def test_a_bundle_is_one_frame() -> None:
    config = LinkConfig(rate_bps=2e6, delay_s=0.001)
    link = LinkModel(config, seed=4, bs=3, direction=Direction.UP, epoch=0)
    rows = []
    for seq in range(50):
        now = START + seq * 100_000
        t_release_ns = link.frame(seq, STREAM_BYTES + 2 * 388, PAYLOAD_BITS, now).t_release_ns
        for part in range(3):
            entry = row(seq, 3 * seq + part, now) | {"part": part}
            entry |= {"t_release_ns": t_release_ns, "t_received_ns": t_release_ns}
            rows.append(entry | ({"header_bytes": 0, "zmtp_bytes": 0} if part else {}))
    found = report(config, rows[::-1])
    assert found.achieved["frames"] == 50 and found.achieved["duplicate"] == 0.0
    assert found.achieved["delay_mean_s"] == pytest.approx(0.001)
    assert found.achieved["rate_bps"] == pytest.approx(2e6, rel=1e-3)


def test_a_restarted_station_has_an_idle_line_and_new_numbers() -> None:
    config = LinkConfig(rate_bps=1e5, delay_s=0.001)
    one = run(config, 50, gap_ns=MS)
    two = [entry | {"epoch": 1} for entry in one]
    for entry in two:
        for name in ("t_sent_ns", "t_release_ns", "t_received_ns"):
            entry[name] += 10 * MS
    found = report(config, one + two)
    assert found.within["delay"] is True and found.achieved["frames"] == 100
    assert found.achieved["duplicate"] == found.achieved["reorder"] == 0.0 and found.within["order"] is True


def test_a_ledger_made_of_journal_and_receive_log_agrees_with_its_model(tmp_path: Path) -> None:
    link = LinkModel(EVERYTHING, seed=4, bs=3, direction=Direction.UP, epoch=0, t0_ns=START)
    outbox = Outbox(link, transport=ZMTP_NULL, bundle=2)
    journal = SendJournal(tmp_path / "sent", direction=Direction.UP, transport=ZMTP_NULL)
    log = ReceiveLog(tmp_path / "received", direction=Direction.UP)
    arrivals: list[Arrival] = []
    for snapshot in range(0, 2000, 2):
        now = START + snapshot * 10 * MS
        reports = [
            Report(ReportKey(3, 0, number), Payload(bytes(range(96)), 768), b"gain")
            for number in (snapshot, snapshot + 1)
        ]
        departures = outbox.frames(reports, now)
        journal.append(3, departures)
        fate = FrameFate.DELIVERED
        for departure in departures:
            if departure.drop_reason is None:
                its_fate = FrameFate.CORRUPT if departure.flipped else fate
                reason = "checksum" if departure.flipped else None
                arrivals.append(Arrival(3, corrupted(departure), departure.t_release_ns, its_fate, reason))
                fate = fate if departure.flipped else FrameFate.DUPLICATE
    journal.append(3, [outbox.control(Goodbye(3, 0, outbox.frames_made), START + 20 * SECOND)])
    log.append(sorted(arrivals, key=lambda arrival: arrival.t_received_ns))
    journal.close()
    log.close()
    ledger = close_ledger([Journal(tmp_path / "sent")], [Received(tmp_path / "received")], UsedReports.of_fixes([]))
    found = link_report(ledger, EVERYTHING)
    assert found.achieved["frames"] == outbox.frames_made > 1000
    names = ("loss", "duplicate", "reorder", "corrupt", "delay")
    assert {name: found.within[name] for name in names} == dict.fromkeys(names, True)
    assert found.achieved["delay_mean_s"] == pytest.approx(found.achieved["planned_delay_mean_s"])


def test_strays_are_left_out() -> None:
    rows = run(LinkConfig(), 10)
    stray = dict.fromkeys(ledger_schema().names) | {
        "bs": 3,
        "direction": "up",
        "t_received_ns": START,
        "frame_fate": "corrupt",
    }
    assert report(None, [*rows, stray]).achieved == report(None, rows).achieved


@pytest.mark.parametrize("change", [{"bs": 4}, {"direction": "down"}])
def test_several_links_are_an_error(change: Row) -> None:
    rows = run(LinkConfig(), 2)
    with pytest.raises(LocalError, match="one link and direction, not of 2"):
        report(None, [rows[0], rows[1] | change])
