"""Where a model's weights come from: drawn, published, or a file; checked before they are used."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dlzoo.errors import CheckpointMismatchError, WeightsError
from dlzoo.zoo.download import Progress, download, file_name, sha256_of_file, weights_folder
from dlzoo.zoo.initialization.draws import PortableDraws
from dlzoo.zoo.initialization.signal import scale_to_unit_variance
from dlzoo.zoo.registry import Card, Preprocessing, PublishedWeights
from dlzoo.zoo.state_dict import copy_state_dict as copy_state_dict
from dlzoo.zoo.state_dict import require_finite_weights as require_finite_weights
from dlzoo.zoo.state_dict import sha256_of_state_dict as sha256_of_state_dict
from dlzoo.zoo.state_dict_file import load_state_dict_file as load_state_dict_file
from dlzoo.zoo.state_dict_file import read_state_dict_file

#: Arguments of builders that leave every output of a trained network as it is.
HARMLESS_ARGUMENTS = frozenset({"dropout", "aux_dropout", "aux_logits", "stochastic_depth"})


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
    #: What the user should know of how the weights were taken in.
    notes: tuple[str, ...] = ()


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
    (:func:`~dlzoo.zoo.initialization.signal.scale_to_unit_variance`); equal seeds give equal bytes on any
    machine, and torch's global generator is left as it was. Weights from a file are converted
    to the model's float32 (which is exact for 16-bit ones).

    Args:
        card: the model.
        weights: ``auto`` (published weights where they are in the cache and fit the arguments,
            else random), ``random``, the name of published weights, or the path of a
            ``.safetensors`` or ``.pth`` file.
        seed: draws the random weights.
        progress: called with (bytes so far, bytes in all) of a download.
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
    scale_to_unit_variance(module.eval(), card.input_shape, seed)
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
    read = read_state_dict_file(path)
    notes = list(read.notes)
    arguments = dict(builder_arguments)
    heads = _auxiliary_heads(card, read.tensors)
    is_dropped = bool(heads) and not arguments.get("aux_logits", False)
    if is_dropped:
        arguments["aux_logits"] = True
    module = _build_around(card, read.tensors, f"{path.name} for {card.name}", arguments)
    if is_dropped:
        module.drop_auxiliary_heads()  # type: ignore[operator]
        notes.append(
            f"{path.name} has the auxiliary {'head' if len(heads) == 1 else 'heads'} "
            f"{' and '.join(heads)}, which only training uses: dropped."
        )
    origin = WeightsOrigin("file", None, path.name, _sha256_of(module), None, None)
    return ModelWithWeights(module, card, origin, card.preprocessing, tuple(notes))


def _auxiliary_heads(card: Card, state_dict: Mapping[str, Tensor]) -> list[str]:
    """Names of the auxiliary heads in a state dict of an architecture that has some in training."""
    parameters = inspect.signature(card.builder).parameters
    if "aux_logits" not in parameters:
        return []
    names = dict.fromkeys(key.partition(".")[0] for key in state_dict)
    return [name for name in names if name.lower().startswith("aux")]


def _build_around_file(card: Card, path: Path, builder_arguments: dict[str, Any]) -> nn.Module:
    state_dict = load_state_dict_file(path)
    return _build_around(card, state_dict, f"{path.name} for {card.name}", builder_arguments)


def _build_around(
    card: Card,
    state_dict: dict[str, Tensor],
    subject: str,
    builder_arguments: dict[str, Any],
) -> nn.Module:
    if card.remap_keys is not None:
        state_dict = card.remap_keys(state_dict)
    # Every value drawn now is overwritten, so they may be cheap ones: VGG16 draws for seconds.
    with _private_random_state(0), PortableDraws(0, is_placeholder=True):
        module = card.builder(**builder_arguments)
    copy_state_dict(module, state_dict, subject)
    require_finite_weights(module, subject)
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
    """The published weights that a file holds, whatever it is called: known by their hash."""
    if not card.weights or not path.is_file():
        return None
    digest = sha256_of_file(path)
    return next((entry for entry in card.weights if digest.startswith(entry.sha256)), None)


def _sha256_of(module: nn.Module) -> str:
    return sha256_of_state_dict(module.state_dict())
