"""The base class of everything that a recipe can set."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Numbers of a run, which are checked on creation and never changed.

    Unknown keys, values of another type, NaN and Inf are refused. Each of several kinds is a
    subclass with ``name: Literal["kebab-case-name"]``, and the recipe has the union of them,
    distinguished by ``name``.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    def resolved(self) -> dict[str, Any]:
        """Every value, defaults included, for TOML: None is left out."""
        return self.model_dump(mode="json", exclude_none=True)
