"""Weights: drawn, published or from a file; what is wrong with them is said in one line."""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dlzoo.errors import (
    CheckpointMismatchError,
    DownloadError,
    NonFiniteWeightsError,
    UnsafeCheckpointError,
    WeightsError,
)
from dlzoo.zoo.registry import Card, PublishedWeights, get_card
from dlzoo.zoo.weights import (
    WeightsOrigin,
    build_with_weights,
    copy_state_dict,
    load_state_dict_file,
    require_finite_weights,
    sha256_of_state_dict,
)

if TYPE_CHECKING:
    from tests.zoo.conftest import FileServer

LENET = get_card("lenet5_relu")


def small(name: str) -> Card:
    """A card whose random weights are given signal at 64 x 64 pixels, in a tenth of the time."""
    return replace(get_card(name), input_shape=(3, 64, 64))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small operations on two threads take ten times as long where others want the cores."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("DLZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "weights"


def state_dict_of(card: Card = LENET, seed: int = 7, **arguments: Any) -> dict[str, Tensor]:
    return build_with_weights(
        card, weights="random", seed=seed, **arguments
    ).module.state_dict()


def save(content: Any, path: Path, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def error_of(path: Path | str, card: Card = LENET, **arguments: Any) -> tuple[type, str]:
    """The kind and the text of the error that loading gives, its folder left out."""
    with pytest.raises(WeightsError) as caught:
        build_with_weights(card, weights=path, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return type(caught.value), message.replace(f"{Path(path).parent}{os.sep}", "")


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(actual) == list(expected)
    for key, value in expected.items():
        assert actual[key].dtype == value.dtype
        assert torch.equal(actual[key], value), key


# -- random --------------------------------------------------------------------------------------


def test_random_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    model = build_with_weights(LENET, seed=7)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not model.module.training
    assert model.card is LENET
    assert model.preprocessing == LENET.preprocessing
    state_dict = model.module.state_dict()
    assert model.origin == WeightsOrigin(
        "random", 7, None, sha256_of_state_dict(state_dict), None, None
    )
    torch.manual_seed(2)
    assert_equal(state_dict, state_dict_of(seed=7))
    other = state_dict_of(seed=8)
    assert all(not torch.equal(value, other[key]) for key, value in state_dict.items())


def test_random_weights_are_these_on_every_machine() -> None:
    # A change of this digest changes every untrained bundle: it belongs into the changelog.
    origin = build_with_weights(LENET, weights="random", seed=0).origin
    assert origin.sha256 == "0a60c907be7f791f6b0184ffbe7c4ada39ae9162fe0b38a7cdf0bd4a3d100a0f"


def test_arguments_reach_the_builder() -> None:
    module = build_with_weights(LENET, weights="random", num_classes=3).module
    assert module(torch.zeros(2, 1, 32, 32)).shape == (2, 3)


# -- published -----------------------------------------------------------------------------------


def publish(
    server: FileServer, card: Card, state_dict: dict[str, Tensor], **facts: Any
) -> Card:
    """The card, with these weights to be had from the server."""
    buffer = io.BytesIO()
    torch.save(state_dict, buffer)
    server.content = buffer.getvalue()
    entry = PublishedWeights(
        name="digits",
        url=server.url,
        sha256=hashlib.sha256(server.content).hexdigest()[:8],
        license="CC0-1.0",
        source="a test",
        top1_percent=98.7,
        **{"num_classes": card.num_classes, **facts},
    )
    return replace(card, weights=(entry,))


def test_published_weights_are_fetched_once(server: FileServer, empty_cache: Path) -> None:
    published = state_dict_of()
    mnist = replace(LENET.preprocessing, mean=(0.25,))
    card = publish(server, LENET, published, preprocessing=mnist)
    reports: list[tuple[int, int]] = []
    model = build_with_weights(
        card, weights="digits", progress=lambda done, total: reports.append((done, total))
    )
    assert_equal(model.module.state_dict(), published)
    assert not model.module.training
    assert model.origin == WeightsOrigin(
        "published", None, server.url, sha256_of_state_dict(published), "CC0-1.0", 98.7
    )
    assert model.preprocessing == mnist
    assert reports[-1] == (len(server.content), len(server.content))
    assert [path.name for path in empty_cache.glob("*.pth*") if path.suffix != ".lock"] == [
        "file.pth"
    ]
    assert build_with_weights(card, weights="digits").origin == model.origin
    assert len(server.ranges) == 1


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({}, "published"),
        ({"num_classes": 10, "activation": "relu"}, "published"),
        ({"num_classes": 3}, "random"),
        ({"activation": "tanh"}, "random"),
    ],
)
def test_auto_takes_what_is_in_the_cache_and_fits(
    server: FileServer, arguments: dict[str, Any], kind: str
) -> None:
    card = publish(server, LENET, state_dict_of())
    assert build_with_weights(card, **arguments).origin.kind == "random"
    assert not server.ranges
    build_with_weights(card, weights="digits")
    assert build_with_weights(card, **arguments).origin.kind == kind


