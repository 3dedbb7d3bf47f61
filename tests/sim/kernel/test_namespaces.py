"""`--netns`: as root, links are shaped and everything is removed; what is left of dead runs, too.

Where the kernel has no namespaces to give, a test of them checks instead that they are refused in a sentence; without
root it is skipped after that, and without the commands that `.ci/network` installs it fails.
"""

import functools
import math
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import needed
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.cluster import Hosts
from fronthaul.account.costs import modelled_ethernet_bytes
from fronthaul.errors import LocalError
from fronthaul.link.link_file import LinkPlan, link_plan
from fronthaul.message.messages import Direction
from fronthaul.transport.thread_namespace import inside
from sim.errors import UserError
from sim.kernel import namespaces as netns
from sim.kernel import probe as netprobe
from sim.kernel.namespaces import Namespaces, free_blocks
from sim.kernel.probe import NetnsSupport, probe

UP, DOWN = Direction.UP, Direction.DOWN
SUPPORT = probe()


def here() -> Path:
    """The calling thread's network namespace."""
    return Path("/proc/thread-self/ns/net").readlink()


HOME = here()


def needs_namespaces(test: Callable[[], None]) -> Callable[[], None]:
    """Run the test where the kernel can do all that these tests ask for; check the refusal elsewhere."""

    @functools.wraps(test)
    def either() -> None:
        loss = SUPPORT.netem or SUPPORT.nft_or_iptables
        if SUPPORT.namespaces and SUPPORT.veth and SUPPORT.tbf and loss:
            before = everything_of_ours()
            test()
            assert everything_of_ours() == before
            assert here() == HOME
        else:
            assert SUPPORT.missing
            with pytest.raises(UserError, match="leave out --netns"):
                Namespaces([0], link_plan({"default": {"rate": "1mbit", "loss": "1%"}}))
            if not SUPPORT.root:
                pytest.skip("network namespaces take root, for .ci/network and for the tests")
            for name in ("ip", "tc", "nft"):
                needed.program(name)

    return either


def everything_of_ours() -> set[str]:
    """Namespaces, interfaces, and rules of nft and iptables."""
    names = {path.name for folder in ("/var/run/netns", "/sys/class/net") for path in Path(folder).iterdir()}
    for tool, arguments in (("nft", "list tables"), ("iptables", "-t raw -S")):
        if program := shutil.which(tool):
            done = subprocess.run([program, *arguments.split()], capture_output=True, text=True, check=False)
            names |= set(done.stdout.splitlines())
    return {name for name in names if "cofix" in name or name.startswith("cx")}


@contextmanager
def router() -> Iterator[tuple["zmq.Socket[bytes]", int]]:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as cloud:
        cloud.setsockopt(zmq.LINGER, 0)
        yield cloud, cloud.bind_to_random_port("tcp://0.0.0.0")


@contextmanager
def dealer(namespaces: Namespaces, bs: int, port: int) -> Iterator["zmq.Socket[bytes]"]:
    with inside(namespaces.name(bs)):
        context = zmq.Context()
        edge = context.socket(zmq.DEALER)
    edge.setsockopt(zmq.LINGER, 0)
    edge.setsockopt(zmq.SNDHWM, 100_000)
    edge.connect(f"tcp://{namespaces.cloud_address(bs)}:{port}")
    try:
        yield edge
    finally:
        edge.close()
        context.term()


def received(receiver: "zmq.Socket[bytes]", timeout_s: float = 10.0) -> bytes:
    assert receiver.poll(round(timeout_s * 1000)), f"nothing came within {timeout_s} s"
    return receiver.recv_multipart()[-1]


@needs_namespaces
def test_a_context_made_inside_connects_from_there_even_again() -> None:
    with Namespaces([2, 65535], LinkPlan()) as namespaces, router() as (cloud, port):
        for bs in (2, 65535):
            with dealer(namespaces, bs, port) as edge:
                for _ in range(2):
                    edge.send(b"hello")
                    assert cloud.poll(10_000)
                    _, message = cloud.recv_multipart(copy=False)
                    assert message.get("Peer-Address") == namespaces.edge_address(bs)
                    # The I/O thread connects again after a cut, from the same namespace.
                    address = f"tcp://{namespaces.cloud_address(bs)}:{port}"
                    edge.disconnect(address)
                    edge.connect(address)


