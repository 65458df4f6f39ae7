"""Pipelines: what a sample becomes depends on nothing but its seed, epoch and index."""

import pickle
import re
import subprocess
import sys
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from dlzoo.errors import ArgumentError
from dlzoo.zoo.data.augmentation.pipeline import Augmentation, Pipeline
from dlzoo.zoo.data.sample_draws import SampleDraws

ADAPTER = TypeAdapter(Augmentation)
PER_SAMPLE = [
    "horizontal-flip",
    "vertical-flip",
    "random-crop",
    "random-resized-crop",
    "rotation",
    "scaling",
    "brightness-contrast",
    "hue-saturation",
    "gaussian-noise",
    "cutout",
]
MIXING = ["mixup", "cutmix", "mosaic"]
NUM_IMAGES = 50
IMAGES = torch.from_numpy(
    np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, 3, 13, 16), dtype=np.uint8)
)


def pipeline(*names: str, seed: int = 0, probability: float | None = None) -> Pipeline:
    chance = {} if probability is None else {"probability": probability}
    augmentations = [ADAPTER.validate_python({"name": name, **chance}) for name in names]
    return Pipeline(augmentations, num_classes=10, num_channels=3, seed=seed)


def augmented(
    augment: Pipeline, indices: list[int], epoch: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    index = torch.tensor(indices)
    return augment(IMAGES[index].float() / 255, index % 10, epoch, indices)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


@pytest.mark.parametrize("names", [*([name] for name in PER_SAMPLE), PER_SAMPLE])
@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.integers(0, NUM_IMAGES - 1), min_size=1, max_size=24, unique=True),
    st.integers(0, 2**63),
    st.integers(0, 100),
    st.sampled_from([None, 0.5, 1.0]),
    st.randoms(),
)
def test_neither_the_batch_nor_the_order_matters(
    names: list[str],
    indices: list[int],
    seed: int,
    epoch: int,
    probability: float | None,
    random: Random,
) -> None:
    augment = pipeline(*names, seed=seed, probability=probability)
    x, y = augmented(augment, indices, epoch)
    assert y.dtype == torch.int64
    assert x.min() >= 0 and x.max() <= 1 and x.dtype == torch.float32
    some = random.sample(range(len(indices)), random.randint(1, len(indices)))
    part_x, part_y = augmented(augment, [indices[p] for p in some], epoch)
    assert bits(part_x) == bits(x[some])
    assert torch.equal(part_y, y[some])


@pytest.mark.parametrize("name", MIXING)
@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.integers(0, NUM_IMAGES - 1), min_size=1, max_size=24, unique=True),
    st.integers(0, 100),
    st.randoms(),
)
def test_mixtures_do_not_depend_on_the_order(
    name: str, indices: list[int], epoch: int, random: Random
) -> None:
    augment = pipeline(name)
    x, y = augmented(augment, indices, epoch)
    assert y.dtype == torch.float32 and y.shape == (len(indices), 10)
    assert (y.sum(1) - 1).abs().max() < 5e-7
    assert x.min() >= 0 and x.max() <= 1
    order = random.sample(range(len(indices)), len(indices))
    other_x, other_y = augmented(augment, [indices[p] for p in order], epoch)
    assert bits(other_x) == bits(x[order]) and bits(other_y) == bits(y[order])


@pytest.mark.parametrize("name", [*PER_SAMPLE, *MIXING])
def test_epochs_and_seeds_differ_and_repeat(name: str) -> None:
    indices = list(range(NUM_IMAGES))
    original = IMAGES.float() / 255
    first, _ = augmented(pipeline(name), indices, epoch=3)
    assert bits(augmented(pipeline(name), indices, epoch=3)[0]) == bits(first)
    for other in (
        augmented(pipeline(name), indices, epoch=4)[0],
        augmented(pipeline(name, seed=1), indices, epoch=3)[0],
    ):
        assert (other != first).flatten(1).any(1).float().mean() > 0.3
    assert torch.equal(IMAGES.float() / 255, original)  # inputs are left alone


