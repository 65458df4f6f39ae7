"""Which image size a network of torchvision is exported at: the one it was built for.

torchvision itself cannot live in this environment; the enumeration is shaped as its own.
"""

from enum import Enum
from types import SimpleNamespace
from typing import Any

from torch import nn

from dlzoo.zoo.sources.library import _published_for


class Published(Enum):
    AT_518 = (518,)
    AT_224 = (224,)
    DEFAULT = AT_518

    def transforms(self) -> Any:
        return SimpleNamespace(crop_size=list(self.value))


def built_for(image_size: int | None) -> nn.Module:
    network = nn.Module()
    if image_size is not None:
        network.image_size = image_size
    return network


def test_the_published_weights_of_its_own_size_say_how_images_are_prepared() -> None:
    assert _published_for(built_for(518), Published) is Published.AT_518
    assert _published_for(built_for(224), Published) is Published.AT_224
    # Most networks take any size, and then the best weights are meant.
    assert _published_for(built_for(None), Published) is Published.DEFAULT
    assert _published_for(built_for(384), Published) is Published.DEFAULT
