import json
from dataclasses import MISSING, fields, replace
from typing import Any

import pytest

from dlzoo.errors import BundleError
from dlzoo.runtime.bundle.manifest import SCHEMA_VERSION, Manifest
from dlzoo.runtime.bundle.manifest_fields import AxisRange
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec

SHA = "0" * 64


def make_manifest(**changes: Any) -> Manifest:
    """A manifest with every kind of value in it."""
    facts: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": "lenet5",
        "card": {"family": "LeNet", "num_parameters": 60_000, "paper": {"year": 1998}},
        "opset": 20,
        "ir_version": 10,
        "inputs": (TensorSpec(name="image", dtype="float32", dims=("batch", 1, 32, 32)),),
        "outputs": (TensorSpec(name="logits", dtype="float32", dims=("batch", 10)),),
        "dynamic_axes": {
            "batch": AxisRange(symbol="batch", min=1, max=None, proved=(1, 2, 5))
        },
        "preprocessing": {"color": "L", "mean": [0.5]},
        "preprocessing_included": False,
        "head": "logits",
        "labels": ("0", "größer"),
        "lowering": ({"layer": "gelu", "spelling": "native"},),
        "precision": "float32",
        "rho2_limit": 3.0,
        "rhomax_limit": 6.0,
        "limit_reason": "",
        "tools": {"torch": "2.13.0"},
        "weights": {"kind": "random", "seed": 0, "source": None, "sha256": SHA},
        "files": {"model.onnx": SHA, "golden/test_data_set_0/input_0.pb": SHA},
    }
    return Manifest(**{**facts, **changes})


def document(**changes: Any) -> str:
    return json.dumps({**json.loads(make_manifest().to_json()), **changes})


def test_a_manifest_comes_back() -> None:
    manifest = make_manifest()
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_optional_values_come_back() -> None:
    manifest = make_manifest(labels=None, preprocessing=None, dynamic_axes={})
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_the_text_is_stable_whatever_the_order() -> None:
    manifest = make_manifest()
    shuffled = replace(manifest, card=dict(reversed(manifest.card.items())))
    assert manifest.to_json() == shuffled.to_json()
    assert manifest.to_json().endswith("}\n")


def test_nan_is_never_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        make_manifest(rho2_limit=float("nan")).to_json()


@pytest.mark.parametrize(
    "name",
    [
        f.name
        for f in fields(Manifest)
        if f.default is MISSING and f.default_factory is MISSING
    ],
)
def test_a_missing_field_is_named(name: str) -> None:
    text = json.loads(make_manifest().to_json())
    del text[name]
    with pytest.raises(BundleError, match=rf"manifest.json lacks {name}\. Export the bundle"):
        Manifest.from_json(json.dumps(text))


@pytest.mark.parametrize(
    "name", [f.name for f in fields(Manifest) if f.name != "schema_version"]
)
@pytest.mark.parametrize("wrong", [-1, [[[]]]], ids=["number", "list"])
def test_a_field_of_another_type_is_named(name: str, wrong: object) -> None:
    with pytest.raises(BundleError, match=rf"manifest.json: {name}.* should be .*, got "):
        Manifest.from_json(document(**{name: wrong}))


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
def test_another_schema_version_is_refused(version: object) -> None:
    with pytest.raises(
        BundleError, match=r"schema_version .*, this dlzoo reads 1\. Use the version"
    ):
        Manifest.from_json(document(schema_version=version))


@pytest.mark.parametrize("text", ["", "{", "[1]", '"a"', "null", "[" * 100_000])
def test_what_is_no_manifest_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../other/model.onnx",
        "golden/../../secret",
        "golden//x",
        "./model.onnx",
        "",
        "C:/windows/x",
        "C:x",
        "\\\\server\\x",
        "golden\\x",
        "a\0b",
    ],
)
def test_a_path_outside_the_bundle_is_refused(path: str) -> None:
    with pytest.raises(
        BundleError, match=r"files names .*not a plain path inside the bundle.*trust"
    ):
        Manifest.from_json(document(files={path: SHA}))


@pytest.mark.parametrize("digest", ["", "0" * 63, "G" * 64, "0" * 65])
def test_what_is_no_sha256_is_refused(digest: str) -> None:
    with pytest.raises(BundleError, match=r"files.model.onnx should be a sha256"):
        Manifest.from_json(document(files={"model.onnx": digest}))


@pytest.mark.parametrize("limit", ["NaN", "Infinity", "0", "-3", "true", '"3"'])
def test_a_limit_that_lets_everything_pass_is_refused(limit: str) -> None:
    text = document().replace('"rho2_limit": 3.0', f'"rho2_limit": {limit}')
    with pytest.raises(BundleError, match="rho2_limit should be a finite number above 0"):
        Manifest.from_json(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("inputs", [{"name": "x", "dtype": "float32", "dims": [1.5]}]),
        ("inputs", [{"name": "x", "dtype": "float32", "dims": [True]}]),
        ("outputs", [{"dtype": "float32", "dims": []}]),
        ("dynamic_axes", {"batch": {"symbol": "batch", "min": 1, "max": "x", "proved": []}}),
        ("labels", [1, 2]),
    ],
)
def test_values_inside_are_checked(field: str, value: object) -> None:
    with pytest.raises(BundleError, match=rf"manifest.json: {field}\S* should be"):
        Manifest.from_json(document(**{field: value}))


AXIS = {"symbol": "batch", "min": 2, "max": 4, "proved": [2, 3, 4]}
SPEC = {"name": "x", "dtype": "float32", "dims": ["batch", 3]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"seed": 0}}, "weights.kind should be a text, got None"),
        ({"weights": {"kind": "random"}}, "weights.seed should be a number from 0 up, got None"),
        (
            {"weights": {"kind": "trained", "source": 3, "sha256": SHA}},
            "weights.source should be a text, got 3",
        ),
        ({"weights": {"kind": "file", "source": "a"}}, "weights.sha256 should be a text"),
        (
            {"weights": {"kind": "random", "seed": 0, "top1_percent": "99"}},
            "weights.top1_percent should be a number, got '99'",
        ),
        ({"dynamic_axes": {"batch": {**AXIS, "max": 1}}}, "max should be 2 or more, got 1"),
        (
            {"dynamic_axes": {"batch": {**AXIS, "proved": [1, 2]}}},
            r"proved should be sizes from min to max, got \[1, 2\]",
        ),
        ({"name": "a\nb"}, r"name should be a text in one line, got 'a\\nb'"),
        ({"inputs": [{**SPEC, "name": "a\rb"}]}, r"inputs\[0\].name should be a text in one line"),
        ({"inputs": [{**SPEC, "dims": ["a\nb"]}]}, r"inputs\[0\].dims should be a text in one"),
        ({"card": {"num_parameters": float("nan")}}, "manifest.json holds what is not JSON"),
        ({"labels": ["\ud800"]}, "manifest.json holds what is not JSON"),
    ],
)  # fmt: skip
def test_what_no_server_could_say_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        Manifest.from_json(document(**changes))
    assert "\n" not in str(caught.value)
