"""The order of a run, however many processes, parts and workers read it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dlzoo.errors import ArgumentError, DataError
from dlzoo.image_file import Geometry
from dlzoo.zoo.data.array_dataset import ArrayDataset
from dlzoo.zoo.data.batches import Batch, BatchStream
from dlzoo.zoo.data.dataset import Window
from tests.support.data_files import noise

SMALL = Geometry(color="L", resize_size=3, crop_size=(4, 3))


def data_of(count: int) -> ArrayDataset:
    return ArrayDataset(
        noise(count, 3, 3, 1),
        torch.arange(count) % 5,
        name="noise",
        split="train",
        class_names="abcde",
        geometry=SMALL,
        facts={},
    )


def stream_of(count: int, **options: Any) -> BatchStream:
    defaults = {"batch_size": 4, "seed": 0, "shuffle": True, "drop_last": False}
    return BatchStream(data_of(count), **(defaults | options))


def indices_of(batches: Iterable[Batch]) -> list[list[int]]:
    return [batch.indices.tolist() for batch in batches]


def content_of(batches: Iterable[Batch]) -> list[tuple[bytes, list[Any], list[int], int, int]]:
    return [
        (b.images.numpy().tobytes(), b.targets.tolist(), b.indices.tolist(), b.number, b.part)
        for b in batches
    ]


def brighten(x: Tensor, y: Tensor, epoch: int, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Depends on the sample and the epoch."""
    return x * (indices + epoch + 1).view(-1, 1, 1, 1), y


class Swap:
    """Mixes each image with its neighbour in the batch."""

    is_mixing = True

    def __call__(
        self, x: Tensor, y: Tensor, epoch: int, indices: Tensor
    ) -> tuple[Tensor, Tensor]:
        soft = torch.nn.functional.one_hot(y, 5).float()
        return (x + x.roll(1, 0)) / 2, (soft + soft.roll(1, 0)) / 2


class CropTop:
    """Reads the first row or two of each image."""

    seen: bool | None = None

    def window(self, epoch: int, indices: Tensor) -> Window | None:
        return (lambda k, height, width: (0, 0, 1 + k % 2, width)) if epoch else None

    def __call__(
        self, x: Tensor, y: Tensor, epoch: int, indices: Tensor, *, is_windowed: bool = False
    ) -> tuple[Tensor, Tensor]:
        self.seen = is_windowed
        return x, y


def halve(x: Tensor) -> Tensor:
    return (x - 0.5) / 0.5


sizes = st.fixed_dictionaries(
    {
        "count": st.integers(1, 40),
        "batch_size": st.integers(1, 50),
        "seed": st.integers(0, 2**33),
        "drop_last": st.booleans(),
        "shuffle": st.booleans(),
    }
)


@settings(max_examples=60, deadline=None)
@given(sizes=sizes, epoch=st.integers(0, 3))
def test_every_image_once_an_epoch(sizes: dict[str, Any], epoch: int) -> None:
    stream = stream_of(**sizes)
    batches = indices_of(stream.epoch(epoch))
    assert len(batches) == stream.num_batches > 0
    seen = [index for batch in batches for index in batch]
    if sizes["drop_last"]:
        size = min(sizes["batch_size"], sizes["count"])
        assert {len(batch) for batch in batches} == {size}
        assert len(seen) == sizes["count"] // size * size
        assert len(set(seen)) == len(seen)
    else:
        assert sorted(seen) == list(range(sizes["count"]))
    if not sizes["shuffle"]:
        assert seen == list(range(len(seen)))


@settings(max_examples=60, deadline=None)
@given(
    sizes=sizes,
    epoch=st.integers(0, 3),
    world_size=st.integers(1, 4),
    micro_batches=st.integers(1, 3),
)
def test_ranks_and_parts_together_are_one_process(
    sizes: dict[str, Any], epoch: int, world_size: int, micro_batches: int
) -> None:
    whole = list(stream_of(**sizes, augment=brighten).epoch(epoch))
    ranks = [
        list(
            stream_of(
                **sizes,
                augment=brighten,
                rank=rank,
                world_size=world_size,
                micro_batches=micro_batches,
            ).epoch(epoch)
        )
        for rank in range(world_size)
    ]
    assert {len(parts) for parts in ranks} == {len(whole) * micro_batches}
    for batch in whole:
        assert batch.num_global == len(batch)
        mine = [b for parts in ranks for b in parts if b.number == batch.number]
        assert sum(len(b) for b in mine) == batch.num_global == mine[0].num_global
        images = torch.empty_like(batch.images)
        for rank, parts in enumerate(ranks):
            for b in parts:
                if b.number == batch.number:
                    place = slice(rank + world_size * b.part, None, world_size * micro_batches)
                    images[place] = b.images
                    assert torch.equal(b.indices, batch.indices[place])
                    assert torch.equal(b.targets, batch.targets[place])
                    assert b.is_last_part == (b.part == micro_batches - 1)
        assert torch.equal(images, batch.images)


