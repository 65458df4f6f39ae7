"""Values that a recipe leaves to its model: the colours and the size of images."""

from __future__ import annotations

from dlzoo.errors import ArgumentError
from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.registry import Preprocessing
from dlzoo.zoo.train.recipes.recipe import Recipe


def own_preprocessing(model: str) -> Preprocessing | None:
    """The preprocessing on a zoo model's card; None for a model from elsewhere.

    Raises:
        UnknownModelError: the name looks like a zoo model, but there is no such model.
    """
    return None if ":" in model else get_card(model).preprocessing


def resolve_recipe(recipe: Recipe) -> Recipe:
    """Fill in the values that a recipe leaves to the model: the colours and size of images.

    Raises:
        UnknownModelError: no model has that name.
        ArgumentError: the model has no card, and the recipe does not give the size of images.
    """
    data = recipe.data
    own = own_preprocessing(recipe.model.name)
    if own is None:
        if data.image_size is None:
            raise ArgumentError(
                f"`data.image_size` got none, and {recipe.model.name} has no card with the size of "
                "its images. Set it to, for example, [32, 32]."
            )
        color, size = data.color or "RGB", data.image_size
        resize_size: int | str = data.resize_size or "none"
    else:
        color, size = data.color or own.color, data.image_size or own.crop_size
        if data.resize_size is not None:
            resize_size = data.resize_size
        elif data.image_size is None:
            resize_size = own.resize_size or "none"
        else:
            # For another size the shorter side is resized to it, so nothing of a square is cut.
            resize_size = min(size)
    resolved = data.model_copy(
        update={"color": color, "image_size": size, "resize_size": resize_size}
    )
    return recipe.model_copy(update={"data": resolved})


def geometry_of(recipe: Recipe) -> Preprocessing:
    """The preprocessing of image files in a resolved recipe; mean and std are placeholders."""
    data = recipe.data
    assert data.color is not None and data.image_size is not None, "the recipe is not resolved"
    own = own_preprocessing(recipe.model.name)
    num_channels = 3 if data.color == "RGB" else 1
    return Preprocessing(
        color=data.color,
        resize_size=None if data.resize_size in (None, "none") else int(data.resize_size),
        crop_size=data.image_size,
        interpolation=own.interpolation if own else "bilinear",
        mean=(0.0,) * num_channels,
        std=(1.0,) * num_channels,
    )
