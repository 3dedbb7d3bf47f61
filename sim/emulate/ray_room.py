"""Room on the nodes of a Ray cluster: what the processes of a run reserve, and whether each of them finds a place.

Ray counts CPUs and GPUs in steps of 0.0001. It gives a process a part of one GPU, or whole ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.errors import UserError
from sim.plan.settings import EmulateSettings

Nodes = Sequence[Mapping[str, Any]]
"""Nodes that are alive, as `ray.nodes()` describes them."""

_WHOLE = 10_000
"""Ray's steps in a CPU or GPU."""


def reserved(cpus: float, gpus: float) -> dict[str, float]:
    """Return Ray's options for a process that reserves `cpus` and `gpus`, to the next step."""
    return {"num_cpus": _steps(cpus) / _WHOLE, "num_gpus": _steps(gpus) / _WHOLE}


def groups(settings: EmulateSettings, stations: int) -> list[range]:
    """Return the places in the list of base stations of those that share a process, by process."""
    size = settings.bs_per_actor
    return [range(begin, min(begin + size, stations)) for begin in range(0, stations, size)]


def label_values(label: str, nodes: Nodes) -> list[str]:
    """Return the values that a label has on the nodes, in order.

    Raises:
        UserError: no node has the label.
    """
    values = sorted({node["Labels"][label] for node in nodes if label in node["Labels"]})
    if not values:
        raise UserError(f"--node-label {label}: no node of the Ray cluster has it, start them with --labels {label}=…")
    return values


def labels_of(process: int, label: str | None, values: Sequence[str]) -> dict[str, str]:
    """Return the labels of the nodes on which a process of base stations may run, by its number in the run."""
    return {str(label): values[process % len(values)]} if values else {}


def require_room(settings: EmulateSettings, stations: int, nodes: Nodes, here: str) -> None:
    """Check that each process of a run finds a place on the nodes if no other program takes it.

    Args:
        settings: of the run.
        stations: its number of base stations.
        nodes: of the cluster.
        here: id of the driver's node, where the cloud runs.

    Raises:
        UserError: one finds none.
    """
    free = {node["NodeID"]: _Free.of(node) for node in nodes}
    _require_cpus_and_gpus(settings, stations, free, here)
    free[here].take(_steps(settings.cloud_cpus), _steps(settings.cloud_gpus))
    values = [] if settings.node_label is None else label_values(settings.node_label, nodes)
    shared = groups(settings, stations)
    wanted = [labels_of(process, settings.node_label, values) for process in range(len(shared))]
    for process, (labels, group) in enumerate(zip(wanted, shared, strict=True)):
        cpus, gpus = settings.cpus_per_bs * len(group), settings.gpus_per_bs * len(group)
        fitting = [node for node in free.values() if labels.items() <= node.labels.items()]
        if not any(node.take(_steps(cpus), _steps(gpus)) for node in fitting):
            lacking = "gpus" if any(node.take(_steps(cpus), 0) for node in fitting) else "cpus"
            where = "".join(f" with {key}={value}" for key, value in labels.items())
            raise UserError(
                f"The nodes{where} of the Ray cluster have room for {wanted[:process].count(labels)} of "
                f"{wanted.count(labels)} actors that reserve {cpus:g} CPUs and {gpus:g} GPUs each: lower "
                f"--{lacking}-per-bs or --bs."
            )


@dataclass
class _Free:
    """What is free on a node.

    Attributes:
        labels: of the node.
        cpus: its CPUs in Ray's steps.
        gpus: each of its GPUs in Ray's steps.
    """

    labels: Mapping[str, str]
    cpus: int
    gpus: list[int]

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> _Free:
        """Return what is free on a node without processes."""
        has = node["Resources"]
        return cls(node["Labels"], _steps(has.get("CPU", 0.0)), [_WHOLE] * int(has.get("GPU", 0.0)))

    def take(self, cpus: int, gpus: int) -> bool:
        """Reserve CPUs, and a part of one GPU or whole ones, as Ray does; return whether there was room."""
        count, share = (gpus // _WHOLE, _WHOLE) if gpus >= _WHOLE else (int(gpus > 0), gpus)
        fullest = sorted(range(len(self.gpus)), key=self.gpus.__getitem__)
        chosen = [gpu for gpu in fullest if self.gpus[gpu] >= share][:count]
        if cpus > self.cpus or len(chosen) < count:
            return False
        self.cpus -= cpus
        for gpu in chosen:
            self.gpus[gpu] -= share
        return True


def _steps(amount: float) -> int:
    """Return a number of CPUs or GPUs in Ray's steps, at least one of any amount."""
    return max(round(amount * _WHOLE), 1) if amount else 0


def _require_cpus_and_gpus(settings: EmulateSettings, stations: int, free: Mapping[str, _Free], here: str) -> None:
    """Check totals and the largest process against the largest node, which have sentences of their own.

    Raises:
        UserError: they do not fit.
    """
    sizes = {len(group) for group in groups(settings, stations)}
    size = max(sizes)
    for kind, each, cloud, has in (
        ("CPU", settings.cpus_per_bs, settings.cloud_cpus, {name: node.cpus for name, node in free.items()}),
        ("GPU", settings.gpus_per_bs, settings.cloud_gpus, {name: sum(node.gpus) for name, node in free.items()}),
    ):
        option, of_cloud = f"--{kind.lower()}s-per-bs", f"--cloud-{kind.lower()}s"
        there = sum(has.values())
        if _steps(each * stations + cloud) > there:
            raise UserError(
                f"{stations} base stations and the cloud reserve {each * stations + cloud:g} {kind}s, Ray has "
                f"{there / _WHOLE:g}: lower {option} or --bs."
            )
        if _steps(cloud) > has[here]:
            raise UserError(
                f"The cloud reserves {cloud:g} {kind}s, the driver's node, where it runs, has "
                f"{has[here] / _WHOLE:g}: lower {of_cloud}."
            )
        if _steps(each * size) > max(has.values()):
            raise UserError(
                f"An actor of {size} base stations reserves {each * size:g} {kind}s, the largest node has "
                f"{max(has.values()) / _WHOLE:g}: lower {option} or --bs-per-actor."
            )
    for who, gpus, options in (
        *((f"An actor of {size} base stations", settings.gpus_per_bs * size, "--gpus-per-bs or --bs-per-actor")
          for size in sorted(sizes)),
        ("The cloud", settings.cloud_gpus, "--cloud-gpus"),
    ):  # fmt: skip
        if _steps(gpus) > _WHOLE and _steps(gpus) % _WHOLE:
            raise UserError(
                f"{who} reserves {gpus:g} GPUs, and Ray gives a part of one or whole ones: change {options}."
            )
