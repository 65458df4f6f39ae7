"""One step: its gradient is that of the mean loss over the batch, however it is computed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlzoo.errors import TrainingError
from dlzoo.zoo.data.batches import Batch
from dlzoo.zoo.layers.head import LogitsWithAuxiliary
from dlzoo.zoo.models.googlenet import googlenet
from dlzoo.zoo.train.loop.optimizer_step import OptimizerStep, StepResult
from dlzoo.zoo.train.loop.processes import make_fabric
from dlzoo.zoo.train.loop.trainer import loss_of_network
from dlzoo.zoo.train.losses.cross_entropy import BinaryCrossEntropy, CrossEntropy
from dlzoo.zoo.train.losses.penalties import L2Penalty
from dlzoo.zoo.train.recipes.recipe import LoopSettings, ModelSettings, Recipe


def network_of_doubles() -> nn.Sequential:
    torch.manual_seed(0)
    parts = (nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5))
    return nn.Sequential(*parts).double()


def batch_of(num_images: int, *, size: int = 6, channels: int = 2) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    images = torch.randn(num_images, channels, size, size, dtype=torch.float64)
    return images, torch.arange(num_images) % 5


def parts_of(images: Tensor, targets: Tensor, num_parts: int) -> list[Batch]:
    """As a stream divides a batch: every num_parts-th image."""
    return [
        Batch(
            images=images[k::num_parts],
            targets=targets[k::num_parts],
            indices=torch.arange(len(images))[k::num_parts],
            number=0,
            part=k,
            num_parts=num_parts,
            num_global=len(images),
        )
        for k in range(num_parts)
    ]


def stepped(
    network: nn.Module,
    parts: list[Batch],
    *,
    loss: Callable[..., Tensor] = CrossEntropy(),  # noqa: B008
    lr: float = 0.5,
    **options: Any,
) -> tuple[StepResult, nn.Module]:
    """Take a step with plain gradient descent; the network is changed."""
    fabric = make_fabric(device="cpu", precision="32-true")
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    wrapped, optimizer = fabric.setup(network.train(), optimizer)
    settings = {"penalties": (), "clip_norm": None, "is_channels_last": False, **options}
    step = OptimizerStep(fabric, wrapped, optimizer, loss=loss, **settings)
    return step.run(parts, where="Step 1"), network


@pytest.mark.parametrize("loss", [CrossEntropy(label_smoothing=0.1), BinaryCrossEntropy()])
@pytest.mark.parametrize("num_parts", [2, 3, 13, 20])
def test_parts_are_the_whole(loss: Callable[..., Tensor], num_parts: int) -> None:
    images, targets = batch_of(13)
    options: dict[str, Any] = {
        "loss": loss,
        "penalties": (L2Penalty(strength=0.1),),
        "clip_norm": 0.05,
    }
    whole, expected = stepped(network_of_doubles(), parts_of(images, targets, 1), **options)
    parts, got = stepped(network_of_doubles(), parts_of(images, targets, num_parts), **options)
    for a, b in zip(got.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-15)
    assert parts.num_images == whole.num_images == 13
    assert parts.num_correct == whole.num_correct
    assert parts.loss_sum == pytest.approx(whole.loss_sum, rel=1e-13)
    assert parts.gradient_norm == pytest.approx(whole.gradient_norm, rel=1e-13)


def test_a_step_is_the_formula() -> None:
    """W - lr * (d/dw of the mean loss + strength * w), scaled to the norm asked for."""
    images, targets = batch_of(8)
    before = network_of_doubles()
    result, after = stepped(
        copy.deepcopy(before),
        parts_of(images, targets, 2),
        penalties=(L2Penalty(strength=0.3),),
        clip_norm=0.5,
    )
    loss = nn.functional.cross_entropy(before(images), targets)
    weights = [p for p in before.parameters() if p.dim() > 1]
    total = loss + 0.15 * sum((w.square().sum() for w in weights), torch.zeros(()))
    gradients = torch.autograd.grad(total, list(before.parameters()))
    norm = float(torch.stack([g.square().sum() for g in gradients]).sum().sqrt())
    assert result.gradient_norm == pytest.approx(norm, rel=1e-12)
    assert norm > 0.5
    assert result.loss_sum == pytest.approx(8 * float(loss.detach()), rel=1e-12)
    for new, old, gradient in zip(
        after.parameters(), before.parameters(), gradients, strict=True
    ):
        expected = old - 0.5 * gradient * (0.5 / (norm + 1e-6))
        torch.testing.assert_close(new, expected, rtol=0, atol=1e-14)


def test_auxiliary_heads_get_their_loss() -> None:
    """GoogLeNet in training: the logits' loss, and 0.3 times that of each of two heads."""
    torch.manual_seed(0)
    network = googlenet(num_classes=5, aux_logits=True)
    recipe = Recipe(model=ModelSettings(name="googlenet"), loop=LoopSettings())
    images, targets = torch.randn(2, 3, 64, 64), torch.tensor([1, 4])
    outputs = network.train()(images)
    assert isinstance(outputs, LogitsWithAuxiliary)
    assert len(outputs.auxiliary) == 2
    entropy = nn.functional.cross_entropy
    expected = entropy(outputs.logits, targets) + 0.3 * (
        entropy(outputs.auxiliary[0], targets) + entropy(outputs.auxiliary[1], targets)
    )
    torch.testing.assert_close(loss_of_network(recipe, outputs, targets), expected)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    parts = parts_of(images, targets, 1)
    result, _ = stepped(network, parts, loss=partial(loss_of_network, recipe), lr=1e-3)
    assert result.num_images == 2
    moved = {n for n, v in network.named_parameters() if not torch.equal(v, before[n])}
    heads = {name for name, _ in network.named_parameters() if "aux" in name}
    assert heads and heads <= moved


