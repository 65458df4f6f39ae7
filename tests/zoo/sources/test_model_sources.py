"""Your own network becomes a bundle that proves itself, and comes back as it was."""

import random
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dlzoo
from dlzoo.errors import ArgumentError, DlzooError
from dlzoo.zoo.sources.input_spec import InputSpec
from dlzoo.zoo.sources.load import load_source
from dlzoo.zoo.sources.source import SourceOptions
from tests.support.recorded_progress import RecordedProgress

IMAGE = InputSpec(name="x", shape=(1, 3, 16, 16))
NET = """
import torch
from torch import nn
from layers_beside import make_activation

class Net(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.act = make_activation()
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        return self.head(self.act(self.conv(x)).mean((2, 3)))

ready = Net().eval()
not_a_net = 3

def wants_argument(width):
    return Net(width)

def gives_list():
    return [Net()]

def fails():
    return {}["missing"]
"""


@pytest.fixture
def net_file(tmp_path: Path) -> Path:
    (tmp_path / "layers_beside.py").write_text(
        "from torch import nn\n\n\ndef make_activation():\n    return nn.SiLU()\n"
    )
    path = tmp_path / "my_net.py"
    path.write_text(NET)
    return path


def refusal(model: str | nn.Module, **options: object) -> str:
    with pytest.raises(DlzooError) as error:
        load_source(model, SourceOptions(**options))  # type: ignore[arg-type]
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("factory", ["Net", "ready"])
def test_a_file_s_network_proves_itself(net_file: Path, tmp_path: Path, factory: str) -> None:
    target = tmp_path / "bundle"
    bundle = dlzoo.export_model(f"{net_file}:{factory}", target, inputs=[IMAGE], seed=3)
    assert bundle.parity()["verdict"] == "pass"
    assert bundle.manifest.weights["source"] == f"my_net.py:{factory}"
    assert str(tmp_path) not in (target / "manifest.json").read_text()
    if factory == "Net":
        assert dlzoo.verify(bundle, against=f"{net_file}:Net", seed=3)
        assert not dlzoo.verify(bundle, against=f"{net_file}:Net", seed=4), "other weights"


