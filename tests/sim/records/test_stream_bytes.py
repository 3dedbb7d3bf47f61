"""Bytes of connections whose ends are not all known: an interval, and never a contradiction."""

import pyarrow as pa
import pytest

from fronthaul.account.used import UsedReports
from fronthaul.log.recorder import connection_schema, event_schema
from sim.emulate.in_process import run_in_process
from sim.plan.plan import load_plan
from sim.plan.settings import EmulateSettings
from sim.records.folder import RunFolder, write_configuration
from sim.records.links import Ledgers, all_totals, close_ledgers, read_streams
from sim.records.stream_bytes import Connection, Sockets, Way, byte_problems, connections, read_sockets

FAR_NS = 10**18


def row(number: int, size: int, *, bs: int | None = 0, edge: bool = True, cut: bool = False) -> dict[str, object]:
    """A TCP connection as one end saw it, `size` [B] each way."""
    ends = (f"e:{number}", "c:1") if edge else ("c:1", f"e:{number}")
    times = {"t_opened_ns": 0, "t_closed_ns": FAR_NS}
    return {
        "bs": bs, "local": ends[0], "remote": ends[1], **times, "sent_bytes": size, "received_bytes": size, "cut": cut,
    }  # fmt: skip


@pytest.fixture
def link(settings: EmulateSettings) -> RunFolder:
    """The folder of a run in memory, which no kernel has seen."""
    plan = load_plan(settings)
    folder = RunFolder.create(settings, "tiny")
    write_configuration(folder, plan)
    run_in_process(plan, folder, lambda _: None)
    return folder


def link_of_bs_0(folder: RunFolder, edge: list[object], cloud: list[object], silent: dict[int, int]) -> Connection:
    streams = read_streams(folder)
    besides = close_ledgers(folder, streams, [0, 1, 2], UsedReports.of_fixes([]))
    totals = all_totals(Ledgers(folder), [0, 1, 2], streams.transport)
    tables = [pa.Table.from_pylist(rows, connection_schema()) for rows in (edge, cloud)]
    sockets = Sockets(*tables, event_schema().empty_table(), silent)
    return connections(besides, streams.transport, sockets, totals)[0]


def test_a_link_in_memory_counts_as_one_connection_that_no_kernel_saw(link: RunFolder) -> None:
    found = link_of_bs_0(link, [], [], {0: 1})
    assert (found.connections, found.cut, found.up.kernel_sent) == (0, 0, None)
    assert found.up.least == found.up.most > found.up.handshake > 0


def test_a_start_that_was_killed_together_with_the_cloud_leaves_the_count_open(link: RunFolder) -> None:
    """Epoch 0 died with the cloud's first incarnation, so neither end wrote its connection down; epoch 1 had two."""
    edge, cloud = [row(1, 100, cut=True), row(2, 100)], [row(2, 100, edge=False)]
    unaware = link_of_bs_0(link, edge, cloud, {})
    assert unaware.up.kernel_sent == 200 and byte_problems([unaware]) != []
    found = link_of_bs_0(link, edge, cloud, {0: 1})
    assert (found.connections, found.cut) == (3, 2) and found.up.handshake == 3 * unaware.up.handshake // 2
    assert found.up.kernel_sent is None and byte_problems([found]) == []


def test_a_start_that_was_killed_and_that_the_cloud_knows_of_is_counted_once(link: RunFolder) -> None:
    found = link_of_bs_0(link, [row(2, 100)], [row(1, 100, edge=False), row(2, 100, edge=False)], {0: 1})
    assert (found.connections, found.cut) == (2, 1) and found.up.kernel_sent is None
    assert found.up.kernel_received == 200


def test_the_silent_starts_are_found_among_the_streams(link: RunFolder) -> None:
    assert read_sockets(link).silent == {0: 1, 1: 1, 2: 1}


def test_a_fin_before_a_reset_may_be_counted_as_received_on_a_connection_that_was_cut() -> None:
    def link(received: int, cut: int) -> Connection:
        down = Way(handshake=10, control=0, heartbeat=0, data=90, stray=0, least=80, most=100, kernel_sent=None,
                   kernel_received=received)  # fmt: skip
        return Connection(0, 2, cut, down, down)

    assert byte_problems([link(100, 0), link(101, 1)]) == []
    assert byte_problems([link(101, 0)]) != [] and byte_problems([link(102, 1)]) != []
