"""What torchrun starts in two processes: see test_two_processes.py. Arguments: a folder."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dlzoo.errors import TrainingError
from dlzoo.zoo.train.loop.optimizer_step import OptimizerStep
from dlzoo.zoo.train.loop.processes import make_fabric
from dlzoo.zoo.train.loop.synchronized_norm import (
    synchronize_batch_norm,
    without_synchronization,
)
from dlzoo.zoo.train.loop.trainer import Trainer
from dlzoo.zoo.train.recipes.recipe_file import recipe_from_toml
from dlzoo.zoo.train.run.run_folder import RunFolder
from dlzoo.zoo.training import train

FOLDER = Path(sys.argv[1])
#: Paths that this process opened to write, in FOLDER.
written: list[str] = []


def keep_written(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str) and str(FOLDER) in arguments[0]:
        mode = arguments[1]
        if isinstance(mode, str) and set(mode) & set("wxa+"):
            written.append(arguments[0])


class StopError(Exception):
    """A run that ends in the middle."""


@contextmanager
def stopped_at(kind: type[Any], method: str, num_calls: int) -> Iterator[None]:
    """Let every process stop when a method is called once more than that."""
    original, count = getattr(kind, method), 0

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count > num_calls:
            raise StopError
        return original(self, *args, **kwargs)

    setattr(kind, method, counted)
    try:
        yield
    except StopError:
        pass
    finally:
        setattr(kind, method, original)


def train_named(name: str) -> None:
    """A run by the recipe that lies under its name."""
    recipe = recipe_from_toml((FOLDER / f"{name}.toml").read_text(), name)
    train(recipe, FOLDER / name)


def train_with_a_stop(name: str, source: str, *where: Any) -> None:
    """The same run as ``source``, stopped and gone on with."""
    recipe = recipe_from_toml((FOLDER / f"{source}.toml").read_text(), source)
    with stopped_at(*where):
        train(recipe, FOLDER / name)
    dist.barrier()
    train(RunFolder.open(FOLDER / name).recipe, FOLDER / name, resume=True)


def batch_norm_differences() -> dict[str, float]:
    """Synchronized batch normalization against torch's on the joined batch, in float64."""
    rank = dist.get_rank()
    differences: dict[str, float] = {}
    shares = {"equal": (4, 4), "unequal": (5, 1), "empty": (3, 0), "two": (1, 1)}
    kinds: list[tuple[str, nn.Module, tuple[int, ...]]] = [
        ("2d", nn.BatchNorm2d(3), (3, 4, 2)),
        ("1d", nn.BatchNorm1d(3), (3,)),
        ("plain", nn.BatchNorm2d(3, affine=False, momentum=None), (3, 2, 2)),
        ("untracked", nn.BatchNorm2d(3, track_running_stats=False), (3, 2, 2)),
    ]
    for kind, layer, shape in kinds:
        for share, counts in shares.items():
            torch.manual_seed(7)
            x = torch.randn(sum(counts), *shape, dtype=torch.float64) * 3 + 100
            g = torch.randn_like(x)
            joined = copy.deepcopy(layer).double()
            if joined.affine:
                nn.init.normal_(joined.weight)
            mine = copy.deepcopy(joined)
            assert synchronize_batch_norm(mine) == 1
            bounds = slice(0, counts[0]) if rank == 0 else slice(counts[0], None)
            own = x[bounds].clone().requires_grad_()
            whole = x.clone().requires_grad_()
            for _ in range(2):  # running statistics of two steps
                y, expected = mine(own), joined(whole)
            (y * g[bounds]).sum().backward()
            (expected * g).sum().backward()
            assert own.grad is not None and whole.grad is not None
            pairs: list[tuple[str, Tensor, Tensor]] = [
                ("output", y, expected[bounds]),
                ("gradient", own.grad, whole.grad[bounds]),
            ]
            for name, parameter in mine.named_parameters():
                total = parameter.grad if parameter.grad is not None else torch.zeros(3)
                dist.all_reduce(total)
                pairs.append((name, total, joined.get_parameter(name).grad))  # type: ignore[arg-type]
            for name, buffer in mine.named_buffers():
                pairs.append((name, buffer.double(), joined.get_buffer(name).double()))
            for name, got, wanted in pairs:
                assert got.shape == wanted.shape, (kind, share, name)
                if got.numel():
                    scale = max(1.0, float(wanted.detach().abs().max()))
                    difference = float((got - wanted).detach().abs().max()) / scale
                    differences[f"{kind} {share} {name}"] = difference
            if not layer.track_running_stats:
                continue
            mine.eval()
            torch.testing.assert_close(
                mine(own), joined.eval()(whole)[bounds], rtol=0, atol=1e-9
            )
    return differences


def one_value() -> str:
    """What is said where all processes together have one value for each channel."""
    layer = nn.BatchNorm1d(2)
    synchronize_batch_norm(layer)
    with without_synchronization(layer):  # nobody waits for the other
        if dist.get_rank() == 0:
            layer(torch.randn(4, 2))
    try:
        layer(torch.randn(1 - dist.get_rank(), 2))
    except ValueError as error:
        return str(error)
    return "nothing"


def half_precision() -> float:
    """bfloat16 in, bfloat16 out, with statistics in float32."""
    torch.manual_seed(3)
    x = (torch.randn(512, 2) + 50).to(torch.bfloat16)
    layer = nn.BatchNorm1d(2, affine=False)
    expected = layer(x.float())
    synchronize_batch_norm(layer)
    y = layer(x[dist.get_rank() :: 2])
    assert y.dtype == torch.bfloat16
    return float((y.float() - expected[dist.get_rank() :: 2]).abs().max())


def nan_of_one_process() -> str:
    """A loss that is no number in all processes: each says so and nobody waits for another."""
    name = "diverging"
    recipe = recipe_from_toml((FOLDER / f"{name}.toml").read_text(), name)
    try:
        train(recipe, FOLDER / name)
    except TrainingError as error:
        return str(error)
    return "nothing"


def main() -> None:
    sys.addaudithook(lambda event, arguments: keep_written(event, arguments))
    make_fabric(device="cpu", precision="32-true")
    assert dist.get_world_size() == 2
    found: dict[str, Any] = {
        "batch_norm": batch_norm_differences(),
        "one_value": one_value(),
        "half": half_precision(),
    }
    for name in ("joined", "shared", "apart"):
        train_named(name)
    # In the second epoch, and between the first one's last step and its validation.
    train_with_a_stop("shared-stopped", "shared", OptimizerStep, "run", 7)
    train_with_a_stop("apart-stopped", "apart", Trainer, "_validate", 0)
    found["diverging"] = nan_of_one_process()
    found["written"] = written
    everyone: list[Any] = [None, None]
    dist.all_gather_object(everyone, found)
    if dist.get_rank() == 0:
        (FOLDER / "found.json").write_text(json.dumps(everyone))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
