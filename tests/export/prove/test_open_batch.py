"""An open batch that the graph gets wrong is refused with the size, the layer and a fix that holds."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dlzoo
from dlzoo.errors import DynamicAxisError
from dlzoo.export.prove import proof
from dlzoo.zoo.sources.input_spec import InputSpec
from tests.support.dlzoo_process import run_dlzoo


class Clip(nn.Module):
    """Frames on axis 0; ``-(-(n - 1) // 2)`` is rounded otherwise in the graph for even n."""

    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.l(x)
        y = y - y.mean(0, keepdim=True)
        half = -(-(x.shape[0] - 1) // 2)
        out: Tensor = y + 0.5 * y[:half].sum(0, keepdim=True) + self.l(x[:1])
        return out


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.l(x)
        return y + y[: x.shape[0] // 2].sum(0, keepdim=True) + y.flip(0).cumsum(0)


class OtherAboveTwo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.l(x)
        return y * 2 if x.shape[0] > 2 else y


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.l(x)
        return y + y.t().reshape(-1, 8) + 0.5 * torch.roll(y, 1, 0) + y.sort(0).values


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lstm(x)[0]
        return out


def batch_statistics() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))


def export(module: nn.Module, target: Path, *shape: int, batch: int | None = None) -> object:
    return dlzoo.export_model(
        module.eval(),
        target,
        inputs=[InputSpec(name="x", shape=shape)],
        options=dlzoo.ExportOptions(batch=batch),
    )


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("batch", [2, 3])
def test_the_size_the_layer_and_a_fix_that_holds_are_named(tmp_path: Path, batch: int) -> None:
    with pytest.raises(DynamicAxisError) as e:
        export(Clip(), tmp_path / "clip", batch, 12)
    message = str(e.value)
    assert message.startswith(
        "clip cannot have an open batch: the exported graph is wrong at batch 2 and right at 1 "
        "and 3 (output 'logits' has rho2 "
    )
    assert "The first wrong layer is the network's forward" in message
    assert message.endswith(f"Fix the batch: `batch={batch}`, with which the export passes.")
    assert not (tmp_path / "clip").exists()
    assert export(Clip(), tmp_path / "fixed", batch, 12, batch=batch)


def test_a_fix_that_does_not_hold_is_not_advised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = proof.write_unproved

    def write(folder: Path, plan: proof.ExportPlan, **arguments: object) -> object:
        if plan.options.batch is not None:
            raise DynamicAxisError("the batch cannot be fixed")
        return real(folder, plan, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(proof, "write_unproved", write)
    with pytest.raises(DynamicAxisError, match="With `batch=3` the export fails, too"):
        export(Clip(), tmp_path / "clip", 3, 12)


class TakesTheSecond(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.l(x)
        return y + y[1]


def test_a_batch_that_pytorch_itself_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DynamicAxisError) as e:
        export(TakesTheSecond(), tmp_path / "second", 2, 12)
    assert str(e.value).startswith(
        "takesthesecond cannot have an open batch: PyTorch itself fails at batch 1 (index 1 is"
    )
    assert str(e.value).endswith("Fix the batch: `batch=2`, with which the export passes.")


def test_a_graph_that_cannot_run_at_other_sizes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DynamicAxisError, match="wrong at batch 1 and 3 and right at 2"):
        export(Recurrent(), tmp_path / "lstm", 5, 3, 12)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (Half, (2, 12)),
        (OtherAboveTwo, (2, 12)),
        (Mixed, (2, 12)),
        (batch_statistics, (2, 3, 8, 8)),
        (lambda: nn.TransformerEncoderLayer(16, 2, 32), (5, 3, 16)),
    ],
    ids=["half", "branch", "mixed", "batch-statistics", "sequence-first"],
)
def test_samples_that_depend_on_each_other_export_where_the_graph_is_right(
    tmp_path: Path, module: type[nn.Module], shape: tuple[int, ...]
) -> None:
    assert export(module(), tmp_path / "bundle", *shape)


class Rows(nn.Module):
    """As Clip, over the rows of an image: wrong where two are left of an even number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        half = -(-(y.shape[2] - 1) // 2)
        out: Tensor = y.mean((2, 3)) + y[:, :, :half].sum((2, 3))
        return out


def test_an_open_image_size_is_refused_in_the_same_way(tmp_path: Path) -> None:
    with pytest.raises(DynamicAxisError) as e:
        dlzoo.export_model(
            Rows().eval(),
            tmp_path / "rows",
            inputs=[InputSpec(name="x", shape=(2, 3, 12, 12))],
            options=dlzoo.ExportOptions(image_size="dynamic"),
        )
    message = str(e.value)
    assert (
        "rows cannot have an open height and width: the exported graph is wrong at 12x12"
        in message
    )
    assert message.endswith("`image_size=(12, 12)`, with which the export passes.")


def test_the_command_line_says_it_in_its_options(tmp_path: Path) -> None:
    result = run_dlzoo(
        "export", f"{__file__}:Clip", "--input", "x=3x12", "-o", tmp_path / "clip"
    )
    assert result.returncode == 2
    assert "Fix the batch: --batch 3, with which the export passes." in result.stderr
