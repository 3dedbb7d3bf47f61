"""Where base stations say they stand: what the cloud takes, what it refuses, and who gets to hear of it."""

import math
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_vinloc
from any_message import written
from tiny_nodes import Office, Peer, cloud_parts, frame, office, place, registration, site

import cli
import sim.plan.plan
import sim.world.store
from cloud.cloud_spec import CloudSpec
from cloud.node import CloudNode
from edge.node import EdgeNode, Refused
from fronthaul.clock import SimulatedClock, WallClock
from fronthaul.errors import LocalError
from fronthaul.log.arrow_stream import read_stream
from fronthaul.log.stream_names import EVENTS
from fronthaul.message.messages import Abort, Message, Registration, Welcome
from fronthaul.message.wire import decode, encode
from fronthaul.transport.memory import MemoryNetwork
from fronthaul.transport.zeromq import DealerTransport, RouterTransport
from sim.emulate.emulator import close_books, run_plan
from sim.emulate.in_process import assemble, drive
from sim.inspect.replay import replay
from sim.plan.outcome import RunRecord
from sim.plan.plan import Plan, load_plan
from sim.records.folder import RunFolder, write_configuration
from sim.world.scenario import Scenario

HERE = place(0)
Vector = tuple[float, float, float]


def at(position: Vector, bs: int = 1) -> Registration:
    return replace(registration(bs), position=position)


def beside(metres: float) -> Vector:
    """A place so far from BS 0's, askew."""
    return HERE[0] + 0.6 * metres, HERE[1], HERE[2] - 0.8 * metres


def planned(places: dict[int, Vector], **changes: Any) -> CloudSpec:
    """The parts of a cloud that believes base stations there."""
    parts = cloud_parts(len(places), **changes)
    return replace(parts, setup=replace(parts.setup, stations=places))


def said(made: Office, message: Message | bytes, bs: int = 1) -> list[Message]:
    """What a base station hears upon a message."""
    peer = Peer(made.network, bs)
    peer.say(message)
    made.settle()
    return peer.hear()


def refusals(folder: Path, incarnation: int = 0) -> list[tuple[int, str]]:
    """What the cloud wrote down of base stations that it turned away."""
    rows = read_stream(folder / f"cloud-{incarnation}{EVENTS}").to_pylist()
    return [(row["bs"], row["detail"]) for row in rows if row["kind"] == "registration"]


NOT_FINITE = "position of BS 1 must hold three finite floats, not (2.0, nan, 3.0)"
BEYOND = (
    "position of BS 1 must lie within ±100 km of the origin of the local coordinates, which are metres, "
    "not at (4.2e+06, 170000, 4.78e+06) m"
)
OCCUPIED = "BS 1 registers at (1.003, 2, 2.996) m, the place of BS 0: two base stations must be at least 1 cm apart"
ELSEWHERE = "BS 1 registers at (2, 2, 4) m, but the cloud's plan has it at (2, 2, 3) m"
STRANGER = "BS 1024 is not part of this run, which has 1024 base stations"

