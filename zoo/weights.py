"""Where a model's weights come from: drawn, published, or a file; checked before they are used."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dlzoo.errors import CheckpointMismatchError, NonFiniteWeightsError, WeightsError
from dlzoo.zoo.download import Progress, download, file_name, sha256_of_file, weights_folder
from dlzoo.zoo.registry import Card, Preprocessing, PublishedWeights
from dlzoo.zoo.state_dict_file import load_state_dict_file as load_state_dict_file
from dlzoo.zoo.train.draws import PortableDraws
from dlzoo.zoo.train.initialization import give_signal

#: Arguments of builders that leave every output of a trained network as it is.
HARMLESS_ARGUMENTS = frozenset({"dropout", "aux_dropout", "aux_logits", "stochastic_depth"})
#: Keys listed of each kind, where a checkpoint does not fit.
NUM_KEYS_SHOWN = 3
#: Counts training steps for one form of batch norm's momentum; checkpoints from before 2018 have none.
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class WeightsOrigin:
    """Where weights come from, and how to know them again.

    ``source`` is a URL or the name of a file, never a path. ``sha256`` is that of
    :func:`sha256_of_state_dict`, of the weights as they are used.
    """

    kind: Literal["random", "published", "file"]
    seed: int | None
    source: str | None
    sha256: str
    license: str | None
    top1_percent: float | None


@dataclass(frozen=True)
class ModelWithWeights:
    """A network in eval mode with all that its weights bring along."""

    module: nn.Module
    card: Card
    origin: WeightsOrigin
    preprocessing: Preprocessing


def build_with_weights(
    card: Card,
    *,
    weights: str | Path = "auto",
    seed: int = 0,
    progress: Progress | None = None,
    **builder_arguments: Any,
) -> ModelWithWeights:
    """Build a model of the zoo in eval mode, with weights.

    Random weights are drawn by the builder's own scheme and then given signal
    (:func:`~dlzoo.zoo.train.initialization.give_signal`); equal seeds give equal bytes on any
    machine, and torch's global generator is left as it was. Weights from a file are converted
    to the model's float32 (which is exact for 16-bit ones).

    Args:
        card: the model.
        weights: ``auto`` (published weights where they are in the cache and fit the arguments,
            else random), ``random``, the name of published weights, or the path of a
            ``.safetensors`` or ``.pth`` file.
        seed: draws the random weights.
        progress: is told (bytes so far, bytes in all) of a download.
        builder_arguments: passed to the builder.

    Raises:
        WeightsError: unknown, unreadable, of another model, or not finite.
        StorageError: a download cannot be written.
    """
    if weights == "random":
        return _build_random(card, seed, builder_arguments)
    if weights == "auto":
        entry = _cached_weights(card, builder_arguments)
        if entry is None:
            return _build_random(card, seed, builder_arguments)
    else:
        entry = card.published_weights(str(weights))
    if entry is not None:
        path = download(
            entry.url,
            weights_folder() / file_name(entry.url),
            sha256=entry.sha256,
            progress=progress,
        )
        return _build_published(card, entry, path, builder_arguments)
    path = _path_of(card, weights)
    entry = _published_as(card, path)
    if entry is not None:
        return _build_published(card, entry, path, builder_arguments)
    return _build_from_file(card, path, builder_arguments)


# -- the three kinds -----------------------------------------------------------------------------


def _build_random(
    card: Card, seed: int, builder_arguments: dict[str, Any]
) -> ModelWithWeights:
    # What draws past PortableDraws (torch.randint, say) is seeded too.
    with _private_random_state(seed), PortableDraws(seed):
        module = card.builder(**builder_arguments)
    give_signal(module.eval(), card.input_shape, seed)
    require_finite_weights(module, f"{card.name} with random weights, seed {seed}")
    origin = WeightsOrigin("random", seed, None, _sha256_of(module), None, None)
    return ModelWithWeights(module, card, origin, card.preprocessing)


def _build_published(
    card: Card, entry: PublishedWeights, path: Path, builder_arguments: dict[str, Any]
) -> ModelWithWeights:
    num_classes = builder_arguments.get("num_classes", entry.num_classes)
    if num_classes != entry.num_classes:
        raise CheckpointMismatchError(
            f"{card.name}'s weights {entry.name!r} have {entry.num_classes} classes, num_classes="
            f"{num_classes} was asked. Use weights 'random', or your own file."
        )
    # A file with auxiliary heads needs a network with them, to be read whole.
    needed = {k: v for k, v in entry.builder_arguments.items() if k == "aux_logits"}
    arguments = {**entry.builder_arguments, **builder_arguments, **needed}
    module = _build_around_file(card, path, arguments)
    drop_heads = getattr(module, "drop_auxiliary_heads", None)
    if drop_heads is not None and not builder_arguments.get("aux_logits", False):
        drop_heads()
    origin = WeightsOrigin(
        "published", None, entry.url, _sha256_of(module), entry.license, entry.top1_percent
    )
    return ModelWithWeights(module, card, origin, entry.preprocessing or card.preprocessing)


def _build_from_file(
    card: Card, path: Path, builder_arguments: dict[str, Any]
) -> ModelWithWeights:
    module = _build_around_file(card, path, builder_arguments)
    origin = WeightsOrigin("file", None, path.name, _sha256_of(module), None, None)
    return ModelWithWeights(module, card, origin, card.preprocessing)


def _build_around_file(card: Card, path: Path, builder_arguments: dict[str, Any]) -> nn.Module:
    state_dict = load_state_dict_file(path)
    if card.remap_keys is not None:
        state_dict = card.remap_keys(state_dict)
    # Every value drawn now is overwritten, so they may be cheap ones: VGG16 draws for seconds.
    with _private_random_state(0), PortableDraws(0, is_placeholder=True):
        module = card.builder(**builder_arguments)
    copy_state_dict(module, state_dict, f"{path.name} for {card.name}")
    require_finite_weights(module, f"{path.name} for {card.name}")
    return module.eval()


@contextmanager
def _private_random_state(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


# -- which weights are meant ---------------------------------------------------------------------


def _cached_weights(card: Card, builder_arguments: dict[str, Any]) -> PublishedWeights | None:
    """The first published weights that are in the cache, if they are for this very network."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(card.builder).parameters.items()
    }
    for entry in card.weights:
        expected = {**defaults, **entry.builder_arguments, "num_classes": entry.num_classes}
        fits = all(
            name in HARMLESS_ARGUMENTS or value == expected.get(name)
            for name, value in builder_arguments.items()
        )
        if fits and (weights_folder() / file_name(entry.url)).is_file():
            return entry
    return None


