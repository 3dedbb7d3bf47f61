"""A run's metrics through Ray: the driver counts what its streams say and tells the metrics agent of its node.

Base stations and cloud publish nothing themselves. All streams of a run lie on the driver's node, also those of base
stations elsewhere, so the counts are those of the ledger, those of a process or node that dies are not lost, and no
report takes longer. The agent keeps the last values when the run is over.
"""

from __future__ import annotations

import time

import sim.emulate.ray_session  # isort: skip  # noqa: F401 - before Ray: it sets its environment

import ray
from ray.util import metrics as ray_metrics

from fronthaul.clock import real_ns
from sim.errors import UserError
from sim.observe.counting import Counting
from sim.observe.metrics import CLOSED, METRICS, RUN_LABELS, WAITING
from sim.plan.plan import Plan
from sim.records.folder import RunFolder

PERIOD_S = 1.0
"""Time between two updates [s]; Ray passes values on every 10 s."""


class RayMetrics:
    """Publishes the metrics of one run."""

    def __init__(self, plan: Plan, folder: RunFolder) -> None:
        """Declare the metrics to Ray.

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
        self._tags = {"run": folder.path.name.removesuffix(".part"), "scheme": plan.settings.scheme}
        self._published: dict[str, ray_metrics.Metric] = {}
        for metric in METRICS:
            labels = (*RUN_LABELS, *metric.labels)
            if metric.kind == "histogram":
                found: ray_metrics.Metric = ray_metrics.Histogram(metric.name, metric.help, [*metric.bounds], labels)
            else:
                kind = ray_metrics.Counter if metric.kind == "counter" else ray_metrics.Gauge
                found = kind(metric.name, metric.help, labels)
            self._published[metric.name] = found.set_default_tags(self._tags)
        self._counting: Counting | None = None
        self._next_s = 0.0

    def begin(self, t0_ns: int) -> None:
        """Take time zero of snapshot 0 [ns]; what came before is counted, too."""
        self._counting = Counting(self._folder.links, t0_ns, self._plan.settings.interval_ns)

    def update(self, closed: int, waiting: int) -> None:
        """Take the state of the cloud, and publish what is new, at most once a `PERIOD_S`.

        Args:
            closed: snapshots that are over at the cloud.
            waiting: rounds there that wait for reports or fusion.
        """
        assert self._counting is not None, "begin comes first"
        self._counting.gauges |= {(CLOSED, ()): closed, (WAITING, ()): waiting}
        if time.monotonic() >= self._next_s:
            self.publish()
            self._next_s = time.monotonic() + PERIOD_S

    def publish(self) -> None:
        """Publish what is new."""
        if self._counting is None:  # the run has not begun
            return
        self._counting.read(real_ns())
        for metric, labels, value in self._counting.take():
            published = self._published[metric.name]
            tags = dict(zip(metric.labels, labels, strict=True))
            if isinstance(published, ray_metrics.Counter):
                published.inc(value, tags)
            elif isinstance(published, ray_metrics.Histogram):
                published.observe(value, tags)
            elif isinstance(published, ray_metrics.Gauge):
                published.set(value, tags)