def test_a_package_s_network_is_found_from_where_one_stands(
    net_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(net_file.parent)
    source = load_source("my_net:Net", SourceOptions(inputs=(IMAGE,)))
    assert (source.name, source.output_names) == ("net", ("logits",))


def test_one_line_for_what_is_wrong_with_a_factory(net_file: Path) -> None:
    def said(name: str) -> str:
        return refusal(f"{net_file}:{name}", inputs=(IMAGE,))

    assert "has nothing named 'Nett'. Did you mean 'Net'?" in said("Nett")
    assert "my_net.py:not_a_net is int, expected a torch.nn.Module" in said("not_a_net")
    assert "gave list, expected a torch.nn.Module" in said("gives_list")
    assert "cannot be built: TypeError: wants_argument() missing 1" in said("wants_argument")
    line = NET.splitlines().index('    return {}["missing"]') + 1
    assert f"cannot be built: KeyError: 'missing' at my_net.py:{line}." in said("fails")
    net_file.write_text("def net(:\n    pass\n")
    assert "SyntaxError: invalid syntax at my_net.py:1." in said("net")
    assert "expected a Python file" in refusal(f"{net_file.parent}/none.py:net")
    assert "ModuleNotFoundError: No module named 'nowhere'" in refusal("nowhere.near:net")
    assert "Write nets.py:FUNCTION" in refusal("nets.py")


@pytest.mark.parametrize(
    ("model", "finding"),
    [
        ("net.onnx", "is an ONNX model already"),
        ("net.safetensors", "holds weights and no network"),
        ("none.pt2", "expected a .pt2 file"),
        ("timm:resnet18", "timm: models need the package timm"),
        ("torchvision:resnet18", "torchvision: models need the package torchvision"),
        ("lenet5_rel", "Did you mean 'lenet5_relu'"),
    ],
)
def test_what_is_no_network_is_said(model: str, finding: str) -> None:
    assert finding in refusal(model)


def test_options_that_a_source_has_no_use_for_are_refused() -> None:
    assert "`inputs` does not go with lenet5_relu" in refusal("lenet5_relu", inputs=(IMAGE,))
    assert "`num_classes` does not go with the module Linear" in refusal(
        nn.Linear(3, 2), num_classes=2, inputs=(IMAGE,)
    )
    assert "`num_classes` got 0" in refusal("lenet5_relu", num_classes=0)
    assert "Linear needs the shape and dtype of its inputs, got none. Write for example " in (
        refusal(nn.Linear(3, 2))
    )
    assert "--input input=1x3x224x224" in refusal(nn.Linear(3, 2))
    assert "fails in PyTorch itself on x [1, 3, 16, 16] float32: RuntimeError" in refusal(
        nn.Linear(3, 2), inputs=(IMAGE,)
    )
    assert "in float16, expected float32. Call .float()" in refusal(
        nn.Linear(16, 2).half(), inputs=(IMAGE,)
    )
    assert "on meta, expected the CPU" in refusal(
        nn.Linear(16, 2, device="meta"), inputs=(IMAGE,)
    )


class AlwaysRandom(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x.mean((2, 3)))


def test_networks_that_cannot_be_proved_are_refused_with_the_reason() -> None:
    assert "gives another answer each time, in eval mode" in refusal(
        AlwaysRandom(), inputs=(IMAGE,)
    )
    assert "has weight without a shape: a lazy layer that never ran" in refusal(
        nn.LazyConv2d(4, 3), inputs=(IMAGE,)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
        script = torch.jit.trace(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 16, 16))
    assert "is TorchScript, which torch.export does not trace" in refusal(
        script, inputs=(IMAGE,)
    )


class LastState(nn.Module):
    """Its second output has the layers first, not the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, (h, _) = self.lstm(x)
        return y[:, -1], h


def test_an_output_without_a_batch_in_front(tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = InputSpec(name="x", shape=(1, 12, 8))
    bundle = dlzoo.export_model(LastState(), tmp_path / "lstm", inputs=[spec])
    assert bundle.parity()["verdict"] == "pass"
    assert [spec.dims for spec in bundle.manifest.outputs] == [("batch", 32), (2, "batch", 16)]


class Centered(nn.Module):
    """Takes the mean of each channel away, and with it whatever bias stands before."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3)
        self.head = nn.Linear(38, 5)

    def forward(self, x: Tensor) -> Tensor:
        y_NCL = self.conv(x)
        z_NCK: Tensor = self.head(y_NCL - y_NCL.mean(2, keepdim=True))
        return z_NCK


def test_a_weight_without_any_effect_is_left_out_by_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = InputSpec(name="x", shape=(1, 3, 40))
    power = dlzoo.export_model(Centered(), tmp_path / "net", inputs=[spec]).parity()["power"]
    assert power["without_effect"] == ["conv.bias"]
    assert (power["detected"], power["tried"], power["sampled_of"]) == (3, 3, 4)


# -- several inputs and outputs ------------------------------------------------------------------


class TwoTowers(nn.Module):
    """An image and a text, scores and features: a dictionary with a tuple in it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.words = nn.Embedding(50, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, image: Tensor, ids: Tensor, *, scale: Tensor) -> dict[str, object]:
        seen = F.silu(self.conv(image)).mean((2, 3))
        read = self.words(ids).mean(1)
        return {
            "scores": self.head(seen * read) * scale,
            "features": (seen, read),
            "count": ids.sum(1),
        }


TOWERS = [
    InputSpec(name="image", shape=(1, 3, 12, 12)),
    InputSpec(name="ids", shape=(1, 7), dtype="int64", low=0, high=49),
    InputSpec(name="scale", shape=(1, 4)),
]


def test_inputs_and_outputs_of_every_kind(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = TwoTowers().eval()
    bundle = dlzoo.export_model(module, tmp_path / "towers", inputs=TOWERS)
    manifest = bundle.manifest
    assert [str(spec) for spec in manifest.inputs] == [
        "image float32 [batch, 3, 12, 12]",
        "ids int64 [batch, 7]",
        "scale float32 [batch, 4]",
    ]
    assert [spec.name for spec in manifest.outputs] == [
        "scores",
        "features_0",
        "features_1",
        "count",
    ]
    assert manifest.outputs[3].dtype == "int64"
    assert manifest.dynamic_axes["batch"].proved == (1, 2, 3)
    ids = np.concatenate([g.inputs["ids"].reshape(-1) for g in bundle.golden_sets()])
    assert ids.max() > 40, "the whole vocabulary is drawn from"
    assert bundle.parity()["power"]["detected"] == 5
    assert dlzoo.verify(bundle, against=module)
    with pytest.raises(ArgumentError, match=r"`head` got 'softmax', but twotowers does not"):
        from dlzoo.export.plan.options import ExportOptions

        dlzoo.export_model(
            module, tmp_path / "no", inputs=TOWERS, options=ExportOptions(head="softmax")
        )
    assert not (tmp_path / "no").exists()


def surroundings(module: TwoTowers) -> tuple[object, ...]:
    """What an export could leave changed, apart from the weights."""
    return (
        [child.training for child in module.modules()],
        [p.requires_grad for p in module.parameters()],
        list(module.conv._forward_hooks.values()),
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
    )


def test_a_module_comes_back_as_it_was(tmp_path: Path) -> None:
    """Modes, hooks, gradients' flags, values, and every random stream."""
    torch.manual_seed(0)
    module = TwoTowers()
    module.conv.eval()
    module.head.weight.requires_grad_(False)
    module.words.weight.grad = torch.ones_like(module.words.weight)
    seen: list[str] = []
    hook: Callable[..., None] = lambda *_: seen.append("called")  # noqa: E731
    module.conv.register_forward_hook(hook)
    state = {key: value.clone() for key, value in module.state_dict().items()}
    before = surroundings(module)
    dlzoo.export_model(module, tmp_path / "towers", inputs=TOWERS)
    assert surroundings(module) == before
    assert all(torch.equal(state[key], value) for key, value in module.state_dict().items())
    assert module.words.weight.grad is not None and seen


# -- exported programs ---------------------------------------------------------------------------


def save_program(path: Path, module: nn.Module, *, is_open: bool) -> Path:
    shapes = ({0: torch.export.Dim("n")},) if is_open else None
    program = torch.export.export(module, (torch.zeros(2, 3, 16, 16),), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


class Scorer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, groups=3)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout()
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.drop(F.relu_(self.norm(self.conv(x)))).mean((2, 3)))
        return y


@pytest.mark.parametrize("is_open", [True, False])
def test_a_program_proves_itself(tmp_path: Path, is_open: bool) -> None:
    torch.manual_seed(0)
    path = save_program(tmp_path / "scorer.pt2", Scorer().eval(), is_open=is_open)
    progress = RecordedProgress()
    bundle = dlzoo.export_model(str(path), tmp_path / "bundle", progress=progress)
    assert bundle.manifest.name == "scorer"
    assert bundle.parity()["verdict"] == "pass"
    if is_open:
        assert bundle.manifest.dynamic_axes["batch"].proved == (1, 2, 3)
    else:
        assert bundle.manifest.inputs[0].dims == (2, 3, 16, 16)
        assert any("traced for a batch of 2" in note for note in progress.notes)


def test_a_program_in_training_mode_is_refused(tmp_path: Path) -> None:
    path = save_program(tmp_path / "live.pt2", Scorer().train(), is_open=False)
    assert "was exported in training mode (aten.batch_norm.default" in refusal(str(path))


def test_a_damaged_program_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.pt2"
    path.write_text(textwrap.dedent("no zip at all"))
    assert "bad.pt2 cannot be read as an ExportedProgram" in refusal(str(path))
