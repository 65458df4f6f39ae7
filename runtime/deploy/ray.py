"""A Ray Serve application, for more than one machine, with autoscaling.

    serve-config.json       serve run serve-config.json
    ray_application.py      replicas that answer as dlzoo serve does
    grpc_service_pb2.py     the protocol's messages, in the module that Ray's proxies import
    models/net/1/           the bundle

Source: https://docs.ray.io/en/latest/serve (config file, gRPC, autoscaling).
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlzoo.errors import ArgumentError
from dlzoo.runtime.deploy.deployed_model import DeployedModel
from dlzoo.runtime.deploy.docker import copy_bundle
from dlzoo.runtime.deploy.kserve import dns_name
from dlzoo.runtime.deploy.options import DeployOptions
from dlzoo.runtime.deploy.problem import Problem
from dlzoo.runtime.deploy.structure import ANY, Text, read_json, structure_problems, write_json

CONFIG, APPLICATION, MESSAGES = (
    "serve-config.json",
    "ray_application.py",
    "grpc_service_pb2.py",
)
_SERVICER = "tritonclient.grpc.service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server"
_NUMBER = (int, float)
_AUTOSCALING = {
    "min_replicas?": int,
    "max_replicas?": int,
    "initial_replicas?": int,
    "target_ongoing_requests?": _NUMBER,
    **{f"{name}?": _NUMBER for name in ("metrics_interval_s", "look_back_period_s")},
    **{f"{name}?": _NUMBER for name in ("upscale_delay_s", "downscale_delay_s")},
    **{f"{name}?": _NUMBER for name in ("upscaling_factor", "downscaling_factor")},
    **{
        f"{name}?": ANY
        for name in ("downscale_to_zero_delay_s", "policy", "aggregation_function")
    },
    **{f"{name}?": _NUMBER for name in ("smoothing_factor", "upscale_smoothing_factor")},
    "downscale_smoothing_factor?": _NUMBER,
}
_DEPLOYMENT = {
    "name": str,
    "num_replicas?": ANY,
    "max_ongoing_requests?": int,
    "max_queued_requests?": int,
    "autoscaling_config?": _AUTOSCALING,
    "ray_actor_options?": {
        "num_cpus?": _NUMBER,
        "num_gpus?": _NUMBER,
        **{
            f"{name}?": ANY
            for name in ("memory", "resources", "accelerator_type", "runtime_env")
        },
        **{f"{name}?": ANY for name in ("label_selector", "object_store_memory")},
    },
    "health_check_period_s?": _NUMBER,
    "health_check_timeout_s?": _NUMBER,
    "graceful_shutdown_wait_loop_s?": _NUMBER,
    "graceful_shutdown_timeout_s?": _NUMBER,
    **{
        f"{name}?": ANY
        for name in ("user_config", "logging_config", "placement_group_bundles")
    },
    **{f"{name}?": ANY for name in ("placement_group_strategy", "max_replicas_per_node")},
    **{
        f"{name}?": ANY
        for name in ("request_router_config", "placement_group_bundle_label_selector")
    },
}
_SCHEMA = {
    "proxy_location?": frozenset({"EveryNode", "HeadOnly", "Disabled"}),
    "http_options?": {"host?": str, "port?": int, "*": ANY},
    "grpc_options?": {"port?": int, "grpc_servicer_functions?": [str], "*": ANY},
    "logging_config?": ANY,
    "target_capacity?": ANY,
    "applications": [
        {
            "name": str,
            "route_prefix?": Text(r"/\S*", "a path that begins with /"),
            "import_path": Text(r"[\w.]+:\w+", "MODULE:NAME"),
            "args?": {"max_batch": int},
            "runtime_env?": ANY,
            "deployments?": [_DEPLOYMENT],
            **{
                f"{name}?": ANY
                for name in ("host", "port", "logging_config", "autoscaling_policy")
            },
            "external_scaler_enabled?": bool,
        }
    ],
}


def write(folder: Path, model: DeployedModel, options: DeployOptions) -> None:
    """Fill ``folder`` with the application.

    Raises:
        ArgumentError: dlzoo does not serve on that provider.
    """
    if options.provider not in ("cpu", "cuda"):
        raise ArgumentError(
            f"`provider` is {options.provider!r}, expected cpu or cuda for Ray's replicas of dlzoo."
        )
    copy_bundle(model.file.parent, folder / "models" / model.name / "1")
    shutil.copyfile(Path(__file__).with_name("ray_application.py.in"), folder / APPLICATION)
    (folder / MESSAGES).write_text(
        '"""The protocol\'s messages under the name that their generator gave them."""\n\n'
        "from tritonclient.grpc.service_pb2 import *  # noqa: F403\n",
        encoding="utf-8",
    )
    max_batch = model.batch_limit(options.max_batch_size) or 1
    actor: dict[str, Any] = {"num_cpus": 1}
    if options.provider == "cuda":
        actor["num_gpus"] = 1
    deployment = {
        "name": "model",
        "max_ongoing_requests": 2 * max_batch + 32,
        "autoscaling_config": {
            "min_replicas": 1,
            "max_replicas": 8,
            # One batch runs and one waits: more requests than that go to another replica.
            "target_ongoing_requests": 2 * max_batch,
        },
        "ray_actor_options": actor,
        "health_check_period_s": 5,
        "graceful_shutdown_timeout_s": 30,
    }
    document = {
        "proxy_location": "EveryNode",
        "http_options": {"host": "127.0.0.1", "port": 8000},
        "grpc_options": {"port": 8001, "grpc_servicer_functions": [_SERVICER]},
        "applications": [
            {
                "name": dns_name(model.name),
                "route_prefix": "/",
                "import_path": "ray_application:build",
                "args": {"max_batch": max_batch},
                "deployments": [deployment],
            }
        ],
    }
    write_json(folder / CONFIG, document)


