"""Read a state dict from a file, without ever running code that the file brings."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from dlzoo.errors import UnsafeCheckpointError, WeightsError
from dlzoo.zoo.module_wrappers import KEY_PARTS

#: Where training loops put the state dict within what they save, the likeliest first.
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "model_state",
    "module",
    "weights",
    "params",
)
#: Where they put the running average of the weights.
AVERAGES = (
    "model_ema",
    "state_dict_ema",
    "ema_state_dict",
    "model_ema_state_dict",
    "params_ema",
    "ema_model",
    "ema",
)
#: Starts of what else is saved: tensors, and no network's.
_NOT_A_NETWORK = (
    "optim",
    "lr_",
    "sched",
    "scaler",
    "amp",
    "rng",
    "epoch",
    "criterion",
    "loss",
)
#: What DataParallel and AveragedModel put before every key.
_PREFIX = "module."
#: What AveragedModel keeps beside the network.
_COUNT = "n_averaged"

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
#: JSON headers are smaller than this (safetensors' own limit is 100 MB).
_MAX_HEADER = 100_000_000


@dataclass(frozen=True)
class StateDictFile:
    """The state dict that a file holds."""

    #: May be mapped from the file: copy them before it changes.
    tensors: dict[str, Tensor]
    #: What ``get_extra_state`` gave and is not a tensor, by key.
    extra_state: dict[str, Any]
    #: What the user should know: which of several state dicts was taken.
    notes: tuple[str, ...]


def load_state_dict_file(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a file, by name; see :func:`read_state_dict_file`."""
    return read_state_dict_file(path).tensors


def read_state_dict_file(path: str | Path) -> StateDictFile:
    """Read the state dict of a ``.safetensors`` or ``.pth`` file.

    What the file is follows from its first bytes, not from its suffix. Common wrappers
    (``{"state_dict": …}``, ``module.`` before every key, ``_orig_mod.`` within one) are taken off.
    Of a network and its running average, the network is taken.

    Raises:
        UnsafeCheckpointError: the file can only be read by running code in it.
        WeightsError: no such file, or not a sound checkpoint.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise WeightsError(
            f"Cannot read the weights file {path}: {error.strerror}. Pass the path of a "
            ".safetensors or .pth file."
        ) from None
    if not start:
        raise WeightsError(f"{path} is empty (0 bytes), expected weights. Fetch it again.")
    if start.startswith((_ZIP, _PICKLE)):
        content = _load_torch(path, is_zip=start.startswith(_ZIP))
    elif _is_safetensors(start):
        content = _load_safetensors(path)
    else:
        raise WeightsError(f"{path} {_what_it_is(start)}")
    return _unwrapped(content, path)


def _is_safetensors(start: bytes) -> bool:
    return int.from_bytes(start[:8], "little") <= _MAX_HEADER and start[8:9] == b"{"


def _what_it_is(start: bytes) -> str:
    text = start.lstrip().lower()
    if text.startswith(b"<"):
        return "is a web page (HTML), not weights: the download brought an error page. Fetch it again."
    if text.startswith(b"version https://git-lfs"):
        return 'is a Git LFS pointer, not the weights it stands for. Run "git lfs pull" where it is.'
    return (
        f"is neither safetensors nor a PyTorch checkpoint (its first bytes are {start[:8].hex(' ')}). "
        "Save the model's state_dict() with safetensors or torch.save."
    )


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        _refuse_damaged(path, error)
    return tensors


def _load_torch(path: Path, *, is_zip: bool) -> Any:
    # Mapped, a file takes no memory of its own; the format before 2020 cannot be. By its path,
    # torch would take a file of this suffix for safetensors.
    is_mapped = is_zip and path.suffix != ".safetensors"
    try:
        with path.open("rb") as stream, warnings.catch_warnings():
            # Warnings on how the file was written: whether it can be read is all that counts.
            warnings.simplefilter("ignore")
            content = torch.load(
                path if is_mapped else stream,
                map_location="cpu",
                weights_only=True,
                mmap=is_mapped,
            )
        if is_zip:
            _check_zip(path)
        return content
    except pickle.UnpicklingError as error:
        _refuse_unsafe(path, error, is_zip=is_zip)
    except Exception as error:
        # Damaged bytes can end in any exception of the reader.
        if "TorchScript" in str(error):
            raise UnsafeCheckpointError(
                f"{path} is a TorchScript archive, which is a program. Load it where you trust it "
                "and save its state_dict() as safetensors."
            ) from None
        _refuse_damaged(path, error)


def _check_zip(path: Path) -> None:
    """Compare the checksums in the archive, which torch.load passes over."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    # torch.save can be told to leave checksums out; then not even the first one is right.
    if damaged is not None and not damaged.endswith("/data.pkl"):
        raise RuntimeError(f"the checksum of {damaged} is wrong")


