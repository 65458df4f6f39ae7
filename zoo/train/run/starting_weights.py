"""Trained weights to start from: published weights of the zoo, or a file."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from dlzoo.errors import WeightsError
from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.download import Progress, download, file_name, weights_folder
from dlzoo.zoo.state_dict_file import load_state_dict_file


def starting_weights(
    model: str, weights: str, progress: Progress | None = None
) -> tuple[dict[str, Tensor], str]:
    """Tensors by name, and the name of the weights in messages.

    Args:
        model: name of the network.
        weights: name of published weights of the zoo, or path of a file.
        progress: called with the number of bytes that are downloaded and to download.

    Raises:
        WeightsError: the model has no such weights, or the file is not a state dict.
    """
    path = Path(weights).expanduser()
    is_file = path.suffix in (".safetensors", ".pth", ".pt") or path.is_file()
    card = None if ":" in model else get_card(model)
    if not is_file:
        entry = card.published_weights(weights) if card else None
        if entry is None:
            known = ", ".join(e.name for e in card.weights) if card else ""
            raise WeightsError(
                f"{model} has no weights named {weights!r}, expected "
                f"{f'{known}, ' if known else ''}none, or a .safetensors or .pth file."
            )
        path = download(
            entry.url,
            weights_folder() / file_name(entry.url),
            sha256=entry.sha256,
            progress=progress,
        )
    tensors = load_state_dict_file(path)
    if card is not None and card.remap_keys is not None:
        tensors = card.remap_keys(tensors)
    return tensors, path.name
