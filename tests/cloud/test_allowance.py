"""What a link may fill of the log besides reports, and what is said of the rest."""

from pathlib import Path

import pytest
from tiny_nodes import Peer, cloud_parts, frame, office, registration

from cloud import allowance
from cloud.allowance import EACH, FIRST, PER_S, Allowance
from fronthaul.log.arrow_stream import read_stream
from fronthaul.log.received import EVIDENCE_BYTES, read_received
from fronthaul.log.stream_names import EVENTS
from fronthaul.message.messages import Ping, Pong

SECOND_NS = 1_000_000_000


def admitted(links: Allowance, bs: int | None, count: int, now_ns: int) -> int:
    return sum(links.admits(bs, 100, now_ns) for _ in range(count))


def test_a_link_has_an_allowance_that_grows_with_reports_and_time() -> None:
    links = Allowance({0, 1})
    assert admitted(links, 0, FIRST + 5, 0) == FIRST
    assert admitted(links, 1, 10, 0) == 10  # each its own
    for _ in range(3):
        links.delivered(0, 0)
    assert admitted(links, 0, 100, 0) == 3 * EACH
    assert admitted(links, 0, 10_000, 2 * SECOND_NS) == 2 * PER_S
    said = links.take_left_out()
    assert said == {0: f"{5 + 88 + 8000} messages of {100 * (5 + 88 + 8000)} B were too many and are not in the log"}
    assert links.take_left_out() == {}


def test_a_link_model_that_corrupts_four_frames_of_five_never_exceeds_it() -> None:
    links = Allowance({0})
    for _ in range(20_000):
        links.delivered(0, 0)
        assert admitted(links, 0, 4, 0) == 4


def test_strangers_share_one_however_many_names_they_use() -> None:
    links = Allowance({0})
    assert sum(links.admits(bs, 1, 0) for bs in (None, *range(1, FIRST + 10))) == FIRST


def test_a_flood_fills_neither_the_log_nor_the_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "FIRST", 20)
    monkeypatch.setattr(allowance, "PER_S", 0)
    with office(tmp_path, cloud_parts()) as made:
        rude, polite = made.peers
        for number in range(100):
            rude.say(bytes(1000), Ping(rude.bs, 0, number))
        made.settle()
        assert sum(isinstance(message, Pong) for message in rude.hear()) < 20
        rude.say(frame(rude.bs, 0))
        polite.say(frame(polite.bs, 0), Ping(polite.bs, 0, 1))
        made.settle()
        assert any(isinstance(message, Pong) for message in polite.hear())
        assert made.node.fixes_made == 1  # reports get through whatever else there is
    rows = read_received(tmp_path / "cloud-0-received.arrow").to_pylist()
    mine = [row for row in rows if row["bs"] == rude.bs]
    assert len(mine) == 21
    assert {len(row["data"]) for row in mine if row["frame_fate"] == "corrupt"} == {EVIDENCE_BYTES}
    assert {row["bytes"] for row in mine if row["frame_fate"] == "corrupt"} == {1000}
    events = read_stream(tmp_path / f"cloud-0{EVENTS}").to_pylist()
    said = [row["detail"] for row in events if row["kind"] == "left out"]
    assert sum(int(detail.split()[0]) for detail in said) == 201 - 20  # with the registration


def test_a_base_station_of_another_run_is_told_so(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts(), peers=0) as made:
        stranger = Peer(made.network, 7)
        stranger.say(registration(7))
        made.settle()
        assert len(stranger.hear()) == 1
