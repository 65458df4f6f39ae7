"""The recipes that ship with dlzoo, and what is said about one that is wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dlzoo.errors import RecipeError
from dlzoo.export.sources.architecture import build_architecture, card_of
from dlzoo.zoo.data.augmentation.pipeline import Pipeline
from dlzoo.zoo.train.optimizers import SGD
from dlzoo.zoo.train.recipe import Recipe
from dlzoo.zoo.train.recipe_file import (
    find_recipe,
    list_recipes,
    parse_change,
    read_recipe_text,
    recipe_from_toml,
    recipe_to_toml,
)
from dlzoo.zoo.train.resolution import geometry_of, resolve_recipe
from dlzoo.zoo.train.schedules import MultiStep

NUM_CLASSES = {
    "digits": 10,
    "mnist": 10,
    "fashion-mnist": 10,
    "cifar-10": 10,
    "imagenet": 1000,
}
CHANNELS = {"digits": 1, "mnist": 1, "fashion-mnist": 1, "cifar-10": 3, "imagenet": 3}

every_recipe = pytest.mark.parametrize("name", list_recipes())


def shipped(name: str, **changes: Any) -> Recipe:
    text, subject = read_recipe_text(name)
    return recipe_from_toml(text, subject, changes)


# -- what ships ------------------------------------------------------------------------------------


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
        "--recipe got 'lenet5-minst', expected a .toml file or one of: alexnet-cifar-10, "
    )


# -- changes from the command line -----------------------------------------------------------------


def test_an_image_folder_stands_for_imagenet() -> None:
    """Another place of the images changes nothing about how they are taken."""
    recipe = shipped("resnet50-imagenet", **{"data.name": "/data/ilsvrc2012"})
    as_shipped = shipped("resnet50-imagenet")
    assert recipe.data.name == "/data/ilsvrc2012"
    renamed = recipe.data.model_copy(update={"name": "imagenet"})
    assert recipe.model_copy(update={"data": renamed}) == as_shipped


def test_a_larger_sibling_takes_the_models_arguments() -> None:
    recipe = shipped("vgg11_bn-fashion-mnist", **{"model.name": "vgg13_bn"})
    assert recipe.model.name == "vgg13_bn"
    assert recipe.model.arguments == shipped("vgg11_bn-fashion-mnist").model.arguments


def test_another_kind_starts_from_its_own_numbers() -> None:
    """In whatever order the changes are given."""
    changes = {"optimizer.lr": 0.3, "optimizer.name": "sgd"}
    for given in (changes, dict(reversed(changes.items()))):
        recipe = shipped("lenet5-mnist", **given)
        assert recipe.optimizer == SGD(lr=0.3)


def test_the_same_kind_keeps_its_numbers() -> None:
    recipe = shipped("lenet5-mnist", **{"optimizer.name": "adamw"})
    assert recipe == shipped("lenet5-mnist")


def test_a_change_replaces_one_number() -> None:
    recipe = shipped("resnet20-cifar-10", **{"loop.clip_norm": 1.0})
    assert recipe.loop.clip_norm == 1
    loop = recipe.loop.model_copy(update={"clip_norm": None})
    assert recipe.model_copy(update={"loop": loop}) == shipped("resnet20-cifar-10")


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("loop.epochs=3", "loop.epochs", 3),
        ("data.image_size=[64, 48]", "data.image_size", [64, 48]),
        ('loss.name="focal"', "loss.name", "focal"),
        ("loss.name=focal", "loss.name", "focal"),
        ("data.name=a=b", "data.name", "a=b"),
        (" loop.drop_last = true", "loop.drop_last", True),
    ],
)
def test_a_change_is_toml_or_else_a_text(text: str, key: str, value: object) -> None:
    assert parse_change(text) == (key, value)


def test_a_change_without_a_value_is_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_change("loop.epochs")
    assert str(caught.value) == (
        "--set got 'loop.epochs', expected KEY=VALUE. Write for example --set loop.epochs=3."
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loop.epochs": 0},
            "The command line: loop.epochs: got 0, expected greater than or equal to 1.",
        ),
        (
            {"loop.epoch": 3, "loop.seed": -1},
            "The command line: loop.seed: got -1, expected greater than or equal to 0. "
            "(1 more mistake.)",
        ),
        (
            {"title.short": 1},
            "--set title.short: title is no table of the recipe. Name a key as it is written "
            "there.",
        ),
        (
            {"schedule.name": "multi-step"},
            "The command line: schedule.milestones: expected a value, got none. Write it.",
        ),
    ],
)
def test_a_wrong_change_is_the_command_lines(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from_toml(RECIPE, "r.toml", changes)
    assert str(caught.value) == message


# -- mistakes --------------------------------------------------------------------------------------

RECIPE = """\
title = "A try"

