"""Attacks on the cloud's port: memory stays what it is without them, and so do the fixes.

Each attacker is a process of its own, told port and keys, and attacks for as long as the run takes.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from besieged import SNAPSHOTS, STATIONS, Siege, siege

GROWTH_MB, MEDIAN_S = 150.0, 2.0
"""How much memory an attack may cost [MB] and how long a fix may take then [s], also on a busy machine; a gigabyte a
second comes in where nothing holds it up."""

ATTACKER = """
import os, socket, struct, sys, threading, time
import zmq
port, keys = int(sys.argv[1]), sys.argv[2]
over = threading.Event()

def wait_for_the_end():
    sys.stdin.read()
    over.set()

threading.Thread(target=wait_for_the_end, daemon=True).start()

def dealer(name=None, bs=None):
    made = zmq.Context.instance().socket(zmq.DEALER)
    made.setsockopt(zmq.LINGER, 0)
    made.setsockopt(zmq.SNDTIMEO, 200)
    if name is not None:
        made.setsockopt(zmq.IDENTITY, name)
    if bs is not None:
        from pathlib import Path
        from fronthaul.transport.keys import load_edge_keys
        found = load_edge_keys(Path(keys), bs)
        made.curve_serverkey, made.curve_publickey = found.server_public, found.public
        made.curve_secretkey = found.secret
    made.connect(f"tcp://127.0.0.1:{port}")
    return made

def send(made, data, flags=0):
    try:
        made.send(data, flags)
    except zmq.Again:
        pass

def bare():
    # ZMTP 3.1 with NULL, without a library that would hold back what is not whole.
    made = socket.create_connection(("127.0.0.1", port))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.sendall(bytes([0xFF, *bytes(8), 0x7F, 3, 1]) + b"NULL".ljust(52, bytes(1)))
    ready = b"\\5READY\\13Socket-Type" + struct.pack(">I", 6) + b"DEALER"
    made.sendall(bytes([4, len(ready)]) + ready)
    return made

"""

MESSAGES_OF_PARTS = """
# With BS 2's own key, 200 MB in parts a message.
made = dealer(bs=2)
while not over.is_set():
    for _ in range(200_000_000 // {size}):
        send(made, bytes({size}), zmq.SNDMORE)
    send(made, b"")
"""

ENDLESS = """
# Parts of a message that never ends; {pause} s between them, so that each has a segment and a buffer of its own.
part = bytes([3]) + struct.pack(">Q", {size}) + bytes({size})
def attack():
    while not over.is_set():
        made = bare()
        try:
            while not over.is_set():
                made.sendall(part)
                time.sleep({pause})
        except OSError:
            made.close()
for thread in [threading.Thread(target=attack) for _ in range(4)]:
    thread.start()
"""

GARBAGE = """
# Messages that are none, of peers without a name, with a base station's, and with that of one who is not there.
peers = [dealer(), dealer(b"bs-001"), dealer(b"bs-001/0000000000"), dealer(b"bs-007/0000000000")]
while not over.is_set():
    for made in peers:
        send(made, os.urandom({size}))
"""

HALF_OPEN = """
# Connections that say nothing, as many as the cloud may have files.
held = []
while not over.is_set():
    try:
        held.append(socket.create_connection(("127.0.0.1", port), timeout=0.5))
    except OSError:
        time.sleep(0.01)
    if len(held) == 2000:
        for made in held[:50]:
            made.close()
        del held[:50]
for made in held:
    made.close()
"""

IMPOSTOR = """
# BS 1's name.
made = dealer(b"bs-001/0000000000")
while not over.is_set():
    send(made, b"I am BS 1")
    time.sleep(0.005)
"""


@contextmanager
def attacked_by(script: str, besieged: Siege) -> Iterator[None]:
    """Let a process attack meanwhile."""
    command = [sys.executable, "-c", ATTACKER + script + "print('attacked')", str(besieged.port), str(besieged.keys)]
    root = Path(__file__).resolve().parents[2]
    attacker = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield
        assert "attacked" in attacker.communicate(timeout=60.0)[0]
    finally:
        attacker.kill()
        attacker.communicate()


def refusals(
    tmp_path: Path, script: str, *, curve: bool, files: int = 4096, meanwhile: Callable[[Siege], None] = lambda _: None
) -> str:
    """Run under attack, and return why connections were refused; memory and fixes must be as without it."""
    with siege(tmp_path, curve=curve, files=files) as besieged, attacked_by(script, besieged):
        meanwhile(besieged)
        books, grown_mb, median_s = besieged.end()
    print(f"the attack cost {grown_mb:.1f} MB, a fix took {median_s:.3f} s")
    assert grown_mb < GROWTH_MB and median_s < MEDIAN_S
    assert books.fixes["used_bs"].to_pylist() == [list(range(STATIONS))] * SNAPSHOTS
    return " ".join(row["detail"] for row in books.sockets.events.to_pylist() if row["kind"] == "refused")


@pytest.mark.parametrize(("size", "pause"), [(1000, 0.0), (36, 0.00005)])
def test_a_message_that_never_ends(tmp_path: Path, size: int, pause: float) -> None:
    assert "and no message of them" in refusals(tmp_path, ENDLESS.format(size=size, pause=pause), curve=False)


@pytest.mark.parametrize("size", [1 << 20, 1000])
def test_parts_with_a_stations_own_key(tmp_path: Path, size: int) -> None:
    found = refusals(tmp_path, MESSAGES_OF_PARTS.format(size=size), curve=True)
    assert ("and no message of them" in found) == (size == 1000)  # the others exceed what a part may be long


@pytest.mark.parametrize("size", [1 << 20, 400])
def test_garbage_of_whoever_is_there(tmp_path: Path, size: int) -> None:
    found = refusals(tmp_path, GARBAGE.format(size=size), curve=False)
    assert ("it claims to be BS 1" in found and "it does not name" in found) == (size == 400)


def still_heard(besieged: Siege) -> None:
    """A base station that connects now, as one that was started again does, is heard and answered."""
    time.sleep(1.0)
    assert besieged.answers_a_newcomer(2)


def test_more_connections_than_files(tmp_path: Path) -> None:
    found = refusals(tmp_path, HALF_OPEN, curve=True, files=2048, meanwhile=still_heard)
    assert "there are more than 67 connections of strangers" in found


def test_a_name_that_is_taken(tmp_path: Path) -> None:
    assert "it claims to be BS 1, which is connected" in refusals(tmp_path, IMPOSTOR, curve=False)
