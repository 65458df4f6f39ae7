"""Classes of images, on small graphs that show what reached them."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dlzoo.errors import ArgumentError, BundleError, ImageError
from dlzoo.runtime.bundle.bundle import Bundle, write_manifest
from dlzoo.runtime.bundle.manifest import Manifest
from dlzoo.runtime.images.classify import Classification, check_image_input, classify
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec

PIXELS_ONLY = {
    "color": "RGB",
    "resize_size": None,
    "crop_size": [4, 6],
    "interpolation": "bilinear",
    "mean": [0.0, 0.0, 0.0],
    "std": [1.0, 1.0, 1.0],
}
NAMES = ("red", "green", "blue")


def channel_means(batch: int | str, *, head: str, included: bool) -> onnx.ModelProto:
    """A network whose three classes are the means of the three colours."""
    nodes = []
    if included:
        dims: list[int | str] = [batch, "height", "width", 3]
        nodes.append(helper.make_node("Transpose", ["image"], ["moved"], perm=[0, 3, 1, 2]))
        nodes.append(helper.make_node("Cast", ["moved"], ["levels"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Div", ["levels", "white"], ["x"]))
    else:
        dims = [batch, 3, 4, 6]
        nodes.append(helper.make_node("Identity", ["image"], ["x"]))
    nodes.append(helper.make_node("ReduceMean", ["x", "axes"], ["means"], keepdims=0))
    operator = {"logits": "Identity", "softmax": "Softmax", "sigmoid": "Sigmoid"}[head]
    nodes.append(helper.make_node(operator, ["means"], ["scores"]))
    element = TensorProto.UINT8 if included else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "channel_means",
        [helper.make_tensor_value_info("image", element, dims)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 3])],
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3]),
            helper.make_tensor("white", TensorProto.FLOAT, [], [255.0]),
        ],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, producer_name="test"
    )


def make_bundle(
    folder: Path, *, batch: int | str = "batch", head: str = "logits", included: bool = False
) -> Bundle:
    folder.mkdir(exist_ok=True)
    onnx.save(channel_means(batch, head=head, included=included), folder / "model.onnx")
    manifest = Manifest(
        name="channel_means",
        card={},
        opset=20,
        ir_version=10,
        inputs=(
            TensorSpec(
                name="image",
                dtype="uint8" if included else "float32",
                dims=(batch, "height", "width", 3) if included else (batch, 3, 4, 6),
            ),
        ),
        outputs=(TensorSpec(name="scores", dtype="float32", dims=(batch, 3)),),
        dynamic_axes={},
        preprocessing=PIXELS_ONLY,
        preprocessing_included=included,
        head=head,
        labels=NAMES,
        lowering=(),
        precision="float32",
        rho2_limit=3.0,
        rhomax_limit=6.0,
        limit_reason="",
        tools={},
        weights={"kind": "random", "seed": 0},
        files={},
    )
    write_manifest(folder, manifest)
    return Bundle.open(folder)


def color(*levels: int) -> np.ndarray:
    return np.broadcast_to(np.array(levels, np.uint8), (9, 7, 3)).copy()


ORANGE = color(255, 102, 0)


@pytest.mark.parametrize("included", [False, True])
@pytest.mark.parametrize(
    ("head", "scores"),
    [
        # Logits 1, 0.4, 0: exp(1), exp(0.4), 1 over their sum.
        ("logits", np.exp([1.0, 0.4, 0.0]) / np.exp([1.0, 0.4, 0.0]).sum()),
        ("softmax", np.exp([1.0, 0.4, 0.0]) / np.exp([1.0, 0.4, 0.0]).sum()),
        ("sigmoid", 1 / (1 + np.exp([-1.0, -0.4, 0.0]))),
    ],
)
def test_scores_and_labels(
    head: str, scores: np.ndarray, included: bool, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path, head=head, included=included)
    orange, blue = classify(bundle, [ORANGE, color(0, 51, 255)])
    assert [(c.index, c.label) for c in orange.top] == [(0, "red"), (1, "green"), (2, "blue")]
    np.testing.assert_allclose([c.score for c in orange.top], scores, rtol=1e-6, atol=0)
    assert [c.label for c in blue.top] == ["blue", "green", "red"]


def test_files_and_bytes(tmp_path: Path) -> None:
    from PIL import Image

    make_bundle(tmp_path / "bundle")
    path = tmp_path / "orange.png"
    Image.fromarray(ORANGE).save(path)
    from_file, from_bytes = classify(str(tmp_path / "bundle"), [path, path.read_bytes()], k=1)
    assert from_file.image == str(path)
    assert from_file.top == from_bytes.top
    assert [c.label for c in from_file.top] == ["red"]
    assert set(asdict(from_file)) == {"image", "top"}


@pytest.mark.parametrize("included", [False, True])
def test_fixed_batch(included: bool, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, batch=3, included=included)
    (dynamic,) = classify(make_bundle(tmp_path / "dynamic", included=included), [ORANGE])
    (fixed,) = classify(bundle, [ORANGE])
    assert fixed == dynamic


def test_no_labels(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    bundle.manifest = replace(bundle.manifest, labels=None)
    (orange,) = classify(bundle, [ORANGE], k=2)
    assert [c.label for c in orange.top] == ["class 0", "class 1"]


def test_equal_scores_keep_their_order(tmp_path: Path) -> None:
    (grey,) = classify(make_bundle(tmp_path), [color(9, 9, 9)])
    assert [c.index for c in grey.top] == [0, 1, 2]
    assert isinstance(grey, Classification)


def test_large_logits_do_not_overflow(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    bundle.manifest = replace(
        bundle.manifest, preprocessing={**PIXELS_ONLY, "std": [1e-6, 1e-6, 1e-6]}
    )
    (orange,) = classify(bundle, [ORANGE])
    assert [c.score for c in orange.top] == [1.0, 0.0, 0.0]


def test_no_preprocessing(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    bundle.manifest = replace(bundle.manifest, preprocessing=None)
    with pytest.raises(BundleError) as caught:
        classify(bundle, [ORANGE])
    assert str(caught.value) == (
        f"{tmp_path} does not say how images become its input, so it cannot classify them. "
        "Use dlzoo.open_session and give it tensors."
    )


def test_labels_of_another_network(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    bundle.manifest = replace(bundle.manifest, labels=NAMES[:2])
    with pytest.raises(BundleError) as caught:
        classify(bundle, [ORANGE])
    assert str(caught.value) == (
        "channel_means gives 3 scores but has 2 labels. Export the bundle again."
    )


def test_scores_that_are_not_finite(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    model = onnx.load(bundle.model_path)
    model.graph.node[-1].op_type = "Log"
    onnx.save(model, bundle.model_path)
    with pytest.raises(BundleError) as caught:
        classify(bundle, [ORANGE])  # no blue: log(0)
    assert str(caught.value) == (
        f"The image uint8 [9, 7, 3]: {tmp_path} gives scores that are not finite. "
        f'Run "dlzoo verify {tmp_path}".'
    )


def test_images_that_are_no_input_and_labels_that_are_no_classes(tmp_path: Path) -> None:
    manifest = make_bundle(tmp_path).manifest
    check_image_input(manifest)
    assert manifest.preprocessing is not None
    for changes, message in (
        (
            {"crop_size": [5, 7]},
            r"prepares images as \[3, 5, 7\] of float32, and its input is",
        ),
        ({"color": "L", "mean": [0.5], "std": [0.5]}, r"prepares images as \[1, "),
        ({"mean": "0.5"}, "The bundle's preprocessing is"),
        ({"resize_size": 10**30}, "The bundle's preprocessing is"),
    ):
        wrong = replace(manifest, preprocessing={**manifest.preprocessing, **changes})
        with pytest.raises(BundleError, match=message):
            check_image_input(wrong)
    with pytest.raises(
        BundleError, match=r"images as \['height', 'width', 3\] of uint8, and its"
    ):
        check_image_input(replace(manifest, preprocessing_included=True))
    with pytest.raises(BundleError, match="gives 3 scores but has 1 labels"):
        check_image_input(replace(manifest, labels=("red",)))


def test_no_classes_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError) as caught:
        classify(make_bundle(tmp_path), [ORANGE], k=0)
    assert str(caught.value) == "`k` is 0, expected 1 or more classes. Leave it out for 5."


def test_missing_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.png does not exist"):
        classify(make_bundle(tmp_path), [tmp_path / "nowhere.png"])
