"""A network whose forward writes into itself is proved from its stored state, and left in it."""

from pathlib import Path

import torch
from torch import Tensor, nn

import dlzoo
from dlzoo.zoo.sources.input_spec import InputSpec
from tests.support.recorded_progress import RecordedProgress


class Average(nn.Module):
    """Adds a running average of its outputs that it updates in eval mode, too."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, 8)
        self.register_buffer("ema", torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(x) + self.ema
        self.ema.mul_(0.9).add_(0.1 * y.mean(0))
        return y


def test_the_buffer_is_named_and_comes_back_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, progress = Average().eval(), RecordedProgress()
    bundle = dlzoo.export_model(
        module,
        tmp_path / "average",
        inputs=[InputSpec(name="x", shape=(2, 12))],
        progress=progress,
    )
    assert any("forward changes buffer 'ema'" in note for note in progress.notes)
    assert torch.equal(module.ema, torch.ones(8))
    first = bundle.golden_sets()[0]
    expected = module.fc(torch.from_numpy(first.inputs["x"])) + 1
    assert torch.allclose(torch.from_numpy(first.reference["logits"]).float(), expected)
