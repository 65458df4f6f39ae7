"""OpenVINO's own runtime opens the repository for OpenVINO Model Server, under each precision."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.deploy.deployment import deploy_bundle
from dlzoo.runtime.deploy.options import DeployOptions
from dlzoo.runtime.proof.compare import UNIT_ROUNDOFFS, Comparison, compare_outputs
from dlzoo.runtime.proof.limits import DEFAULT_LIMITS
from tests.support.server_environments import environment_with

pytestmark = pytest.mark.slow

RUN = """
import json, sys
import numpy as np
import openvino
config = json.loads(sys.argv[2])
device, options = config["target_device"], config["plugin_config"]
core = openvino.Core()
model = core.compile_model(core.read_model(sys.argv[1]), device, options)
inputs = np.load(sys.argv[3])
answers = {name: model([inputs[name]])[model.output(0)] for name in inputs.files}
np.savez(sys.argv[4], **answers)
assert [output.any_name for output in model.outputs] == ["logits"]
print(model.get_property("INFERENCE_PRECISION_HINT").to_string())
"""


def finite_sets(bundle: Bundle) -> list[GoldenSet]:
    """Leave out NaN and Inf: OpenVINO's divergences there are not declared."""
    return [g for g in bundle.golden_sets() if np.isfinite(g.inputs["image"]).all()]


def run(
    python: Path, repository: Path, bundle: Bundle, hint: str, tmp_path: Path
) -> list[Comparison]:
    config = json.loads((repository / "config.json").read_text())
    (entry,) = config["model_config_list"]
    assert entry["config"]["plugin_config"]["INFERENCE_PRECISION_HINT"] == "f32"
    entry["config"]["plugin_config"]["INFERENCE_PRECISION_HINT"] = hint
    sets = finite_sets(bundle)
    np.savez(tmp_path / "x.npz", **{g.name: g.inputs["image"] for g in sets})
    graph = repository / "small/1/model.onnx"
    arguments = [graph, json.dumps(entry["config"]), tmp_path / "x.npz", tmp_path / "y.npz"]
    done = subprocess.run(
        [python, "-c", RUN, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == {"f32": "f32", "bf16": "bf16"}[hint]
    answers = np.load(tmp_path / "y.npz")
    return [
        compare_outputs(
            {"logits": answers[g.name]},
            g,
            dtypes={"logits": "float32"},
            unit_roundoff=UNIT_ROUNDOFFS["float32" if hint == "f32" else "bfloat16"],
            limits=DEFAULT_LIMITS,
        )
        for g in sets
    ]


def test_float32_is_as_exact_as_the_proof(bundle: Bundle, cache: Path, tmp_path: Path) -> None:
    python = environment_with(cache / "openvino", "openvino", "openvino", "numpy")
    repository = tmp_path / "repository"
    deploy_bundle(bundle, "ovms", repository, options=DeployOptions())
    float32 = run(python, repository, bundle, "f32", tmp_path)
    assert all(float32), [comparison.all_reasons for comparison in float32]
    # bfloat16, OpenVINO's own choice, is another arithmetic with its own verdict.
    in_bfloat16 = run(python, repository, bundle, "bf16", tmp_path)
    assert all(in_bfloat16), [comparison.all_reasons for comparison in in_bfloat16]
    ratio = max(c.rho2 or 0.0 for c in in_bfloat16) * UNIT_ROUNDOFFS["bfloat16"]
    assert ratio > 100 * UNIT_ROUNDOFFS["float32"]