def check(folder: Path, model: DeployedModel) -> list[Problem]:
    """Find every problem in the configuration and in the application's code."""
    document, unread = read_json(folder, CONFIG)
    problems = unread or list(structure_problems(document, _SCHEMA, CONFIG))
    functions, code_problems = _functions_of(folder)
    problems += code_problems
    return problems or list(_config_problems(document, functions, model))


def _functions_of(folder: Path) -> tuple[set[str], list[Problem]]:
    """List the names of the application's functions; its code is parsed, not run."""
    try:
        tree = ast.parse((folder / APPLICATION).read_text(encoding="utf-8"))
    except SyntaxError as error:
        return set(), [
            Problem(APPLICATION, f"line {error.lineno}", f"is not Python: {error.msg}")
        ]
    except (OSError, ValueError) as error:
        return set(), [Problem(APPLICATION, "", f"cannot be read: {error}")]
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, []


def _config_problems(
    document: Any, functions: set[str], model: DeployedModel
) -> Iterator[Problem]:
    options = document.get("grpc_options", {})
    if options and _SERVICER not in options.get("grpc_servicer_functions", []):
        yield Problem(CONFIG, "grpc_options.grpc_servicer_functions", f"lacks {_SERVICER!r}")
    if not document["applications"]:
        yield Problem(CONFIG, "applications", "is empty")
    for i, application in enumerate(document["applications"]):
        place = f"applications[{i}]"
        module, _, name = application["import_path"].partition(":")
        if module != APPLICATION.removesuffix(".py") or name not in functions:
            got = application["import_path"]
            yield Problem(CONFIG, f"{place}.import_path", f"is {got!r}: no such function here")
        max_batch = application.get("args", {}).get("max_batch")
        if max_batch is None:
            yield Problem(CONFIG, f"{place}.args.max_batch", "is missing")
        elif max_batch < 1 or (model.largest_batch and max_batch > model.largest_batch):
            most = model.largest_batch or "any number"
            yield Problem(
                CONFIG, f"{place}.args.max_batch", f"is {max_batch}, expected 1 to {most}"
            )
        for j, deployment in enumerate(application.get("deployments", [])):
            yield from _deployment_problems(deployment, f"{place}.deployments[{j}]")


def _deployment_problems(deployment: Any, place: str) -> Iterator[Problem]:
    if deployment["name"] != "model":
        yield Problem(CONFIG, f"{place}.name", f"is {deployment['name']!r}, expected 'model'")
    scaling = deployment.get("autoscaling_config")
    if scaling is None:
        return
    if "num_replicas" in deployment and deployment["num_replicas"] != "auto":
        yield Problem(
            CONFIG, f"{place}.num_replicas", "and autoscaling_config exclude each other"
        )
    least, most = scaling.get("min_replicas", 1), scaling.get("max_replicas", 1)
    if not 0 <= least <= most or most < 1:
        yield Problem(
            CONFIG,
            f"{place}.autoscaling_config",
            f"has min_replicas {least} and max_replicas {most}",
        )
    if scaling.get("target_ongoing_requests", 1) <= 0:
        yield Problem(
            CONFIG, f"{place}.autoscaling_config.target_ongoing_requests", "is not above 0"
        )