def _path_of(card: Card, weights: str | Path) -> Path:
    path = Path(weights).expanduser()
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    names = [repr(entry.name) for entry in card.weights]
    raise WeightsError(
        f"{card.name} has no weights named {str(weights)!r}, and there is no such file. Expected "
        f"{', '.join([*names, repr('random'), repr('auto')])} or the path of a .safetensors or "
        ".pth file."
    )


def _published_as(card: Card, path: Path) -> PublishedWeights | None:
    """The published weights that a file holds: told by its name, proved by its hash."""
    for entry in card.weights:
        is_named = path.name == file_name(entry.url) and path.is_file()
        if is_named and sha256_of_file(path).startswith(entry.sha256):
            return entry
    return None


# -- a state dict into a module ------------------------------------------------------------------


def copy_state_dict(module: nn.Module, state_dict: Mapping[str, Tensor], subject: str) -> None:
    """Copy a state dict into a module whose keys and shapes it must have exactly.

    A missing ``num_batches_tracked`` is taken as 0.

    Raises:
        CheckpointMismatchError: missing, unexpected or mis-shaped keys; lists the first of each.
    """
    targets = module.state_dict()
    missing = [k for k in targets if k not in state_dict and not k.endswith(COUNTER)]
    unexpected = [k for k in state_dict if k not in targets and not k.endswith(COUNTER)]
    misshaped = [
        k for k in targets if k in state_dict and targets[k].shape != state_dict[k].shape
    ]
    if missing or unexpected or misshaped:
        shapes = [
            f"{k} {list(state_dict[k].shape)} instead of {list(targets[k].shape)}"
            for k in misshaped
        ]
        kinds = (("missing", missing), ("unexpected", unexpected), ("mis-shaped", shapes))
        listed = "; ".join(f"{len(keys)} {kind}: {_few(keys)}" for kind, keys in kinds if keys)
        raise CheckpointMismatchError(
            f"{subject}: does not fit. {listed}. {_remedy(targets, state_dict, misshaped)}"
        )
    with torch.no_grad():
        for key, target in targets.items():
            if key in state_dict:
                target.copy_(state_dict[key])
            else:
                target.zero_()


