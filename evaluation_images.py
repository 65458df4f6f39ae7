"""The images that a bundle is evaluated on, as inputs of its network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dlzoo.errors import BundleError

if TYPE_CHECKING:
    from torch import Tensor

    from dlzoo.export.bundle import Bundle
    from dlzoo.runtime.preprocess import ImageSpec
    from dlzoo.zoo.data.dataset import Dataset

BATCH_SIZE = 256


def image_spec_of(bundle: Bundle) -> ImageSpec:
    from dlzoo.runtime.preprocess import ImageSpec

    manifest = bundle.manifest
    if manifest.preprocessing is None or len(manifest.inputs) != 1:
        raise BundleError(
            f"{bundle.path} does not say how images become its input, so it cannot be evaluated "
            "on any. Export it from a model that has preprocessing."
        )
    if manifest.preprocessing_included:
        raise BundleError(
            f"{bundle.path} has its preprocessing inside and takes whole pictures one by one, "
            "which evaluate does not give. Export it without --include-preprocessing."
        )
    return ImageSpec.from_mapping(manifest.preprocessing)


def load_images(
    data: str, spec: ImageSpec, bundle: Bundle, options: dict[str, Any]
) -> Dataset:
    from dlzoo.errors import DataError
    from dlzoo.image_file import Geometry
    from dlzoo.zoo.data.dataset_source import load_dataset

    dataset = load_dataset(data, geometry=Geometry.of(spec), **options)
    labels = bundle.manifest.labels
    if labels is not None and tuple(labels) != dataset.class_names:
        raise DataError(
            f"{data} has the {len(dataset.class_names)} classes "
            f"{', '.join(dataset.class_names[:3])}, …, and {bundle.path} the {len(labels)} "
            f"{', '.join(labels[:3])}, …. Give the data that it was trained for."
        )
    return dataset


def labels_of(dataset: Dataset) -> list[str]:
    """The class of each image, or all of its labels."""
    names = dataset.class_names
    if not dataset.is_multi_label:
        return [names[target] for target in dataset.targets.tolist()]
    rows = dataset.targets.tolist()
    return ["|".join(n for n, has in zip(names, row, strict=True) if has) for row in rows]


def input_batches(dataset: Dataset, spec: ImageSpec) -> Iterator[Tensor]:
    for start in range(0, len(dataset), BATCH_SIZE):
        yield inputs_of(dataset, spec, range(start, min(start + BATCH_SIZE, len(dataset))))


def inputs_of(dataset: Dataset, spec: ImageSpec, indices: Sequence[int]) -> Tensor:
    """Inputs as a server makes them: ``(pixel / 255 - mean) / std``."""
    import torch

    mean, std = (
        torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1)
        for values in (spec.mean, spec.std)
    )
    return (dataset.read(indices).float() / 255 - mean) / std
