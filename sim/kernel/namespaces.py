"""`--netns`: each base station in a network namespace of its own, its link shaped by the kernel. Optional, root only.

                    host                              cofix-<pid>-<random>-bs-003
    cloud, listens on 0.0.0.0                          base station 3's socket
    10.x.y.1/30  +----------------+  veth pair  +------------------+  10.x.y.2/30
                 | cx<random>-3   |=============| cloud            |
                 +----------------+             +------------------+
                 tc: down, drops up             tc: up, drops down

tc acts on packets that leave an interface, so each end shapes what it sends. Without netem, packets are dropped at
random where they arrive: if they were dropped before they leave, the sender's TCP would be told, unlike after a real
loss. Segments are not merged (TSO, GSO), so that packets of one MTU are shaped, not of 64 kB.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network
from types import TracebackType

from fronthaul.link.link_file import LinkPlan
from fronthaul.log.stream_names import link_name
from fronthaul.message.messages import Direction
from sim.errors import UserError
from sim.kernel.probe import (
    CommandError,
    LossTool,
    command,
    existing_namespaces,
    iptables_loss,
    iptables_rules,
    loss_tool,
    new_tag,
    nft_loss,
    probe,
    remove_leftovers,
    try_command,
)
from sim.kernel.shaping import MTU_BYTES, check_shapeable, qdiscs

_INNER = "cloud"  # name of the interface inside a namespace, which leads to the cloud
_BLOCK_ADDRESSES = 4  # of a /30
_POOL = IPv4Network("10.0.0.0/8")


class Namespaces:
    """One namespace per base station, which exists from `__enter__` to `__exit__`.

    Example:
        with Namespaces([0, 1], plan) as namespaces:
            cloud = RouterTransport("0.0.0.0", port=0)
            with inside(namespaces.name(1)):
                edge = DealerTransport(f"tcp://{namespaces.cloud_address(1)}:{port}", bs=1)
    """

    def __init__(self, stations: Sequence[int], plan: LinkPlan) -> None:
        """Check that the kernel can shape all of `plan`; nothing is created yet.

        Args:
            stations: base stations.
            plan: settings of their links. Its outages are only checked; calls of `outage` make them happen.

        Raises:
            UserError: the kernel lacks a feature, or we are not root.
        """
        self._configs = {(bs, way): plan.config(bs, way) for bs in stations for way in Direction}
        self._support = probe()
        check_shapeable(self._configs, self._support)
        self._stations = tuple(stations)
        self._tag = new_tag()
        self._blocks: dict[int, IPv4Network] = {}

    def __enter__(self) -> Namespaces:
        """Remove what dead runs left behind, and create all namespaces and links.

        Raises:
            UserError: a command failed; nothing is left behind.
        """
        remove_leftovers()
        try:
            blocks = free_blocks(len(self._stations), _taken())
            self._blocks = dict(zip(self._stations, blocks, strict=True))
            for bs in self._stations:
                self._make(bs)
        except BaseException as error:
            self._remove()
            if isinstance(error, CommandError):
                raise UserError(f"--netns could not be set up: {error}.") from error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove all namespaces and links.

        Raises:
            UserError: a namespace is still there, and no other error is being raised.
        """
        self._remove()
        if kind is None and (left := [name for name in existing_namespaces() if name.startswith(self._tag)]):
            raise UserError(f"--netns could not remove {', '.join(left)}: remove them with ip netns del.")

    def name(self, bs: int) -> str:
        """Return the name of a base station's namespace, for `inside`."""
        return f"{self._tag}-{link_name(bs)}"

    def cloud_address(self, bs: int) -> str:
        """Return the IP address at which `bs` reaches the cloud, such as "10.77.3.1"."""
        return str(self._blocks[bs][1])

    def edge_address(self, bs: int) -> str:
        """Return the IP address of `bs`."""
        return str(self._blocks[bs][2])

    def outage(self, bs: int, down: bool) -> None:
        """Take the link of `bs` down or up; packets in its queues are lost, and TCP retransmits them later.

        Raises:
            UserError: the command failed.
        """
        try:
            command("ip", "link", "set", self._device(bs), "down" if down else "up")
        except CommandError as error:
            raise UserError(f"--netns could not switch the link of BS {bs}: {error}.") from error

    def _device(self, bs: int) -> str:
        """Return the name of the host's end, within the kernel's limit of 15 characters."""
        return f"cx{self._tag.rsplit('-', 1)[1]}-{bs}"

    def _make(self, bs: int) -> None:
        name, device, block = self.name(bs), self._device(bs), self._blocks[bs]
        command("ip", "netns", "add", name)
        command(*f"ip link add {device} mtu {MTU_BYTES} type veth peer name {_INNER} netns {name}".split())
        for netns, end, address in (((), device, block[1]), (("-n", name), _INNER, block[2])):
            ip = ("ip", *netns)
            command(*ip, "link", "set", end, "gso_max_segs", "1")
            try_command(*ip, "link", "set", end, "addrgenmode", "none")  # IPv6 would only chatter, where there is any
            command(*ip, "address", "add", f"{address}/{block.prefixlen}", "dev", end)
        command("ip", "-n", name, "link", "set", "lo", "up")
        for way, netns, end in ((Direction.UP, ("-n", name), _INNER), (Direction.DOWN, (), device)):
            if (config := self._configs[bs, way]) is not None:
                for discipline in qdiscs(config, netem=self._support.netem):
                    command("tc", *netns, "qdisc", "add", "dev", end, *discipline.split())
        if not self._support.netem:
            self._make_losses(bs)
        command("ip", "link", "set", device, "up")
        command("ip", "-n", name, "link", "set", _INNER, "up")

    def _make_losses(self, bs: int) -> None:
        losses = {way: config.loss for way in Direction if (config := self._configs[bs, way]) and config.loss}
        tool: LossTool | None = loss_tool(self.name(bs)) if losses else None
        for way, loss in losses.items():
            device = self._device(bs) if way is Direction.UP else _INNER
            place = () if way is Direction.UP else ("ip", "netns", "exec", self.name(bs))
            if tool == "nft":
                command(*place, "nft", nft_loss(self._tag, device, loss))
            else:
                command(*place, "iptables", "-t", "raw", "-A", *iptables_loss(self._tag, device, loss))

    def _remove(self) -> None:
        """Remove all namespaces, links and loss rules of this run; ignore those that do not exist."""
        for bs in self._stations:
            # Explicitly, because the kernel removes the interfaces of a deleted namespace only after some time.
            try_command("ip", "link", "del", self._device(bs))
            try_command("ip", "netns", "del", self.name(bs))
        if not self._support.netem and any(config and config.loss for config in self._configs.values()):
            try_command("nft", f"delete table netdev {self._tag}")
            for rule in iptables_rules():
                if self._tag in rule:
                    try_command("iptables", "-t", "raw", "-D", *rule)


