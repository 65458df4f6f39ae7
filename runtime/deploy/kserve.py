"""KServe: an InferenceService, and the storage that it reads.

    inference-service.json      kubectl apply -f
    storage/net/config.pbtxt    copy the content of storage to storageUri, unchanged
    storage/net/1/model.onnx

KServe's own runtime for ONNX with the Open Inference Protocol is Triton, so the storage is a model
repository. The service is written as JSON: kubectl accepts it as it accepts YAML.

Source: https://kserve.github.io/website (v1beta1 InferenceService; storage containers mount
``storageUri`` at ``/mnt/models``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlzoo.runtime.deploy import triton_check
from dlzoo.runtime.deploy.deployed_model import DeployedModel
from dlzoo.runtime.deploy.options import GPU_PROVIDERS, DeployOptions
from dlzoo.runtime.deploy.problem import Problem
from dlzoo.runtime.deploy.structure import (
    ANY,
    DNS_LABEL,
    Text,
    read_json,
    structure_problems,
    write_json,
)
from dlzoo.runtime.deploy.triton import write_repository
from dlzoo.runtime.deploy.triton_check import read_configs

SERVICE = "inference-service.json"
_STORAGE = "storage"
_GPU = "nvidia.com/gpu"
_RESOURCES = {"requests?": {"*": str}, "limits?": {"*": str}, "claims?": ANY}
_MODEL = {
    "modelFormat": {"name": frozenset({"onnx", "triton"}), "version?": str},
    "storageUri?": Text(
        r"(pvc|s3|gs|hdfs|webhdfs|https?|hf|oci)://\S+",
        "pvc://CLAIM/PATH, s3://…, gs://…",
    ),
    "storage?": ANY,
    "runtime?": str,
    "runtimeVersion?": str,
    "protocolVersion?": frozenset({"v2", "grpc-v2"}),
    "name?": str,
    "args?": [str],
    "env?": ANY,
    "resources?": _RESOURCES,
    "livenessProbe?": ANY,
    "readinessProbe?": ANY,
    "startupProbe?": ANY,
    "image?": str,
    "ports?": ANY,
    "volumeMounts?": ANY,
    "securityContext?": ANY,
}
_PREDICTOR = {
    "model": _MODEL,
    "minReplicas?": int,
    "maxReplicas?": int,
    "scaleTarget?": int,
    "scaleMetric?": frozenset({"cpu", "memory", "concurrency", "rps"}),
    "containerConcurrency?": int,
    "timeout?": int,
    "canaryTrafficPercent?": int,
    "logger?": ANY,
    "batcher?": ANY,
    "serviceAccountName?": str,
    "nodeSelector?": ANY,
    "tolerations?": ANY,
    "affinity?": ANY,
    "imagePullSecrets?": ANY,
    "securityContext?": ANY,
    "annotations?": ANY,
    "labels?": ANY,
    "deploymentStrategy?": ANY,
    "volumes?": ANY,
    "priorityClassName?": str,
    "runtimeClassName?": str,
    "terminationGracePeriodSeconds?": int,
}
_SCHEMA = {
    "apiVersion": frozenset({"serving.kserve.io/v1beta1"}),
    "kind": frozenset({"InferenceService"}),
    "metadata": {
        "name": DNS_LABEL,
        "namespace?": DNS_LABEL,
        "labels?": {"*": str},
        "annotations?": {"*": str},
    },
    "spec": {"predictor": _PREDICTOR, "transformer?": ANY, "explainer?": ANY},
}


def write(folder: Path, model: DeployedModel, options: DeployOptions) -> None:
    """Fill ``folder`` with the InferenceService and its storage.

    The storage has no step for image files: KServe's stock image of Triton has no Pillow, and a
    model that cannot be loaded would keep the whole service from being ready.

    Raises:
        ExportError: Triton cannot serve a model of this kind.
        InstallationError: tritonclient is not installed.
    """
    write_repository(folder / _STORAGE, model, options, ensemble=False, mount="/mnt/models")
    quantities = {"cpu": "1", "memory": "1Gi"}
    if options.provider in GPU_PROVIDERS:
        quantities[_GPU] = "1"
    document = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": dns_name(model.name)},
        "spec": {
            "predictor": {
                "minReplicas": 1,
                "maxReplicas": 4,
                "model": {
                    "modelFormat": {"name": "onnx"},
                    "runtime": "kserve-tritonserver",
                    "protocolVersion": "v2",
                    "storageUri": f"pvc://models/{dns_name(model.name)}",
                    "resources": {"requests": quantities, "limits": quantities},
                },
            }
        },
    }
    write_json(folder / SERVICE, document)


def dns_name(name: str) -> str:
    """Turn a model's name into a valid name of a Kubernetes object.

    >>> dns_name("lenet5_relu")
    'lenet5-relu'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].rstrip("-") or "model"


def check(folder: Path, model: DeployedModel) -> list[Problem]:
    """Find every problem in the InferenceService and in its storage."""
    problems = [
        replace(problem, file=f"{_STORAGE}/{problem.file}")
        for problem in triton_check.check(folder / _STORAGE, model)
    ]
    document, unread = read_json(folder, SERVICE)
    found = unread or list(structure_problems(document, _SCHEMA, SERVICE))
    return [*(found or _service_problems(document, folder, model)), *problems]


def _service_problems(document: Any, folder: Path, model: DeployedModel) -> Iterator[Problem]:
    from dlzoo.runtime.deploy.triton_config import load_protobuf

    predictor = document["spec"]["predictor"]
    served = predictor["model"]
    place = "spec.predictor"
    if "storageUri" not in served and "storage" not in served:
        yield Problem(SERVICE, f"{place}.model.storageUri", "is missing")
    if served.get("protocolVersion") is None:
        yield Problem(
            SERVICE, f"{place}.model.protocolVersion", "is missing: KServe would use v1"
        )
    runtime = served.get("runtime")
    if runtime is not None and "triton" not in runtime:
        yield Problem(
            SERVICE,
            f"{place}.model.runtime",
            f"is {runtime!r}, the storage is laid out for 'kserve-tritonserver'",
        )
    least, most = predictor.get("minReplicas", 1), predictor.get("maxReplicas", 0)
    if least < 0 or (most and most < least):
        yield Problem(SERVICE, f"{place}.maxReplicas", f"is {most}, minReplicas is {least}")
    kinds = load_protobuf().ModelInstanceGroup
    configs, _ = read_configs(folder / _STORAGE)
    wants_gpu = any(
        group.kind == kinds.KIND_GPU
        for config in configs.values()
        for group in config.instance_group
    )
    has_gpu = _GPU in served.get("resources", {}).get("limits", {})
    if wants_gpu and not has_gpu:
        yield Problem(
            SERVICE,
            f"{place}.model.resources.limits",
            f"lacks {_GPU}, and {_STORAGE}/{model.name}/config.pbtxt asks for a GPU",
        )
    if has_gpu and not wants_gpu:
        yield Problem(
            SERVICE,
            f"{place}.model.resources.limits",
            f"has {_GPU}, and no config.pbtxt in {_STORAGE} uses it",
        )
