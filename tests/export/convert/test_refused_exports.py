"""What an export cannot deliver is refused in one line that says why."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dlzoo.errors import ArgumentError, DynamicAxisError, ExportError, OpsetError
from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
from dlzoo.export.graph.onnx_graph import OnnxGraph

Export = Callable[..., OnnxGraph]


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_failed_trace_says_why_in_one_line(
    export: Export, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExportError, match=r"^Branches cannot be traced by torch\.export") as e:
        export(Branches(), 2, 3)
    assert "data-dependent expression" in one_line(e)
    assert "(in forward, test_refused_exports.py:" in one_line(e)
    assert ": return x if x.sum() > 0 else -x)" in one_line(e)
    assert "Write the network without Python decisions on tensor values, for" in one_line(e)
    assert capfd.readouterr() == ("", "")


class KeepsAList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen = Seen()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.seen.append(x) * 2
        return y


class Seen:
    def append(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            raise NotImplementedError("only plain tensors are kept")
        return x


def test_cause_that_is_not_known_is_not_guessed(export: Export) -> None:
    with pytest.raises(ExportError) as e:
        export(nn.Sequential(nn.ReLU(), KeepsAList()), 2, 3)
    text = one_line(e)
    assert text.startswith(
        "Sequential cannot be exported, for a reason that is not known here: "
        "NotImplementedError: only plain tensors are kept (in module '1', "
        "test_refused_exports.py:"
    )
    assert ': raise NotImplementedError("only plain tensors are kept")). ' in text
    assert "report it with the network's code at https://github.com/pytorch/pytorch" in text
    assert "Python decisions" not in text


def test_network_that_fails_in_pytorch_is_told_apart(export: Export) -> None:
    with pytest.raises(ExportError, match=r"^Conv2d fails in PyTorch itself on x ") as e:
        export(nn.Conv2d(4, 4, 3), 2, 3, 8, 8)
    assert "[2, 3, 8, 8]: RuntimeError: Given groups=1" in one_line(e)


class Decomposes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.qr(x)[0]


def test_operator_without_translation_is_named_with_its_module(export: Export) -> None:
    with pytest.raises(ExportError) as e:
        export(nn.Sequential(nn.ReLU(), Decomposes()), 2, 3, 3)
    assert one_line(e) == (
        "Sequential cannot be exported: the operator aten.linalg_qr.default in module '1' has no "
        "ONNX translation. Give it one with dlzoo.register_lowering, or replace that operation "
        "by ones that ONNX has."
    )


class OwnKernelForEachSample(nn.Module):
    """Conditional convolution: as many groups as samples."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = nn.Linear(3, 6 * 3 * 9)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        kernels = self.kernels(x.mean((2, 3))).view(batch * 6, 3, 3, 3)
        x = x.reshape(1, batch * channels, height, width)
        x = nn.functional.conv2d(x, kernels, groups=batch)
        return x.view(batch, 6, height - 2, width - 2)


def test_a_constant_that_would_change_with_the_batch_is_named(export: Export) -> None:
    network = nn.Sequential(nn.ReLU(), OwnKernelForEachSample())
    with pytest.raises(DynamicAxisError) as e:
        export(network, 2, 3, 8, 8)
    assert one_line(e) == (
        "Sequential cannot be exported with an open axis 0 of input 'input': argument 'groups' of "
        "aten.conv2d.default in module '1' changes with it, and ONNX has a constant there. Fix that "
        "axis, for example `batch=1`."
    )


class Volumes(nn.Module):
    """GridSample took volumes with opset 20."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.grid_sample(
            x, torch.tanh(x[:, :3].permute(0, 2, 3, 4, 1)), align_corners=True
        )


def test_remedy_for_an_invalid_graph_was_tried(export: Export) -> None:
    with pytest.raises(ExportError) as e:
        export(Volumes(), 2, 3, 4, 5, 6, opset=18)
    assert one_line(e) == (
        "Volumes cannot be exported at opset 18: The exported graph breaks a rule of ONNX: "
        "GridSample (node_grid_sampler) samples a volume, which came with opset 20. Opset 20 works: "
        "use `opset=20`."
    )
    assert export(Volumes(), 2, 3, 4, 5, 6, opset=20).opset == 20


def test_no_opset_is_named_where_none_works(export: Export) -> None:
    with pytest.raises(ExportError) as e:
        export(HalfSum(), 2, 3)
    assert "Opsets 18, 21, 17, 23 fail, too." in one_line(e)
    assert "https://github.com/pytorch/pytorch/issues" in one_line(e)


class HalfSum(nn.Module):
    """What the exporter gives is float32."""

    def forward(self, x: Tensor) -> Tensor:
        return x.half().sum(1)


class Baked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(int(x.shape[0]), -1) * 2


class AddsTwoRows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.ones(2, 3)


@pytest.mark.parametrize("module", [Baked(), AddsTwoRows()], ids=lambda m: type(m).__name__)
def test_baked_batch_is_refused(export: Export, module: nn.Module) -> None:
    with pytest.raises(DynamicAxisError) as e:
        export(module, 2, 3)
    assert one_line(e) == (
        "Axis 0 (batch) of input 'x' was to be dynamic, but the network holds for 2 only: its code "
        "uses that size as a constant. Export it with that size fixed, or take the size from "
        "x.shape."
    )


class TakesTwo(nn.Module):
    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return image - mask, {"sum": image + mask, "mean": image.mean()}


def test_outputs_that_are_not_all_named_are_refused(export: Export) -> None:
    with pytest.raises(ExportError) as e:
        onnx_from_torch(
            TakesTwo().eval(),
            {"image": torch.zeros(2, 3), "mask": torch.zeros(2, 3)},
            output_names=["difference", "sum"],
        )
    assert one_line(e) == (
        "The network gives 3 tensors, but 2 outputs are named (difference, sum). Name each of "
        "them once."
    )


@pytest.mark.parametrize("opset", [10, 26, 20.5, True])
def test_opset_that_does_not_exist_is_refused(export: Export, opset: object) -> None:
    with pytest.raises(OpsetError) as e:
        export(nn.ReLU(), 2, 3, opset=opset)
    assert one_line(e) == (
        f"`opset` got {opset!r}, expected a whole number from 11 to 25. 20 runs everywhere."
    )


def test_axes_that_do_not_exist_are_refused(export: Export) -> None:
    with pytest.raises(
        ArgumentError, match=r"got axis 7 of input 'x', expected one of 0 to 1"
    ):
        export(nn.ReLU(), 2, 3, dynamic_axes={"x": {7: "batch"}})
    with pytest.raises(ArgumentError, match=r"got the input 'z', expected one of 'x'"):
        export(nn.ReLU(), 2, 3, dynamic_axes={"z": {0: "batch"}})
