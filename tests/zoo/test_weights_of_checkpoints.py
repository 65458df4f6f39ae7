"""What training loops save: heads for training, averages, wrappers' names; and what was taken is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dlzoo.errors import CheckpointMismatchError, WeightsError
from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.sources.load import load_source
from dlzoo.zoo.sources.source import SourceOptions
from dlzoo.zoo.state_dict import copy_state_dict
from dlzoo.zoo.state_dict_file import load_state_dict_file, read_state_dict_file
from dlzoo.zoo.weights import build_with_weights
from tests.support.exported_answers import IMAGE
from tests.support.weight_files import LENET, error_of, prefixed, save, state_dict_of

pytestmark = pytest.mark.usefixtures("one_thread", "empty_cache")


def drawn(card_name: str, **arguments: Any) -> dict[str, Tensor]:
    """A state dict with the keys and shapes of a model, whose own weights take long to draw."""
    with torch.device("meta"):
        shapes = get_card(card_name).builder(**arguments).state_dict()
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.zeros((), dtype=value.dtype)
        if not value.dim()
        else torch.rand(value.shape, generator=generator)
        for key, value in shapes.items()
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("googlenet", "heads aux1 and aux2"),
        ("inception_v3", "head AuxLogits"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_auxiliary_heads_in_a_file_are_dropped(
    name: str, said: str, wrapped: bool, tmp_path: Path
) -> None:
    saved = drawn(name, aux_logits=True)
    path = save(prefixed("module.", saved) if wrapped else saved, tmp_path / "theirs.pth")
    source = load_source(name, SourceOptions(weights=str(path)))
    assert list(source.notes) == [
        f"theirs.pth has the auxiliary {said}, which only training uses: dropped."
    ]
    assert source.weights["source"] == "theirs.pth"
    kept = source.network.state_dict()
    assert kept and not any(key.lower().startswith("aux") for key in kept)
    assert all(torch.equal(value, saved[key]) for key, value in kept.items())


def test_auxiliary_heads_stay_where_they_are_asked_for(tmp_path: Path) -> None:
    saved = drawn("googlenet", aux_logits=True)
    path = save(saved, tmp_path / "theirs.pth")
    model = build_with_weights(get_card("googlenet"), weights=path, aux_logits=True)
    assert set(model.module.state_dict()) == set(saved) and model.notes == ()


def test_auxiliary_heads_of_another_number_of_classes(tmp_path: Path) -> None:
    path = save(drawn("googlenet", aux_logits=True, num_classes=7), tmp_path / "theirs.pth")
    kind, message = error_of(path, get_card("googlenet"))
    assert kind is CheckpointMismatchError
    assert (
        "It seems to have 7 classes, the model 1000: build it with `num_classes=7`" in message
    )
    build_with_weights(get_card("googlenet"), weights=path, num_classes=7)


def test_published_weights_are_known_by_their_bytes(tmp_path: Path) -> None:
    """A file of torchvision's by another name brings what it needs: transform_input, its license."""
    from dlzoo.zoo.download import sha256_of_file

    path = save(drawn("googlenet", aux_logits=True), tmp_path / "renamed.pth")
    card = get_card("googlenet")
    (entry,) = card.weights
    card = replace(card, weights=(replace(entry, sha256=sha256_of_file(path)[:8]),))
    model = build_with_weights(card, weights=path)
    assert model.origin.kind == "published" and model.origin.license == "BSD-3-Clause"
    assert type(model.module.transform).__name__ == "InputRange"


# -- several state dicts in a file ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["model", "model_ema"], "model"),
        (["state_dict_ema", "state_dict"], "state_dict"),
        (["net", "ema"], "net"),
        (["params", "params_ema"], "params"),
        (["teacher", "model", "student"], "model"),
    ],
)
def test_which_state_dict_was_taken_is_said(
    names: list[str], taken: str, tmp_path: Path
) -> None:
    saved = {name: state_dict_of(seed=number) for number, name in enumerate(names)}
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}}
    path = save({"epoch": 3, "optimizer": optimizer, **saved}, tmp_path / "run.pth")
    source = load_source("lenet5_relu", SourceOptions(weights=str(path)))
    (note,) = source.notes
    others = " and ".join(repr(name) for name in names if name != taken)
    assert note.startswith(f"run.pth holds {taken!r} and {others}: {taken!r} was taken.")
    for key, value in source.network.state_dict().items():
        assert torch.equal(value, saved[taken][key])


