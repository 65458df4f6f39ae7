"""Ray Serve's configuration and application, as written and as edited."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlzoo.errors import ArgumentError
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.deploy.deployment import check_deployment

CONFIG = "serve-config.json"


def problems_of(folder: Path) -> list[str]:
    return [str(problem) for problem in check_deployment(folder).problems]


def edited(folder: Path, change: Callable[[Any], Any]) -> list[str]:
    path = folder / CONFIG
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return problems_of(folder)


def model_of(document: Any) -> Any:
    return document["applications"][0]["deployments"][0]


def test_the_application_scales_and_holds_the_bundle(deployed, bundle: Bundle) -> None:
    folder = deployed("ray", max_batch_size=8)
    document = json.loads((folder / CONFIG).read_text())
    (application,) = document["applications"]
    assert application["import_path"] == "ray_application:build"
    assert application["args"] == {"max_batch": 8}
    assert model_of(document)["autoscaling_config"]["max_replicas"] > 1
    assert document["http_options"]["host"] == "127.0.0.1"
    copied = Bundle.open(folder / "models/small/1")
    copied.check_files()
    assert copied.manifest == bundle.manifest


def test_the_application_knows_no_torch(deployed) -> None:
    tree = ast.parse((deployed("ray") / "ray_application.py").read_text())
    imported = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
    }
    tops = {name.split(".")[0] for name in imported}
    assert tops == {"pathlib", "grpc", "ray", "dlzoo", "ray_application"}
    # Every name that it imports from dlzoo exists.
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dlzoo"):
            module = __import__(node.module or "", fromlist=["_"])
            assert all(hasattr(module, alias.name) for alias in node.names), node.module


def test_a_gpu_is_asked_for(deployed) -> None:
    document = json.loads((deployed("ray", provider="cuda") / CONFIG).read_text())
    assert model_of(document)["ray_actor_options"]["num_gpus"] == 1


def test_replicas_of_dlzoo_run_no_tensorrt(deployed) -> None:
    with pytest.raises(ArgumentError, match="expected cpu or cuda"):
        deployed("ray", provider="tensorrt")


EDITS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda d: d.pop("applications"), "applications is missing"),
    (lambda d: d.update(applications=[]), "applications is empty"),
    (
        lambda d: d["applications"][0].update(import_path="app"),
        'import_path is "app", expected MOD',
    ),
    (
        lambda d: d["applications"][0].update(import_path="ray_application:make"),
        "import_path is 'ray_application:make': no such function here",
    ),
    (
        lambda d: d["applications"][0]["args"].update(max_batch=0),
        "args.max_batch is 0, expected 1",
    ),
    (lambda d: d["applications"][0].pop("args"), "args.max_batch is missing"),
    (
        lambda d: model_of(d).update(name="net"),
        "deployments[0].name is 'net', expected 'model'",
    ),
    (lambda d: model_of(d).update(replicas=2), "deployments[0].replicas is not a known field"),
    (
        lambda d: model_of(d).update(num_replicas=2),
        "num_replicas and autoscaling_config exclude",
    ),
    (
        lambda d: model_of(d)["autoscaling_config"].update(min_replicas=9),
        "autoscaling_config has min_replicas 9 and max_replicas 8",
    ),
    (
        lambda d: model_of(d)["autoscaling_config"].update(target_ongoing_requests=0),
        "autoscaling_config.target_ongoing_requests is not above 0",
    ),
    (
        lambda d: d["grpc_options"].update(grpc_servicer_functions=[]),
        "grpc_options.grpc_servicer_functions lacks 'tritonclient.grpc.service_pb2_grpc",
    ),
    (
        lambda d: d["http_options"].update(port="80"),
        'http_options.port is "80", expected a whole',
    ),
]


@pytest.mark.parametrize(("change", "says"), EDITS, ids=[says[:40] for _, says in EDITS])
def test_an_edit_that_does_not_fit_is_named(deployed, change: Any, says: str) -> None:
    found = edited(deployed("ray"), change)
    assert any(line.startswith(f"{CONFIG}: ") and says in line for line in found), found


def test_edits_that_make_sense_pass(deployed) -> None:
    def change(document: Any) -> None:
        document["http_options"].update(host="0.0.0.0", request_timeout_s=30)
        model_of(document).pop("autoscaling_config")
        model_of(document).update(num_replicas=3, ray_actor_options={"num_cpus": 0.5})

    assert edited(deployed("ray"), change) == []


def test_an_application_that_is_no_python_is_named(deployed) -> None:
    folder = deployed("ray")
    path = folder / "ray_application.py"
    path.write_text(path.read_text().replace("def build(args):", "def build(args)"))
    (problem,) = problems_of(folder)
    assert (
        problem.startswith("ray_application.py: line ")
        and "is not Python: expected ':'" in problem
    )
