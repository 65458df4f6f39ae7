"""schemathesis against the server's own OpenAPI document, and right answers afterwards."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import tomli_w

from tests.support.served_bundles import every_dtype_bundle, mean_bundle
from tests.support.serving_process import ServingProcess, serving

pytestmark = pytest.mark.slow
HOOKS = Path(__file__).resolve().parents[2] / "support" / "schemathesis_checks.py"
ZEROS = [0.0] * 64
UNLOAD = "/v2/repository/models/{model}/unload"


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    """A separate server, because its models are unloaded here."""
    folder = tmp_path_factory.mktemp("fuzzed")
    bundles = (mean_bundle(folder / "mean").path, every_dtype_bundle(folder / "every").path)
    limits = ("--max-request-mib", "2", "--max-json-mib", "1", "--threads", "1")
    with serving(*bundles, *limits, folder=folder) as process:
        yield process


@pytest.fixture
def document(fuzzed: ServingProcess) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{fuzzed.http}/openapi.json").json()
    return answer


@pytest.fixture
def fuzz(fuzzed: ServingProcess, tmp_path: Path) -> Callable[..., int]:
    """Run schemathesis; every check that applies to the document must pass."""

    def run(document: dict[str, Any], *options: str, **settings: Any) -> int:
        (tmp_path / "openapi.json").write_text(json.dumps(document))
        checks = {
            # 501: shared memory, 504: the request's own timeout. 500 and 503 are never right here.
            "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "501", "504"]},
        }
        # A model refuses some requests that the protocol's schema allows.
        of_models = {
            "include-path-regex": "/(infer|classify)$",
            "checks": {"positive_data_acceptance": {"enabled": False}},
        }
        config = {
            "operations": [of_models],
            "hooks": str(HOOKS),
            "generation": {"database": "none"},
            "checks": checks,
            **settings,
        }
        (tmp_path / "schemathesis.toml").write_text(tomli_w.dumps(config))
        command = [str(Path(sys.executable).with_name("schemathesis"))]
        report = tmp_path / "report.json"
        done = subprocess.run(
            [
                *command,
                *("--config-file", str(tmp_path / "schemathesis.toml"), "run"),
                *(str(tmp_path / "openapi.json"), "--url", fuzzed.http),
                *("--seed", "1", "--continue-on-failure", "--output-sanitize", "false"),
                *("--no-color", "--report", "json", "--report-json-path", str(report)),
                *options,
            ],
            capture_output=True,
            text=True,
            timeout=500,
            cwd=tmp_path,
            env={**os.environ, "SERVED_FOLDER": str(fuzzed.log_path.parent)},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads(report.read_text())
        assert found["complete"] and not found["test_cases"]["errored"], found
        return int(found["test_cases"]["generated"])

    return run


@pytest.fixture(autouse=True)
def answers_rightly_afterwards(fuzzed: ServingProcess) -> Iterator[None]:
    yield
    with httpx.Client(base_url=fuzzed.http, timeout=30) as client:
        for name in ("mean", "every_dtype"):
            loaded = client.post(f"/v2/repository/models/{name}/load")
            assert loaded.status_code == 200, loaded.text
        tensor = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32"}
        answer = client.post(
            "/v2/models/mean/infer", json={"inputs": [{**tensor, "data": [3.0] * 64}]}
        )
    assert answer.json()["outputs"][0]["data"] == pytest.approx([3, -3])
    assert fuzzed.process.poll() is None
    assert "Traceback" not in fuzzed.log


def of_a_model(**parameters: str) -> dict[str, Any]:
    return {f"path.{name}": value for name, value in parameters.items()}


def test_any_names(fuzz: Callable[..., int], document: dict[str, Any]) -> None:
    assert fuzz(document, "--max-examples", "15") > 300


def test_a_models_own_addresses(fuzz: Callable[..., int], document: dict[str, Any]) -> None:
    del document["paths"][UNLOAD]
    names = of_a_model(model="mean", version="1")
    count = fuzz(document, "--max-examples", "25", parameters=names)
    assert count > 300


def test_unloading(fuzz: Callable[..., int], document: dict[str, Any]) -> None:
    document["paths"] = {UNLOAD: document["paths"][UNLOAD]}
    assert (
        fuzz(document, "--max-examples", "25", parameters=of_a_model(model="every_dtype")) > 5
    )


def allow_null(schema: dict[str, Any]) -> None:
    """Allow null for every key that may be absent."""
    if "items" in schema:
        allow_null(schema["items"])
    for key, value in schema.get("properties", {}).items():
        allow_null(value)
        if key not in schema.get("required", ()) and key not in ("id", "data"):
            schema["properties"][key] = {"anyOf": [value, {"type": "null"}]}


def narrowed(document: dict[str, Any]) -> dict[str, Any]:
    """The document of one model: it must answer what the document allows, and refuse the rest."""
    request = document["components"]["schemas"]["InferRequest"]["properties"]
    request["inputs"]["maxItems"] = 1
    tensor = request["inputs"]["items"]
    tensor["required"].append("data")
    number = {"type": "number", "minimum": -1e30, "maximum": 1e30}
    tensor["properties"] |= {
        "name": {"const": "image"},
        "datatype": {"const": "FP32"},
        "shape": {"const": [1, 1, 8, 8]},
        "data": {"type": "array", "minItems": 64, "maxItems": 64, "items": number},
        "parameters": {"type": "object"},
    }
    flag = {"type": ["boolean", "null"]}  # null stands for an absent key
    request["outputs"]["maxItems"] = 1
    request["outputs"]["items"]["properties"] = {
        "name": {"const": "scores"},
        "parameters": {
            "type": "object",
            "properties": {
                "binary_data": flag,
                "classification": {"enum": [0, 1, 2, 10**9]},
            },
        },
    }
    request["parameters"] = {
        "type": "object",
        "properties": {
            "binary_data_output": flag,
            "timeout": {"enum": [0, 10**7, 10**12]},
        },
    }
    allow_null(document["components"]["schemas"]["InferRequest"])
    path = "/v2/models/{model}/infer"
    operation = document["paths"][path]["post"]
    operation["parameters"] = [p for p in operation["parameters"] if p["in"] == "path"]
    content = operation["requestBody"]["content"]
    content["application/json"]["example"] = {
        "inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": ZEROS}]
    }
    del content["application/octet-stream"]
    return {**document, "paths": {path: document["paths"][path]}}


def test_right_requests_are_answered_and_no_others(
    fuzz: Callable[..., int], document: dict[str, Any]
) -> None:
    options = ("--max-examples", "60", "--phases", "examples,coverage,fuzzing")
    names = of_a_model(model="mean")
    count = fuzz(narrowed(document), *options, parameters=names, operations=[])
    assert count > 100
