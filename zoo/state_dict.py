"""State dicts in memory: copy one into a module, check it, know it again."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dlzoo.errors import CheckpointMismatchError, NonFiniteWeightsError
from dlzoo.zoo.module_wrappers import KEY_PARTS

#: Keys listed of each kind, where a checkpoint does not fit.
NUM_KEYS_SHOWN = 3
#: Counts training steps for one form of batch norm's momentum; checkpoints from before 2018 have none.
COUNTER = "num_batches_tracked"
#: Weight and bias of a last layer and of two auxiliary ones.
_MAX_HEAD_TENSORS = 6


#: What ``get_extra_state`` gives stands under this name.
_EXTRA = "_extra_state"
_WRAPPERS = (*KEY_PARTS, "module")


def copy_state_dict(module: nn.Module, state_dict: Mapping[str, Any], subject: str) -> None:
    """Copy a state dict into a module whose keys and shapes it must have exactly.

    Keys may differ in what wrappers put into them (``module.``, ``_orig_mod.``), and in one name
    before all of them, as the attribute of a training loop's class. A missing
    ``num_batches_tracked`` is taken as 0.

    Raises:
        CheckpointMismatchError: missing, unexpected or mis-shaped keys; lists the first of each.
    """
    targets = {
        key: value
        for key, value in module.state_dict().items()
        if isinstance(value, Tensor) and not _is_extra(key)
    }
    given, state_dict = _aligned(targets, state_dict), {}
    for key, value in given.items():
        if not _is_extra(key):
            state_dict[key] = value
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
    for path, part in module.named_modules():
        key = f"{path}.{_EXTRA}" if path else _EXTRA
        if key in given and type(part).set_extra_state is not nn.Module.set_extra_state:
            part.set_extra_state(given[key])


def _is_extra(key: str) -> bool:
    return key.rpartition(".")[2] == _EXTRA


def _aligned(targets: Mapping[str, Tensor], state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict with the keys of a module, where only wrappers' names tell them apart."""
    if not any(key in targets for key in state_dict):
        prefixes = {key.partition(".")[0] for key in state_dict}
        if len(prefixes) == 1:
            (prefix,) = prefixes
            bare = {key.removeprefix(f"{prefix}."): v for key, v in state_dict.items()}
            if any(_without_wrappers(key) in targets for key in bare):
                state_dict = bare
    places: dict[str, list[str]] = {}
    for key in targets:
        places.setdefault(_without_wrappers(key), []).append(key)
    aligned = {}
    for key, value in state_dict.items():
        found = places.get(_without_wrappers(key), [])
        is_other = key not in targets and len(found) == 1 and found[0] not in state_dict
        aligned[found[0] if is_other else key] = value
    return aligned


def _without_wrappers(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in _WRAPPERS)


def _few(keys: list[str]) -> str:
    more = ["…"] if len(keys) > NUM_KEYS_SHOWN else []
    return ", ".join([*keys[:NUM_KEYS_SHOWN], *more])


def _remedy(
    targets: Mapping[str, Tensor], state_dict: Mapping[str, Tensor], misshaped: list[str]
) -> str:
    if misshaped and len(misshaped) <= _MAX_HEAD_TENSORS:
        # Only the rows of the last layers differ: another number of classes.
        rows = {(targets[k].shape[:1], state_dict[k].shape[:1]) for k in misshaped}
        is_rest_equal = all(targets[k].shape[1:] == state_dict[k].shape[1:] for k in misshaped)
        if len(rows) == 1 and is_rest_equal:
            ((expected, got),) = rows
            return (
                f"It seems to have {got[0]} classes, the model {expected[0]}: build it with "
                f"`num_classes={got[0]}`."
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
    row-major order, little-endian. What ``get_extra_state`` gives and is not a tensor is left out.
    """
    digest = hashlib.sha256()
    for key in sorted(k for k, value in state_dict.items() if isinstance(value, Tensor)):
        tensor = state_dict[key].detach().cpu().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{key} {dtype} {list(tensor.shape)}\n".encode())
        values = tensor.reshape(-1)
        if sys.byteorder == "big" and values.element_size() > 1:
            values = values.view(torch.uint8).reshape(-1, values.element_size()).flip(1)
            values = values.contiguous()
        digest.update(memoryview(values.view(torch.uint8).numpy()))  # type: ignore[arg-type]
    return digest.hexdigest()
