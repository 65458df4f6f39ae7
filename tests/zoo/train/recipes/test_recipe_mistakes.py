"""What is said about a recipe that is wrong: its line, its key and what is expected."""

from __future__ import annotations

import pytest

from dlzoo.errors import RecipeError
from dlzoo.zoo.train.recipes.recipe_file import recipe_from_toml
from tests.support.recipe_texts import RECIPE


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        # Keys that there are not.
        (
            "epochs = 3",
            "epochs = 3\nepoch = 4",
            "line 27: loop.epoch: no such key. Remove it, or use one of epochs, batch_size,",
        ),
        ("title", "titel", "line 1: titel: no such key. Remove it, or use one of title,"),
        (
            "betas",
            "beta",
            "line 23: optimizer.beta: no such key. Remove it, or use one of lr, weight_decay,",
        ),
        (
            "size = 8",
            "side = 8",
            "line 19: augmentation.1.side: no such key. Remove it, or use one of name, "
            "probability, size, fill.",
        ),
        ("[loop]", "[lop]", "line 25: lop: no such key. Remove it, or use one of title,"),
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
        ('name = "vgg11_bn"', "", "line 3: model.name: expected a value, got none. Add it."),
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


def test_what_does_not_go_together_is_said() -> None:
    text = RECIPE.replace("image_size = [32, 32]", "validation = 0")
    assert recipe_from_toml(text, "r.toml").data.validation == 0
    with pytest.raises(RecipeError) as caught:
        recipe_from_toml(text + "patience = 2", "r.toml")
    assert str(caught.value) == (
        "r.toml: loop.patience needs validation images: set data.validation."
    )


def test_what_is_no_toml_is_said_with_its_line() -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from_toml(RECIPE.replace("epochs = 3", "epochs ="), "r.toml")
    assert str(caught.value) == (
        "r.toml is not valid TOML: Invalid value (at line 26, column 9). Fix that line."
    )