def _refuse_unsafe(path: Path, error: pickle.UnpicklingError, *, is_zip: bool) -> NoReturn:
    if is_zip:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    else:
        names = re.findall(r"GLOBAL ([\w.]+)", str(error))
    if not names:
        raise WeightsError(
            f"{path} is a pickle, but no checkpoint that torch.save wrote. Save the model's "
            "state_dict() with safetensors or torch.save."
        ) from None
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    raise UnsafeCheckpointError(
        f"{path} can only be read by running code: it asks for {names[0]}{more}. It is refused. "
        "Load it where you trust it and save its state_dict() as safetensors."
    ) from None


def _refuse_damaged(path: Path, error: Exception) -> NoReturn:
    reason = str(error).split("\n")[0].split(". ")[0] or type(error).__name__
    raise WeightsError(
        f"{path} is cut off or damaged ({path.stat().st_size:,} bytes): {reason}. Fetch it again."
    ) from None


def _unwrapped(content: Any, path: Path) -> StateDictFile:
    notes: list[str] = []
    while isinstance(content, Mapping) and not _holds_tensors(content):
        name, others = _taken_entry(content, path)
        if name is None:
            break
        if others:
            listed = " and ".join(map(repr, others))
            notes.append(
                f"{path.name} holds {name!r} and {listed}: {name!r} was taken. To take "
                f"{'the other' if len(others) == 1 else 'another'}, save it in a file by itself."
            )
        content = content[name]
    if not _holds_tensors(content):
        got = (
            f"the keys {', '.join(map(str, list(content)[:5])) or '(none)'}"
            if isinstance(content, Mapping)
            else type(content).__name__
        )
        raise WeightsError(
            f"{path} holds no state dict: got {got}, expected tensors by name, bare or under "
            f"{', '.join(WRAPPERS[:4])}. Save the model's state_dict()."
        )
    named = {bare_key(str(key)): value for key, value in content.items()}
    if any(key.startswith(_PREFIX) for key in named):
        named.pop(_COUNT, None)
    while named and all(key.startswith(_PREFIX) for key in named):
        named = {key.removeprefix(_PREFIX): value for key, value in named.items()}
    tensors = {key: value for key, value in named.items() if isinstance(value, Tensor)}
    for key, value in tensors.items():
        is_plain = value.layout == torch.strided and value.device.type == "cpu"
        if not is_plain or value.is_quantized or value.is_complex():
            raise WeightsError(
                f"{path}: {key} is {value.dtype} {value.layout} on {value.device}, expected a "
                "plain dense tensor of real numbers. Save the unquantized model's state_dict()."
            )
    extra_state = {
        key: value
        for key, value in named.items()
        if key.endswith("_extra_state") and key not in tensors
    }
    return StateDictFile(tensors, extra_state, tuple(notes))


def bare_key(key: str) -> str:
    """A key of a state dict without what wrappers around a network's parts put into it.

    >>> bare_key("backbone._orig_mod.conv.weight")
    'backbone.conv.weight'
    """
    return ".".join(part for part in key.split(".") if part not in KEY_PARTS)


def _taken_entry(content: Mapping[Any, Any], path: Path) -> tuple[str | None, list[str]]:
    """The entry that is the network's, and those that could be meant as well."""
    found = [
        str(key)
        for key, value in content.items()
        if isinstance(value, Mapping)
        and _may_hold_tensors(value)
        and not str(key).lower().startswith(_NOT_A_NETWORK)
    ]
    if not found:  # to say what is in the likeliest
        found = [name for name in WRAPPERS if isinstance(content.get(name), Mapping)][:1]
    known = [name for name in (*WRAPPERS, *AVERAGES) if name in found]
    if not known and len(found) > 1:
        raise WeightsError(
            f"{path} holds several state dicts: {', '.join(found)}, and none of them is called "
            f"{', '.join(WRAPPERS[:4])}. Save the one that is meant in a file by itself."
        )
    name = next(iter(known or found), None)
    return name, [other for other in found if other != name]


def _may_hold_tensors(content: Mapping[Any, Any]) -> bool:
    return _holds_tensors(content) or any(
        isinstance(value, Mapping) and _may_hold_tensors(value) for value in content.values()
    )


def _holds_tensors(content: Any) -> bool:
    """Whether this is the state dict itself: tensors, and nothing that could hold them."""
    return isinstance(content, Mapping) and any(
        isinstance(v, Tensor) for v in content.values()
    )
