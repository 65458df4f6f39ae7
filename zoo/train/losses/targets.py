"""Checks and conversions of a loss's targets: class numbers, or a float for each output.

N   samples          K   classes          *   any further axes, such as height and width
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dlzoo.errors import ArgumentError


def widened(outputs: Tensor) -> Tensor:
    """Outputs in float32 if they are 16-bit, which is too coarse for a sum over 1000 classes."""
    return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs


def require_classes(outputs: Tensor, targets: Tensor, loss: str) -> None:
    """Check that targets match the outputs: int64 [N, *] or floats [N, K, *].

    Raises:
        ArgumentError: the shape or type is wrong, or the outputs do not have a class.
    """
    if outputs.dim() < 2:
        raise ArgumentError(
            f"Loss {loss}: got outputs of shape {list(outputs.shape)}, expected [samples, "
            "classes]; let the network end in one output for each class."
        )
    num_classes = outputs.shape[1]
    if targets.is_floating_point():
        if targets.shape != outputs.shape:
            raise ArgumentError(
                f"Loss {loss}: got targets of shape {list(targets.shape)} for outputs of shape "
                f"{list(outputs.shape)}, expected equal shapes; set num_classes to the data's."
            )
        return
    if targets.dtype != torch.int64 or targets.shape != outputs.shape[:1] + outputs.shape[2:]:
        expected = [len(outputs), *outputs.shape[2:]]
        raise ArgumentError(
            f"Loss {loss}: got targets of type {str(targets.dtype).removeprefix('torch.')} and "
            f"shape {list(targets.shape)}, expected int64 {expected} or floats "
            f"{list(outputs.shape)}; correct the dataset."
        )
    # Reading values from an accelerator would make every step wait for it.
    if targets.device.type == "cpu" and targets.numel():
        least, greatest = (int(value) for value in torch.aminmax(targets))
        if least < 0 or greatest >= num_classes:
            raise ArgumentError(
                f"Loss {loss}: got class {least if least < 0 else greatest}, expected 0 to "
                f"{num_classes - 1}; set num_classes to the data's."
            )


def float_targets(outputs: Tensor, targets: Tensor, loss: str) -> Tensor:
    """Targets in the shape and type of the outputs: class numbers become one-hot vectors.

    Shape:
        int64 [N, *] or floats [N, K, *] to floats [N, K, *].

    Raises:
        ArgumentError: see :func:`require_classes`.
    """
    require_classes(outputs, targets, loss)
    if not targets.is_floating_point():
        targets = functional.one_hot(targets, outputs.shape[1]).movedim(-1, 1)
    return targets.to(outputs.dtype)


def require_labels(outputs_ND: Tensor, targets_N: Tensor, loss: str) -> None:
    """Check that every sample has one class, which losses of pairs need to know.

    Raises:
        ArgumentError: soft or mixed labels, or a wrong shape.
    """
    if outputs_ND.dim() != 2:
        raise ArgumentError(
            f"Loss {loss}: got outputs of shape {list(outputs_ND.shape)}, expected [samples, "
            "features]; flatten them."
        )
    if targets_N.dtype != torch.int64 or targets_N.shape != outputs_ND.shape[:1]:
        raise ArgumentError(
            f"Loss {loss}: got targets of type {str(targets_N.dtype).removeprefix('torch.')} and "
            f"shape {list(targets_N.shape)}, expected one class a sample (int64 "
            f"[{len(outputs_ND)}]); leave out mixup, cutmix and mosaic, and multi-label data."
        )


def require_class_weights(weights: tuple[float, ...], outputs: Tensor, loss: str) -> Tensor:
    """One weight for each class, as a tensor like the outputs.

    Raises:
        ArgumentError: the number of weights is not the number of classes.
    """
    if len(weights) != outputs.shape[1]:
        raise ArgumentError(
            f"Loss {loss}: got {len(weights)} weights for {outputs.shape[1]} classes, expected "
            "one for each class; correct the list."
        )
    return outputs.new_tensor(weights)