def test_published_weights_of_another_number_of_classes(server: FileServer) -> None:
    card = publish(server, LENET, state_dict_of())
    assert error_of("digits", card, num_classes=3) == (
        CheckpointMismatchError,
        "lenet5_relu's weights 'digits' have 10 classes, num_classes=3 was asked. Use weights "
        "'random', or your own file.",
    )


def test_offline(server: FileServer) -> None:
    card = publish(server, LENET, state_dict_of())
    server.statuses = [404]
    kind, message = error_of("digits", card)
    assert kind is DownloadError
    assert message.startswith(
        "Cannot fetch file.pth from 127.0.0.1: the server answered 404 Not Found."
    )


def test_auxiliary_heads_are_read_then_dropped(server: FileServer, tmp_path: Path) -> None:
    card = small("googlenet")
    # Narrow classes keep the file small: the heads' are 2 x 1024 a class.
    published = state_dict_of(card, aux_logits=True, num_classes=2)
    needed = {"aux_logits": True, "transform_input": True}
    card = publish(server, card, published, num_classes=2, builder_arguments=needed)
    x_NCHW = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    model = build_with_weights(card, weights="digits", num_classes=2)
    expected = {k: v for k, v in published.items() if not k.startswith("aux")}
    assert_equal(model.module.state_dict(), expected)
    complete = build_with_weights(card, weights="digits", num_classes=2, aux_logits=True)
    assert_equal(complete.module.state_dict(), published)
    plain = build_with_weights(
        card, weights="digits", num_classes=2, transform_input=False
    ).module
    with torch.no_grad():
        assert torch.equal(model.module(x_NCHW), complete.module(x_NCHW))
        assert not torch.equal(model.module(x_NCHW), plain(x_NCHW))
    # The same file, brought by hand: known by its name and its hash.
    copy = tmp_path / "file.pth"
    copy.write_bytes(server.content)
    by_hand = build_with_weights(card, weights=str(copy), num_classes=2)
    assert by_hand.origin == model.origin
    assert_equal(by_hand.module.state_dict(), expected)


def test_name_that_is_no_weights() -> None:
    card = get_card("resnet18")
    assert error_of("imagenet22k", card) == (
        WeightsError,
        "resnet18 has no weights named 'imagenet22k', and there is no such file. Expected "
        "'imagenet', 'random', 'auto' or the path of a .safetensors or .pth file.",
    )


def test_old_keys_are_renamed(tmp_path: Path) -> None:
    state_dict = state_dict_of()
    path = save({f"old.{k}": v for k, v in state_dict.items()}, tmp_path / "old.pth")
    card = replace(
        LENET, remap_keys=lambda old: {k.removeprefix("old."): v for k, v in old.items()}
    )
    assert_equal(build_with_weights(card, weights=path).module.state_dict(), state_dict)


# -- files ---------------------------------------------------------------------------------------


def prefixed(prefix: str, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state_dict.items()}