@settings(max_examples=40, deadline=None)
@given(sizes=sizes, epoch=st.integers(0, 3), data=st.data())
def test_a_start_is_the_tail_of_the_epoch(
    sizes: dict[str, Any], epoch: int, data: st.DataObject
) -> None:
    stream = stream_of(**sizes, augment=brighten)
    start = data.draw(st.integers(0, stream.num_batches))
    assert content_of(stream.epoch(epoch, start)) == content_of(stream.epoch(epoch))[start:]


def test_order_depends_on_seed_and_epoch() -> None:
    first = indices_of(stream_of(20).epoch(0))
    assert indices_of(stream_of(20).epoch(0)) == first
    assert indices_of(stream_of(20).epoch(1)) != first
    assert indices_of(stream_of(20, seed=1).epoch(0)) != first
    # The same on every machine, with every NumPy.
    assert first[0] == [12, 6, 11, 10]


def test_full_batch_and_single_samples() -> None:
    for batch_size in (7, 8, 10**9):
        (batch,) = stream_of(7, batch_size=batch_size, drop_last=True).epoch(0)
        assert sorted(batch.indices.tolist()) == list(range(7))
    singles = list(stream_of(7, batch_size=1).epoch(0))
    assert [len(batch) for batch in singles] == [1] * 7


def test_floats_are_those_of_serving() -> None:
    stream = stream_of(9, shuffle=False, normalize=halve, batch_size=9)
    (batch,) = stream.epoch(0)
    pixels = stream.dataset.read(range(9)).numpy()
    expected = (pixels.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(
        0.5
    )
    np.testing.assert_array_equal(batch.images.numpy(), expected, strict=True)


def test_mixing_sees_global_batches_whole() -> None:
    (whole,) = stream_of(9, batch_size=9, augment=Swap()).epoch(0)
    assert whole.targets.dtype == torch.float32
    for rank in range(2):
        share = stream_of(9, batch_size=9, augment=Swap(), rank=rank, world_size=2)
        (batch,) = share.epoch(0)
        assert torch.equal(batch.images, whole.images[rank::2])
        assert torch.equal(batch.targets, whole.targets[rank::2])


def test_originals_are_cropped_where_the_augmentation_says() -> None:
    augment = CropTop()
    stream = stream_of(4, shuffle=False, augment=augment)
    (plain,), (cropped,) = list(stream.epoch(0)), list(stream.epoch(1))
    assert augment.seen is True
    assert not torch.equal(cropped.images, plain.images)
    list(stream.epoch(0))
    assert augment.seen is False


def test_ranks_without_an_image_get_empty_batches() -> None:
    (batch,) = stream_of(1, rank=1, world_size=2, augment=Swap(), normalize=halve).epoch(0)
    assert len(batch) == 0
    assert batch.num_global == 1
    assert batch.images.shape == (0, 1, 4, 3)


def test_waiting_is_counted() -> None:
    stream = stream_of(20)
    assert stream.seconds_waiting == 0
    list(stream.epoch(0))
    assert stream.seconds_waiting > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "`batch_size` got 0, expected 1 or more."),
        ({"seed": -1}, "`seed` got -1, expected 0 or more."),
        ({"micro_batches": 0}, "`micro_batches` got 0, expected 1 or more."),
        ({"num_workers": -1}, "`num_workers` got -1, expected 0 or more."),
        ({"rank": 2, "world_size": 2}, "`rank` got 2, expected 0 to 1."),
    ],
)
def test_numbers_out_of_range(options: dict[str, int], message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        stream_of(9, **options)
    assert str(caught.value) == message


def test_start_out_of_range_and_no_images() -> None:
    with pytest.raises(
        ArgumentError, match=r"^`start` got 4, expected at most the epoch's 3 batch"
    ):
        stream_of(9).epoch(0, start=4)
    with pytest.raises(DataError, match=r"^The train split of noise has no images\.$"):
        stream_of(0)
