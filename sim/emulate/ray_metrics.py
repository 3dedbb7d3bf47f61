"""A run's metrics through Ray: the driver counts what its streams say, and an actor tells the agent of its node.

Base stations and cloud publish nothing themselves. All streams of a run lie on the driver's node, also those of base
stations elsewhere, so the counts are those of the ledger, those of a process or node that dies are not lost, and no
report takes longer. When the run is over, the agent keeps the last values, those of gauges for 20 s.

The driver does not publish itself: a process that connects to Ray repeatedly exports its metrics more than once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import sim.emulate.ray_session  # isort: skip  # noqa: F401 - before Ray: it sets its environment

import ray
from ray.exceptions import RayError
from ray.util import metrics as ray_metrics
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fronthaul.clock import real_ns
from sim.errors import UserError
from sim.observe.counting import Counting, Labels
from sim.observe.metrics import BOUNDS_MS, METRICS, RUN_LABELS
from sim.plan.plan import Plan
from sim.records.folder import RunFolder

PERIOD_S = 1.0
"""Time between two updates [s]; Ray passes values on every 10 s."""
END_S = 10.0
"""How long the last values may take to the agent [s]."""


class Publisher:
    """Publishes values under the metrics' names; `RayMetrics` turns it into an actor."""

    def __init__(self, tags: dict[str, str]) -> None:
        """Declare the metrics, with the values of `RUN_LABELS`."""
        self._published: dict[str, ray_metrics.Metric] = {}
        for metric in METRICS:
            labels = (*RUN_LABELS, *metric.labels)
            if metric.kind == "histogram":
                found: ray_metrics.Metric = ray_metrics.Histogram(metric.name, metric.help, [*BOUNDS_MS], labels)
            else:
                kind = ray_metrics.Counter if metric.kind == "counter" else ray_metrics.Gauge
                found = kind(metric.name, metric.help, labels)
            self._published[metric.name] = found.set_default_tags(tags)
        self._labels = {metric.name: metric.labels for metric in METRICS}

    def publish(self, values: Sequence[tuple[str, Labels, float]]) -> None:
        """Publish increments of counters, observations of histograms, and values of gauges, by name and labels."""
        for name, labels, value in values:
            published = self._published[name]
            tags = dict(zip(self._labels[name], labels, strict=True))
            if isinstance(published, ray_metrics.Counter):
                published._record(value, tags)  # `inc` refuses 0, with which a series begins
            elif isinstance(published, ray_metrics.Histogram):
                published.observe(value, tags)
            elif isinstance(published, ray_metrics.Gauge):
                published.set(value, tags)


class RayMetrics:
    """The metrics of one run."""

    def __init__(self, plan: Plan, folder: RunFolder) -> None:
        """Start the actor.

        Raises:
            UserError: the node has no metrics agent.
        """
        own = ray.get_runtime_context().get_node_id()
        node = next(node for node in ray.nodes() if node["NodeID"] == own)  # type: ignore[no-untyped-call]
        if node["MetricsExportPort"] <= 0:
            raise UserError(
                "--metrics: Ray on this machine exports no metrics; `pip install 'cofix[metrics]'` for all nodes, and "
                "start Ray again."
            )
        self._plan, self._folder = plan, folder
        here = NodeAffinitySchedulingStrategy(own, soft=False)
        self._actor: Any = (
            ray.remote(Publisher)
            .options(num_cpus=0, scheduling_strategy=here)
            .remote({"run": folder.path.name.removesuffix(".part"), "scheme": plan.settings.scheme})
        )
        self._counting: Counting | None = None
        self._next_s = 0.0

    def begin(self, t0_ns: int) -> None:
        """Take time zero of snapshot 0 [ns]; what came before is counted, too."""
        self._counting = Counting(self._folder.links, t0_ns, self._plan.settings)

    def update(self, closed: int, waiting: int) -> None:
        """Take the state of the cloud, and publish what is new, at most once a `PERIOD_S`.

        Args:
            closed: snapshots that are over at the cloud.
            waiting: rounds there that wait for reports or fusion.
        """
        assert self._counting is not None, "begin comes first"
        self._counting.look(closed, waiting, real_ns())
        if time.monotonic() >= self._next_s:
            self.publish()
            self._next_s = time.monotonic() + PERIOD_S

    def publish(self) -> None:
        """Publish what is new."""
        if self._counting is not None:  # else the run has not begun
            self._counting.read(real_ns)
            self._actor.publish.remote([(metric.name, *rest) for metric, *rest in self._counting.take()])

    def close(self) -> None:
        """Publish what is left, and end the actor, which passes all on to the agent."""
        self.publish()
        self._actor.__ray_terminate__.remote()
        with contextlib.suppress(RayError):  # it is gone, as it should be
            ray.get(self._actor.publish.remote([]), timeout=END_S)
