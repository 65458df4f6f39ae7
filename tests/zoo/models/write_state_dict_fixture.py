"""Write ``torchvision_state_dicts.json``: what torchvision's own state dicts look like.

Run it where torchvision imports (it is not a dependency): python write_state_dict_fixture.py
Each model is built on the meta device, and each of its top-level modules is told by the number
of its tensors and a SHA-256 over the sorted lines ``key shape dtype``.
"""

import hashlib
import json
from pathlib import Path

import torch

FIXTURE = Path(__file__).with_name("torchvision_state_dicts.json")

NAMES = [
    "alexnet",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
    "googlenet",
    "inception_v3",
    "squeezenet1_1",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "mobilenet_v2",
    "densenet121",
    "convnext_tiny",
    "vit_b_16",
]
#: Built with and without auxiliary heads: the published weights hold them.
WITH_AUXILIARY = ("googlenet", "inception_v3")


def digests(state_dict: dict[str, torch.Tensor]) -> dict[str, str]:
    """For each top-level module: how many tensors, and a digest of their keys and shapes."""
    lines: dict[str, list[str]] = {}
    for key, tensor in sorted(state_dict.items()):
        shape = "x".join(map(str, tensor.shape))
        lines.setdefault(key.split(".")[0], []).append(f"{key} {shape} {tensor.dtype}\n")
    return {
        module: f"{len(of)} {hashlib.sha256(''.join(of).encode()).hexdigest()[:16]}"
        for module, of in lines.items()
    }


def main() -> None:
    """Build every network as torchvision does and write the fixture."""
    from torchvision import models

    facts = {}
    for name in NAMES:
        if name in WITH_AUXILIARY:
            variants = [{"aux_logits": True, "init_weights": False}]
            variants.append({"aux_logits": False, "init_weights": False})
        else:
            variants = [{}]
        for arguments in variants:
            with torch.device("meta"):
                network = getattr(models, name)(weights=None, **arguments)
            suffix = "+aux" if arguments.get("aux_logits") else ""
            facts[name + suffix] = digests(network.state_dict())
    FIXTURE.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
