"""Normalizations against NumPy, through a file, and in ONNX Runtime."""

import pickle
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from dlzoo.errors import ArgumentError, CheckpointMismatchError
from dlzoo.zoo.data.image_preprocessor import ImagePreprocessor
from dlzoo.zoo.data.normalization import (
    PCA,
    ZCA,
    CardNormalization,
    FittedNormalization,
    MeanStd,
    MinMax,
    NoNormalization,
    Normalization,
    PerImage,
)
from dlzoo.zoo.data.preprocessing import IMAGENET_224
from dlzoo.zoo.registry import Preprocessing

KINDS = ["mean-std", "min-max", "per-image", "zca", "pca", "card", "none"]


def pictures(count: int, channels: int = 3, side: int = 6) -> torch.Tensor:
    """Images whose pixels depend on their neighbours, uint8."""
    noise = np.random.default_rng(0).normal(size=(count, channels, side + 2, side + 2))
    smooth = sum(noise[:, :, i : i + side, j : j + side] for i in range(3) for j in range(3))
    tint = np.arange(channels)[:, None, None] * 20
    return torch.from_numpy((smooth * 20 + 110 + tint).clip(0, 255).astype(np.uint8))


def fitted(name: str, images: torch.Tensor) -> FittedNormalization:
    normalization: Normalization = TypeAdapter(Normalization).validate_python({"name": name})
    return normalization.fit(images.split(37), preprocessing=IMAGENET_224)


