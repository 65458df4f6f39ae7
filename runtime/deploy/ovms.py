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
from dlzoo.runtime.deploy.fault import Fault
from dlzoo.runtime.deploy.options import GPU_PROVIDERS, DeployOptions
from dlzoo.runtime.deploy.served_model import ServedModel
from dlzoo.runtime.deploy.structure import ANY, read_json, structure_faults, write_json
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


def write(folder: Path, model: ServedModel, options: DeployOptions) -> None:
    """Fill ``folder`` with the repository.

    The precision is named, for OpenVINO's own choice is bfloat16 where the CPU has it, which no
    float32 proof covers.

    Raises:
        ArgumentError: it does not run there.
    """
    if options.provider in GPU_PROVIDERS:
        raise ArgumentError(
            f"--provider is {options.provider!r}, expected cpu or openvino: OpenVINO Model Server "
            "runs no CUDA."
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


def check(folder: Path, model: ServedModel) -> list[Fault]:
    """Every mistake in a repository's configuration."""
    document, faults = read_json(folder, CONFIG)
    faults = faults or list(structure_faults(document, _SCHEMA, CONFIG))
    return faults or list(_config_faults(document, folder, model))


def _config_faults(document: Any, folder: Path, model: ServedModel) -> Iterator[Fault]:
    configs = [entry["config"] for entry in document["model_config_list"]]
    names = [config["name"] for config in configs]
    if model.name not in names:
        yield Fault(CONFIG, "model_config_list", f"has {names}, expected {model.name!r}")
    for i, config in enumerate(configs):
        place = f"model_config_list[{i}].config"
        if names.index(config["name"]) != i:
            yield Fault(CONFIG, f"{place}.name", f"is {config['name']!r} for the second time")
        if config["name"] != model.name:
            continue
        base = PurePosixPath(config["base_path"])
        if not (folder / base.name / "1" / "model.onnx").is_file():
            yield Fault(
                CONFIG,
                f"{place}.base_path",
                f"is {str(base)!r}: no {base.name}/1/model.onnx here",
            )
        yield from _batch_faults(config, model, place)
        hint = config.get("plugin_config", {}).get("INFERENCE_PRECISION_HINT")
        if hint is None:
            yield Fault(
                CONFIG,
                f"{place}.plugin_config.INFERENCE_PRECISION_HINT",
                "is missing: OpenVINO would choose the precision itself",
            )
        yield from _policy_faults(config, folder / base.name, place)


def _batch_faults(config: Any, model: ServedModel, place: str) -> Iterator[Fault]:
    batch = config.get("batch_size")
    if batch is None or batch in ("auto", "0", 0):
        return
    fixed = None if model.batch_symbol else model.inputs[0].dims[0]
    text = str(batch)
    if not text.isdigit() and not all(part.isdigit() for part in text.split(":")):
        yield Fault(CONFIG, f"{place}.batch_size", f"is {batch!r}, expected a number or N:M")
    elif fixed is not None and text != str(fixed):
        yield Fault(CONFIG, f"{place}.batch_size", f"is {batch!r}, the graph has {fixed}")
    elif model.largest_batch and int(text.split(":")[-1]) > model.largest_batch:
        most = model.largest_batch
        yield Fault(
            CONFIG, f"{place}.batch_size", f"is {batch!r}, the graph takes at most {most}"
        )


def _policy_faults(config: Any, folder: Path, place: str) -> Iterator[Fault]:
    policy = config.get("model_version_policy", {})
    for kind, value in policy.items():
        if kind not in ("latest", "specific", "all"):
            yield Fault(
                CONFIG,
                f"{place}.model_version_policy.{kind}",
                "is no known policy, expected latest, specific or all",
            )
        elif kind == "specific":
            for version in value.get("versions", []) if isinstance(value, dict) else []:
                if not (folder / str(version)).is_dir():
                    yield Fault(
                        CONFIG,
                        f"{place}.model_version_policy.specific.versions",
                        f"names {version}: no such folder",
                    )
