"""Importing this module registers every operator that has lowerings."""

from __future__ import annotations

from dlzoo.export.lowering import (
    gelu as gelu,
)
from dlzoo.export.lowering import (
    mish as mish,
)
from dlzoo.export.lowering.registry import OPERATORS as OPERATORS
