"""A report with every kind of thing in it, for the tests of the page."""

from typing import Any

from dlzoo.runtime.proof.difference import WorstElement
from dlzoo.runtime.proof.layer_errors import LayerError, LayerErrors
from dlzoo.runtime.proof.report import CandidateResult, Power, Report


def layer(index: int, rho2: float | None, *, limit: float = 3.0, **changes: Any) -> LayerError:
    facts: dict[str, Any] = {
        "value": f"conv2d_{index}",
        "node": f"node_conv2d_{index}",
        "op_type": "Conv",
        "module": f"blocks.{index}.conv",
        "source": f"package/net.py:{10 + index}",
        "rho2": rho2,
        "rhomax": None if rho2 is None else rho2 * 1.25,
        "verdict": "pass" if rho2 is not None and rho2 <= limit else "fail",
    }
    return LayerError(**{**facts, **changes})


def layer_errors(*rho2: float | None) -> LayerErrors:
    return LayerErrors(
        provider="cpu",
        optimization="disabled",
        golden="test_data_set_0",
        kind="normal x1",
        batch=1,
        num_values=len(rho2) + 2,
        values=tuple(layer(index, value) for index, value in enumerate(rho2)),
    )


def candidate(**changes: Any) -> CandidateResult:
    facts: dict[str, Any] = {
        "provider": "cpu",
        "optimization": "all",
        "batch": 2,
        "golden": "test_data_set_0",
        "kind": "normal x1",
        "verdict": "pass",
        "rho2": 0.9012345678901234,
        "rhomax": 1.3012345678901234,
        "worst": {"logits": WorstElement(index=(1, 7), reference=0.5, got=0.5000001)},
    }
    return CandidateResult(**{**facts, **changes})


def report(**changes: Any) -> Report:
    facts: dict[str, Any] = {
        "verdict": "pass",
        "bundle": "small",
        "opset": 20,
        "candidates": (
            candidate(),
            candidate(optimization="disabled", rho2=1.1, rhomax=2.0, batch=1),
            candidate(golden="test_data_set_3", kind="NaN pixel", rho2=None, rhomax=None, worst={}),
        ),
        "power": Power(detected=9, tried=10, sampled_of=12, missed=("conv1.bias",)),
        "dynamic_axes": {"batch": {"min": 1, "max": None, "proved": [1, 2, 5]}},
        "notes": ("something to know",),
        "layers": layer_errors(1.0, 0.7, 1.9, 1.2, 0.0, 0.95),
    }  # fmt: skip
    return Report(**{**facts, **changes})