@needs_namespaces
def test_only_the_calling_thread_moves_and_comes_back() -> None:
    with Namespaces([0, 1], LinkPlan()) as namespaces, ThreadPoolExecutor(1) as other:
        assert other.submit(here).result() == HOME
        with pytest.raises(ZeroDivisionError), inside(namespaces.name(0)):
            first = here()
            assert first != HOME and other.submit(here).result() == HOME
            with inside(namespaces.name(1)):
                assert here() not in (HOME, first)
            assert here() == first
            started = threading.Thread(target=lambda: seen.append(here()))
            seen: list[Path] = []
            started.start()
            started.join()
            assert seen == [first]
            _ = 1 / 0
        assert here() == HOME
    with pytest.raises(LocalError, match=r"cannot enter the network namespace .* No such file"), inside("no-such"):
        pass


@needs_namespaces
def test_rates_are_kept_in_either_direction() -> None:
    """Within 5 %, on a machine with a moment to spare in one of a few rounds."""
    plan = link_plan({"up": {"rate": "20mbit"}, "down": {"rate": "40mbit"}})
    with Namespaces([3], plan) as namespaces, router() as (cloud, port), dealer(namespaces, 3, port) as edge:
        edge.send(b"hello")
        peer = cloud.recv_multipart()[0]
        up, down = [], []
        while not up or (up[-1] != pytest.approx(20e6, rel=0.05) and len(up) < 5):
            up.append(rate_bps(lambda data: edge.send(data), cloud))
        while not down or (down[-1] != pytest.approx(40e6, rel=0.05) and len(down) < 5):
            down.append(rate_bps(lambda data: cloud.send_multipart([peer, data]), edge))
        assert up[-1] == pytest.approx(20e6, rel=0.05), up
        assert down[-1] == pytest.approx(40e6, rel=0.05), down


def rate_bps(send: Callable[[bytes], object], receiver: "zmq.Socket[bytes]") -> float:
    """Line rate of 3 MB: median over all stretches of 125 messages, of which a moment's stall spoils a few."""
    size, count = 10_000, 300
    for i in range(count):
        send(bytes([i % 256]) * size)
    times = []
    for i in range(count):
        assert received(receiver) == bytes([i % 256]) * size
        times.append(time.perf_counter())
    # The first ones came out of the full bucket, and while TCP was speeding up.
    skipped, stretch = 50, 125
    line_bytes = modelled_ethernet_bytes(stretch * (size + 9), preamble_fcs_gap=True)
    spans = [end - start for start, end in zip(times[skipped - 1 :], times[skipped - 1 + stretch :], strict=False)]
    return 8 * line_bytes / statistics.median(spans)


@needs_namespaces
def test_packets_are_lost_with_the_chance_asked_for() -> None:
    check_losses()


@needs_namespaces
def test_packets_are_lost_by_iptables_where_there_is_no_nft() -> None:
    if shutil.which("iptables") is None:  # then it was nft, or netem, in the test before
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(netns, "probe", lambda: replace(SUPPORT, netem=False, nft_or_iptables=True))
        patch.setattr(netns, "loss_tool", lambda _: "iptables")
        check_losses()


def check_losses() -> None:
    chances = {UP: 0.1, DOWN: 0.3}
    plan = link_plan({way.value: {"loss": chance} for way, chance in chances.items()})
    with Namespaces([4, 5], plan) as namespaces:
        for bs in (4, 5):
            with udp(namespaces, bs) as (cloud, edge):
                for way, source, target in ((UP, edge, cloud), (DOWN, cloud, edge)):
                    arrived = passed(source, target, 1000)
                    deviation = math.sqrt(1000 * chances[way] * (1 - chances[way]))
                    assert abs(1000 - arrived - 1000 * chances[way]) < 5 * deviation


