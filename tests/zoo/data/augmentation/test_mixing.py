"""MixUp and CutMix: images and labels are mixed by the same numbers."""

import re

import numpy as np
import pytest
import torch
from scipy import stats

from dlzoo.errors import ArgumentError
from dlzoo.zoo.data.augmentation.mixing import CutMix, MixUp
from dlzoo.zoo.data.sample_draws import SampleDraws


def draws(count: int) -> SampleDraws:
    return SampleDraws(0, 0, range(100, 100 + count))


def batch(count: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and as many classes as samples, one each: targets tell who is in a mixture."""
    x = torch.from_numpy(np.random.default_rng(0).random((count, *shape), dtype=np.float32))
    return x, torch.eye(count)


def test_mixup_blends_images_and_labels_by_the_same_share() -> None:
    x, y = batch(40, 3, 8, 8)
    out, target = MixUp(alpha=1.0).apply(x, y, draws(40))
    for k in range(40):
        partner = int(target[k].index_fill(0, torch.tensor(k), -1).argmax())
        share = target[k, k].double()
        assert target[k, partner].double() == pytest.approx(1 - share.item(), abs=1e-7, rel=0)
        expected = share * x[k].double() + (1 - share) * x[partner].double()
        assert (out[k] - expected).abs().max() < 2e-7
    assert (target.sum(1) - 1).abs().max() < 2e-7
    assert ((target > 0).sum(1) == 2).all()


@pytest.mark.parametrize("alpha", [0.4, 1.0, 3.0])
def test_shares_are_beta_distributed(alpha: float) -> None:
    # Each image is its own number: the mixture tells the share.
    number = torch.arange(4000).double()
    partner = draws(4000).partners("partner", 1)[:, 0]
    out, _ = MixUp(alpha=alpha).apply(
        number[:, None, None, None], torch.zeros(4000, 2), draws(4000)
    )
    mixed = (out[:, 0, 0, 0] - partner) / (number - partner)
    law = stats.beta(alpha, alpha)
    assert stats.kstest(mixed.clamp(0, 1).numpy(), law.cdf).pvalue > 1e-4


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 16, 33)])
def test_cutmix_labels_are_the_exact_areas(shape: tuple[int, ...]) -> None:
    x, y = batch(200, *shape)
    out, target = CutMix(probability=1).apply(x, y, draws(200))
    height, width = shape[1:]
    num_clipped = 0
    for k in range(200):
        is_own = (out[k] == x[k]).all(0)
        num_pasted = int((~is_own).sum())
        assert target[k, k] == 1 - np.float32(num_pasted / (height * width))
        if num_pasted == 0:
            continue
        partner = int(target[k].index_fill(0, torch.tensor(k), -1).argmax())
        assert target[k, partner] == np.float32(num_pasted / (height * width))
        assert torch.equal(out[k][:, ~is_own], x[partner][:, ~is_own])
        # One rectangle, of the size that the share asks for, but where the edge cuts it off.
        rows, columns = (~is_own).nonzero().T
        top, bottom = int(rows.min()), int(rows.max()) + 1
        left, right = int(columns.min()), int(columns.max()) + 1
        assert (bottom - top) * (right - left) == num_pasted
        side = np.sqrt(1 - draws(200).beta("share", 1.0, 1.0)[k].double().item())
        full_height, full_width = int(height * side), int(width * side)
        if top > 0 and bottom < height:
            assert bottom - top == full_height
        if left > 0 and right < width:
            assert right - left == full_width
        assert bottom - top <= full_height and right - left <= full_width
        num_clipped += num_pasted < full_height * full_width
    assert (target.sum(1) - 1).abs().max() < 2e-7
    assert num_clipped > 50


@pytest.mark.parametrize("kind", [MixUp, CutMix])
def test_probability_leaves_the_others_alone(kind: type) -> None:
    x, y = batch(300, 1, 6, 6)
    mixed_x, mixed_y = kind(probability=1).apply(x, y, draws(300))
    out, target = kind(probability=0.5).apply(x, y, draws(300))
    is_mixed = draws(300).bernoulli("apply", 0.5)
    assert 100 < is_mixed.sum() < 200
    assert torch.equal(out, torch.where(is_mixed[:, None, None, None], mixed_x, x))
    assert torch.equal(target, torch.where(is_mixed[:, None], mixed_y, y))


@pytest.mark.parametrize("kind", [MixUp, CutMix])
def test_a_batch_of_one_is_its_own_partner(kind: type) -> None:
    x, y = batch(1, 1, 6, 6)
    out, target = kind(probability=1).apply(x, y, draws(1))
    assert (out - x).abs().max() < 2e-7 and (target - y).abs().max() < 2e-7


def test_class_numbers_are_refused() -> None:
    x, _ = batch(4, 1, 2, 2)
    message = "`y` got int64 [4], expected float32 [N, K]. Make them one-hot"
    with pytest.raises(ArgumentError, match=re.escape(message)):
        MixUp().apply(x, torch.arange(4), draws(4))
