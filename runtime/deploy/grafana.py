"""A Grafana dashboard over the metrics of ``dlzoo serve``.

Source: https://grafana.com/docs/grafana (dashboard JSON model); the metrics are those of
``GET /metrics``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlzoo.runtime.deploy.problem import Problem
from dlzoo.runtime.deploy.structure import ANY, read_json, structure_problems

#: The metrics of ``dlzoo serve``, as Prometheus names them.
METRICS = frozenset(
    [
        *("dlzoo_requests_total", "dlzoo_samples_total", "dlzoo_runs_total"),
        *("dlzoo_queue_seconds_total", "dlzoo_compute_seconds_total", "dlzoo_queue_requests"),
        *(
            "dlzoo_batches_total",
            "dlzoo_request_seconds_bucket",
            "dlzoo_request_seconds_count",
        ),
        *("dlzoo_request_seconds_sum", "process_resident_memory_bytes"),
        "process_cpu_seconds_total",
    ]
)
_MODEL = '{model="$model"}'
_RATE = f"{_MODEL}[$__rate_interval]"
_SCHEMA = {
    "title": str,
    "uid?": str,
    "schemaVersion": int,
    "templating": {"list": [{"name": str, "type": str, "*": ANY}]},
    "panels": [
        {
            "id": int,
            "title": str,
            "type": str,
            "gridPos": {"x": int, "y": int, "w": int, "h": int},
            "targets": [{"expr": str, "refId": str, "*": ANY}],
            "*": ANY,
        }
    ],
    "*": ANY,
}


def dashboard(name: str) -> dict[str, Any]:
    """Build a dashboard of one model's requests, errors, latency, queue and batches, and of memory."""
    panels = [
        (
            "Requests",
            "reqps",
            [("sum by (outcome) (rate(dlzoo_requests_total" + _RATE + "))", "{{outcome}}")],
        ),
        (
            "Latency",
            "s",
            [
                (
                    f"histogram_quantile({quantile}, sum by (le) "
                    f"(rate(dlzoo_request_seconds_bucket{_RATE})))",
                    f"p{round(100 * quantile)}",
                )
                for quantile in (0.5, 0.9, 0.99)
            ],
        ),
        ("Requests waiting", "short", [(f"sum(dlzoo_queue_requests{_MODEL})", "waiting")]),
        (
            "Time per request",
            "s",
            [
                (
                    f"sum(rate(dlzoo_{part}_seconds_total{_RATE})) / "
                    f"sum(rate(dlzoo_requests_total{_RATE}))",
                    part,
                )
                for part in ("queue", "compute")
            ],
        ),
        (
            "Samples in one run",
            "short",
            [
                (
                    f"sum(rate(dlzoo_samples_total{_RATE})) / sum(rate(dlzoo_runs_total{_RATE}))",
                    "mean",
                )
            ],
        ),
        ("Memory", "bytes", [("process_resident_memory_bytes", "{{instance}} {{worker}}")]),
    ]
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "title": f"dlzoo: {name}",
        "uid": f"dlzoo-{re.sub(r'[^a-zA-Z0-9_-]', '-', name)}"[:40],
        "schemaVersion": 39,
        "editable": True,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "10s",
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                {"name": "model", "type": "constant", "query": name},
            ]
        },
        "panels": [
            {
                "id": number,
                "title": title,
                "type": "timeseries",
                "datasource": source,
                "gridPos": {"x": 12 * (i % 2), "y": 8 * (i // 2), "w": 12, "h": 8},
                "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                "targets": [
                    {
                        "refId": chr(ord("A") + place),
                        "expr": expression,
                        "legendFormat": legend,
                        "datasource": source,
                    }
                    for place, (expression, legend) in enumerate(queries)
                ],
            }
            for i, (number, (title, unit, queries)) in enumerate(enumerate(panels, start=1))
        ],
    }


def dashboard_problems(folder: Path, file: str, name: str) -> Iterator[Problem]:
    """Find every problem in a dashboard: its structure, and metrics that the server does not have."""
    document, unread = read_json(folder, file)
    problems = unread or list(structure_problems(document, _SCHEMA, file))
    yield from problems
    if problems:
        return
    for variable in document["templating"]["list"]:
        if variable["name"] == "model" and variable.get("query") != name:
            got = variable.get("query")
            yield Problem(file, "templating model.query", f"is {got!r}, the model is {name!r}")
    seen: set[int] = set()
    for i, panel in enumerate(document["panels"]):
        if panel["id"] in seen:
            yield Problem(file, f"panels[{i}].id", f"is {panel['id']} for the second time")
        seen.add(panel["id"])
        for j, target in enumerate(panel["targets"]):
            place = f"panels[{i}].targets[{j}].expr"
            expression = target["expr"]
            for metric in re.findall(r"\b(?:dlzoo|process)_\w+", expression):
                if metric not in METRICS:
                    yield Problem(
                        file, place, f"has {metric}, which is not a metric of dlzoo serve"
                    )
            if any(expression.count(a) != expression.count(b) for a, b in ("()", "{}", "[]")):
                yield Problem(file, place, "has brackets that do not match")
