"""Start the processes of a run on Ray: placement, keys, addresses and the folder of their streams."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field, replace
from typing import Any

import sim.emulate.ray_session  # isort: skip  # noqa: F401 - before Ray: it sets its environment

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cloud.actor import CloudActor
from edge.actor import EdgeActor
from fronthaul.clock import origin
from fronthaul.errors import LocalError
from fronthaul.log.remote import Keeper
from fronthaul.transport.keys import EdgeKeys, KeyRing, load_cloud_keys, load_edge_keys
from fronthaul.transport.new_keys import ephemeral
from sim.arithmetic import THREADS
from sim.emulate.ray_room import groups, label_values, labels_of, reserved
from sim.errors import UserError
from sim.kernel.namespaces import Namespaces
from sim.plan.plan import Plan
from sim.plan.settings import EmulateSettings
from sim.records.folder import RunFolder

START_S = 180.0
"""How long actors may take to start [s], plus `START_EACH_S` for each, since each may import torch."""
START_EACH_S = 6.0
ANSWER_S = 3.0
"""How long a node may take to answer before it counts as lost [s]."""
REGISTER_S = 30.0
"""How long the cloud may take to welcome a base station [s]."""


@dataclass
class Process:
    """An actor and its state.

    Attributes:
        actor: Ray's handle.
        name: name in messages to the user.
        stations: its base stations; empty for the cloud.
        number: epoch or incarnation, the number of earlier starts.
        node: Ray's id of its node, once it is up.
        pid: process id if it runs on the driver's node, else None.
        connecting: the call that brings it up; None once that has returned.
        running: its main call; None before and after it.
        restart: when its predecessor died or was replaced [ns], until it is up again; else None.
        node_lost: whether it, or its predecessor, died with its node.
    """

    actor: Any
    name: str
    stations: list[int] = field(default_factory=list)
    number: int = 0
    node: str | None = None
    pid: int | None = None
    connecting: Any = None
    running: Any = None
    restart: int | None = None
    node_lost: bool = False

    @property
    def ended(self) -> bool:
        """Whether it has finished: no call is pending or running."""
        return self.connecting is None and self.running is None


class Launcher:
    """Starts and restarts the processes of one run.

    Attributes:
        node: Ray's id of the driver's node.
        address: address at which the cloud listens; empty before that.
    """

    def __init__(self, plan: Plan, folder: RunFolder, local: bool, spaces: Namespaces | None) -> None:
        """Prepare the keys; no process is started.

        Args:
            plan: what to run.
            folder: folder of the run.
            local: whether all of Ray is on this host.
            spaces: network namespaces of the links; None without `--netns`.

        Raises:
            UserError: a key is missing or damaged, or no node has the label.
        """
        self._plan = plan
        self._settings = plan.settings
        self._folder = folder
        self._local = local
        self._spaces = spaces
        self._keys = _keys(plan.settings, len(plan.stations))
        self._lost: set[str] = set()
        label = plan.settings.node_label
        self._values = [] if label is None else label_values(label, ray_nodes())
        self.node: str = ray.get_runtime_context().get_node_id()
        self.address = ""
        # It may be started again at any time, since a write may be repeated.
        self._keeper: Any = (
            None
            if local
            else (
                ray.remote(Keeper)
                .options(
                    num_cpus=0,
                    max_restarts=-1,
                    max_task_retries=-1,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(self.node, soft=False),
                )
                .remote(folder.links.resolve())
            )
        )

    def kill(self) -> None:
        """End what writes the streams of other nodes."""
        if self._keeper is not None:
            ray.kill(self._keeper)

    def cloud(self, incarnation: int = 0) -> Process:
        """Start an incarnation of the cloud. Later ones listen at the same port and continue from the logs on disk."""
        actor: Any = (
            ray.remote(CloudActor)
            .options(
                **reserved(self._settings.cloud_cpus, self._settings.cloud_gpus),
                max_concurrency=3,
                scheduling_strategy=NodeAffinitySchedulingStrategy(self.node, soft=False),
            )
            .remote(self._plan.cloud, origin(), THREADS, self._settings.cloud_device, self._settings.cloud_gpus)
        )
        host = self._settings.host or ("127.0.0.1" if self._local else None)
        if self._spaces is not None:
            host = "0.0.0.0"  # each base station's host end has an address of its own
        listening = actor.listen.remote(
            host,
            int(self.address.rsplit(":", 1)[1]) if self.address else self._settings.port,
            self._keys.cloud if self._keys else None,
            self._settings.hwm,
            self._folder.links.resolve(),
            incarnation,
        )
        return Process(actor, "The cloud", number=incarnation, connecting=listening)

    def edges(self) -> list[Process]:
        """Start the processes of all base stations; `connect` lets them go on."""
        self.lost_nodes()  # a node that was lost before the run gets none, whatever Ray believes of it
        stations = [site.station.bs for site in self._plan.sites]
        return [self._start([stations[n] for n in group], 0) for group in groups(self._settings, len(stations))]

    def has_place(self, stations: list[int]) -> bool:
        """Return whether a node is left on which the process of `stations` may run."""
        lost, wanted = self.lost_nodes(), self._labels_for(stations)
        return any(node["NodeID"] not in lost and wanted.items() <= node["Labels"].items() for node in ray_nodes())

    def lost_nodes(self) -> set[str]:
        """Return the ids of the nodes that are gone, or do not answer; Ray may take minutes to notice those."""
        if not self._local:
            self._lost |= {
                node["NodeID"] for node in ray_nodes() if node["NodeID"] not in self._lost and _is_mute(node)
            }
            self._lost |= {node["NodeID"] for node in ray_nodes(alive=False)}
        return self._lost

    def _not_lost(self) -> dict[str, str]:
        """Return the condition that keeps a process off lost nodes, which Ray may believe to be alive."""
        return {"ray.io/node-id": f"!in({','.join(sorted(self._lost))})"} if self._lost else {}

    def _labels_for(self, stations: list[int]) -> dict[str, str]:
        """Return the labels of the nodes on which the process of `stations` may run."""
        first = [site.station.bs for site in self._plan.sites].index(stations[0])
        return labels_of(first // self._settings.bs_per_actor, self._settings.node_label, self._values)

    def edge(self, stations: list[int], epoch: int) -> Process:
        """Start one process for `stations`, which connect and register."""
        process = self._start(stations, epoch)
        self.connect(process)
        return process

    def _start(self, stations: list[int], epoch: int) -> Process:
        settings = self._settings
        group = [
            replace(site, station=replace(site.station, epoch=epoch))
            for site in self._plan.sites
            if site.station.bs in stations
        ]
        actor: Any = (
            ray.remote(EdgeActor)
            .options(
                **reserved(settings.cpus_per_bs * len(group), settings.gpus_per_bs * len(group)),
                max_concurrency=2,
                scheduling_strategy="SPREAD",
                label_selector=self._labels_for(stations) | self._not_lost(),
            )
            .remote(group, origin(), THREADS, settings.edge_device, settings.gpus_per_bs * len(group))
        )
        return Process(actor, "BS " + ", ".join(map(str, stations)), stations, epoch)

    def connect(self, process: Process) -> None:
        """Have base stations that were started connect to the cloud, which listens, and register."""
        stations = process.stations
        own: dict[int, EdgeKeys] = {bs: self._keys.edges[bs] for bs in stations} if self._keys else {}
        process.connecting = process.actor.connect.remote(
            {bs: self._address_for(bs) for bs in stations},
            own,
            {bs: self._spaces.name(bs) for bs in stations} if self._spaces is not None else {},
            self._settings.hwm,
            self._folder.links.resolve(),
            self.node,
            self._keeper,
            REGISTER_S,
        )

    def stands(self, process: Process) -> None:
        """Mark a process as up, and look up its process id if it runs on this node."""
        process.connecting = None
        try:
            process.node, pid = ray.get(process.actor.process.remote(), timeout=1.0)
        except RayError:
            return
        process.pid = pid if process.node == self.node else None

    def _address_for(self, bs: int) -> str:
        if self._spaces is None:
            return self.address
        scheme, port = self.address.split(":", 1)[0], self.address.rsplit(":", 1)[1]
        return f"{scheme}://{self._spaces.cloud_address(bs)}:{port}"


def ray_nodes(*, alive: bool = True) -> list[dict[str, Any]]:
    """Return the nodes that Ray believes to be alive, or dead."""
    return [node for node in ray.nodes() if node["Alive"] == alive]  # type: ignore[no-untyped-call]


def _is_mute(node: dict[str, Any]) -> bool:
    """Return whether a node's kernel does not even accept a connection to Ray."""
    try:
        socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), ANSWER_S).close()
    except OSError:
        return True
    return False


def _keys(settings: EmulateSettings, stations: int) -> KeyRing | None:
    """Return the keys of an encrypted run of `stations` base stations, from their folder or new ones.

    Raises:
        UserError: a key is missing or damaged.
    """
    if not settings.encrypted:
        return None
    if settings.keys is None:
        return ephemeral(stations)
    try:
        return KeyRing(
            load_cloud_keys(settings.keys), {bs: load_edge_keys(settings.keys, bs) for bs in range(stations)}
        )
    except LocalError as error:
        raise UserError(f"{error}: `cofix keys {settings.keys} --bs {stations}` makes keys.") from error
