"""Images that PyTorch and ONNX Runtime put into different classes: noise, or an error.

n images that disagree          N all images          K classes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlzoo.export.reference.reference import compute_golden_set
from dlzoo.runtime.bundle.manifest import Manifest
from dlzoo.runtime.proof.limits import Limits

#: More images than this in other classes are an error, and the first of them show it.
MAX_JUDGED = 256


@dataclass(frozen=True)
class Disagreement:
    """An image that PyTorch and ONNX Runtime put into different classes.

    ``margin`` is PyTorch's score of its class minus that of ONNX Runtime's. It is noise where
    ONNX Runtime is as near to float64 as the bundle's limits ask (DESIGN 6.3) on all images of
    this kind, and both classes' scores are nearer to each other than its errors.
    """

    index: int
    target: str
    pytorch: str
    onnxruntime: str
    margin: float
    is_noise: bool


def find_disagreements(
    network: nn.Module,
    manifest: Manifest,
    read: Callable[[Sequence[int]], Tensor],
    targets: Sequence[str],
    outputs: Mapping[str, Tensor],
    class_names: Sequence[str],
) -> tuple[Disagreement, ...]:
    """Images in different classes, judged by the answers of float64.

    Args:
        network: in eval mode, in float32.
        manifest: of the bundle, for its limits.
        read: the network's inputs at some places of the data, [n, C, H, W].
        targets: the name of each image's class.
        outputs: [N, K] of ``pytorch`` and ``onnxruntime``.
        class_names: of the K classes.
    """
    first_NK, second_NK = outputs["pytorch"], outputs["onnxruntime"]
    first_N, second_N = first_NK.argmax(1), second_NK.argmax(1)
    indices: list[int] = (first_N != second_N).nonzero().flatten()[:MAX_JUDGED].tolist()
    if not indices:
        return ()
    images = {"input": read(indices).numpy()}
    golden = compute_golden_set(
        "disagreements", "images", network, images, output_names=["logits"]
    )
    reference_nK = torch.from_numpy(golden.reference["logits"])
    error_n = (second_NK[indices] - reference_nK).abs().amax(1)
    floor = golden.noise["logits"]
    is_exact = float(error_n.max()) <= Limits.from_manifest(manifest).rhomax * floor.max
    found = []
    for place, index in enumerate(indices):
        mine, other = int(first_N[index]), int(second_N[index])
        gap = float((reference_nK[place, mine] - reference_nK[place, other]).abs())
        nearness = 2 * max(float(error_n[place]), floor.max)
        found.append(
            Disagreement(
                index=index,
                target=targets[index],
                pytorch=class_names[mine],
                onnxruntime=class_names[other],
                margin=float(first_NK[index, mine] - first_NK[index, other]),
                is_noise=is_exact and gap <= nearness,
            )
        )
    return tuple(found)


def find_wrong_output(
    network: nn.Module,
    manifest: Manifest,
    read: Callable[[Sequence[int]], Tensor],
    targets: Sequence[str],
    outputs: Mapping[str, Tensor],
) -> tuple[Disagreement, ...]:
    """The image whose outputs differ most, where they do not choose one class; () if by noise.

    For several labels an image, and embeddings. Arguments as of :func:`find_disagreements`. It is
    judged among others: the noise floor of one image alone may be anything.
    """
    difference_N = (outputs["pytorch"] - outputs["onnxruntime"]).abs().flatten(1).amax(1)
    index = int(difference_N.argmax())
    others = [n for n in range(len(difference_N)) if n != index]
    images = {"input": read([index, *others[: MAX_JUDGED - 1]]).numpy()}
    golden = compute_golden_set(
        "disagreements", "images", network, images, output_names=["output"]
    )
    reference = torch.from_numpy(golden.reference["output"])[0]
    error = float((outputs["onnxruntime"][index] - reference).abs().max())
    if error <= Limits.from_manifest(manifest).rhomax * golden.noise["output"].max:
        return ()
    return (
        Disagreement(
            index=index,
            target=targets[index],
            pytorch="as trained",
            onnxruntime="other outputs",
            margin=float(difference_N[index]),
            is_noise=False,
        ),
    )
