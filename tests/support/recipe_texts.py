"""A recipe as it is written, and those that ship as they are read."""

from __future__ import annotations

from typing import Any

from dlzoo.zoo.train.recipes.recipe import Recipe
from dlzoo.zoo.train.recipes.recipe_file import read_recipe_text, recipe_from_toml

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


def shipped(name: str, **changes: Any) -> Recipe:
    text, subject = read_recipe_text(name)
    return recipe_from_toml(text, subject, changes)
