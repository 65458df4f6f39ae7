"""Resize before antialiasing, and with inputs that could not be left out."""

from __future__ import annotations

import numpy as np

from dlzoo.export.opset.adapter import Rewrite, adapts


@adapts(18, "Resize")
def drop_antialias(rewrite: Rewrite) -> None:
    """The defaults of opset 18 are all that there was before."""
    if rewrite.attribute("antialias", 0):
        raise rewrite.fail("came to antialias with opset 18")
    if rewrite.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise rewrite.fail("came to keep the aspect ratio with opset 18")
    if rewrite.attribute("axes") is not None:
        raise rewrite.fail("came to name axes with opset 18")
    rewrite.drop("antialias")
    rewrite.drop("keep_aspect_ratio_policy")


@adapts(13, "Resize")
def fill_in_inputs(rewrite: Rewrite) -> None:
    """The region and the scales must be there, if only empty."""
    node = rewrite.node
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    for index, name in ((1, "roi"), (2, "scales")):
        if node.inputs[index] is None:
            empty = rewrite.new_constant(np.empty(0, np.float32), name)
            node.replace_input_with(index, empty)
