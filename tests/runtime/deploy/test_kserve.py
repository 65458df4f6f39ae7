"""KServe's InferenceService and its storage, as written and as edited."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlzoo.runtime.deploy.deployment import check_deployment

SERVICE = "inference-service.json"


def edited(folder: Path, change: Callable[[Any], Any]) -> list[str]:
    path = folder / SERVICE
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return [str(problem) for problem in check_deployment(folder).problems]


def model_of(document: Any) -> Any:
    return document["spec"]["predictor"]["model"]


def test_the_service_and_its_storage(deployed) -> None:
    folder = deployed("kserve")
    document = json.loads((folder / SERVICE).read_text())
    assert document["kind"] == "InferenceService"
    assert document["metadata"] == {"name": "small"}
    assert model_of(document)["protocolVersion"] == "v2"
    assert "nvidia.com/gpu" not in model_of(document)["resources"]["limits"]
    assert (folder / "storage/small/1/model.onnx").is_file()
    # Pillow is missing in the stock image: a step that cannot load would stop the whole service.
    assert not (folder / "storage/small_preprocess").exists()


def test_a_gpu_is_asked_for_where_the_model_runs_on_one(deployed) -> None:
    folder = deployed("kserve", provider="cuda")
    document = json.loads((folder / SERVICE).read_text())
    assert model_of(document)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    found = edited(folder, lambda d: model_of(d)["resources"]["limits"].pop("nvidia.com/gpu"))
    assert found == [
        f"{SERVICE}: spec.predictor.model.resources.limits lacks nvidia.com/gpu, and "
        "storage/small/config.pbtxt asks for a GPU"
    ]


EDITS: list[tuple[Callable[[Any], Any], str]] = [
    (
        lambda d: d.update(apiVersion="serving.kserve.io/v1"),
        'apiVersion is "serving.kserve.io/v1"',
    ),
    (
        lambda d: d["metadata"].update(name="Small_Net"),
        'metadata.name is "Small_Net", expected low',
    ),
    (lambda d: d["metadata"].pop("name"), "metadata.name is missing"),
    (
        lambda d: d["spec"].update(predictors={}),
        "spec.predictors is not a known field, expected",
    ),
    (
        lambda d: d["spec"]["predictor"].update(minReplica=1),
        "predictor.minReplica is not a known",
    ),
    (
        lambda d: d["spec"]["predictor"].update(maxReplicas=0, minReplicas=-1),
        "maxReplicas is 0",
    ),
    (
        lambda d: d["spec"]["predictor"].update(maxReplicas="4"),
        'maxReplicas is "4", expected a',
    ),
    (lambda d: model_of(d).pop("storageUri"), "model.storageUri is missing"),
    (
        lambda d: model_of(d).update(storageUri="models/x"),
        'storageUri is "models/x", expected pvc',
    ),
    (
        lambda d: model_of(d).pop("protocolVersion"),
        "protocolVersion is missing: KServe would use",
    ),
    (
        lambda d: model_of(d).update(protocolVersion="v1"),
        'protocolVersion is "v1", expected one of',
    ),
    (
        lambda d: model_of(d).update(runtime="kserve-mlserver"),
        "runtime is 'kserve-mlserver', the",
    ),
    (
        lambda d: model_of(d)["modelFormat"].update(name="sklearn"),
        'modelFormat.name is "sklearn"',
    ),
    (
        lambda d: model_of(d)["resources"]["limits"].update({"nvidia.com/gpu": "1"}),
        "has nvidia.com/gpu, and no config.pbtxt in storage uses it",
    ),
    (
        lambda d: model_of(d)["resources"]["limits"].update(cpu=1),
        "limits.cpu is 1, expected a text",
    ),
]


@pytest.mark.parametrize(("change", "says"), EDITS, ids=[says[:30] for _, says in EDITS])
def test_an_edit_that_does_not_fit_is_named(deployed, change: Any, says: str) -> None:
    found = edited(deployed("kserve"), change)
    assert any(line.startswith(f"{SERVICE}: ") and says in line for line in found), found


def test_edits_that_make_sense_pass(deployed) -> None:
    def change(document: Any) -> None:
        document["metadata"].update(namespace="vision", labels={"team": "a"})
        document["spec"]["predictor"].update(scaleMetric="concurrency", tolerations=[])
        model_of(document).update(storageUri="s3://bucket/small")

    assert edited(deployed("kserve"), change) == []


def test_the_storage_is_checked_as_triton_would(deployed) -> None:
    folder = deployed("kserve")
    path = folder / "storage/small/config.pbtxt"
    path.write_text(path.read_text().replace("dims: 5", "dims: 7"))
    found = [str(problem) for problem in check_deployment(folder).problems]
    assert "storage/small/config.pbtxt: output[0].dims is [7], the graph has [5]" in found
