"""Classify images with a bundle's own preprocessing, head and labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dlzoo.errors import ArgumentError, BundleError
from dlzoo.image_file import NUM_CHANNELS, ImageSource, describe_source
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.bundle.manifest import Manifest
from dlzoo.runtime.images.preprocess import ImageSpec, image_array, tensor_from_image
from dlzoo.runtime.session.session import open_session


@dataclass(frozen=True)
class ClassScore:
    """One class and its score, which is between 0 and 1 with every head."""

    index: int
    label: str
    score: float


@dataclass(frozen=True)
class Classification:
    """The best classes of one image, the best first."""

    image: str
    top: tuple[ClassScore, ...]


def classify(
    bundle: Bundle | Path | str,
    images: Sequence[ImageSource],
    *,
    provider: str = "cpu",
    k: int = 5,
    allow_fallback: bool = False,
) -> list[Classification]:
    """Name the ``k`` best classes of each image.

    The score is the softmax of logits, ``exp(z_k) / sum_j exp(z_j)``; a bundle with a softmax or
    sigmoid head computes its scores in the graph.

    Args:
        bundle: an open bundle or its folder.
        images: files, the bytes of files, or uint8 [H, W, C] pixels.
        provider: the provider to run on.
        k: how many classes; all if there are fewer.
        allow_fallback: let ONNX Runtime use another provider.

    Raises:
        ArgumentError: ``k`` is less than 1.
        BundleError: the bundle is damaged, or does not say how images become its input.
        ImageError: an image cannot be read.
        ProviderError: the provider is missing or did not run the model.
    """
    if k < 1:
        raise ArgumentError(f"`k` is {k}, expected 1 or more classes. Leave it out for 5.")
    if not isinstance(bundle, Bundle):
        bundle = Bundle.open(bundle)
    manifest = bundle.manifest
    if manifest.preprocessing is None or len(manifest.inputs) != 1:
        raise BundleError(
            f"{bundle.path} does not say how images become its input, so it cannot classify them. "
            "Use dlzoo.open_session and give it tensors."
        )
    session = open_session(bundle, provider, allow_fallback=allow_fallback)
    (input_name,) = session.input_names
    results = []
    for image in images:
        array = network_input(image, manifest)
        scores_K = next(iter(session.run({input_name: array}).values()))[0]
        if not np.isfinite(scores_K).all():
            raise BundleError(
                f"{describe_source(image)}: {bundle.path} gives scores that are not finite. "
                f'Run "dlzoo verify {bundle.path}".'
            )
        top = best_classes(scores_K, manifest, k)
        results.append(Classification(image=describe_source(image), top=top))
    return results


def check_image_input(manifest: Manifest) -> None:
    """Make sure that prepared images fit the network's input, and the labels its output.

    Raises:
        BundleError: they do not fit, or the preprocessing is damaged.
    """
    assert manifest.preprocessing is not None
    spec = ImageSpec.from_mapping(manifest.preprocessing)
    declared = manifest.inputs[0]
    num_channels = NUM_CHANNELS[spec.color]
    prepared: tuple[int | str, ...] = (num_channels, *spec.crop_size)
    dtype = declared.dtype  # the session itself checks the dtype of prepared images
    if manifest.preprocessing_included:  # unchanged pixels, of any size
        prepared, dtype = ("height", "width", num_channels), "uint8"
    fits = len(declared.dims) == 1 + len(prepared) and all(
        isinstance(size, str) or isinstance(got, str) or size == got
        for size, got in zip(declared.dims[1:], prepared, strict=True)
    )
    if not fits or declared.dtype != dtype:
        raise BundleError(
            f"{manifest.name} prepares images as {list(prepared)} of {dtype}, and its input is "
            f"{declared}. Export the bundle again."
        )
    _check_labels(manifest)


def _check_labels(manifest: Manifest) -> None:
    sizes = manifest.outputs[0].dims[1:] if manifest.outputs else ()
    num_scores = math.prod(size for size in sizes if isinstance(size, int))
    is_known = all(isinstance(size, int) for size in sizes)
    if manifest.labels is not None and is_known and num_scores != len(manifest.labels):
        raise BundleError(
            f"{manifest.name} gives {num_scores} scores but has {len(manifest.labels)} labels. "
            "Export the bundle again."
        )


def network_input(image: ImageSource, manifest: Manifest) -> npt.NDArray[np.generic]:
    """Prepare the input for one image, repeated if the batch size is fixed."""
    assert manifest.preprocessing is not None
    array: npt.NDArray[np.generic]
    if manifest.preprocessing_included:
        array = image_array(image, ImageSpec.from_mapping(manifest.preprocessing).color)
    else:
        array = tensor_from_image(image, manifest.preprocessing)
    num_images = manifest.inputs[0].dims[0]
    return array if isinstance(num_images, str) else np.repeat(array, num_images, axis=0)


def best_classes(
    scores_K: npt.NDArray[np.floating], manifest: Manifest, k: int
) -> tuple[ClassScore, ...]:
    """Find the ``k`` highest of one image's scores, with the bundle's head and labels.

    Raises:
        BundleError: the number of labels is not the number of scores.
    """
    scores_K = scores_K.reshape(-1).astype(np.float64)
    labels = manifest.labels
    if labels is not None and len(labels) != scores_K.size:
        raise BundleError(
            f"{manifest.name} gives {scores_K.size} scores but has {len(labels)} labels. "
            "Export the bundle again."
        )
    if manifest.head == "logits":
        exponential_K = np.exp(scores_K - scores_K.max())
        scores_K = exponential_K / exponential_K.sum()
    best = np.argsort(-scores_K, kind="stable")[:k]
    return tuple(
        ClassScore(
            index=int(index),
            label=f"class {index}" if labels is None else labels[index],
            score=float(scores_K[index]),
        )
        for index in best
    )
