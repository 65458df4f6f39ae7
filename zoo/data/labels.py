"""Names of classes, in the order of the outputs."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def load_labels(name: str) -> tuple[str, ...]:
    """The class names of a label set, one for each output.

    - ``imagenet1k``: the 1000 classes of ILSVRC 2012 in the order of their WordNet ids, as in
      every published ImageNet model.
    - ``mnist``: the ten digits.
    - ``cifar10``: the ten classes of CIFAR-10.

    **Source** ImageNet (Russakovsky et al. 2015, "ImageNet Large Scale Visual Recognition
    Challenge"); the names are WordNet's synsets as worded by torchvision
    (``torchvision/models/_meta.py``), which distinguishes the bird ("crane bird") from the machine.

    >>> load_labels("imagenet1k")[285]
    'Egyptian cat'

    Raises:
        LookupError: there is no such label set.
    """
    resource = files("dlzoo.zoo.data").joinpath(f"{name}.txt")
    if not resource.is_file():
        raise LookupError(f"no label set is named {name!r}")
    return tuple(resource.read_text(encoding="utf-8").splitlines())