# -- numbers that are none -------------------------------------------------------------------------


def test_nan_among_the_images_is_told() -> None:
    images, targets = batch_of(4)
    images[2, 0, 3, 3] = torch.nan
    network = network_of_doubles()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(TrainingError, match=r"^Step 1: the loss is nan.*the images have NaN"):
        stepped(network, parts_of(images, targets, 1))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_bad_weight_is_named() -> None:
    network = network_of_doubles()
    with torch.no_grad():
        network[3].bias[0] = torch.inf
    with pytest.raises(TrainingError, match=r"the weights 3\.bias are NaN or Inf since"):
        stepped(network, parts_of(*batch_of(4), 1))


class Draws(nn.Module):
    """Divides by zero where its own draw says so: only the same draw shows it again."""

    def forward(self, x: Tensor) -> Tensor:
        return x / (torch.rand(()) < 0.5)


def test_the_first_bad_layer_is_found_with_the_same_draws() -> None:
    found = 0
    for seed in range(8):
        network = nn.Sequential(nn.Identity(), Draws(), *network_of_doubles())
        parts = parts_of(*batch_of(4), 1)
        torch.manual_seed(seed)
        try:
            stepped(network, parts)
        except TrainingError as error:
            assert "the first layer with NaN or Inf is 1 (Draws)" in str(error)
            found += 1
    assert 0 < found < 8


def test_a_loss_of_its_own_making() -> None:
    def lossy(outputs: Tensor, _targets: Tensor) -> Tensor:
        return outputs.sum() * torch.inf

    with pytest.raises(TrainingError, match="so only the loss itself is not"):
        stepped(network_of_doubles(), parts_of(*batch_of(4), 1), loss=lossy)


# -- memory ----------------------------------------------------------------------------------------


class Hungry(nn.Module):
    """Asks the allocator for more than there is where it gets more than a few images."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            torch.empty(2**60, dtype=torch.uint8)
        return x


@pytest.mark.parametrize(
    ("num_images", "num_parts", "most", "advice"),
    [
        # A quarter more must fit, too: 8 where 10 do, 4 where 9 do.
        (32, 1, 11, "32 images at once. 8 fit. Set `loop.batch_size` to 8,"),
        (32, 1, 9, "32 images at once. 4 fit. Set `loop.batch_size` to 4,"),
        (32, 1, 11, "`loop.micro_batches` to 4."),
        (32, 2, 11, "16 images at once. 8 fit. Set `loop.batch_size` to 8,"),
        (32, 2, 11, "`loop.micro_batches` to 4."),
        (32, 1, 0, "Not even one image fits"),
    ],
)
def test_the_batch_that_fits_is_named(
    num_images: int, num_parts: int, most: int, advice: str
) -> None:
    network = nn.Sequential(Hungry(most), *network_of_doubles())
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(TrainingError, match=r"^Step 1: memory is too small") as caught:
        stepped(network, parts_of(*batch_of(num_images), num_parts))
    assert advice in str(caught.value)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_an_error_of_the_network_is_raised_as_it_is() -> None:
    images, targets = batch_of(4, channels=3)
    with pytest.raises(RuntimeError, match="expected input"):
        stepped(network_of_doubles(), parts_of(images, targets, 1))
