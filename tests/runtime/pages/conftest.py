"""The manifest of a bundle whose layers are exported in more than one way."""

from dataclasses import replace

import pytest

from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.bundle.manifest import Manifest


@pytest.fixture
def manifest(clean_bundle: Bundle) -> Manifest:
    rows = (
        {
            "layer": "Conv2d",
            "spelling": "native",
            "onnx": ["Conv"],
            "num_nodes": 1,
            "count": 2,
            "modules": ["a", "b"],
        },
        {
            "layer": "Mish",
            "spelling": "decomposed",
            "onnx": ["Exp", "Mul"],
            "num_nodes": 5,
            "count": 1,
            "modules": [""],
            "operator": "mish",
            "lowering": "decomposed:exp",
            "reason": "the fastest on ort-cpu",
        },
    )
    return replace(clean_bundle.manifest, lowering=rows, tools={"torch": "2.13.0"})
