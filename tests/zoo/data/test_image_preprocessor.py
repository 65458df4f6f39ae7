"""Pillow, the module and the module's ONNX graph give equal numbers, bit for bit.

``runtime.preprocess`` is the Pillow pipeline; its own test compares it with Pillow's one call.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dlzoo.errors import ArgumentError
from dlzoo.runtime.images.preprocess import image_array, tensor_from_image
from dlzoo.zoo.data.image_preprocessor import ImagePreprocessor
from dlzoo.zoo.data.preprocessing import IMAGENET_224, IMAGENET_299, MNIST_LENET5
from dlzoo.zoo.registry import Preprocessing

RECIPES = {
    "imagenet_224": IMAGENET_224,
    "mnist_lenet5": MNIST_LENET5,
    "squeezed": replace(IMAGENET_224, resize_size=None, crop_size=(90, 61)),
    # Each side is padded or cropped, as the image's shape will have it.
    "bicubic": replace(
        IMAGENET_224, resize_size=34, crop_size=(37, 41), interpolation="bicubic"
    ),
}

#: Landscape, portrait once turned, square, grey, small, with transparency, large.
PHOTOS = [
    "chelsea.png",
    "coffee.png",
    "astronaut.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "hubble_deep_field.jpg",
    "camera.png",
    "horse.png",
    "no_time_for_that_tiny.gif",
]


@pytest.fixture(scope="module")
def graph_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The file of a recipe's ONNX graph, exported once."""

    @cache
    def export(name: str, opset: int) -> Path:
        path = tmp_path_factory.mktemp("preprocessor") / "model.onnx"
        module = ImagePreprocessor(RECIPES[name]).eval()
        symbols = {0: "batch", 1: "height", 2: "width"}
        program = torch.onnx.export(
            module,
            (torch.zeros(2, 48, 65, module.num_channels, dtype=torch.uint8),),
            dynamo=True,
            opset_version=opset,
            input_names=["image"],
            output_names=["x"],
            dynamic_shapes=({axis: torch.export.Dim(s) for axis, s in symbols.items()},),
            verbose=False,
        )
        assert program is not None
        program.save(str(path))
        return path

    return export


@pytest.fixture(scope="module")
def run_graph(graph_of: Callable[..., Path]) -> Callable[..., np.ndarray]:
    """Run a recipe's graph on ONNX Runtime."""

    @cache
    def session_of(name: str, opset: int) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = str(graph_of(name, opset))
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(name: str, image_NHWC: np.ndarray, opset: int = 20) -> np.ndarray:
        (x,) = session_of(name, opset).run(None, {"image": image_NHWC})
        return np.asarray(x)

    return run


