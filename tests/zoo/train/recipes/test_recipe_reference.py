"""docs/recipes.md says what recipes hold today."""

from pathlib import Path

from dlzoo.zoo.train.recipes.recipe import Recipe
from dlzoo.zoo.train.recipes.recipe_reference import recipe_reference

PAGE = Path(__file__).resolve().parents[4] / "docs" / "recipes.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == recipe_reference(), (
        "run: python -m dlzoo.zoo.train.recipes.recipe_reference > docs/recipes.md"
    )


def test_every_part_of_a_recipe_is_on_the_page() -> None:
    page = recipe_reference()
    for name in Recipe.model_fields:
        assert f"`[{name}]`" in page or f"`[[{name}]]`" in page or f"| `{name}` |" in page
    for kind in (
        "random-resized-crop",
        "mosaic",
        "zca",
        "rbf-map",
        "triplet",
        "warm-restarts",
    ):
        assert f"### `{kind}`" in page
    # Bounds and defaults come from the fields themselves.
    assert "| `validation` | number at least 0, below 1 | `0.1` |" in page