@pytest.mark.parametrize("name", ["model_ema", "ema", "generator", "state_dict"])
def test_the_only_state_dict_is_taken_without_a_word(name: str, tmp_path: Path) -> None:
    content = {name: state_dict_of(), "optimizer": {"m": torch.ones(2)}, "epoch": 1}
    read = read_state_dict_file(save(content, tmp_path / "run.pth"))
    assert set(read.tensors) == set(state_dict_of()) and read.notes == ()


def test_several_of_unknown_names_are_refused(tmp_path: Path) -> None:
    content = {"generator": state_dict_of(), "discriminator": state_dict_of()}
    assert error_of(save(content, tmp_path / "gan.pth")) == (
        WeightsError,
        "gan.pth holds several state dicts: generator, discriminator, and none of them is called "
        "state_dict, model_state_dict, model, net. Save the one that is meant in a file by itself.",
    )


# -- wrappers' names in keys ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module.",
     "model.", "net._orig_mod.", "_forward_module."],
)  # fmt: skip
def test_prefixes_of_wrappers(prefix: str, tmp_path: Path) -> None:
    saved = state_dict_of()
    path = save({"state_dict": prefixed(prefix, saved)}, tmp_path / "w.pth")
    loaded = build_with_weights(LENET, weights=path).module.state_dict()
    assert all(torch.equal(value, saved[key]) for key, value in loaded.items())


class Body(nn.Module):
    def __init__(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.body = wrap(nn.Conv2d(3, 4, 3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


def compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")


@pytest.mark.parametrize("saved_by", [nn.Identity, compiled, nn.DataParallel, AveragedModel])
@pytest.mark.parametrize("read_by", [compiled, nn.DataParallel])
def test_wrapped_parts_in_a_file_and_in_a_network(
    saved_by: Callable[[nn.Module], nn.Module], read_by: Any, tmp_path: Path
) -> None:
    saver = Body(lambda part: part if saved_by is nn.Identity else saved_by(part))
    path = save(saver.state_dict(), tmp_path / "w.pth")
    if saved_by is AveragedModel:
        path = save(AveragedModel(Body(lambda part: part)).state_dict(), path)
        saver = Body(lambda part: part)
        saver.load_state_dict(load_state_dict_file(path))
    reader = Body(read_by)
    source = load_source(reader, SourceOptions(inputs=(IMAGE,), weights=str(path)))
    assert source.weights["source"] == "w.pth" and source.weights["kind"] == "file"
    expected = next(iter(saver.state_dict().values()))
    assert torch.equal(next(iter(reader.state_dict().values())), expected)


def test_extra_state_is_given_back(tmp_path: Path) -> None:
    class Scaled(nn.Linear):
        scale = 1.0

        def get_extra_state(self) -> dict[str, float]:
            return {"scale": self.scale}

        def set_extra_state(self, state: dict[str, float]) -> None:
            self.scale = state["scale"]

    saved = nn.Sequential(Scaled(8, 2))
    saved[0].scale = 5.0
    path = save({"model": saved.state_dict()}, tmp_path / "w.pth")
    net = nn.Sequential(Scaled(8, 2))
    load_source(net, SourceOptions(inputs=(IMAGE,), weights=str(path)))
    assert net[0].scale == 5.0 and torch.equal(net[0].weight, saved[0].weight)


def test_an_unknown_prefix_that_does_not_help_is_shown_as_it_is() -> None:
    with pytest.raises(CheckpointMismatchError, match=r"2 unexpected: other\.a, other\.b"):
        copy_state_dict(
            nn.Linear(2, 2), {"other.a": torch.ones(1), "other.b": torch.ones(1)}, "w"
        )