WAYS_TO_SAVE = {
    "plain": lambda s, p: torch.save(s, p),
    "before 2020": lambda s, p: torch.save(s, p, _use_new_zipfile_serialization=False),
    "safetensors": lambda s, p: save_file(s, p),
    "state_dict": lambda s, p: torch.save({"epoch": 3, "state_dict": s}, p),
    "model": lambda s, p: torch.save({"model": s, "optimizer": {"state": {}}}, p),
    "nested": lambda s, p: torch.save({"model": {"state_dict": s}}, p),
    "DataParallel": lambda s, p: torch.save({"state_dict": prefixed("module.", s)}, p),
    "compiled": lambda s, p: torch.save(prefixed("module._orig_mod.", s), p),
    "parameters": lambda s, p: torch.save({k: nn.Parameter(v) for k, v in s.items()}, p),
    "channels last": lambda s, p: torch.save(
        {
            k: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v
            for k, v in s.items()
        },
        p,
    ),
}


@pytest.mark.parametrize("way", WAYS_TO_SAVE)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_file_gives_the_weights_that_were_saved(tmp_path: Path, way: str, suffix: str) -> None:
    saved = state_dict_of()
    path = tmp_path / f"mine{suffix}"
    WAYS_TO_SAVE[way](saved, path)
    model = build_with_weights(LENET, weights=path)
    # The network owns its weights: the file may change afterwards.
    path.write_bytes(bytes(path.stat().st_size))
    assert_equal(model.module.state_dict(), saved)
    assert not model.module.training
    assert all(p.requires_grad and p.is_contiguous() for p in model.module.parameters())
    assert model.origin == WeightsOrigin(
        "file", None, f"mine{suffix}", sha256_of_state_dict(saved), None, None
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    saved = {key: value.to(dtype) for key, value in state_dict_of().items()}
    path = save(saved, tmp_path / "half.pth")
    state_dict = build_with_weights(LENET, weights=path).module.state_dict()
    for key, value in saved.items():
        assert state_dict[key].dtype == torch.float32
        assert torch.equal(state_dict[key].to(dtype), value)


@pytest.mark.parametrize("name", ["lenet5", "squeezenet1_1", "resnet18"])
def test_placeholders_leave_no_trace(tmp_path: Path, name: str) -> None:
    """A network built around a file equals one built in full and then loaded."""
    card = get_card(name) if name == "lenet5" else small(name)
    saved = state_dict_of(card)
    path = save(saved, tmp_path / "a.pth")
    module = build_with_weights(card, weights=path).module
    expected = card.builder()
    expected.load_state_dict(saved)
    assert_equal(module.state_dict(), expected.state_dict())
    expected_buffers = dict(expected.named_buffers())
    for key, buffer in module.named_buffers():
        assert torch.equal(buffer, expected_buffers[key]), key


def test_checkpoint_from_before_steps_were_counted(tmp_path: Path) -> None:
    card = small("resnet18")
    saved = state_dict_of(card)
    old = {k: v for k, v in saved.items() if not k.endswith("num_batches_tracked")}
    assert len(old) < len(saved)
    module = build_with_weights(card, weights=save(old, tmp_path / "old.pth")).module
    assert_equal(module.state_dict(), saved)


def test_missing_unexpected_and_misshaped_keys(tmp_path: Path) -> None:
    state_dict = state_dict_of()
    for key in ("c1.weight", "c3.weight", "c3.bias", "c5.bias"):
        del state_dict[key]
    state_dict["conv.weight"] = torch.zeros(1)
    state_dict["f6.weight"] = torch.zeros(84, 121)
    assert error_of(save(state_dict, tmp_path / "odd.pth")) == (
        CheckpointMismatchError,
        "odd.pth for lenet5_relu: does not fit. 4 missing: c1.weight, c3.weight, c3.bias, …; "
        "1 unexpected: conv.weight; 1 mis-shaped: f6.weight [84, 121] instead of [84, 120]. Pass "
        "weights that were saved from this model.",
    )


def test_other_number_of_classes(tmp_path: Path) -> None:
    path = save(state_dict_of(num_classes=47), tmp_path / "emnist.pth")
    assert error_of(path) == (
        CheckpointMismatchError,
        "emnist.pth for lenet5_relu: does not fit. 2 mis-shaped: output.weight [47, 84] instead of "
        "[10, 84], output.bias [47] instead of [10]. It seems to have 47 classes, the model 10: "
        "pass --num-classes 47 (in Python: num_classes=47).",
    )
    build_with_weights(LENET, weights=path, num_classes=47)


def test_misfit_leaves_the_module_as_it_was() -> None:
    module = nn.Linear(2, 2)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(CheckpointMismatchError):
        copy_state_dict(module, {"weight": torch.zeros(2, 2)}, "half a layer")
    assert_equal(module.state_dict(), before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    state_dict = state_dict_of()
    state_dict["c3.weight"][3, 1, 2] = value
    path = save(state_dict, tmp_path / "diverged.pth")
    message = (
        "diverged.pth for lenet5_relu: 5 of 2,400 values of c3.weight are NaN or Inf; expected "
        "finite numbers. Pass weights from before training diverged."
    )
    assert error_of(path) == (NonFiniteWeightsError, message)
    state_dict["f6.bias"][0] = value
    save(state_dict, path)
    several = message.replace("Inf;", "Inf, and 1 more tensors have some;")
    assert error_of(path) == (NonFiniteWeightsError, several)


def test_buffers_are_checked_too() -> None:
    norm = nn.BatchNorm2d(4)
    require_finite_weights(norm, "a norm")
    assert norm.running_var is not None
    norm.running_var[2] = float("nan")
    with pytest.raises(NonFiniteWeightsError, match="a norm: 1 of 4 values of running_var"):
        require_finite_weights(norm, "a norm")


class RunsCode:
    """Pickles to a call that leaves a mark."""

    mark: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("model", "torch.nn.modules.linear.Linear"),
        ("arguments", "argparse.Namespace"),
        ("attack", "posix.mkdir"),
    ],
)
def test_file_that_brings_code(
    tmp_path: Path, content: str, wanted: str, is_zip: bool
) -> None:
    attack = RunsCode()
    RunsCode.mark = tmp_path / "the code ran"
    contents: dict[str, Any] = {
        "model": nn.Linear(2, 2),
        "arguments": {"state_dict": state_dict_of(), "args": argparse.Namespace(lr=0.1)},
        "attack": {**state_dict_of(), "x": attack},
    }
    path = tmp_path / "theirs.pth"
    save(contents[content], path, _use_new_zipfile_serialization=is_zip)
    assert error_of(path) == (
        UnsafeCheckpointError,
        f"theirs.pth can only be read by running code: it asks for {wanted}. It is refused. Load "
        "it where you trust it and save its state_dict() as safetensors.",
    )
    assert not attack.mark.exists()


