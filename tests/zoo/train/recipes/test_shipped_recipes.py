"""The recipes that ship with dlzoo: each is found, fits its network and reads back."""

from __future__ import annotations

import pytest
import torch

from dlzoo.errors import RecipeError
from dlzoo.zoo.data.augmentation.pipeline import Pipeline
from dlzoo.zoo.sources.architecture import build_architecture, card_of
from dlzoo.zoo.train.optimize.schedules import MultiStep
from dlzoo.zoo.train.recipes.recipe_file import (
    find_recipe,
    list_recipes,
    read_recipe_text,
    recipe_from_toml,
    recipe_to_toml,
)
from dlzoo.zoo.train.recipes.resolution import geometry_of, resolve_recipe
from tests.support.recipe_texts import shipped

NUM_CLASSES = {
    "digits": 10,
    "mnist": 10,
    "fashion-mnist": 10,
    "cifar-10": 10,
    "imagenet": 1000,
}
CHANNELS = {"digits": 1, "mnist": 1, "fashion-mnist": 1, "cifar-10": 3, "imagenet": 3}

every_recipe = pytest.mark.parametrize("name", list_recipes())


def test_every_classic_has_recipes() -> None:
    small = {
        *("lenet5-mnist", "lenet5-fashion-mnist", "lenet5_relu-mnist"),
        *("lenet5_relu-fashion-mnist", "lenet5_relu-digits", "alexnet-cifar-10"),
        *("vgg11_bn-fashion-mnist", "vgg16_bn-cifar-10", "googlenet-cifar-10"),
        *("resnet20-fashion-mnist", "resnet20-cifar-10", "cspdarknet53-cifar-10"),
        "convnext_tiny-cifar-10",
    }
    imagenet = {
        f"{model}-imagenet"
        for model in (
            *("alexnet_2012", "alexnet", "vgg16", "googlenet_2014", "resnet50"),
            *("cspdarknet53", "convnext_tiny"),
        )
    }
    assert small | imagenet <= set(list_recipes())


@every_recipe
def test_a_recipe_is_found_by_what_it_trains(name: str) -> None:
    recipe = shipped(name)
    assert name == f"{recipe.model.name}-{recipe.data.name}"
    assert find_recipe(recipe.model.name, recipe.data.name) == name
    assert recipe.title
    assert any(str(year) in recipe.source for year in range(1990, 2030)), "which paper?"


@every_recipe
def test_a_recipes_network_takes_its_images(name: str) -> None:
    recipe = resolve_recipe(shipped(name))
    data = recipe.data
    geometry = geometry_of(recipe)
    channels = len(geometry.mean)
    # Files of colours become grey where the network wants it, but nothing makes colours of grey.
    assert channels <= CHANNELS[data.name]
    Pipeline(recipe.augmentation, num_classes=2, num_channels=channels, seed=0)
    classes = NUM_CLASSES[data.name]
    with torch.device("meta"):
        network = build_architecture(
            recipe.model.name,
            num_classes=classes,
            input_shape=(channels, *geometry.crop_size),
            arguments=recipe.model.arguments,
            seed=0,
        ).network.eval()
        logits_NK = network(torch.empty(2, channels, *geometry.crop_size))
    assert logits_NK.shape == (2, classes)
    card = card_of(recipe.model.name)
    assert card is not None
    if data.name == "imagenet":
        assert (channels, *geometry.crop_size) == card.input_shape, "as published"


@every_recipe
def test_a_recipes_numbers_belong_together(name: str) -> None:
    recipe = shipped(name)
    loop, schedule = recipe.loop, recipe.schedule
    assert loop.batch_size % loop.micro_batches == 0
    assert schedule.warmup_epochs < loop.epochs / 4
    if isinstance(schedule, MultiStep):
        assert schedule.milestones[-1] < loop.epochs


@every_recipe
def test_a_resolved_recipe_reads_back_as_itself(name: str) -> None:
    recipe = resolve_recipe(shipped(name))
    text = recipe_to_toml(recipe)
    assert recipe_from_toml(text, "written") == recipe
    assert resolve_recipe(recipe) == recipe


def test_no_recipe_for_what_has_none() -> None:
    assert find_recipe("lenet5_relu", "cifar-10") is None
    with pytest.raises(RecipeError) as caught:
        read_recipe_text("lenet5-minst")
    assert str(caught.value).startswith(
        "`recipe` got 'lenet5-minst', expected a .toml file or one of: alexnet-cifar-10, "
    )
