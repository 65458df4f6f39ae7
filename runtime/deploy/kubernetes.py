"""A Deployment of ``dlzoo serve`` with probes, and its Service, as one JSON list.

Source: https://kubernetes.io/docs/reference/kubernetes-api (Deployment v1, Service v1, List).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlzoo.runtime.deploy.fault import Fault
from dlzoo.runtime.deploy.kserve import dns_name
from dlzoo.runtime.deploy.kubernetes_schema import DEPLOYMENT, SERVICE
from dlzoo.runtime.deploy.structure import read_json, structure_faults

_HTTP, _GRPC = 8000, 8001
#: Answered as long as the process lives, and only while it takes requests.
_LIVE, _READY = "/v2/health/live", "/v2/health/ready"
#: Longer than the server's own drain (1 s not ready, then up to 30 s for what has come).
_GRACE_S = 40


def manifests(name: str, *, uses_gpu: bool) -> dict[str, Any]:
    """The list; the image is to be pushed somewhere, and its name put in.

    Args:
        name: the model's.
        uses_gpu: ask for one GPU.
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
        # A model is proved before it is ready: give a large one its time.
        "startupProbe": _probe(_READY, periodSeconds=2, failureThreshold=150),
        "livenessProbe": _probe(_LIVE, periodSeconds=10, failureThreshold=3),
        "readinessProbe": _probe(_READY, periodSeconds=2, failureThreshold=2),
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
            "seccompProfile": {"type": "RuntimeDefault"},
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


def _probe(path: str, **times: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "http"}, "timeoutSeconds": 2, **times}


def manifest_faults(folder: Path, file: str) -> Iterator[Fault]:
    """Every mistake in the list: its structure first, then whether the two objects fit."""
    document, unread = read_json(folder, file)
    if unread:
        yield from unread
        return
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(items, list):
        yield Fault(file, "items", "is missing, expected a list of objects")
        return
    schemas = {"Deployment": DEPLOYMENT, "Service": SERVICE}
    found: dict[str, Any] = {}
    faults: list[Fault] = []
    for i, item in enumerate(items):
        kind = item.get("kind") if isinstance(item, dict) else None
        if kind in schemas:
            found[kind] = (i, item)
            faults += structure_faults(item, schemas[kind], file, f"items[{i}]")
        elif not isinstance(kind, str):
            faults.append(Fault(file, f"items[{i}].kind", "is missing"))
    for kind in schemas:
        if kind not in found:
            faults.append(Fault(file, "items", f"has no {kind}"))
    yield from faults
    if not faults:
        (number, deployment), (at, service) = found["Deployment"], found["Service"]
        yield from _deployment_faults(deployment, file, f"items[{number}].spec")
        yield from _service_faults(deployment, service, file, f"items[{at}].spec")


def _deployment_faults(deployment: Any, file: str, place: str) -> Iterator[Fault]:
    template = deployment["spec"]["template"]
    wanted = deployment["spec"]["selector"]["matchLabels"]
    if not wanted.items() <= template["metadata"]["labels"].items():
        yield Fault(
            file, f"{place}.selector.matchLabels", "does not select its own template's labels"
        )
    place += ".template.spec"
    context = template["spec"].get("securityContext", {})
    for i, container in enumerate(template["spec"]["containers"]):
        inner = f"{place}.containers[{i}]"
        own = container.get("securityContext", {})
        user = own.get("runAsUser", context.get("runAsUser"))
        if not own.get("runAsNonRoot", context.get("runAsNonRoot", False)) or user == 0:
            yield Fault(
                file, f"{inner}.securityContext.runAsNonRoot", "is not true: it may be root"
            )
        ports = {p.get("name"): p["containerPort"] for p in container.get("ports", [])}
        for probe, path in (("livenessProbe", _LIVE), ("readinessProbe", _READY)):
            if probe not in container:
                yield Fault(file, f"{inner}.{probe}", "is missing")
                continue
            yield from _probe_faults(container[probe], path, ports, file, f"{inner}.{probe}")
        if "startupProbe" in container:
            probe_place = f"{inner}.startupProbe"
            yield from _probe_faults(container["startupProbe"], "", ports, file, probe_place)


def _probe_faults(
    probe: Any, path: str, ports: dict[Any, int], file: str, place: str
) -> Iterator[Fault]:
    get = probe.get("httpGet")
    if get is None:
        return
    if path and get["path"] != path:
        yield Fault(file, f"{place}.httpGet.path", f"is {get['path']!r}, expected {path!r}")
    if get["port"] not in ports and get["port"] not in ports.values():
        yield Fault(
            file, f"{place}.httpGet.port", f"is {get['port']!r}, the container has {ports}"
        )


def _service_faults(deployment: Any, service: Any, file: str, place: str) -> Iterator[Fault]:
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"]
    if not service["spec"]["selector"].items() <= labels.items():
        yield Fault(file, f"{place}.selector", "selects no pod of the Deployment")
    ports = {
        value
        for container in template["spec"]["containers"]
        for port in container.get("ports", [])
        for value in (port.get("name"), port["containerPort"])
    }
    for i, port in enumerate(service["spec"]["ports"]):
        target = port.get("targetPort", port["port"])
        if target not in ports:
            yield Fault(
                file, f"{place}.ports[{i}].targetPort", f"is {target!r}: no container has it"
            )
