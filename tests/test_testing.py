"""assert_onnx_parity and the pytest plugin, as somebody else's tests use them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dlzoo
from dlzoo.errors import ArgumentError, ExportError
from dlzoo.runtime.proof.report import ProofError
from dlzoo.testing import assert_onnx_parity

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "test_my_network.py"


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.table = nn.Embedding(10, 4)

    def forward(self, image: Tensor, ids: Tensor) -> dict[str, Tensor]:
        return {"sum": self.conv(image).mean((2, 3)) + self.table(ids), "ids": ids + 1}


@pytest.mark.parametrize("opset", [13, 17, 20, 23])
def test_a_right_module_passes(opset: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Mish(), nn.GELU())
    report = assert_onnx_parity(net, torch.randn(2, 3, 9, 9), opset=opset)
    assert report and report.opset == opset
    assert [c.optimization for c in report.candidates] == ["disabled", "all"]
    assert net.training, "it comes back as it was"


def test_inputs_by_position_and_by_name() -> None:
    torch.manual_seed(0)
    image, ids = torch.randn(2, 3, 8, 8), torch.tensor([3, 9])
    assert assert_onnx_parity(TwoInputs(), (image, ids))
    report = assert_onnx_parity(
        TwoInputs(),
        {"ids": ids, "image": image},
        dynamic_axes={"image": {0: "batch"}, "ids": {0: "batch"}},
    )
    assert report


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"^`inputs` of ReLU got \[3\], expected a tensor"):
        assert_onnx_parity(nn.ReLU(), [3])  # type: ignore[list-item]


class Deceiving(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        scale = 2.01 if torch.compiler.is_exporting() else 2.0
        y: Tensor = self.second(torch.relu(self.first(x)) * scale)
        return y


def test_a_wrong_graph_fails_and_the_layer_is_named() -> None:
    torch.manual_seed(0)
    with pytest.raises(AssertionError) as error:
        assert_onnx_parity(Deceiving(), torch.randn(4, 6))
    text = str(error.value)
    assert text.startswith("Deceiving on cpu: ")
    assert "rho2" in text
    assert "what torch.export traced is not what runs" in text


@torch.library.custom_op("dlzoo_tests::square_minus_one", mutates_args=())
def square_minus_one(x: Tensor) -> Tensor:
    return x * x - 1


@square_minus_one.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Curved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.dlzoo_tests.square_minus_one(x)
        return y


def curved_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), Curved(), nn.Conv2d(4, 5, 3), nn.Flatten())


@pytest.fixture
def wrong_lowering() -> Iterator[None]:
    """An ONNX form that is 1 % off, as a mistake in a lowering is."""
    from dlzoo.export.lowering.operators import OPERATORS

    before = dict(OPERATORS)

    @dlzoo.register_lowering("dlzoo_tests::square_minus_one")
    def _(op: Any, x: Any) -> Any:
        return op.Sub(op.Mul(x, x), 1.01)

    yield
    OPERATORS.clear()
    OPERATORS.update(before)


@pytest.mark.usefixtures("wrong_lowering")
def test_the_first_wrong_layer_is_named_with_its_line(tmp_path: Path) -> None:
    line = 1 + Path(__file__).read_text().splitlines().index(
        "        y: Tensor = torch.ops.dlzoo_tests.square_minus_one(x)"
    )
    named = (
        rf"first wrong layer is 1 \(tests/test_testing\.py:{line}\): ONNX node .* \(Sub\) has"
    )
    with pytest.raises(AssertionError, match=rf"The {named}"):
        assert_onnx_parity(curved_net(), torch.randn(2, 3, 8, 8))
    with pytest.raises(ProofError, match=rf"nothing was written\. .*The {named}") as error:
        dlzoo.export_model(curved_net(), tmp_path / "curved", input_shape=(3, 8, 8))
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_against_another_network_names_the_layer(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Conv2d(4, 5, 3), nn.Flatten())
    bundle = dlzoo.export_model(net, tmp_path / "net", input_shape=(3, 8, 8))
    assert dlzoo.verify(bundle, against=net)
    with torch.no_grad():
        net[2].weight[1] *= 1.01
    report = dlzoo.verify(bundle, against=net)
    assert not report
    (note,) = (note for note in report.notes if "first wrong layer" in note)
    assert note.startswith("the first wrong layer is 2")
    assert "'2.weight' differs from the network's in 36 of 180 elements" in note


class Blind(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * 1e-12 + x


def test_a_comparison_that_cannot_fail_fails() -> None:
    torch.manual_seed(0)
    with pytest.raises(AssertionError, match="of 2 weight tensors none has a visible effect"):
        assert_onnx_parity(Blind(), torch.randn(4, 6))


def test_an_opset_that_cannot_be_had_is_an_export_error() -> None:
    with pytest.raises(ExportError):
        assert_onnx_parity(nn.Linear(2, 2), torch.randn(1, 2), opset=10)


# -- the plugin, in a real pytest of its own -----------------------------------------------------


def run_pytest(path: Path, *arguments: str) -> str:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-c", os.devnull, "-p", "no:cacheprovider"),
            *("-p", "dlzoo.pytest_plugin", *arguments, str(path)),
        ],
        cwd=path.parent,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_worked_example_runs() -> None:
    said = run_pytest(EXAMPLE, "-v", "--strict-markers")
    assert "test_block_on_every_provider[cpu] PASSED" in said
    assert "test_gpu_too[cpu] PASSED" in said
    assert "failed" not in said


def test_a_provider_that_does_not_run_here_is_skipped_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "test_it.py"
    path.write_text(
        "import pytest\n\n"
        '@pytest.mark.onnx_providers("cpu", "openvino")\n'
        "def test_it(onnx_provider):\n"
        '    assert onnx_provider == "cpu"\n'
    )
    said = run_pytest(path, "-rs", "--strict-markers")
    assert "1 passed, 1 skipped" in said
    assert "provider openvino does not run here: see dlzoo doctor" in said


def test_the_plugin_loads_nothing_until_it_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "test_light.py"
    path.write_text(
        "import sys\n\ndef test_light():\n"
        '    heavy = {"torch", "onnx", "onnxruntime", "numpy"} & set(sys.modules)\n'
        "    assert not heavy, heavy\n"
    )
    run_pytest(path)
