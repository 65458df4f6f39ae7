"""Mosaics: four images, labels by area."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats

from dlzoo.zoo.data.augmentation.mosaic import Mosaic
from dlzoo.zoo.data.sample_draws import SampleDraws

COUNT = 60


def draws(count: int = COUNT) -> SampleDraws:
    return SampleDraws(2, 9, range(count))


def constant_batch(*size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each image has one value of its own, so that a pixel tells where it is from."""
    values = (torch.arange(COUNT) + 1) / 64  # exact, and so is their bilinear mean
    return values[:, None, None, None].expand(-1, 3, *size).clone(), torch.eye(COUNT)


@pytest.mark.parametrize("size", [(28, 28), (20, 33), (4, 5)])
def test_four_fields_and_labels_by_exact_area(size: tuple[int, int]) -> None:
    x, y = constant_batch(*size)
    out, target = Mosaic(probability=1).apply(x, y, draws())
    places = [0] * 4
    for k in range(COUNT):
        source = (out[k, 0] * 64).round().long() - 1
        classes, counts = source.unique(return_counts=True)
        assert len(classes) == 4 and k in classes
        expected = torch.zeros(COUNT, dtype=torch.float64)
        expected[classes] = counts.double() / source.numel()
        assert torch.equal(target[k], expected.float())
        # Each field is a rectangle in its corner.
        corners = [source[0, 0], source[0, -1], source[-1, 0], source[-1, -1]]
        assert sorted(corners) == sorted(classes)
        height, width = (
            int((source[:, 0] == corners[0]).sum()),
            int((source[0] == corners[0]).sum()),
        )
        assert (source[:height, :width] == corners[0]).all()
        assert (source[:height, width:] == corners[1]).all()
        assert (source[height:, :width] == corners[2]).all()
        assert (source[height:, width:] == corners[3]).all()
        assert 0.3 * size[0] - 0.5 <= height <= 0.7 * size[0] + 0.5
        places[corners.index(k)] += 1
    assert (target.sum(1) - 1).abs().max() < 3e-7
    # The sample itself comes to lie in every corner.
    assert min(places) >= 5


def test_fields_show_parts_of_their_images() -> None:
    # Values are positions: a row and a column ramp tell what is shown where.
    height, width = 24, 32
    row, column = torch.meshgrid(
        torch.arange(height) / 64, torch.arange(width) / 64, indexing="ij"
    )
    number = torch.arange(COUNT)[:, None, None].expand(-1, height, width) / 64
    x = torch.stack([row.expand_as(number), column.expand_as(number), number], dim=1)
    out, _ = Mosaic(probability=1, scale=(0.5, 0.9)).apply(x, torch.eye(COUNT), draws())
    rows, columns, source = out[:, 0] * 64, out[:, 1] * 64, (out[:, 2] * 64).round().long()
    scales = []
    for k in range(COUNT):
        for one in source[k].unique():
            i, j = (source[k] == one).nonzero().T
            shown = (rows[k, i, j], columns[k, i, j])
            h, w = int(i.max() - i.min()) + 1, int(j.max() - j.min()) + 1
            first = [part.reshape(h, w) for part in shown]
            # Away from the edges, where positions are held back, one step is 1 / scale along
            # both axes.
            steps = (first[0][2:-2].diff(dim=0), first[1][:, 2:-2].diff(dim=1))
            step = torch.cat([part.flatten() for part in steps])
            assert step.max() - step.min() < 1e-3
            assert 1 <= step.mean() <= 2 + 1e-3
            scales.append(1 / step.mean().item())
    # A field of up to 0.7 of the height asks for at least that scale; others are drawn.
    assert np.min(scales) < 0.55 and np.max(scales) > 0.85


def test_fields_are_never_larger_than_the_images() -> None:
    # At scale 0.1 the field decides: the longer of its sides shows the whole of its image.
    x = (torch.arange(30.0) / 64).expand(COUNT, 1, 30, 30)
    out, _ = Mosaic(probability=1, scale=(0.1, 0.1), middle=(0.5, 0.5)).apply(
        x, torch.eye(COUNT), draws()
    )
    # Half the size: pixel j shows position 2 j + 1/2.
    expected = (2 * torch.arange(15.0) + 0.5) / 64
    assert (out[:, 0, :, :15] - expected).abs().max() < 1e-5
    assert (out[:, 0, :, 15:] - expected).abs().max() < 1e-5


def test_every_part_of_an_image_is_as_likely() -> None:
    # At scale 1 a field of half the size shows the image from anywhere up to its middle.
    x = (torch.arange(32.0) / 64).expand(COUNT, 1, 32, 32)
    whole = Mosaic(probability=1, scale=(1, 1), middle=(0.5, 0.5))
    for image in (x, x.transpose(2, 3)):
        out, _ = whole.apply(image, torch.eye(COUNT), draws())
        first = out[:, 0, ::16, ::16].flatten() * 64
        assert stats.kstest(first.double().numpy(), stats.uniform(0, 16).cdf).pvalue > 1e-4


@pytest.mark.parametrize("count", [1, 2, 3])
def test_small_batches_repeat_images(count: int) -> None:
    x = torch.full((count, 1, 8, 8), 0.5)
    out, target = Mosaic(probability=1).apply(x, torch.eye(count), draws(count))
    assert (out - x).abs().max() < 2e-7  # the four weights of a pixel are rounded
    assert (target.sum(1) - 1).abs().max() < 3e-7


def test_more_than_the_whole_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"1\.5 is more than 1"):
        Mosaic(scale=(0.5, 1.5))