def test_another_process_with_more_threads_makes_the_same_bytes() -> None:
    program = (
        "import sys, hashlib, torch; torch.set_num_threads(3); torch.manual_seed(9)\n"
        "from pydantic import TypeAdapter\n"
        "from dlzoo.zoo.data.augmentation.pipeline import Augmentation, Pipeline\n"
        "names = sys.argv[1:]\n"
        "made = [TypeAdapter(Augmentation).validate_python({'name': n}) for n in names]\n"
        "augment = Pipeline(made, num_classes=10, num_channels=3, seed=7)\n"
        "x = torch.arange(64 * 3 * 32 * 32).remainder(251).reshape(64, 3, 32, 32) / 250\n"
        "x, y = augment(x, torch.arange(64) % 10, 5, range(64))\n"
        "print(hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest())\n"
        "assert 'kornia' not in sys.modules"
    )
    names = [*PER_SAMPLE, *MIXING]
    done = subprocess.run(
        [sys.executable, "-c", program, *names], check=True, capture_output=True, text=True
    )
    import hashlib

    x = torch.arange(64 * 3 * 32 * 32).remainder(251).reshape(64, 3, 32, 32) / 250
    x, y = pipeline(*names, seed=7)(x, torch.arange(64) % 10, 5, range(64))
    assert done.stdout.strip() == hashlib.sha256(bits(x) + bits(y)).hexdigest()


def test_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    augmented(pipeline(*PER_SAMPLE, *MIXING), list(range(20)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_kind_twice_draws_twice() -> None:
    indices = list(range(NUM_IMAGES))
    once = pipeline("random-crop")
    twice, _ = augmented(pipeline("random-crop", "random-crop"), indices)
    index = torch.tensor(indices)
    first, _ = augmented(once, indices)
    repeated, _ = once(first, index % 10, 0, indices)
    assert not torch.equal(twice, repeated)


def test_what_stands_before_does_not_change_the_draws() -> None:
    index = list(range(8))
    x = torch.full((8, 3, 13, 16), 0.5)
    y = torch.zeros(8, dtype=torch.int64)
    alone, _ = pipeline("cutout")(x, y, 0, index)
    after_flip, _ = pipeline("horizontal-flip", "cutout")(x, y, 0, index)
    assert torch.equal(alone, after_flip)


def test_several_labels_are_mixed_as_they_are() -> None:
    labels = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    augment = Pipeline(
        [ADAPTER.validate_python({"name": "mixup"})], num_classes=3, num_channels=1, seed=0
    )
    _, y = augment(torch.zeros(3, 1, 2, 2), labels, 0, [0, 1, 2])
    draws = SampleDraws(0, 0, [0, 1, 2]).scoped("mixup#1")
    share = draws.beta("share", 0.2, 0.2)[:, None]
    partner = draws.partners("partner", 1)[:, 0]
    assert torch.equal(y, labels * share + labels[partner] * (1 - share))
    assert not torch.equal(y, labels)


def test_a_window_replaces_the_first_crop() -> None:
    augment = pipeline("random-resized-crop", "rotation")
    indices = [4, 8]
    window = augment.window(2, indices)
    assert window is not None
    assert window(1, 100, 90) == augment.window(2, [8])(0, 100, 90)
    assert pipeline("rotation", "random-resized-crop").window(2, indices) is None
    x = IMAGES[:2].float() / 255
    y = torch.tensor([0, 1])
    rest, _ = augment(x, y, 2, indices, is_windowed=True)
    assert torch.equal(rest, pipeline("rotation")(x, y, 2, indices)[0])
    assert not torch.equal(rest, augment(x, y, 2, indices)[0])


def test_is_mixing() -> None:
    assert not pipeline(*PER_SAMPLE).is_mixing
    assert all(pipeline("rotation", name).is_mixing for name in MIXING)


def test_hue_of_grey_images_is_refused() -> None:
    message = (
        "Augmentation 'hue-saturation' needs 3 channels (RGB), but the images have 1. Omit it"
    )
    with pytest.raises(ArgumentError, match=re.escape(message)):
        Pipeline(
            [ADAPTER.validate_python({"name": "hue-saturation"})],
            num_classes=2,
            num_channels=1,
            seed=0,
        )


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValidationError, match="horizontal-flip"):
        ADAPTER.validate_python({"name": "horizontal_flip"})


@pytest.mark.parametrize("name", [*PER_SAMPLE, *MIXING])
def test_settings_survive_their_own_text(name: str) -> None:
    made = ADAPTER.validate_python({"name": name})
    assert ADAPTER.validate_python(made.resolved()) == made
    assert type(made).__doc__


def test_survives_pickling() -> None:  # as workers that are spawned get it
    augment = pipeline(*PER_SAMPLE, *MIXING, seed=3)
    copied = pickle.loads(pickle.dumps(augment))
    indices = list(range(12))
    assert bits(augmented(copied, indices)[0]) == bits(augmented(augment, indices)[0])
