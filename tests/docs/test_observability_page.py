"""Dashboard, table of metrics and what is scraped agree with the definitions of the metrics."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from sim.observe.metrics import METRICS, RUN_LABELS, Metric

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/observability.md").read_text()
DASHBOARD = json.loads((ROOT / "deploy/grafana-dashboard.json").read_text())
SERIES = {name: metric for metric in METRICS for name in metric.exported}
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
_SELECTION = re.compile(r"\b(ray_\w+)(?:\{(.*?)\})?")
ALERTS = [rule["expr"] for rule in yaml.safe_load((ROOT / "deploy/alerts.yaml").read_text())["groups"][0]["rules"]]
_GROUPED = re.compile(r"\bby \((.*?)\) \((.*?)\}")


def labels_of(metric: Metric) -> set[str]:
    return {*RUN_LABELS, *metric.labels, *(["le"] if metric.kind == "histogram" else [])}


def test_queries_name_what_there_is() -> None:
    for query in (*QUERIES, *ALERTS, VARIABLES["run"]["query"], VARIABLES["bs"]["query"]):
        found = _SELECTION.findall(query)
        assert found and query.count("(") == query.count(")") and query.count("{") == query.count("}")
        for name, selection in found:
            assert name in SERIES, query
            assert set(re.findall(r'(\w+)=~?"', selection)) <= labels_of(SERIES[name]), query
            wanted = {"run", "bs"} & labels_of(SERIES[name])
            assert query not in QUERIES or set(re.findall(r'(\w+)=~"\$', selection)) == wanted, query
        for labels, rest in _GROUPED.findall(query):
            (name, _), *_ = _SELECTION.findall(rest + "}")
            assert set(labels.split(", ")) <= labels_of(SERIES[name]), query
    for panel in PANELS:
        for target in panel["targets"]:
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            grouped = {label for labels, _ in _GROUPED.findall(target["expr"]) for label in labels.split(", ")}
            assert shown == grouped - {"le"}, target


def test_counters_that_are_not_rates_show_what_prometheus_sees_once() -> None:
    """A connection is made once: its series begins with 1, in which Prometheus sees no increase."""
    assert not [
        query for query in QUERIES if "ray_cofix_events_total" in query and ("rate(" in query or "incr" in query)
    ]


def test_every_metric_has_a_panel() -> None:
    shown = {SERIES[name] for query in QUERIES for name, _ in _SELECTION.findall(query)}
    assert shown == set(METRICS)
    assert {"datasource", "run", "bs"} == VARIABLES.keys()
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in PANELS)


def test_the_pages_table_is_that_of_the_definitions() -> None:
    rows = re.findall(r"^\| `(ray_.*?)` \| (.*?) \| (.*?) \| (.*?) \|$", PAGE, re.MULTILINE)
    assert rows == [
        (f"ray_{metric.name}", metric.kind, ", ".join(metric.labels) or "–", metric.help) for metric in METRICS
    ]


def test_prometheus_asks_where_ray_exports() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus.yaml").read_text())
    assert [(ROOT / "deploy" / name).exists() for name in config["rule_files"]] == [True]
    (targets,) = [static["targets"] for (job,) in [config["scrape_configs"]] for static in job["static_configs"]]
    cluster = yaml.safe_load((ROOT / "deploy/hosts.yaml").read_text())
    provider = cluster["provider"]
    assert {target.rsplit(":")[0] for target in targets} == {provider["head_ip"], *provider["worker_ips"]}
    (port,) = {target.rsplit(":")[1] for target in targets}
    for commands in (cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]):
        assert f"--metrics-export-port={port} " in commands[-1]
    monitor = yaml.safe_load((ROOT / "deploy/podmonitor.yaml").read_text())["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    manifest, _ = yaml.safe_load_all((ROOT / "deploy/raycluster.yaml").read_text())
    assert monitor["selector"]["matchLabels"] == {"ray.io/cluster": manifest["metadata"]["name"]}
    for group in (manifest["spec"]["headGroupSpec"], *manifest["spec"]["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert str(container["ports"][0]["containerPort"]) == group["rayStartParams"]["metrics-export-port"]
        assert container["ports"][0]["name"] == endpoint["port"]