REFUSED: dict[str, tuple[Message | bytes, str]] = {
    "not finite": (written(registration(1), {"position": (2.0, math.nan, 3.0)}), NOT_FINITE),
    "beyond": (written(registration(1), {"position": (4.2e6, 1.7e5, 4.78e6)}), BEYOND),
    "occupied": (at(beside(0.005)), OCCUPIED),
    "elsewhere": (at((2.0, 2.0, 4.0)), ELSEWHERE),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_impossible_place_is_refused_in_a_sentence_and_written_down(tmp_path: Path, case: str) -> None:
    message, reason = REFUSED[case]
    with office(tmp_path, cloud_parts(), peers=1) as made:
        assert said(made, message) == [Abort(reason)]
        assert said(made, registration(1)) == [Welcome(1, 0)]  # whoever comes back with the right one
        assert made.node.registered == {0, 1}
    assert refusals(tmp_path) == [(1, reason)]


@pytest.mark.parametrize("case", REFUSED)
def test_so_it_is_over_sockets(tmp_path: Path, case: str) -> None:
    message, reason = REFUSED[case]
    router = RouterTransport()
    with closing(CloudNode(cloud_parts(), router, tmp_path, WallClock())) as cloud:
        for bs, data, answer in (
            (0, encode(registration(0)), Welcome(0, 0)),
            (1, message if isinstance(message, bytes) else encode(message), Abort(reason)),
        ):
            with closing(DealerTransport(router.address, bs)) as dealer:
                dealer.send(data)
                until_s = time.monotonic() + 10.0
                while (heard := dealer.receive(0.0)) is None and time.monotonic() < until_s:
                    cloud.poll(0.05)
                assert heard is not None and decode(heard) == answer
        assert cloud.registered == {0}
    assert refusals(tmp_path) == [(1, reason)]


def test_a_base_station_raises_what_the_cloud_says(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts(), peers=1) as made:
        moved = replace(site(1), position=(2.0, 2.0, 4.0))
        with closing(EdgeNode(moved, made.network.edge(1), tmp_path, made.clock)) as node:
            node.register()
            made.settle()
            with pytest.raises(Refused) as caught:
                node.await_welcome(0.0)
    assert str(caught.value) == ELSEWHERE


@pytest.mark.parametrize(("position", "reason"), [((2.0, math.nan, 3.0), NOT_FINITE), ((4.2e6, 1.7e5, 4.78e6), BEYOND)])
def test_a_base_station_does_not_even_say_what_cannot_be(tmp_path: Path, position: Vector, reason: str) -> None:
    clock = SimulatedClock()
    network = MemoryNetwork(clock)
    with closing(EdgeNode(replace(site(1), position=position), network.edge(1), tmp_path, clock)) as node:
        with pytest.raises(LocalError) as caught:
            node.register()
        assert str(caught.value) == reason
    assert network.cloud().receive(0.0) is None


@pytest.mark.parametrize(("apart_m", "fits"), [(0.0, False), (0.0099, False), (0.0101, True), (1.0, True)])
def test_two_base_stations_are_a_centimetre_apart(tmp_path: Path, apart_m: float, fits: bool) -> None:
    """Also where the plan itself has them at one place."""
    places = {0: HERE, 1: beside(apart_m)}
    with office(tmp_path, planned(places), peers=1) as made:
        (answer,) = said(made, at(places[1]))
        assert (answer == Welcome(1, 0)) == fits
        if not fits:
            assert isinstance(answer, Abort) and "the place of BS 0" in answer.reason


@pytest.mark.parametrize("off_m", [0.0, 0.0099])
def test_a_place_is_the_plans_to_a_centimetre(tmp_path: Path, off_m: float) -> None:
    x, y, z = place(1)
    with office(tmp_path, cloud_parts(), peers=1) as made:
        assert said(made, at((x, y - off_m, z))) == [Welcome(1, 0)]


def test_who_registers_again_is_not_in_its_own_way(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts(), peers=1) as made:
        for epoch in (0, 0, 1):
            assert said(made, registration(1, epoch)) == [Welcome(1, epoch)]
        assert said(made, replace(at((2.0, 2.0, 4.0)), epoch=2)) == [Abort(ELSEWHERE)]
        assert said(made, replace(at(beside(0.005)), epoch=2)) == [Abort(OCCUPIED)]


def test_who_is_refused_takes_nobodys_place(tmp_path: Path) -> None:
    places = {0: HERE, 1: (50.0, 2.0, 3.0), 2: (60.0, 2.0, 3.0)}
    with office(tmp_path, planned(places), peers=1) as made:
        assert isinstance(said(made, at(places[2], bs=1))[0], Abort)
        assert said(made, at(places[2], bs=2), bs=2) == [Welcome(2, 0)]


def test_a_cloud_that_was_started_again_knows_who_stands_where(tmp_path: Path) -> None:
    places = {0: HERE, 1: beside(0.005)}
    with office(tmp_path, planned(places), peers=1):
        pass
    with office(tmp_path, planned(places), incarnation=1, peers=0) as made:
        (answer,) = said(made, at(places[1]))
        assert isinstance(answer, Abort) and "the place of BS 0" in answer.reason
    assert [bs for bs, _ in refusals(tmp_path, 1)] == [1]


def test_nobody_registers_beyond_the_1024_that_a_fix_takes(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts(1024), peers=0) as made:
        assert said(made, registration(1024), bs=1024) == [Abort(STRANGER)]
    assert refusals(tmp_path) == [(1024, STRANGER)]


def test_a_frame_of_who_was_refused_is_not_fused(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts(), peers=1) as made:
        peer = Peer(made.network, 1)
        peer.say(at((2.0, 2.0, 4.0)), frame(1, 0))
        made.settle()
        assert made.node.registered == {0}
        made.peers[0].say(frame(0, 0))
        made.at(2_000_000_000)
        assert made.node.fixes_made == 1
    rows = read_stream(tmp_path / "cloud-0-received.arrow").to_pylist()
    assert "BS 1 has not registered" in [row["reason"] for row in rows]


# A whole run


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (sim.plan.plan, sim.world.store):
        monkeypatch.setattr(module, "ASSET_FOLDER", tmp_path / "assets", raising=False)
    return tmp_path


def world(*places: Vector) -> Scenario:
    """The tiny world with its sites there."""
    made = tiny_vinloc.scenario(len(places))
    sites = tuple(replace(one, position=position) for one, position in zip(made.sites, places, strict=True))
    return replace(made, sites=sites)


def emulated(folder: Path, made: Scenario, driver: str = "process", *options: str) -> int:
    """Run on a scenario from the command line; return the exit status."""
    settings = tiny_vinloc.write(folder, world=made)
    line = f"emulate --scheme vinloc --scenario {settings.scenario} --weights {settings.weights} --snapshots 4"
    return cli.main([*line.split(), "--no-controls", "--driver", driver, "--output", str(folder / "runs"), *options])


CLOSE = world((0.0, 0.0, 20.0), (0.0, 0.005, 20.0), (50.0, 0.0, 20.0))
CLOSE_SAID = "BS 1 registers at (0, 0.005, 20) m, the place of BS 0: two base stations must be at least 1 cm apart"


def test_two_sites_at_one_place_end_a_run_with_a_sentence(assets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert emulated(assets, CLOSE) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == CLOSE_SAID
    assert not list((assets / "runs").iterdir())  # nothing was sent: there is nothing to recover


@pytest.mark.ray
@pytest.mark.slow
def test_so_they_do_over_sockets(assets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert emulated(assets, CLOSE, "ray", "--bs-per-actor", "3", "--cpus-per-bs", "0.1") == 2
    turned = CLOSE_SAID.replace("BS 1", "BS x").replace("BS 0", "BS 1").replace("BS x", "BS 0").replace("0.005", "0")
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last in [f"BS 0, 1, 2 failed: {said} (Refused)." for said in (CLOSE_SAID, turned)]  # whoever comes later


def test_a_site_in_another_coordinate_system_ends_a_run_with_a_sentence(
    assets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert emulated(assets, world((0.0, 0.0, 20.0), (4.2e6, 1.7e5, 4.78e6))) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == BEYOND


def test_more_sites_than_a_fix_takes_are_refused_before_anything_starts(
    assets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert emulated(assets, tiny_vinloc.scenario(1025)) == 2
    sentence = "Scheme 'vinloc' cannot run: it takes at most 1024 base stations, there are 1025."
    assert capsys.readouterr().err.strip().splitlines()[-1] == sentence


def test_a_base_station_that_was_moved_is_refused_and_a_run_on_the_plan_replays(assets: Path) -> None:
    plan = load_plan(tiny_vinloc.write(assets))
    moved = replace(plan.sites[2], position=(1.0, 2.0, 3.0))
    with pytest.raises(Refused, match=r"^BS 2 registers at \(1, 2, 3\) m, but the cloud's plan has it at \("):
        run_plan(replace(plan, sites=[*plan.sites[:2], moved]))
    result = run_plan(plan)
    found = replay(result.folder)
    assert (found.total, found.identical) == (8, 8)
    assert result.summary["refused_registrations"] == 0


def test_who_comes_back_at_another_place_is_counted(assets: Path) -> None:
    """A run goes on without it: the registration is refused, and the summary says so."""
    plan = load_plan(tiny_vinloc.write(assets))
    folder = RunFolder.create(plan.settings, "tiny")
    made = assemble(plan, folder, SimulatedClock())
    drive(made, plan.schedule(0), lambda _: None)
    made.network.edge(1).send(encode(replace(_registered(plan, 1), epoch=1, position=(1.0, 2.0, 3.0))))
    made.settle()
    for node in made.edges:
        node.close()
    made.cloud.close()
    write_configuration(folder, plan)
    record = RunRecord(made.cloud.outcome(), 0, False, 1.0, "memory", [])
    assert close_books(plan, folder, record).summary["refused_registrations"] == 1


def _registered(plan: Plan, bs: int) -> Registration:
    site = plan.sites[bs]
    return Registration(bs, 0, "vinloc", plan.format, None, site.position, site.orientation)
