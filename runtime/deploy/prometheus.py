"""A configuration that tells Prometheus where the metrics of ``dlzoo serve`` are.

It is written as JSON, which is valid YAML.

Source: https://prometheus.io/docs/prometheus/latest/configuration/configuration/
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlzoo.runtime.deploy.problem import Problem
from dlzoo.runtime.deploy.structure import ANY, Text, read_json, structure_problems

_DURATION = Text(r"(\d+(ms|s|m|h|d|w|y))+", "a duration such as 15s")
_JOB = {
    "job_name": Text(r"\S.*", "a name"),
    "metrics_path?": Text(r"/\S*", "a path that begins with /"),
    "scheme?": frozenset({"http", "https"}),
    "scrape_interval?": _DURATION,
    "scrape_timeout?": _DURATION,
    "static_configs?": [
        {"targets": [Text(r"\S+:\d+", "HOST:PORT")], "labels?": {"*": str}},
    ],
    "*": ANY,
}
_SCHEMA = {
    "global?": {"scrape_interval?": _DURATION, "*": ANY},
    "scrape_configs": [_JOB],
    "*": ANY,
}


def scrape_config() -> dict[str, Any]:
    """Build one job for a server on this machine; in a cluster, the pods' annotations say where."""
    job = {
        "job_name": "dlzoo",
        "metrics_path": "/metrics",
        "static_configs": [{"targets": ["127.0.0.1:8000"]}],
    }
    return {"global": {"scrape_interval": "15s"}, "scrape_configs": [job]}


def scrape_problems(folder: Path, file: str) -> Iterator[Problem]:
    """Find every problem in a configuration of Prometheus."""
    document, unread = read_json(folder, file)
    yield from unread or structure_problems(document, _SCHEMA, file)