[model]
name = "vgg11_bn"

[model.arguments]
hidden_width = 64

[data]
name = "mnist"
image_size = [32, 32]

[[augmentation]]
name = "random-crop"
padding = 2

[[augmentation]] # the second
name = "cutout"
size = 8

[optimizer]
name = "adamw"
betas = [0.9, 0.99]

[loop]
epochs = 3
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        # Keys that there are not.
        (
            "epochs = 3",
            "epochs = 3\nepoch = 4",
            "line 27: loop.epoch: no such key. Take it out, or write one of epochs, batch_size,",
        ),
        ("title", "titel", "line 1: titel: no such key. Take it out, or write one of title,"),
        (
            "betas",
            "beta",
            "line 23: optimizer.beta: no such key. Take it out, or write one of lr, weight_decay,",
        ),
        (
            "size = 8",
            "side = 8",
            "line 19: augmentation.1.side: no such key. Take it out, or write one of name, "
            "probability, size, fill.",
        ),
        ("[loop]", "[lop]", "line 25: lop: no such key. Take it out, or write one of title,"),
        # Kinds that there are not.
        (
            '"cutout"',
            '"cut-out"',
            "line 18: augmentation.1.name: got 'cut-out', expected one of 'horizontal-flip',",
        ),
        ('"adamw"', '"adamv"', "line 22: optimizer.name: got 'adamv', expected one of 'sgd',"),
        (
            'name = "adamw"\n',
            "",
            "line 21: optimizer.name: expected one of 'sgd', 'adamw', 'adam',",
        ),
        # Values.
        (
            "epochs = 3",
            'epochs = "three"',
            "line 26: loop.epochs: got 'three', expected a whole number.",
        ),
        (
            "epochs = 3",
            "epochs = 3.5",
            "line 26: loop.epochs: got 3.5, expected a whole number.",
        ),
        (
            "size = 8",
            "size = 0",
            "line 19: augmentation.1.size: got 0, expected greater than or equal to 1.",
        ),
        (
            "0.99]",
            "1.5]",
            "line 23: optimizer.betas.1: got 1.5, expected less than 1.",
        ),
        (
            "size = 8",
            'fill = "grey"',
            "line 19: augmentation.1.fill: got 'grey', expected 'zeros' or 'noise'.",
        ),
        (
            "image_size = [32, 32]",
            "image_size = 32",
            "line 11: data.image_size: got 32, expected a list.",
        ),
        (
            "image_size",
            'resize_size = "yes"\nimage_size',
            "line 11: data.resize_size: got 'yes', expected a whole number or 'none'.",
        ),
        (
            "epochs = 3",
            "drop_last = 7",
            "line 26: loop.drop_last: got 7, expected true or false.",
        ),
        # TOML's types are not bent: what is written is what is meant.
        (
            "epochs = 3",
            'epochs = "3"',
            "line 26: loop.epochs: got '3', expected a whole number.",
        ),
        (
            "epochs = 3",
            "epochs = 3.0",
            "line 26: loop.epochs: got 3.0, expected a whole number.",
        ),
        (
            "epochs = 3",
            "epochs = true",
            "line 26: loop.epochs: got true, expected a whole number.",
        ),
        (
            "epochs = 3",
            'checkpoint_minutes = "5"',
            "line 26: loop.checkpoint_minutes: got '5', expected a number.",
        ),
        (
            "epochs = 3",
            "checkpoint_minutes = true",
            "line 26: loop.checkpoint_minutes: got true, expected a number.",
        ),
        (
            "epochs = 3",
            "checkpoint_minutes = inf",
            "line 26: loop.checkpoint_minutes: got inf, expected a finite number.",
        ),
        (
            "epochs = 3",
            "drop_last = 1",
            "line 26: loop.drop_last: got 1, expected true or false.",
        ),
        (
            "epochs = 3",
            'drop_last = "yes"',
            "line 26: loop.drop_last: got 'yes', expected true or false.",
        ),
        ("0.99]", '"0.99"]', "line 23: optimizer.betas.1: got '0.99', expected a number."),
        (
            "size = 8",
            'size = "8"',
            "line 19: augmentation.1.size: got '8', expected a whole number.",
        ),
        (
            "[32, 32]",
            '["32", 32]',
            "line 11: data.image_size.0: got '32', expected a whole number.",
        ),
        ('title = "A try"', "title = 3", "line 1: title: got 3, expected a text."),
        (
            'title = "A try"',
            "title = 2026-11-23",
            "line 1: title: got {'date': '2026-11-23'}, expected a text.",
        ),
        ('name = "vgg11_bn"', "", "line 3: model.name: expected a value, got none. Write it."),
        ('title = "A try"', "loss = 3", "line 1: loss: got 3, expected a table."),
    ],
)
def test_a_mistake_is_named_with_its_line_and_key(old: str, new: str, message: str) -> None:
    assert RECIPE.count(old) == 1
    text = RECIPE.replace(old, new)
    with pytest.raises(RecipeError) as caught:
        recipe_from_toml(text, "r.toml")
    said = str(caught.value)
    assert said.startswith(f"r.toml, {message}")
    assert "\n" not in said


