"""Write ``torchvision.json``: what torchvision's own networks look like and compute.

Run it where torchvision imports (it is not a dependency): python write_torchvision_fixture.py

``state_dicts``: each top-level module is told by the number of its tensors and a SHA-256 over
the sorted lines ``key shape dtype``. ``logits``: the first four, in float64, for weights and
images that a seed decides.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FIXTURE = Path(__file__).with_name("torchvision.json")

NAMES = (
    *("alexnet", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19"),
    *("vgg19_bn", "googlenet", "inception_v3", "squeezenet1_1", "resnet18", "resnet34"),
    *("resnet50", "resnet101", "resnet152", "mobilenet_v2", "densenet121", "convnext_tiny"),
    "vit_b_16",
)
#: Built with and without auxiliary heads: the published weights hold them.
WITH_AUXILIARY = ("googlenet", "inception_v3")

#: Whose logits are written, the size of the image, and the arguments of the builder.
COMPUTED: dict[str, tuple[int, dict[str, Any]]] = {
    "alexnet": (79, {}),
    "vgg11_bn": (40, {}),
    "googlenet": (71, {"transform_input": True, "aux_logits": False}),
    "inception_v3": (99, {"transform_input": True, "aux_logits": False}),
    "squeezenet1_1": (45, {}),
    "resnet18": (45, {}),
    "resnet50": (45, {}),
    "mobilenet_v2": (45, {}),
    "densenet121": (45, {}),
    "convnext_tiny": (45, {}),
    "vit_b_16": (48, {"image_size": 48}),
}


def digests(state_dict: dict[str, Tensor]) -> dict[str, str]:
    """For each top-level module: how many tensors, and a digest of their keys and shapes."""
    lines: dict[str, list[str]] = {}
    for key, tensor in sorted(state_dict.items()):
        shape = "x".join(map(str, tensor.shape))
        lines.setdefault(key.split(".")[0], []).append(f"{key} {shape} {tensor.dtype}\n")
    return {
        module: f"{len(of)} {hashlib.sha256(''.join(of).encode()).hexdigest()[:16]}"
        for module, of in lines.items()
    }


def fill(network: nn.Module) -> None:
    """Weights and running statistics that depend on nothing but their keys' order."""
    # A prime number of draws, over and over: no two rows of a matrix are alike.
    noise = torch.from_numpy(np.random.RandomState(0).uniform(-1, 1, 1_000_003))
    start = 0
    for key, tensor in sorted(network.state_dict().items()):
        if not tensor.is_floating_point():
            continue
        times = (start + tensor.numel()) // len(noise) + 1
        many = noise.repeat(times) if times > 1 else noise
        drawn = many[start : start + tensor.numel()].view(tensor.shape)
        start = (start + tensor.numel()) % len(noise)
        if tensor.ndim > 1 and tensor.numel() > tensor.shape[0]:
            # He's variance 2 / fan-in.
            drawn = drawn * math.sqrt(6 / tensor[0].numel())
        elif key.endswith("running_var"):
            drawn = 1 + 0.5 * drawn
        elif key.endswith("weight"):
            drawn = 1 + 0.2 * drawn
        else:
            drawn = 0.1 * drawn
        tensor.copy_(drawn)


def image(size: int) -> Tensor:
    """Two images, taller than wide where the network allows it."""
    height = size if size == 48 else size + 9
    draws = np.random.RandomState(1).uniform(-2, 2, (2, 3, height, size))
    return torch.from_numpy(draws)


def main() -> None:
    """Build every network as torchvision does and write the fixture."""
    from torchvision import models

    state_dicts: dict[str, dict[str, str]] = {}
    logits: dict[str, list[list[float]]] = {}
    for name in NAMES:
        plain: dict[str, Any] = {"init_weights": False} if name in WITH_AUXILIARY else {}
        variants = [{**plain, "aux_logits": a} for a in (True, False)] if plain else [plain]
        for arguments in variants:
            with torch.device("meta"):
                network = getattr(models, name)(weights=None, **arguments)
            suffix = "+aux" if arguments.get("aux_logits") else ""
            state_dicts[name + suffix] = digests(network.state_dict())
        if name in COMPUTED:
            size, arguments = COMPUTED[name]
            network = getattr(models, name)(weights=None, **plain, **arguments).double().eval()
            with torch.no_grad():
                fill(network)
                logits[name] = network(image(size))[:, :4].tolist()
    facts = {"state_dicts": state_dicts, "logits": logits}
    FIXTURE.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