def noise(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    """White noise, half of it black or white: the hardest thing to round right."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (1, height, width, channels), dtype=np.uint8)
    return np.where(random.random(pixels.shape) < 0.5, pixels, (pixels > 127) * np.uint8(255))


def assert_three_equal(
    name: str, image_NHWC: np.ndarray, run_graph: Callable[..., np.ndarray]
) -> None:
    with_pillow = tensor_from_image(image_NHWC[0], asdict(RECIPES[name]))
    with_torch = ImagePreprocessor(RECIPES[name])(torch.from_numpy(image_NHWC)).numpy()
    with_onnx = run_graph(name, image_NHWC)
    assert with_pillow.dtype == with_torch.dtype == with_onnx.dtype == np.float32
    np.testing.assert_array_equal(with_torch, with_pillow, strict=True)
    np.testing.assert_array_equal(with_onnx, with_pillow, strict=True)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize("name", RECIPES)
def test_real_photos(
    name: str,
    photo: str,
    turned: bool,
    photo_folder: Path,
    run_graph: Callable[..., np.ndarray],
) -> None:
    image_NHWC = image_array(photo_folder / photo, RECIPES[name].color)
    if turned:
        image_NHWC = np.ascontiguousarray(np.rot90(image_NHWC, axes=(1, 2)))
    assert_three_equal(name, image_NHWC, run_graph)


@pytest.mark.parametrize("name", ["mnist_lenet5", "squeezed", "bicubic"])
@given(height=st.integers(1, 150), width=st.integers(1, 150), seed=st.integers(0, 2**32 - 1))
@example(height=1, width=1, seed=0)
@example(height=1, width=150, seed=0)
@example(height=150, width=1, seed=0)
@example(height=28, width=28, seed=0)  # not resized at all
@settings(max_examples=25, deadline=None)
def test_any_size(
    name: str, height: int, width: int, seed: int, run_graph: Callable[..., np.ndarray]
) -> None:
    channels = 1 if RECIPES[name].color == "L" else 3
    assert_three_equal(name, noise(height, width, channels, seed), run_graph)


@pytest.mark.parametrize(
    ("name", "height", "width"),
    [
        # Positions of the crop at a half: (resized - 224) / 2 = 16.5, 17.5, ...
        *(("imagenet_224", 256, width) for width in (257, 259, 261, 263)),
        ("imagenet_224", 3000, 2001),
        ("bicubic", 31, 1900),
        ("mnist_lenet5", 2300, 2100),  # 75-fold, where the sums are not certain to be exact
    ],
)
def test_chosen_sizes(
    name: str, height: int, width: int, run_graph: Callable[..., np.ndarray]
) -> None:
    channels = 1 if RECIPES[name].color == "L" else 3
    assert_three_equal(name, noise(height, width, channels), run_graph)


def test_batch_is_its_images_one_by_one(run_graph: Callable[..., np.ndarray]) -> None:
    images = np.concatenate([noise(70, 45, 3, seed) for seed in range(3)])
    one_by_one = [run_graph("bicubic", image[np.newaxis]) for image in images]
    batch = run_graph("bicubic", images)
    np.testing.assert_array_equal(batch, np.concatenate(one_by_one), strict=True)
    with_torch = ImagePreprocessor(RECIPES["bicubic"])(torch.from_numpy(images)).numpy()
    np.testing.assert_array_equal(batch, with_torch, strict=True)


def test_opset_18(run_graph: Callable[..., np.ndarray]) -> None:
    image = noise(120, 83, 3)
    expected = run_graph("bicubic", image, opset=20)
    np.testing.assert_array_equal(run_graph("bicubic", image, opset=18), expected, strict=True)


def test_graph_is_plain_arithmetic(graph_of: Callable[..., Path]) -> None:
    for name in ("imagenet_224", "bicubic"):
        model = onnx.load(graph_of(name, 20))
        operators = {node.op_type for node in model.graph.node}
        assert {node.domain for node in model.graph.node} == {""}
        assert not operators & {"Resize", "If", "Loop", "Scan"}
        assert len(model.graph.node) < 320
        (image,) = model.graph.input
        dims = [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim]
        assert dims == ["batch", "height", "width", 3]
        (x,) = model.graph.output
        sizes = [d.dim_param or d.dim_value for d in x.type.tensor_type.shape.dim]
        assert sizes == ["batch", 3, *RECIPES[name].crop_size]


def test_float64_has_the_same_pixels() -> None:
    image = torch.from_numpy(noise(50, 61, 3))
    scaled = replace(RECIPES["bicubic"], mean=(0.0,) * 3, std=(1.0,) * 3)
    pixels = torch.round(ImagePreprocessor(scaled)(image) * 255).double()
    module = ImagePreprocessor(RECIPES["bicubic"]).double()
    x = module(image)
    assert x.dtype == torch.float64
    assert torch.equal(x, (pixels / 255 - module.mean) / module.std)


def test_shapes_without_data() -> None:
    module = ImagePreprocessor(IMAGENET_299).to("meta")
    image = torch.empty(4, 600, 451, 3, dtype=torch.uint8, device="meta")
    assert module(image).shape == (4, 3, 299, 299)


@pytest.mark.parametrize(
    ("recipe", "image", "got"),
    [
        (IMAGENET_224, torch.zeros(1, 9, 9, 3), "float32 [1, 9, 9, 3]"),
        (IMAGENET_224, torch.zeros(1, 3, 9, 9, dtype=torch.uint8), "uint8 [1, 3, 9, 9]"),
        (IMAGENET_224, torch.zeros(9, 9, 3, dtype=torch.uint8), "uint8 [9, 9, 3]"),
        (MNIST_LENET5, torch.zeros(1, 9, 9, 3, dtype=torch.uint8), "uint8 [1, 9, 9, 3]"),
    ],
)
def test_refuses_other_tensors(recipe: Preprocessing, image: torch.Tensor, got: str) -> None:
    module = ImagePreprocessor(recipe)
    with pytest.raises(ArgumentError) as caught:
        module(image)
    assert str(caught.value) == (
        f"`image_NHWC` got {got}, expected uint8 [N, H, W, {module.num_channels}]. "
        "Give the decoded pixels, with the channels last."
    )


@pytest.mark.gpu
@pytest.mark.parametrize("use_tf32", ["0", "1"])
@pytest.mark.parametrize("name", ["imagenet_224", "bicubic"])
def test_cuda_gives_the_same_pixels(
    name: str,
    use_tf32: str,
    graph_of: Callable[..., Path],
    run_graph: Callable[..., np.ndarray],
) -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA provider")
    provider = ("CUDAExecutionProvider", {"use_tf32": use_tf32})
    session = onnxruntime.InferenceSession(str(graph_of(name, 20)), providers=[provider])
    if "CUDAExecutionProvider" not in session.get_providers():
        pytest.skip("no CUDA device")
    image = noise(901, 1203, 3)
    (x,) = session.run(None, {"image": image})
    recipe = RECIPES[name]
    # The pixels are equal; the last bit of the normalization may differ.
    std, mean = (np.array(v).reshape(-1, 1, 1) for v in (recipe.std, recipe.mean))
    pixels, expected = ((v * std + mean) * 255 for v in (x, run_graph(name, image)))
    np.testing.assert_array_equal(np.round(pixels), np.round(expected), strict=True)
