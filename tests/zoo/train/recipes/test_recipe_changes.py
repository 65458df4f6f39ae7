"""Changes of a recipe from the command line."""

from __future__ import annotations

from typing import Any

import pytest

from dlzoo.errors import RecipeError
from dlzoo.zoo.train.optimize.optimizers import SGD
from dlzoo.zoo.train.recipes.recipe_file import parse_change, recipe_from_toml
from tests.support.recipe_texts import RECIPE, shipped


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
        "`set` got 'loop.epochs', expected KEY=VALUE, for example loop.epochs=3."
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loop.epochs": 0},
            "Change of the recipe: loop.epochs: got 0, expected greater than or equal to 1.",
        ),
        (
            {"loop.epoch": 3, "loop.seed": -1},
            "Change of the recipe: loop.seed: got -1, expected greater than or equal to 0. "
            "(1 more mistake.)",
        ),
        (
            {"title.short": 1},
            "title.short: title is not a table of the recipe. Write a key as docs/recipes.md "
            "lists it.",
        ),
        (
            {"schedule.name": "multi-step"},
            "Change of the recipe: schedule.milestones: expected a value, got none. Add it.",
        ),
    ],
)
def test_a_wrong_change_is_reported_as_a_change(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from_toml(RECIPE, "r.toml", changes)
    assert str(caught.value) == message


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
        "Change of the recipe: loop.epochs: got '7', expected a whole number."
    )