def test_program(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, but its files are there.
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)
    assert error_of(path) == (
        UnsafeCheckpointError,
        "script.pt is a TorchScript archive, which is a program. Load it where you trust it and "
        "save its state_dict() as safetensors.",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "w.pth is empty (0 bytes), expected weights. Fetch it again."),
        (
            b"\n<!DOCTYPE html><html>",
            "w.pth is a web page (HTML), not weights: the download brought an error page. Fetch it "
            "again.",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            'w.pth is a Git LFS pointer, not the weights it stands for. Run "git lfs pull" where it '
            "is.",
        ),
        (
            b"\x89HDF\r\n\x1a\n\0\0",
            "w.pth is neither safetensors nor a PyTorch checkpoint (its first bytes are 89 48 44 46 "
            "0d 0a 1a 0a). Save the model's state_dict() with safetensors or torch.save.",
        ),
        (
            b"\x80\x05}\x94.",
            "w.pth is a pickle, but no checkpoint that torch.save wrote. Save the model's "
            "state_dict() with safetensors or torch.save.",
        ),
    ],
)
def test_file_that_is_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    assert error_of(path) == (WeightsError, message)


@pytest.mark.parametrize("way", ["plain", "before 2020", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9999])
def test_file_that_was_cut_off(tmp_path: Path, way: str, share: float) -> None:
    path = tmp_path / "w.pth"
    WAYS_TO_SAVE[way](state_dict_of(), path)
    os.truncate(path, int(path.stat().st_size * share))
    kind, message = error_of(path)
    assert kind is WeightsError
    assert message.startswith(f"w.pth is cut off or damaged ({path.stat().st_size:,} bytes): ")
    assert message.endswith(". Fetch it again.")


