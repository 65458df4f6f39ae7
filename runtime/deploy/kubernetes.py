"""A Deployment of ``dlzoo serve`` with probes, and its Service, as one JSON list.

Source: https://kubernetes.io/docs/reference/kubernetes-api (Deployment v1, Service v1, List).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlzoo.runtime.deploy.kserve import dns_name
from dlzoo.runtime.deploy.kubernetes_schema import DEPLOYMENT, SERVICE
from dlzoo.runtime.deploy.problem import Problem
from dlzoo.runtime.deploy.structure import read_json, structure_problems

_HTTP, _GRPC = 8000, 8001
#: The first answers as long as the process lives, the second only while it accepts requests.
_LIVE, _READY = "/v2/health/live", "/v2/health/ready"
#: Longer than the server's own drain (1 s not ready, then up to 30 s for open requests).
_GRACE_S = 40


def manifests(name: str, *, uses_gpu: bool) -> dict[str, Any]:
    """Build the list; the name of the pushed image is to be put into it by hand.

    Args:
        name: the model's name.
        uses_gpu: request one GPU.
    """
    app = dns_name(name)
    labels = {"app.kubernetes.io/name": app, "app.kubernetes.io/part-of": "dlzoo"}
    limits = {"memory": "1Gi", **({"nvidia.com/gpu": "1"} if uses_gpu else {})}
    container = {
        "name": "dlzoo",
        "image": f"{app}:latest",
        "imagePullPolicy": "IfNotPresent",
        "ports": [
            {"name": "http", "containerPort": _HTTP},
            {"name": "grpc", "containerPort": _GRPC},
        ],
        # A model is proved before it is ready, which takes time for a large one.
        "startupProbe": _probe(_READY, period_s=2, failure_threshold=150),
        "livenessProbe": _probe(_LIVE, period_s=10, failure_threshold=3),
        "readinessProbe": _probe(_READY, period_s=2, failure_threshold=2),
        "resources": {"requests": {"cpu": "1", **limits}, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod = {
        "terminationGracePeriodSeconds": _GRACE_S,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDeproblem"},
        },
        "containers": [container],
    }
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/path": "/metrics",
        "prometheus.io/port": str(_HTTP),
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": app, "labels": labels},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": pod,
            },
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": app, "labels": labels},
        "spec": {
            "selector": labels,
            "ports": [
                {"name": "http", "port": _HTTP, "targetPort": "http"},
                {"name": "grpc", "port": _GRPC, "targetPort": "grpc", "appProtocol": "grpc"},
            ],
        },
    }
    return {"apiVersion": "v1", "kind": "List", "items": [deployment, service]}


def _probe(path: str, *, period_s: int, failure_threshold: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "timeoutSeconds": 2,
        "periodSeconds": period_s,
        "failureThreshold": failure_threshold,
    }


def manifest_problems(folder: Path, file: str) -> Iterator[Problem]:
    """Find every problem in the list: its structure first, then whether the two objects fit."""
    document, unread = read_json(folder, file)
    if unread:
        yield from unread
        return
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(items, list):
        yield Problem(file, "items", "is missing, expected a list of objects")
        return
    schemas = {"Deployment": DEPLOYMENT, "Service": SERVICE}
    found: dict[str, Any] = {}
    problems: list[Problem] = []
    for i, item in enumerate(items):
        kind = item.get("kind") if isinstance(item, dict) else None
        if kind in schemas:
            found[kind] = (i, item)
            problems += structure_problems(item, schemas[kind], file, f"items[{i}]")
        elif not isinstance(kind, str):
            problems.append(Problem(file, f"items[{i}].kind", "is missing"))
    for kind in schemas:
        if kind not in found:
            problems.append(Problem(file, "items", f"has no {kind}"))
    yield from problems
    if not problems:
        (number, deployment), (at, service) = found["Deployment"], found["Service"]
        yield from _deployment_problems(deployment, file, f"items[{number}].spec")
        yield from _service_problems(deployment, service, file, f"items[{at}].spec")


def _deployment_problems(deployment: Any, file: str, place: str) -> Iterator[Problem]:
    template = deployment["spec"]["template"]
    wanted = deployment["spec"]["selector"]["matchLabels"]
    if not wanted.items() <= template["metadata"]["labels"].items():
        yield Problem(
            file, f"{place}.selector.matchLabels", "does not select its own template's labels"
        )
    place += ".template.spec"
    context = template["spec"].get("securityContext", {})
    for i, container in enumerate(template["spec"]["containers"]):
        inner = f"{place}.containers[{i}]"
        own = container.get("securityContext", {})
        user = own.get("runAsUser", context.get("runAsUser"))
        if not own.get("runAsNonRoot", context.get("runAsNonRoot", False)) or user == 0:
            yield Problem(
                file,
                f"{inner}.securityContext.runAsNonRoot",
                "is not true: it may run as root",
            )
        ports = {p.get("name"): p["containerPort"] for p in container.get("ports", [])}
        for probe, path in (("livenessProbe", _LIVE), ("readinessProbe", _READY)):
            if probe not in container:
                yield Problem(file, f"{inner}.{probe}", "is missing")
                continue
            yield from _probe_problems(container[probe], path, ports, file, f"{inner}.{probe}")
        if "startupProbe" in container:
            probe_place = f"{inner}.startupProbe"
            yield from _probe_problems(container["startupProbe"], "", ports, file, probe_place)


def _probe_problems(
    probe: Any, path: str, ports: dict[Any, int], file: str, place: str
) -> Iterator[Problem]:
    get = probe.get("httpGet")
    if get is None:
        return
    if path and get["path"] != path:
        yield Problem(file, f"{place}.httpGet.path", f"is {get['path']!r}, expected {path!r}")
    if get["port"] not in ports and get["port"] not in ports.values():
        yield Problem(
            file, f"{place}.httpGet.port", f"is {get['port']!r}, the container has {ports}"
        )


def _service_problems(
    deployment: Any, service: Any, file: str, place: str
) -> Iterator[Problem]:
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"]
    if not service["spec"]["selector"].items() <= labels.items():
        yield Problem(file, f"{place}.selector", "selects no pod of the Deployment")
    ports = {
        value
        for container in template["spec"]["containers"]
        for port in container.get("ports", [])
        for value in (port.get("name"), port["containerPort"])
    }
    for i, port in enumerate(service["spec"]["ports"]):
        target = port.get("targetPort", port["port"])
        if target not in ports:
            yield Problem(
                file, f"{place}.ports[{i}].targetPort", f"is {target!r}: no container has it"
            )