def test_a_whole_number_does_where_any_number_does() -> None:
    text = RECIPE.replace("epochs = 3", "checkpoint_minutes = 5\nclip_norm = 1")
    loop = recipe_from_toml(text, "r.toml").loop
    assert (loop.checkpoint_minutes, loop.clip_norm) == (5.0, 1.0)
    assert isinstance(loop.checkpoint_minutes, float)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("loop.epochs=7", 7),
        ("loop.clip_norm=2", 2.0),
        ("loop.clip_norm=0.5", 0.5),
        ("loop.clip_norm=1e-3", 1e-3),
        ("loop.drop_last=true", True),
        ("data.image_size=[8, 9]", (8, 9)),
        ("loop.precision=64-true", "64-true"),
    ],
)
def test_the_command_lines_texts_are_numbers(text: str, value: object) -> None:
    key, parsed = parse_change(text)
    recipe = recipe_from_toml(RECIPE, "r.toml", {key: parsed})
    table, name = key.split(".")
    found = getattr(getattr(recipe, table), name)
    assert found == value and type(found) is type(value)


def test_a_quoted_number_of_the_command_line_is_a_text() -> None:
    key, value = parse_change('loop.epochs="7"')
    with pytest.raises(RecipeError) as caught:
        recipe_from_toml(RECIPE, "r.toml", {key: value})
    assert str(caught.value) == (
        "The command line: loop.epochs: got '7', expected a whole number."
    )


def test_what_does_not_go_together_is_said() -> None:
    text = RECIPE.replace("image_size = [32, 32]", "validation = 0")
    assert recipe_from_toml(text, "r.toml").data.validation == 0
    with pytest.raises(RecipeError) as caught:
        recipe_from_toml(text + "patience = 2", "r.toml")
    assert str(caught.value) == (
        "r.toml: loop.patience needs images to judge by: set data.validation."
    )


def test_what_is_no_toml_is_said_with_its_line() -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from_toml(RECIPE.replace("epochs = 3", "epochs ="), "r.toml")
    assert str(caught.value) == (
        "r.toml is no TOML: Invalid value (at line 26, column 9). Mend that line."
    )