def test_mean_std_of_the_training_images_are_0_and_1() -> None:
    images = pictures(400)
    fit = MeanStd().fit(images.split(37))
    values = images.double().numpy() / 255
    assert np.abs(np.array(fit.mean) - values.mean((0, 2, 3))).max() < 1e-14
    assert np.abs(np.array(fit.std) - values.std((0, 2, 3))).max() < 1e-14
    z = fit(images.float() / 255).double()
    assert z.mean((0, 2, 3)).abs().max() < 1e-6
    assert (z.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-6
    assert fit.layer is None and fit.notes == ()


def test_min_max_is_from_0_to_1() -> None:
    images = pictures(50) // 2 + 30
    z = MinMax().fit([images])(images.float() / 255)
    assert z.amin((0, 2, 3)).tolist() == [0, 0, 0]
    assert (z.amax((0, 2, 3)) - 1).abs().max() < 1e-6


@pytest.mark.parametrize("kind", [MeanStd, MinMax, ZCA, PCA])
def test_a_constant_channel_is_shifted_and_said(kind: type) -> None:
    images = pictures(80)
    images[:, 1] = 51
    fit = kind().fit([images])
    assert fit.notes == (
        "Channel 1 is 0.2 in every pixel of the training images: it is shifted to 0 but not "
        "scaled.",
    )
    assert fit.mean[1] == 0.2 and fit.std[1] == 1.0
    z = fit(images.float() / 255)
    assert z.isfinite().all()
    if kind is not PCA:
        assert z[:, 1].abs().max() < 1e-6


def test_per_image() -> None:
    images = pictures(20)
    images[7] = 200  # one colour: no contrast to bring to 1
    z = PerImage().fit([images])(images.float() / 255)
    for k in range(20):
        values = images[k].double().numpy() / 255
        expected = (values - values.mean()) / max(values.std(), 1 / 255)
        assert np.abs(z[k].numpy() - expected).max() < 1e-5
    assert z[7].abs().max() < 1e-4


@pytest.mark.parametrize("kind", [ZCA, PCA])
def test_whitened_training_images_have_the_identity_as_covariance(
    kind: type[ZCA] | type[PCA],
) -> None:
    images = pictures(900)
    fit = kind(epsilon=1e-6).fit(images.split(100))
    assert fit.layer is not None
    mean, std = (torch.tensor(v).double()[:, None, None] for v in (fit.mean, fit.std))
    z = fit.layer.double()((images.double() / 255 - mean) / std).flatten(1)
    assert z.mean(0).abs().max() < 1e-4
    covariance = torch.cov(z.T, correction=0)
    # Off by epsilon / variance (the smallest is 0.003) and the weights' roundings to float32.
    assert (covariance - torch.eye(108)).abs().max() < 1e-3
    # Pixels were far from independent before.
    raw = torch.cov((images.double() / 255).flatten(1).T, correction=0)
    assert (raw / raw.diagonal().mean() - torch.eye(108)).abs().max() > 0.5


def test_epsilon_damps_weak_directions() -> None:
    images = pictures(900)
    fit = PCA(epsilon=0.5).fit([images])
    z = fit(images.float() / 255).double().flatten(1)
    mean, std = (torch.tensor(v).double()[:, None, None] for v in (fit.mean, fit.std))
    standard = ((images.double() / 255 - mean) / std).flatten(1)
    variances = torch.linalg.eigvalsh(torch.cov(standard.T, correction=0)).flip(0)
    assert (z.var(0, correction=0) - variances / (variances + 0.5)).abs().max() < 1e-5
    # Components stand by falling variance.
    assert (z.var(0, correction=0).diff() < 1e-9).all()


def test_zca_keeps_the_picture() -> None:
    images = pictures(900)
    z = ZCA().fit([images])(images.float() / 255).double()
    x = images.double()
    correlations = [
        torch.corrcoef(torch.stack([z[:, c, i, j], x[:, c, i, j]]))[0, 1].item()
        for c in range(3)
        for i in range(6)
        for j in range(6)
    ]
    assert min(correlations) > 0.3
    fit = ZCA().fit([images])
    assert fit.layer is not None
    weight = fit.layer.state_dict()["weight"]
    assert (weight - weight.T).abs().max() < 1e-4 * weight.abs().max()


@pytest.mark.parametrize("kind", [ZCA, PCA])
def test_images_too_large_for_a_matrix_are_refused(kind: type) -> None:
    message = (
        "Whitening got images of [3, 224, 224] = 150528 values, expected at most 4096: the size of "
        "its matrix is the square of that. Train on smaller images, or choose normalization 'mean-std' or "
        "'per-image'."
    )
    with pytest.raises(ArgumentError, match=re.escape(message)):
        kind().fit([torch.zeros(2, 3, 224, 224, dtype=torch.uint8)])


def test_images_of_another_size_cannot_be_whitened() -> None:
    fit = ZCA().fit([pictures(40)])
    message = (
        "An image has [3, 5, 5] = 75 values, but the whitening was fitted to 108. Give images"
    )
    with pytest.raises(ArgumentError, match=re.escape(message)):
        fit(torch.zeros(1, 3, 5, 5))


def test_the_cards_own() -> None:
    images = pictures(3)
    fit = CardNormalization().fit([images], preprocessing=IMAGENET_224)
    assert (fit.mean, fit.std) == (IMAGENET_224.mean, IMAGENET_224.std)
    with pytest.raises(
        ArgumentError, match=r"'card' has 3 channels, but the images have 1\. Choose"
    ):
        CardNormalization().fit([pictures(3, channels=1)], preprocessing=IMAGENET_224)
    with pytest.raises(
        ArgumentError, match="'card' needs a model of the zoo, but this one has no"
    ):
        CardNormalization().fit([images])


def test_none_leaves_pixels_alone() -> None:
    x = pictures(3).float() / 255
    assert torch.equal(NoNormalization().fit([pictures(3)])(x), x)


def test_training_and_serving_compute_the_same_floats() -> None:
    images = pictures(50)
    fit = MeanStd().fit([images])
    served = ImagePreprocessor(
        Preprocessing(resize_size=None, crop_size=(6, 6), mean=fit.mean, std=fit.std)
    )(images.permute(0, 2, 3, 1))
    assert torch.equal(fit(images.float() / 255), served)


@pytest.mark.parametrize("name", KINDS)
def test_state_survives_a_file(name: str, tmp_path: Path) -> None:
    images = pictures(60)
    fit = fitted(name, images)
    save_file(fit.state(), tmp_path / "normalization.safetensors")
    read = FittedNormalization.from_state(load_file(tmp_path / "normalization.safetensors"))
    assert (read.mean, read.std) == (fit.mean, fit.std)
    x = images.float() / 255
    assert torch.equal(read(x), fit(x))
    # Workers that are spawned get it pickled.
    assert torch.equal(pickle.loads(pickle.dumps(fit))(x), fit(x))
    assert {k: v.dtype for k, v in read.state().items()} == {
        k: v.dtype for k, v in fit.state().items()
    }


def test_other_tensors_are_refused() -> None:
    state = fitted("zca", pictures(20)).state()
    del state["layer.offset"]
    message = (
        "A normalization got the tensors layer.weight, mean, std; expected mean, std, and"
    )
    with pytest.raises(CheckpointMismatchError, match=re.escape(message)):
        FittedNormalization.from_state(state)
    with pytest.raises(CheckpointMismatchError, match="got the tensors none; expected"):
        FittedNormalization.from_state({})


@pytest.mark.parametrize("name", KINDS)
def test_number_of_threads_does_not_matter(name: str) -> None:
    images = pictures(300, side=16)  # 768 values: products large enough to be shared
    results = []
    before = torch.get_num_threads()
    for num_threads in (1, 3):
        torch.set_num_threads(num_threads)
        try:
            fit = fitted(name, images)
            results.append([*fit.state().values(), fit(images.float() / 255)])
            assert torch.get_num_threads() == num_threads
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("name", ["per-image", "zca"])
def test_layer_gives_the_same_numbers_in_onnx_runtime(name: str, tmp_path: Path) -> None:
    images = pictures(200)
    fit = fitted(name, images)
    assert fit.layer is not None
    x = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "layer.onnx"
    torch.onnx.export(
        fit.layer.eval(),
        (x,),
        path,
        dynamo=True,
        verbose=False,
        input_names=["x"],
        dynamic_shapes=({0: torch.export.Dim("N")},),
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    reference = fit.layer.double()(x.double())
    fit.layer.float()
    for part in (slice(0, 5), slice(1, 3)):
        (got,) = session.run(None, {"x": x[part].numpy()})
        error = np.abs(got - reference[part].numpy())
        # 108 products of numbers up to 10 are summed, each rounded to 24 bits.
        assert got.shape == (len(x[part]), 3, 6, 6)
        assert error.max() < 108 * 2**-24 * reference.abs().max()


def test_fits_images_of_the_smallest_variance() -> None:
    images = torch.zeros(10, 1, 10, 10, dtype=torch.uint8)
    images[0, 0, 0, 0] = 1
    fit = MeanStd().fit([images])
    assert fit.std[0] == pytest.approx(np.sqrt(999) / 255000, rel=1e-12, abs=0)
