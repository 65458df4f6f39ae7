"""A user's own operator, from its definition to a bundle that passes and is verified again."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dlzoo
from dlzoo.errors import ArgumentError


@torch.library.custom_op("dlzoo_tests::leaky_cube", mutates_args=())
def leaky_cube(x: Tensor, slope: float) -> Tensor:
    return torch.where(x > 0, x * x * x, slope * x)


@leaky_cube.register_fake
def _(x: Tensor, slope: float) -> Tensor:
    return torch.empty_like(x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4 * 36, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.ops.dlzoo_tests.leaky_cube(self.conv(x), 0.1)
        scores: Tensor = self.fc(y.flatten(1))
        return scores


pytestmark = pytest.mark.usefixtures("lowerings_restored")


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """Whatever ran before: the proof of five outputs is near its limit for one draw in many."""
    torch.manual_seed(0)


@pytest.mark.parametrize("opset", [11, 20])
def test_standard_operators(tmp_path: Path, opset: int) -> None:
    @dlzoo.register_lowering("dlzoo_tests::leaky_cube")
    def _(op, x, slope):  # type: ignore[no-untyped-def]
        cube = op.Mul(op.Mul(x, x), x)
        return op.Where(op.Greater(x, 0.0), cube, op.Mul(x, slope))

    from dlzoo.export.plan.options import ExportOptions

    bundle = dlzoo.export_model(
        Net().eval(),
        tmp_path / "net",
        input_shape=(3, 8, 8),
        options=ExportOptions(opset=opset),
    )
    assert bundle.manifest.opset == opset
    (row,) = (row for row in bundle.manifest.lowering if row["layer"] == "leaky_cube")
    assert row["operator"] == "dlzoo_tests.leaky_cube"
    assert row["onnx"] == ["Mul", "Greater", "Where"]
    assert dlzoo.verify(bundle).verdict == "pass"


def test_function_in_the_file(tmp_path: Path) -> None:
    body = """
    LeakyCube <slope> (x) => (y) {
        square = Mul (x, x)
        cube = Mul (square, x)
        zero = Constant <value_float = 0.0> ()
        is_positive = Greater (x, zero)
        factor = Constant <value_float: float = @slope> ()
        line = Mul (x, factor)
        y = Where (is_positive, cube, line)
    }
    """

    @dlzoo.register_lowering("dlzoo_tests::leaky_cube", body=body, min_opset=12)
    def _(op, x, slope):  # type: ignore[no-untyped-def]
        return (x,), {"slope": slope}

    bundle = dlzoo.export_model(Net().eval(), tmp_path / "net", input_shape=(3, 8, 8))
    (row,) = (row for row in bundle.manifest.lowering if row["layer"] == "leaky_cube")
    assert (row["spelling"], row["onnx"]) == ("function", ["dlzoo::LeakyCube"])
    assert bundle.parity()["verdict"] == "pass"
    assert dlzoo.verify(bundle).verdict == "pass"


def test_wrong_lowering_is_caught_by_the_proof(tmp_path: Path) -> None:
    @dlzoo.register_lowering("dlzoo_tests::leaky_cube")
    def _(op, x, slope):  # type: ignore[no-untyped-def]
        return op.Where(op.Greater(x, 0.0), op.Mul(op.Mul(x, x), x), op.Mul(x, 0.1001))

    from dlzoo.runtime.proof.report import ProofError

    with pytest.raises(ProofError, match="fail"):
        dlzoo.export_model(Net().eval(), tmp_path / "net", input_shape=(3, 8, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cube",), "expected library::operator"),
        (("dlzoo_tests::sphere",), "torch.ops has no such operator"),
        (("aten::mish.default",), None),
    ],
)
def test_names(arguments: tuple[str], message: str | None) -> None:
    if message is None:
        dlzoo.register_lowering(*arguments)
        return
    with pytest.raises(ArgumentError, match=message):
        dlzoo.register_lowering(*arguments)


def test_second_lowering_needs_replace() -> None:
    for arguments in ({}, {"replace": True}):
        dlzoo.register_lowering("dlzoo_tests::leaky_cube", **arguments)(lambda op, x, slope: x)
    with pytest.raises(ArgumentError, match="is registered already"):
        dlzoo.register_lowering("dlzoo_tests::leaky_cube")


def test_body_that_cannot_be_read() -> None:
    with pytest.raises(ArgumentError, match=r"The body of dlzoo_tests\.leaky_cube cannot be"):
        dlzoo.register_lowering("dlzoo_tests::leaky_cube", body="Cube (x) = x")