@needs_namespaces
def test_an_outage_takes_the_link_down_until_it_ends() -> None:
    with (
        Namespaces([6], LinkPlan()) as namespaces,
        router() as (cloud, port),
        dealer(namespaces, 6, port) as edge,
        udp(namespaces, 6) as (host, inner),
    ):
        edge.send(b"before")
        assert received(cloud) == b"before"
        passed(inner, host, 1)  # until an address is resolved, datagrams wait
        assert passed(inner, host, 10) == passed(host, inner, 10) == 10
        namespaces.outage(6, True)
        edge.send(b"during")
        assert passed(inner, host, 10) == 0
        assert not cloud.poll(200)
        namespaces.outage(6, False)
        assert received(cloud) == b"during"  # TCP sends it again
        passed(inner, host, 1)  # and what waited for an address to be resolved
        assert passed(inner, host, 10) == passed(host, inner, 10) == 10
    with pytest.raises(UserError, match="could not switch the link of BS 6: ip: Cannot find device"):
        namespaces.outage(6, True)


@contextmanager
def udp(namespaces: Namespaces, bs: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A pair of connected sockets, at the cloud and inside."""
    with inside(namespaces.name(bs)):
        edge = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as cloud, edge:
        cloud.bind((namespaces.cloud_address(bs), 0))
        edge.bind((namespaces.edge_address(bs), 0))
        cloud.connect(edge.getsockname())
        edge.connect(cloud.getsockname())
        yield cloud, edge


def passed(source: socket.socket, target: socket.socket, count: int) -> int:
    """How many of `count` datagrams arrive, of which 100 at once are few enough for a socket's buffer.

    A busy kernel hands them over late: the last ones are waited for, and those of earlier calls are told apart.
    """
    name, arrived = os.urandom(8), 0
    for sent in range(1, count + 1):
        source.send(name)
        if sent % 100 == 0 or sent == count:
            target.settimeout(1.0 if sent == count else 0.02)
            with suppress(TimeoutError):
                while arrived < sent:
                    arrived += target.recv(10) == name
    return arrived


@needs_namespaces
def test_everything_is_removed_after_an_exception() -> None:
    before = everything_of_ours()
    with pytest.raises(KeyboardInterrupt), Namespaces([7, 8], link_plan({"default": {"loss": "1%"}})) as namespaces:
        assert len(everything_of_ours() - before) >= 4
        assert namespaces.name(7) in everything_of_ours()
        raise KeyboardInterrupt
    assert everything_of_ours() == before


@needs_namespaces
def test_everything_is_removed_where_making_fails() -> None:
    before = everything_of_ours()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(netns, "qdiscs", lambda *_, **__: ["root nonsense"])
        with pytest.raises(UserError, match=r"could not be set up: .*unknown"), Namespaces([1], some_loss()):
            pass
        assert everything_of_ours() == before
        patch.setattr(netprobe, "loss_tool", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            probe()


def some_loss() -> LinkPlan:
    return link_plan({"default": {"loss": "1%"}})


CHILD = """
import sys, time
from fronthaul.link.link_file import link_plan
from sim.kernel.namespaces import Namespaces
with Namespaces([9], link_plan({"default": {"loss": "1%"}})) as namespaces:
    print(namespaces.name(9), flush=True)
    sys.stdin.read()
"""


@needs_namespaces
def test_what_dead_runs_left_is_removed_and_what_live_ones_have_is_not() -> None:
    before = everything_of_ours()

    def start() -> tuple["subprocess.Popen[str]", str]:
        child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=-1, stdout=-1, text=True)
        assert child.stdout is not None
        return child, child.stdout.readline().strip()

    (dead, dead_name), (live, live_name) = start(), start()
    try:
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        assert {dead_name, live_name} <= everything_of_ours()
        with Namespaces([9], LinkPlan()) as namespaces:
            assert dead_name not in everything_of_ours() and live_name in everything_of_ours()
            assert namespaces.name(9) in everything_of_ours()
        assert str(dead.pid) not in " ".join(everything_of_ours() - before)
    finally:
        for child in (dead, live):
            child.communicate()  # end of its input: it leaves
    assert live.returncode == 0


def test_probing_leaves_nothing_and_says_what_is_missing() -> None:
    found = probe()
    assert found == SUPPORT
    assert not [name for name in netprobe.existing_namespaces() if name.endswith("-probe")]
    facts = (found.namespaces, found.veth, found.tbf, found.htb, found.netem, found.nft_or_iptables)
    assert all(sentence.endswith(".") for sentence in found.missing)
    assert bool(found.missing) == (not (found.root and all(facts)))
    assert found.root == (os.geteuid() == 0)


def test_without_root_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert probe() == NetnsSupport(root=False, missing=("--netns needs root.",))
    with pytest.raises(UserError, match=r"^--netns needs root: leave out --netns to have .* the links\.$"):
        Namespaces([0], LinkPlan())


def test_without_the_commands_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    def gone(*words: str) -> str:
        raise netprobe.CommandError(f"{words[0]} is not installed")

    monkeypatch.setattr(netprobe, "command", gone)
    with pytest.raises(UserError, match=r"^No network namespace can be made \(ip is not installed\): leave out"):
        Namespaces([0], LinkPlan())


networks = st.builds(
    lambda address, prefix: IPv4Network((address, prefix), strict=False),
    st.integers(10 << 24, (11 << 24) - 1) | st.integers(0, 2**32 - 1),
    st.integers(9, 32),
)


@given(st.integers(0, 40), st.lists(networks, max_size=20))
@settings(max_examples=100)
def test_blocks_collide_with_no_route(count: int, taken: list[IPv4Network]) -> None:
    try:
        blocks = free_blocks(count, taken)
    except UserError:
        assert sum(net.num_addresses for net in taken if net.prefixlen <= 10) >= 1 << 22  # it takes large ones
        return
    assert len(set(blocks)) == count
    pool = IPv4Network("10.0.0.0/8")
    assert all(block.prefixlen == 30 and block.subnet_of(pool) for block in blocks)
    assert not any(block.overlaps(net) for block in blocks for net in taken)


def test_the_last_free_blocks_are_found() -> None:
    pool = IPv4Network("10.0.0.0/8")
    free = {IPv4Network("10.200.3.4/30"), IPv4Network("10.0.0.0/30")}
    taken = [pool]
    for block in free:
        taken = [part for net in taken for part in (net.address_exclude(block) if block.subnet_of(net) else [net])]
    assert set(free_blocks(2, taken)) == free
    with pytest.raises(UserError, match=r"needs 3 free /30 blocks in 10\.0\.0\.0/8"):
        free_blocks(3, taken)


def test_only_names_of_dead_processes_are_leftovers(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    rule = "-A PREROUTING -i cxab12-3 -m statistic --mode random --probability 0.1 -m comment --comment {} -j DROP"
    names = [f"cofix-{dead.pid}-ab12", f"cofix-{os.getpid()}-ab12", "cofix-mine", "other"]
    answers = {
        "ip netns list": "\n".join(f"{name}-bs-003 (id: 0)" for name in names),
        "nft list tables netdev": "\n".join(f"table netdev {name}" for name in names),
        "iptables -t raw -S PREROUTING": "\n".join(["-P PREROUTING ACCEPT", *(rule.format(name) for name in names)]),
    }
    called = []

    def answer(*words: str) -> str:
        called.append(" ".join(words))
        return answers.get(" ".join(words), "")

    monkeypatch.setattr(netprobe, "command", answer)
    assert netprobe.remove_leftovers() == [f"{names[0]}-bs-003", names[0], names[0]]
    assert [text for text in called if text not in answers] == [
        f"ip netns del {names[0]}-bs-003",
        f"nft delete table netdev {names[0]}",
        f"iptables -t raw -D {rule.format(names[0]).removeprefix('-A ')}",
    ]


@needs_namespaces
def test_hosts_reach_each_other_and_a_lost_one_does_not_answer() -> None:
    serve = "import socket; s = socket.create_server(('0.0.0.0', 99)); print('up', flush=True)\nwhile True: s.accept()"
    connect = "import socket, sys; socket.create_connection((sys.argv[1], 99), 1.0)"
    with tempfile.TemporaryDirectory() as folder, Hosts(2) as hosts:
        disk = Path(folder)
        serving = hosts.start(1, [sys.executable, "-c", serve], disk, os.environ)
        assert serving.stdout is not None and serving.stdout.readline() == "up\n"
        words = [sys.executable, "-c", connect, hosts.address(1)]
        reached = hosts.start(0, words, disk, os.environ)
        assert reached.communicate()[0] == "" and reached.returncode == 0
        hosts.lose(1)
        assert hosts.processes(1) == [] and serving.wait(10) != 0
        missed = hosts.start(0, words, disk, os.environ)
        assert re.search("timed out|No route to host", missed.communicate()[0])
        serving.stdout.close()
