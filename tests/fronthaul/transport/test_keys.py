"""Keys: who is let in, and as whom."""

import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from fronthaul.errors import LocalError, TransportError
from fronthaul.transport.identity import identity
from fronthaul.transport.keys import (
    CloudKeys,
    EdgeKeys,
    KeyRing,
    admit,
    load_cloud_keys,
    load_edge_keys,
)
from fronthaul.transport.new_keys import ephemeral, write_keys
from fronthaul.transport.transport import LinkEvent, Received
from fronthaul.transport.zeromq import DealerTransport, RouterTransport

SOON_S = 30.0
"""Longer than anything takes; nothing waits for it unless a test fails."""


@pytest.fixture(scope="module")
def ring() -> KeyRing:
    return ephemeral(4)


@pytest.fixture
def cloud(ring: KeyRing) -> Iterator[RouterTransport]:
    with closing(RouterTransport(keys=ring.cloud)) as transport:
        yield transport


def forget(edge: DealerTransport) -> None:
    edge._socket.setsockopt(zmq.LINGER, 0)
    edge.close()


def refused(cloud: RouterTransport) -> list[LinkEvent]:
    """Return the cloud's events up to the first refusal; nothing may be received meanwhile."""
    events: list[LinkEvent] = []
    deadline = time.monotonic() + SOON_S
    while not any(event.kind == "refused" for event in events):
        assert time.monotonic() < deadline
        assert cloud.receive(0.01) is None
        events += cloud.take_events()
    return [event for event in events if event.kind == "refused"]


def from_owner(cloud: RouterTransport, owner: int) -> bytes:
    received = cloud.receive(SOON_S)
    assert received is not None and received.owner == owner
    return received.data


def test_nobody_comes_in_without_a_key(cloud: RouterTransport) -> None:
    stranger = DealerTransport(cloud.address, 1)
    stranger.send(b"let me in")
    event = refused(cloud)[0]
    assert "handshake failed" in event.detail and event.bs is None  # by which end first, is up to chance
    assert all(count.bs is None for count in cloud.take_connections())
    forget(stranger)


def test_nobody_comes_in_with_an_unknown_key(cloud: RouterTransport, ring: KeyRing) -> None:
    own = ephemeral(1).edges[0]
    stranger = DealerTransport(cloud.address, 1, keys=EdgeKeys(ring.cloud.public, own.public, own.secret))
    stranger.send(b"let me in")
    event = refused(cloud)[0]
    assert (event.peer, event.bs) == ("127.0.0.1", None) and "to no base station" in event.detail
    deadline = time.monotonic() + SOON_S
    while not (told := [e for e in stranger.take_events() if e.kind == "refused"]) and time.monotonic() < deadline:
        stranger.receive(0.01)
    assert "does not know" in told[0].detail
    with pytest.raises(TransportError, match="does not know this base station's key"):
        for _ in range(2000):
            stranger.send(b"still there?")
    forget(stranger)


def test_a_cloud_with_another_key_is_not_believed(cloud: RouterTransport, ring: KeyRing) -> None:
    fooled = DealerTransport(cloud.address, 1, keys=ephemeral(2).edges[1])
    fooled.send(b"for another cloud")
    assert "another key" in refused(cloud)[0].detail
    forget(fooled)


def test_a_mismatched_pair_is_not_let_in(cloud: RouterTransport, ring: KeyRing) -> None:
    """To know another's public key is not to have it."""
    thief = DealerTransport(
        cloud.address, 1, keys=EdgeKeys(ring.cloud.public, ring.edges[1].public, ring.edges[2].secret)
    )
    thief.send(b"I am BS 1")
    assert refused(cloud)
    forget(thief)


def test_a_base_station_is_who_its_key_says(cloud: RouterTransport, ring: KeyRing) -> None:
    with closing(DealerTransport(cloud.address, 1, keys=ring.edges[2])) as edge:
        edge.send(b"I say that I am BS 1")
        assert from_owner(cloud, 2) == b"I say that I am BS 1"
        cloud.send(2, b"no")
        assert edge.receive(SOON_S) == b"no"
        with pytest.raises(TransportError, match="BS 1"):
            cloud.send(1, b"who?")


def named(cloud: RouterTransport, name: bytes, keys: EdgeKeys) -> DealerTransport:
    """Return a client of whose identity, unlike ours, something is sent."""
    edge = DealerTransport("tcp://127.0.0.1:9", 0, keys=keys)
    edge._socket.disconnect("tcp://127.0.0.1:9")
    edge._socket.setsockopt(zmq.IDENTITY, name)
    edge._socket.connect(cloud.address)
    return edge


def test_a_stolen_identity_takes_nothing_over(cloud: RouterTransport, ring: KeyRing) -> None:
    honest = DealerTransport(cloud.address, 1, keys=ring.edges[1])
    honest.send(b"first")
    received = cloud.receive(SOON_S)
    assert received is not None and received.owner == 1
    thieves = [named(cloud, name, ring.edges[2]) for name in (cloud._owners[1].peer, identity(1))]
    for thief in thieves:
        thief.send(b"mine")
    assert from_owner(cloud, 2) == b"mine"  # under its own name; the one with the routing id is never heard
    cloud.send(1, b"secret")
    honest.send(b"second")
    assert from_owner(cloud, 1) == b"second"
    assert honest.receive(SOON_S) == b"secret"
    assert [thief.receive(0.05) for thief in thieves] == [None, None]
    honest.close()
    for thief in thieves:
        forget(thief)


