"""OpenVINO Model Server's configuration, as written and as edited."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlzoo.errors import ArgumentError
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.deploy.deployment import check_deployment
from tests.support.small_bundle import small_bundle


def edited(folder: Path, change: Callable[[Any], None]) -> list[str]:
    path = folder / "config.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return [str(problem) for problem in check_deployment(folder).problems]


def config_of(document: Any) -> Any:
    return document["model_config_list"][0]["config"]


def test_the_precision_is_named(deployed, bundle: Bundle) -> None:
    folder = deployed("ovms")
    config = config_of(json.loads((folder / "config.json").read_text()))
    assert config["name"] == "small" and config["base_path"] == "/models/small"
    assert config["plugin_config"]["INFERENCE_PRECISION_HINT"] == "f32"
    assert (folder / "small/1/model.onnx").read_bytes() == bundle.model_path.read_bytes()


EDITS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda d: d.pop("model_config_list"), "model_config_list is missing"),
    (lambda d: d.update(models=[]), "models is not a known field"),
    (
        lambda d: config_of(d).update(target="GPU"),
        "config.target is not a known field, expected",
    ),
    (lambda d: config_of(d).update(name=3), "config.name is 3, expected a text"),
    (lambda d: config_of(d).update(name="x"), "model_config_list has ['x'], expected 'small'"),
    (
        lambda d: config_of(d).update(base_path="/models/y"),
        "config.base_path is '/models/y', but there is no",
    ),
    (lambda d: config_of(d).update(nireq="2"), 'config.nireq is "2", expected a whole number'),
    (
        lambda d: config_of(d).update(batch_size="many"),
        "config.batch_size is 'many', expected",
    ),
    (lambda d: config_of(d)["plugin_config"].clear(), "INFERENCE_PRECISION_HINT is missing"),
    (
        lambda d: config_of(d)["plugin_config"].update(INFERENCE_PRECISION_HINT="fp32"),
        'INFERENCE_PRECISION_HINT is "fp32", expected one of bf16, dynamic, f16, f32',
    ),
    (
        lambda d: config_of(d).update(model_version_policy={"newest": {}}),
        "model_version_policy.newest is not a known policy",
    ),
    (
        lambda d: config_of(d).update(model_version_policy={"specific": {"versions": [4]}}),
        "specific.versions names 4: no such folder",
    ),
    (
        lambda d: d["model_config_list"].append(d["model_config_list"][0]),
        "for the second time",
    ),
]


@pytest.mark.parametrize(("change", "says"), EDITS, ids=[says[:30] for _, says in EDITS])
def test_an_edit_that_does_not_fit_is_named(deployed, change: Any, says: str) -> None:
    found = edited(deployed("ovms"), change)
    assert any(line.startswith("config.json: ") and says in line for line in found), found


def test_edits_that_make_sense_pass(deployed) -> None:
    def change(document: Any) -> None:
        config_of(document).update(nireq=4, batch_size="1:8")
        config_of(document)["plugin_config"]["NUM_STREAMS"] = "2"

    assert edited(deployed("ovms"), change) == []


def test_a_document_that_is_not_json_is_named_with_its_line(deployed) -> None:
    folder = deployed("ovms")
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"name": "small",', '"name": "small"'))
    (problem,) = check_deployment(folder).problems
    assert str(problem).startswith("config.json: line 6, column 9 is not JSON: Expecting ','")
    path.write_text('{"model_config_list": [], "model_config_list": []}')
    (problem,) = check_deployment(folder).problems
    assert "key 'model_config_list' appears twice" in str(problem)


def test_a_fixed_batch_is_kept(deployed, tmp_path: Path) -> None:
    folder = deployed("ovms", small_bundle(tmp_path / "fixed", batch=2))
    found = edited(folder, lambda d: config_of(d).update(batch_size=4))
    assert found == [
        "config.json: model_config_list[0].config.batch_size is 4, the graph has 2"
    ]


def test_it_runs_no_cuda(deployed) -> None:
    with pytest.raises(ArgumentError, match="`provider` is 'cuda', expected cpu or openvino"):
        deployed("ovms", provider="cuda")