def _few(keys: list[str]) -> str:
    more = ["…"] if len(keys) > NUM_KEYS_SHOWN else []
    return ", ".join([*keys[:NUM_KEYS_SHOWN], *more])


def _remedy(
    targets: Mapping[str, Tensor], state_dict: Mapping[str, Tensor], misshaped: list[str]
) -> str:
    if misshaped and len(misshaped) <= 4:
        # Only the rows of the last layers differ: another number of classes.
        rows = {(targets[k].shape[:1], state_dict[k].shape[:1]) for k in misshaped}
        is_rest_equal = all(targets[k].shape[1:] == state_dict[k].shape[1:] for k in misshaped)
        if len(rows) == 1 and is_rest_equal:
            ((expected, got),) = rows
            return (
                f"It seems to have {got[0]} classes, the model {expected[0]}: build the model with "
                f"num_classes={got[0]}."
            )
    return "Pass weights that were saved from this model."


def require_finite_weights(module: nn.Module, subject: str) -> None:
    """Check every parameter and buffer for NaN and Inf.

    Raises:
        NonFiniteWeightsError: names the first tensor that has one, and counts.
    """
    bad: list[tuple[str, int, int]] = []
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        # One pass without a mask: NaN and Inf both show in the extremes.
        least, greatest = torch.aminmax(tensor.detach())
        if not (torch.isfinite(least) and torch.isfinite(greatest)):
            num_bad = int((~torch.isfinite(tensor.detach())).sum())
            bad.append((name, num_bad, tensor.numel()))
    if bad:
        name, num_bad, num_values = bad[0]
        more = f", and {len(bad) - 1} more tensors have some" if len(bad) > 1 else ""
        raise NonFiniteWeightsError(
            f"{subject}: {num_bad:,} of {num_values:,} values of {name} are NaN or Inf{more}; "
            "expected finite numbers. Pass weights from before training diverged."
        )


def sha256_of_state_dict(state_dict: Mapping[str, Tensor]) -> str:
    """A digest of names, types, shapes and values, equal on every machine.

    sha256 over, for each key in sorted order: the line ``key dtype [shape]``, then the values in
    row-major order, little-endian.
    """
    digest = hashlib.sha256()
    for key in sorted(state_dict):
        tensor = state_dict[key].detach().cpu().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{key} {dtype} {list(tensor.shape)}\n".encode())
        values = tensor.reshape(-1)
        if sys.byteorder == "big" and values.element_size() > 1:
            values = values.view(torch.uint8).reshape(-1, values.element_size()).flip(1)
            values = values.contiguous()
        digest.update(memoryview(values.view(torch.uint8).numpy()))  # type: ignore[arg-type]
    return digest.hexdigest()


def _sha256_of(module: nn.Module) -> str:
    return sha256_of_state_dict(module.state_dict())
