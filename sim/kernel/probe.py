"""Probe what the kernel and the installed commands can do for `--netns`, by trying each feature.

Everything that is created is named after a *tag*, ``cofix-<pid>-<random>``; the process id in it tells what a dead run
left behind.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LossTool = Literal["nft", "iptables"]

_TAG = re.compile(r"cofix-(\d+)-[0-9a-f]{4}")
_COMMAND_TIMEOUT_S = 30.0


class CommandError(Exception):
    """A command failed; the text holds the first line of its output, or why it could not run."""


@dataclass(frozen=True)
class NetnsSupport:
    """Features that `--netns` has on this machine.

    Attributes:
        root: whether we run as root; if not, nothing else was tried.
        namespaces: whether network namespaces can be created.
        veth: whether pairs of virtual interfaces can be created.
        tbf: whether the rate of interfaces can be limited.
        htb: whether the rate of classes can be limited; not used here, only reported.
        netem: whether interfaces can delay, drop, reorder, duplicate and corrupt packets.
        nft_or_iptables: whether packets can be dropped at random without netem.
        missing: missing features, one sentence each.
    """

    root: bool
    namespaces: bool = False
    veth: bool = False
    tbf: bool = False
    htb: bool = False
    netem: bool = False
    nft_or_iptables: bool = False
    missing: tuple[str, ...] = ()


def probe() -> NetnsSupport:
    """Try every feature in a temporary namespace, which is always removed again."""
    if os.geteuid() != 0:
        return NetnsSupport(root=False, missing=("--netns needs root.",))
    name = f"{new_tag()}-probe"
    missing: list[str] = []

    def works(sentence: str, *commands: str) -> bool:
        try:
            for text in commands:
                command(*text.split())
        except CommandError as error:
            missing.append(f"{sentence} ({error}).")
            return False
        return True

    try:
        namespaces = works("No network namespace can be made", f"ip netns add {name}")
        veth = namespaces and works(
            "The kernel has no veth", f"ip -n {name} link add probe0 type veth peer name probe1"
        )
        if not veth:
            return NetnsSupport(root=True, namespaces=namespaces, missing=tuple(missing))
        qdisc = f"tc -n {name} qdisc replace dev probe0 root handle"
        tbf = works("The kernel has no tbf", f"{qdisc} 1: tbf rate 1mbit burst 4000 limit 10000 overhead 24")
        htb = works(
            "The kernel has no htb",
            f"{qdisc} 2: htb default 1",
            f"tc -n {name} class add dev probe0 parent 2: classid 2:1 htb rate 1mbit",
        )
        netem = works("The kernel has no netem", f"{qdisc} 3: netem delay 1ms")
        loss = loss_tool(name) is not None
        if not loss:
            missing.append("Neither nft nor iptables is there and drops packets at random.")
        return NetnsSupport(True, namespaces, veth, tbf, htb, netem, loss, tuple(missing))
    finally:
        try_command("ip", "netns", "del", name)


def loss_tool(namespace: str) -> LossTool | None:
    """Return which command can drop packets at random, tried on lo in `namespace`; no rule is left there."""
    inside = ("ip", "netns", "exec", namespace)
    if try_command(*inside, "nft", nft_loss("cofix-probe", "lo", 0.5)):
        try_command(*inside, "nft", "delete table netdev cofix-probe")
        return "nft"
    rule = iptables_loss("cofix-probe", "lo", 0.5)
    if try_command(*inside, "iptables", "-t", "raw", "-A", *rule):
        try_command(*inside, "iptables", "-t", "raw", "-D", *rule)
        return "iptables"
    return None


def nft_loss(table: str, device: str, loss: float) -> str:
    """Return a script for nft that drops IP packets coming in at `device` with probability `loss`, in its own table.

    ARP passes: a lost ARP request would stall the link for a second.
    """
    chain = f"netdev {table} {device}"
    return (
        f"add table netdev {table}; "
        f"add chain {chain} {{ type filter hook ingress device {device} priority 0; }}; "
        f"add rule {chain} meta protocol ip numgen random mod 1000000000 < {round(loss * 1e9)} drop"
    )


def iptables_loss(tag: str, device: str, loss: float) -> tuple[str, ...]:
    """Return the rule for iptables' table "raw" that drops packets like `nft_loss`, with `tag` as its comment."""
    chance = f"-m statistic --mode random --probability {loss:.9f}"
    return ("PREROUTING", "-i", device, *chance.split(), "-m", "comment", "--comment", tag, "-j", "DROP")


def new_tag() -> str:
    """Return a new tag of this process."""
    return f"cofix-{os.getpid()}-{secrets.token_hex(2)}"


def remove_leftovers() -> list[str]:
    """Remove namespaces, with their interfaces, and loss rules of dead processes; return their names."""
    removed = []
    for name in existing_namespaces():
        if _is_dead(name) and try_command("ip", "netns", "del", name):
            removed.append(name)
    for table in _lines("nft", "list tables netdev"):  # "table netdev cofix-12-ab12"
        if _is_dead(name := table.split()[-1]) and try_command("nft", f"delete table netdev {name}"):
            removed.append(name)
    for rule in iptables_rules():
        if _is_dead(name := rule[rule.index("--comment") + 1]) and try_command("iptables", "-t", "raw", "-D", *rule):
            removed.append(name)
    return removed


def existing_namespaces() -> list[str]:
    """Return the names of all namespaces of the emulator, including those of other runs."""
    names = (line.split()[0] for line in _lines("ip", "netns", "list") if line.strip())
    return [name for name in names if _TAG.match(name)]


def iptables_rules() -> list[list[str]]:
    """Return all iptables loss rules of the emulator, as arguments of ``iptables -D``."""
    rules = (shlex.split(line) for line in _lines("iptables", "-t", "raw", "-S", "PREROUTING"))
    return [rule[1:] for rule in rules if "--comment" in rule and _TAG.match(rule[rule.index("--comment") + 1])]


def command(*words: str) -> str:
    """Run a command without a shell, and return its standard output.

    Raises:
        CommandError: it failed, timed out, or is not installed.
    """
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
            env={"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin", "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise CommandError(f"{words[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{words[0]} did not return within {_COMMAND_TIMEOUT_S:g} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        reason = said[0].removeprefix("Error: ").rstrip(".") if said else f"it failed with status {done.returncode}"
        raise CommandError(f"{words[0]}: {reason}")
    return done.stdout


def try_command(*words: str) -> bool:
    """Run a command; return whether it succeeded."""
    try:
        command(*words)
    except CommandError:
        return False
    return True


def _lines(*words: str) -> list[str]:
    try:
        return command(*words).splitlines()
    except CommandError:  # not installed, so it holds no rules of the emulator
        return []


def _is_dead(name: str) -> bool:
    found = _TAG.match(name)
    return found is not None and not Path(f"/proc/{found[1]}").exists()
