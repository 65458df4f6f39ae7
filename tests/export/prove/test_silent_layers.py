"""Where float32's own error covers an output the verdict is vacuous, and the layer is named."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dlzoo
from dlzoo.export.reference.silent_layer import first_silent_layer
from dlzoo.runtime.proof.report import ProofError
from dlzoo.zoo.sources.input_spec import InputSpec


class Wave(nn.Module):
    """sin(k x): an error of x is enlarged k times."""

    def __init__(self, k: float) -> None:
        super().__init__()
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.k * x)


def waves(k: float) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), Wave(k), nn.Linear(16, 8)).eval()


INPUTS = (InputSpec(name="x", shape=(2, 12)),)


def test_the_layer_whose_signal_is_covered_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProofError) as e:
        dlzoo.export_model(waves(1e6), tmp_path / "waves", inputs=INPUTS)
    assert e.value.report.verdict == "vacuous"
    assert (
        "the first layer in which float32's own error is more than 0.1% of the values is "
        "'1' (Wave)" in str(e.value)
    )


def test_a_size_at_which_large_inputs_say_nothing_is_proved_on_others(tmp_path: Path) -> None:
    # At inputs 50 times as large float32's own error passes 0.1 % of the signal.
    bundle = dlzoo.export_model(waves(2e3), tmp_path / "waves", inputs=INPUTS)
    sets = [
        golden for golden in bundle.golden_sets() if golden.is_finite and golden.batch == 2
    ]
    shares = {golden.kind: golden.noise["logits"].share_of_signal or 0.0 for golden in sets}
    assert shares["normal x50"] > 1e-3 > shares["normal x1"]
    assert bundle.manifest.dynamic_axes["batch"].proved == (1, 2, 3)


def test_no_layer_is_named_where_float32_is_exact_enough() -> None:
    x = torch.randn(2, 12, generator=torch.Generator().manual_seed(0)).numpy()
    module = waves(1.0)
    assert first_silent_layer(module, {"x": x}, output_names=["y"]) is None
    assert not any(part._forward_hooks for part in module.modules())


def test_code_of_a_forward_is_named_by_its_class() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(12, 8)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(1e6 * self.fc(x))

    x = torch.randn(2, 12, generator=torch.Generator().manual_seed(0)).numpy()
    named = first_silent_layer(Root().eval(), {"x": x}, output_names=["y"])
    assert named == "the forward of Root"