def free_blocks(count: int, taken: Iterable[IPv4Network]) -> list[IPv4Network]:
    """Return `count` blocks 10.x.y.z/30 that overlap none of `taken`, starting at a random place.

    Raises:
        UserError: there are fewer free blocks.
    """
    # Random, because another run may look for blocks at the same time.
    ranges = sorted((int(net.network_address), int(net.broadcast_address)) for net in taken if net.overlaps(_POOL))
    first = int(_POOL.network_address) + _BLOCK_ADDRESSES * secrets.randbelow(_POOL.num_addresses // _BLOCK_ADDRESSES)
    last = int(_POOL.broadcast_address)
    found: list[IPv4Network] = []
    for start, end in ((first, last), (int(_POOL.network_address), first - 1)):
        at = start
        while len(found) < count and at + _BLOCK_ADDRESSES - 1 <= end:
            ahead = [high for low, high in ranges if low < at + _BLOCK_ADDRESSES and high >= at]
            if ahead:
                at = (max(ahead) // _BLOCK_ADDRESSES + 1) * _BLOCK_ADDRESSES
            else:
                found.append(IPv4Network((IPv4Address(at), 30)))
                at += _BLOCK_ADDRESSES
    if len(found) < count:
        raise UserError(f"--netns needs {count} free /30 blocks in {_POOL}, but routes lead to nearly all of it.")
    return found


def _taken() -> list[IPv4Network]:
    """Return the destinations of the host's IPv4 routes, except the default route."""
    routes = json.loads(command("ip", "-json", "-4", "route", "show", "table", "all"))
    return [IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]