def test_bytes_changed_in_the_middle(tmp_path: Path) -> None:
    path = save(state_dict_of(), tmp_path / "w.pth")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    kind, message = error_of(path)
    assert kind is WeightsError
    assert "the checksum of w/data/" in message


def test_checkpoint_without_checksums(tmp_path: Path) -> None:
    saved = state_dict_of()
    torch.serialization.set_crc32_options(False)
    try:
        path = save(saved, tmp_path / "w.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_equal(build_with_weights(LENET, weights=path).module.state_dict(), saved)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ({"epoch": 3, "optimizer": {"a": torch.zeros(1)}}, "the keys epoch, optimizer"),
        ({"state_dict": {"lr": 0.1}}, "the keys lr"),
        ({}, "the keys (none)"),
        ([torch.zeros(1)], "list"),
    ],
)
def test_file_without_a_state_dict(tmp_path: Path, content: Any, got: str) -> None:
    assert error_of(save(content, tmp_path / "w.pth")) == (
        WeightsError,
        f"w.pth holds no state dict: got {got}, expected tensors by name, bare or under "
        "state_dict, model_state_dict, model, net. Save the model's state_dict().",
    )


@pytest.mark.parametrize(
    ("tensor", "got"),
    [
        (torch.eye(2).to_sparse(), "torch.float32 torch.sparse_coo on cpu"),
        (torch.zeros(2, dtype=torch.complex64), "torch.complex64 torch.strided on cpu"),
    ],
)
def test_tensor_that_is_no_plain_array(tmp_path: Path, tensor: Tensor, got: str) -> None:
    assert error_of(save({"a": tensor}, tmp_path / "w.pth")) == (
        WeightsError,
        f"w.pth: a is {got}, expected a plain dense tensor of real numbers. Save the unquantized "
        "model's state_dict().",
    )


def test_missing_file_and_folder(tmp_path: Path) -> None:
    advice = "Pass the path of a .safetensors or .pth file."
    assert error_of(tmp_path / "no.pth") == (
        WeightsError,
        f"Cannot read the weights file no.pth: No such file or directory. {advice}",
    )
    assert error_of(tmp_path)[1].endswith(f": Is a directory. {advice}")


def test_reading_maps_the_file(tmp_path: Path) -> None:
    saved = state_dict_of()
    assert_equal(load_state_dict_file(save(saved, tmp_path / "w.pth")), dict(saved))


# -- the digest ----------------------------------------------------------------------------------


def test_digest_is_its_formula() -> None:
    weight_OI = torch.tensor([[1.5, -2.0, 0.0], [3.0, 4.0, -0.0]])
    half_C = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    count = torch.tensor(258, dtype=torch.int64)
    state_dict = OrderedDict([("w", weight_OI), ("count", count), ("half", half_C)])
    expected = hashlib.sha256(
        b"count int64 []\n"
        + np.array(258, dtype="<i8").tobytes()
        + b"half bfloat16 [2]\n"
        + b"\x80\x3f\x00\x40"
        + b"w float32 [2, 3]\n"
        + weight_OI.numpy().astype("<f4").tobytes()
    ).hexdigest()
    assert sha256_of_state_dict(state_dict) == expected
    # Neither the order of the keys nor the layout in memory counts.
    turned = {"half": half_C, "w": weight_OI.t().contiguous().t(), "count": count}
    assert sha256_of_state_dict(turned) == expected


@pytest.mark.parametrize(
    "other",
    [
        {"a": torch.tensor([0.0, 1.0])},
        {"a": torch.tensor([-0.0, 2.0])},
        {"a": torch.tensor([[0.0], [2.0]])},
        {"a": torch.tensor([0.0, 2.0], dtype=torch.float64)},
        {"b": torch.tensor([0.0, 2.0])},
        {"a": torch.tensor([0.0, 2.0]), "b": torch.tensor([])},
        {},
    ],
)
def test_every_difference_changes_the_digest(other: dict[str, Tensor]) -> None:
    assert sha256_of_state_dict(other) != sha256_of_state_dict({"a": torch.tensor([0.0, 2.0])})
