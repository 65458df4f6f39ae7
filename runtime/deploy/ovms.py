"""A repository for OpenVINO Model Server: its ``config.json`` and the model's versions.

    config.json  net/1/model.onnx

Source: https://docs.openvino.ai (Model Server: configuration file), and its JSON schema in
https://github.com/openvinotoolkit/model_server/blob/main/src/schema.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from dlzoo.errors import ArgumentError
from dlzoo.runtime.deploy.deployed_model import DeployedModel
from dlzoo.runtime.deploy.options import GPU_PROVIDERS, DeployOptions
from dlzoo.runtime.deploy.problem import Problem
from dlzoo.runtime.deploy.structure import ANY, read_json, structure_problems, write_json
from dlzoo.runtime.deploy.triton import copy_graph

CONFIG = "config.json"
#: Where the server's container sees the folder.
_MOUNT = "/models"
_PRECISIONS = frozenset({"f32", "f16", "bf16", "dynamic"})
_SCHEMA = {
    "model_config_list": [
        {
            "config": {
                "name": str,
                "base_path": str,
                "batch_size?": ANY,
                "shape?": ANY,
                "layout?": ANY,
                "mean?": ANY,
                "scale?": ANY,
                "color_format?": str,
                "precision?": str,
                "model_version_policy?": dict,
                "nireq?": int,
                "target_device?": str,
                "plugin_config?": {"INFERENCE_PRECISION_HINT?": _PRECISIONS, "*": ANY},
                "allow_cache?": bool,
                "metadata?": dict,
                "stateful?": bool,
                "idle_sequence_cleanup?": bool,
                "low_latency_transformation?": bool,
                "max_sequence_number?": int,
                "custom_loader_options?": dict,
            }
        }
    ],
    "mediapipe_config_list?": ANY,
    "pipeline_config_list?": ANY,
    "custom_loader_config_list?": ANY,
    "custom_node_library_config_list?": ANY,
    "monitoring?": {"metrics": {"enable": bool, "metrics_list?": [str]}},
}


def write(folder: Path, model: DeployedModel, options: DeployOptions) -> None:
    """Fill ``folder`` with the repository.

    The precision is stated, because OpenVINO's own choice is bfloat16 on a CPU that supports it,
    which no float32 proof covers.

    Raises:
        ArgumentError: the server does not run on that provider.
    """
    if options.provider in GPU_PROVIDERS:
        raise ArgumentError(
            f"`provider` is {options.provider!r}, expected cpu or openvino: OpenVINO Model Server "
            "does not use CUDA."
        )
    (folder / model.name / "1").mkdir(parents=True)
    copy_graph(model, folder / model.name / "1")
    config = {
        "name": model.name,
        "base_path": f"{_MOUNT}/{model.name}",
        "target_device": "CPU",
        "model_version_policy": {"latest": {"num_versions": 1}},
        "plugin_config": {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"},
    }
    document = {
        "model_config_list": [{"config": config}],
        "monitoring": {"metrics": {"enable": True}},
    }
    write_json(folder / CONFIG, document)


def check(folder: Path, model: DeployedModel) -> list[Problem]:
    """Find every problem in a repository's configuration."""
    document, problems = read_json(folder, CONFIG)
    problems = problems or list(structure_problems(document, _SCHEMA, CONFIG))
    return problems or list(_config_problems(document, folder, model))


def _config_problems(document: Any, folder: Path, model: DeployedModel) -> Iterator[Problem]:
    configs = [entry["config"] for entry in document["model_config_list"]]
    names = [config["name"] for config in configs]
    if model.name not in names:
        yield Problem(CONFIG, "model_config_list", f"has {names}, expected {model.name!r}")
    for i, config in enumerate(configs):
        place = f"model_config_list[{i}].config"
        if names.index(config["name"]) != i:
            yield Problem(
                CONFIG, f"{place}.name", f"is {config['name']!r} for the second time"
            )
        if config["name"] != model.name:
            continue
        base = PurePosixPath(config["base_path"])
        if not (folder / base.name / "1" / "model.onnx").is_file():
            yield Problem(
                CONFIG,
                f"{place}.base_path",
                f"is {str(base)!r}, but there is no {base.name}/1/model.onnx here",
            )
        yield from _batch_problems(config, model, place)
        hint = config.get("plugin_config", {}).get("INFERENCE_PRECISION_HINT")
        if hint is None:
            yield Problem(
                CONFIG,
                f"{place}.plugin_config.INFERENCE_PRECISION_HINT",
                "is missing: OpenVINO would choose the precision itself",
            )
        yield from _policy_problems(config, folder / base.name, place)


def _batch_problems(config: Any, model: DeployedModel, place: str) -> Iterator[Problem]:
    batch = config.get("batch_size")
    if batch is None or batch in ("auto", "0", 0):
        return
    fixed = None if model.batch_symbol else model.inputs[0].dims[0]
    text = str(batch)
    if not text.isdigit() and not all(part.isdigit() for part in text.split(":")):
        yield Problem(CONFIG, f"{place}.batch_size", f"is {batch!r}, expected a number or N:M")
    elif fixed is not None and text != str(fixed):
        yield Problem(CONFIG, f"{place}.batch_size", f"is {batch!r}, the graph has {fixed}")
    elif model.largest_batch and int(text.split(":")[-1]) > model.largest_batch:
        most = model.largest_batch
        yield Problem(
            CONFIG, f"{place}.batch_size", f"is {batch!r}, the graph takes at most {most}"
        )


def _policy_problems(config: Any, folder: Path, place: str) -> Iterator[Problem]:
    policy = config.get("model_version_policy", {})
    for kind, value in policy.items():
        if kind not in ("latest", "specific", "all"):
            yield Problem(
                CONFIG,
                f"{place}.model_version_policy.{kind}",
                "is not a known policy, expected latest, specific or all",
            )
        elif kind == "specific":
            for version in value.get("versions", []) if isinstance(value, dict) else []:
                if not (folder / str(version)).is_dir():
                    yield Problem(
                        CONFIG,
                        f"{place}.model_version_policy.specific.versions",
                        f"names {version}: no such folder",
                    )
