"""BatchNormalization before it could be told to train, and Dropout before its inputs."""

from __future__ import annotations

import onnx_ir as ir

from dlzoo.export.opset.adapter import Rewrite, adapts


@adapts(14, "BatchNormalization")
def drop_training_mode(rewrite: Rewrite) -> None:
    """Inference is all that a graph with one output did."""
    if rewrite.attribute("training_mode", 0):
        raise rewrite.fail("came to train with opset 14")
    rewrite.drop("training_mode")


@adapts(12, "Dropout")
def move_ratio_to_attribute(rewrite: Rewrite) -> None:
    """``Dropout(x, ratio)`` as ``Dropout<ratio=...>(x)``."""
    training = rewrite.constant(2)
    if training and training[0]:
        raise rewrite.fail("came to train with opset 12")
    ratio = rewrite.constant(1)
    if ratio:
        rewrite.node.attributes["ratio"] = ir.AttrFloat32("ratio", float(ratio[0]))
    rewrite.drop("seed")
    rewrite.drop_inputs_from(1)