def test_a_freed_identity_is_not_believed_either(cloud: RouterTransport, ring: KeyRing) -> None:
    honest = DealerTransport(cloud.address, 1, keys=ring.edges[1])
    honest.send(b"first")
    received = cloud.receive(SOON_S)
    assert received is not None
    honest.close()
    deadline = time.monotonic() + SOON_S
    while not cloud.take_connections() and time.monotonic() < deadline:
        cloud.receive(0.01)
    with closing(named(cloud, cloud._owners[1].peer, ring.edges[2])) as thief:
        thief.send(b"I am BS 1")
        assert cloud.receive(SOON_S) == Received(2, b"I am BS 1")


def test_a_restart_with_the_same_key_takes_over(cloud: RouterTransport, ring: KeyRing) -> None:
    first = DealerTransport(cloud.address, 1, keys=ring.edges[1])
    first.send(b"first")
    assert from_owner(cloud, 1) == b"first"
    second = DealerTransport(cloud.address, 1, keys=ring.edges[1])
    second.send(b"second")
    assert from_owner(cloud, 1) == b"second"
    cloud.send(1, b"to the one heard last")
    assert second.receive(SOON_S) == b"to the one heard last"
    assert first.receive(0.0) is None
    for edge in (first, second):
        edge.close()


def test_written_keys_open_a_link(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    write_keys(folder, 3)
    names = {"cloud.key", "cloud.pub", "allowed.toml", "bs-000.key", "bs-001.key", "bs-002.key"}
    assert {path.name for path in folder.iterdir()} == names
    for name in names:
        mode = stat.S_IMODE((folder / name).stat().st_mode)
        assert not name.endswith(".key") or mode == 0o600
    keys = load_cloud_keys(folder)
    assert sorted(keys.allowed.values()) == [0, 1, 2]
    with (
        closing(RouterTransport(keys=keys)) as cloud,
        closing(DealerTransport(cloud.address, 2, keys=load_edge_keys(folder, 2))) as edge,
    ):
        edge.send(b"hello")
        assert from_owner(cloud, 2) == b"hello"


def test_keys_are_not_overwritten(tmp_path: Path) -> None:
    write_keys(tmp_path, 1)
    before = (tmp_path / "cloud.key").read_bytes()
    with pytest.raises(LocalError, match="is not empty"):
        write_keys(tmp_path, 2)
    assert (tmp_path / "cloud.key").read_bytes() == before
    assert not (tmp_path / "bs-001.key").exists()


def test_keys_have_a_folder_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("of somebody else")
    with pytest.raises(LocalError, match="is not empty: keys are written to a folder of their own"):
        write_keys(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    write_keys(tmp_path / "keys", 2)
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    ring = ephemeral(2)
    shown = repr(ring) + str(ring)
    for secret in (ring.cloud.secret, ring.edges[0].secret, ring.edges[1].secret):
        assert secret.decode() not in shown
    write_keys(tmp_path, 1)
    secret = load_edge_keys(tmp_path, 0).secret.decode()
    path = tmp_path / "bs-000.key"
    path.write_text(path.read_text().replace('secret = "', 'secret = "x'))
    with pytest.raises(LocalError) as caught:
        load_edge_keys(tmp_path, 0)
    assert secret not in str(caught.value)


def test_damaged_keys_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot be read"):
        load_cloud_keys(tmp_path)
    write_keys(tmp_path, 2)
    with pytest.raises(LocalError, match="cannot be read"):
        load_edge_keys(tmp_path, 7)
    (tmp_path / "bs-000.key").write_text("public = 3")
    with pytest.raises(LocalError, match="lacks"):
        load_edge_keys(tmp_path, 0)
    (tmp_path / "bs-000.key").write_text("public =")
    with pytest.raises(LocalError, match="damaged"):
        load_edge_keys(tmp_path, 0)
    allowed = (tmp_path / "allowed.toml").read_text()
    for wrong, sentence in (("bs-1", "not a base station"), ("bs-000", "damaged")):
        (tmp_path / "allowed.toml").write_text(allowed.replace("bs-001", wrong))
        with pytest.raises(LocalError, match=sentence):
            load_cloud_keys(tmp_path)
    key = load_edge_keys(tmp_path, 1).public.decode()
    (tmp_path / "allowed.toml").write_text(f'bs-000 = "{key}"\nbs-001 = "{key}"\n')
    with pytest.raises(LocalError, match="of its own"):
        load_cloud_keys(tmp_path)


@pytest.mark.parametrize("wrong", [b"", b"short", bytes(40), b"~" * 40, b"#" * 40])
def test_what_is_no_key_is_refused(wrong: bytes) -> None:
    good, secret = zmq.curve_keypair()
    with pytest.raises(LocalError, match="Z85"):
        EdgeKeys(good, good, wrong)
    with pytest.raises(LocalError, match="Z85"):
        CloudKeys(good, secret, {wrong: 1})
    with pytest.raises(LocalError, match="65535"):
        CloudKeys(good, secret, {good: 65536})


def test_admission(ring: KeyRing) -> None:
    for bs, keys in ring.edges.items():
        ask = [b"1.0", b"7", b"", b"10.0.0.1", b"bs-009", b"CURVE", z85.decode(keys.public)]
        assert admit(ask, ring.cloud.allowed) == ([b"1.0", b"7", b"200", b"OK", b"%d" % bs, b""], None)
        for mechanism in (b"NULL", b"PLAIN"):
            answer, stranger = admit([*ask[:5], mechanism, *ask[6:]], ring.cloud.allowed)
            assert (answer[2], stranger) == (b"400", "10.0.0.1")
    assert admit([*ask[:6], bytes(32)], ring.cloud.allowed)[0][2] == b"400"
    assert admit(ask[:6], ring.cloud.allowed)[0][2] == b"400"
