"""Wrappers around a network, or around a part of it, are taken off and named."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from dlzoo.zoo.module_wrappers import unwrap
from tests.support.exported_answers import export_and_compare


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))


class Around(nn.Module):
    """A network whose body is wrapped."""

    def __init__(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.body = wrap(Net())
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(x))
        return y


def distributed(net: nn.Module) -> nn.Module:
    """As it is once built, which needs other processes."""
    wrapper = DistributedDataParallel.__new__(DistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = net
    return wrapper


def fabric(net: nn.Module) -> nn.Module:
    from lightning_fabric.wrappers import _FabricModule

    return _FabricModule(net, None)  # type: ignore[arg-type]


def compiled(net: nn.Module) -> nn.Module:
    return torch.compile(net, backend="eager")  # the default backend takes seconds to import


def compiled_in_place(net: nn.Module) -> nn.Module:
    net.compile(backend="eager")
    return net


WRAPPERS: list[tuple[Callable[[nn.Module], nn.Module], list[str]]] = [
    (nn.DataParallel, ["DataParallel"]),
    (compiled, ["torch.compile"]),
    (lambda net: compiled(nn.DataParallel(net)), ["torch.compile", "DataParallel"]),
    (lambda net: nn.DataParallel(compiled(net)), ["DataParallel", "torch.compile"]),
    (distributed, ["DistributedDataParallel"]),
    (AveragedModel, ["AveragedModel"]),
    (fabric, ["_FabricModule"]),
    (checkpoint_wrapper, ["CheckpointWrapper"]),
    (compiled_in_place, ["torch.compile"]),
]


@pytest.mark.parametrize(("wrap", "names"), WRAPPERS)
def test_a_wrapped_network_exports(
    wrap: Callable[[nn.Module], nn.Module], names: list[str], tmp_path: Path
) -> None:
    notes = export_and_compare(wrap(Net()).eval(), tmp_path).notes
    assert list(notes) == [f"{name} around the network is taken off." for name in names]


@pytest.mark.parametrize(("wrap", "names"), WRAPPERS)
def test_a_wrapped_part_exports_and_is_wrapped_again(
    wrap: Callable[[nn.Module], nn.Module], names: list[str], tmp_path: Path
) -> None:
    net = Around(wrap).eval()
    body, keys = net.body, list(net.state_dict())
    notes = export_and_compare(net, tmp_path).notes
    assert list(notes) == [f"{' and '.join(names)} around 'body' is taken off."]
    assert net.body is body and list(net.state_dict()) == keys


class CompiledForward(Net):
    @torch.compile(backend="eager")
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))


class CompiledFunction(Net):
    def __init__(self) -> None:
        super().__init__()
        self.function = torch.compile(lambda y: torch.relu(y) + 1, backend="eager")

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.function(self.conv(x))
        return y


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch calls TorchScript deprecated

    @torch.jit.script
    def scripted_swish(y: Tensor) -> Tensor:
        return y * torch.sigmoid(y)


class ScriptedFunction(Net):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = scripted_swish(self.conv(x))
        return y


@pytest.mark.parametrize("kind", [CompiledForward, CompiledFunction, ScriptedFunction])
def test_compiled_code_within_a_network_exports(kind: type[nn.Module], tmp_path: Path) -> None:
    export_and_compare(kind().eval(), tmp_path)


def test_a_wrapper_that_computes_something_of_its_own_stays() -> None:
    class Doubled(nn.DataParallel):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.module(x) * 2
            return y

    module = Doubled(Net())
    assert unwrap(module) == (module, ())
    assert unwrap(Net())[1] == ()
