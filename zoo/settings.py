"""The base of everything a recipe can set."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Numbers of a run: checked when made, never changed after.

    A key that is not known, a value of another type, NaN and Inf are refused. Where one of several kinds can be chosen,
    each is a subclass with ``name: Literal["kebab-case-name"]``, and the recipe takes the union
    of them, told apart by ``name``.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    def resolved(self) -> dict[str, Any]:
        """Every value, defaults included, as TOML can hold it: what is None is left out."""
        return self.model_dump(mode="json", exclude_none=True)
