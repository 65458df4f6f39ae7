"""The constants say what the papers and the published weights say."""

import json
from dataclasses import asdict

import pytest

from dlzoo.zoo.data import preprocessing
from dlzoo.zoo.registry import Preprocessing

RECIPES = {k: v for k, v in vars(preprocessing).items() if isinstance(v, Preprocessing)}


def test_lenet5_maps_background_and_ink_to_the_papers_values() -> None:
    recipe = preprocessing.MNIST_LENET5
    (mean,), (std,) = recipe.mean, recipe.std
    assert (0 / 255 - mean) / std == pytest.approx(-0.1, rel=1e-12, abs=0)
    assert (255 / 255 - mean) / std == pytest.approx(1.175, rel=1e-12, abs=0)
    # A digit of 28 x 28 in a field of 32 x 32.
    assert (recipe.resize_size, recipe.crop_size) == (28, (32, 32))


@pytest.mark.parametrize(
    ("name", "resize_size", "crop_size"),
    [
        ("IMAGENET_224", 256, 224),
        ("IMAGENET_224_RESIZE_232", 232, 224),
        ("IMAGENET_224_RESIZE_236", 236, 224),
        ("IMAGENET_256", 288, 256),
        ("IMAGENET_299", 342, 299),
    ],
)
def test_imagenet_sizes(name: str, resize_size: int, crop_size: int) -> None:
    recipe = RECIPES[name]
    assert (recipe.resize_size, recipe.crop_size) == (resize_size, (crop_size, crop_size))
    assert (recipe.color, recipe.interpolation) == ("RGB", "bilinear")
    assert recipe.mean == (0.485, 0.456, 0.406)
    assert recipe.std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize("name", RECIPES)
def test_survives_json(name: str) -> None:
    fields = asdict(RECIPES[name])
    read = json.loads(json.dumps(fields))
    lists = ("crop_size", "mean", "std")
    assert Preprocessing(**{**read, **{k: tuple(read[k]) for k in lists}}) == RECIPES[name]
