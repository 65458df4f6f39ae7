"""Axes were an attribute before they became an input: reductions, Squeeze, Unsqueeze, Split."""

from __future__ import annotations

from dlzoo.export.opset.adapter import Rewrite, adapts


@adapts(
    18,
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"),
    *("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSumSquare"),
)
@adapts(13, "ReduceSum", "Squeeze", "Unsqueeze")
def move_axes_to_attribute(rewrite: Rewrite) -> None:
    """``ReduceMean(x, axes)`` as ``ReduceMean<axes=...>(x)``."""
    axes = rewrite.constant(1)
    if rewrite.attribute("noop_with_empty_axes", 0) and not axes:
        rewrite.replace_with("Identity", [rewrite.input(0)])
        return
    if axes:
        rewrite.set_ints("axes", axes)
    rewrite.drop("noop_with_empty_axes")
    rewrite.drop_inputs_from(1)


@adapts(18, "Split")
def drop_num_outputs(rewrite: Rewrite) -> None:
    """Equal parts are what no sizes mean; ``num_outputs`` could make the last one smaller."""
    num_outputs = rewrite.attribute("num_outputs")
    if num_outputs is None:
        return
    data, axis = rewrite.input(0), rewrite.attribute("axis", 0)
    rewrite.rank(data)
    assert data is not None and data.shape is not None
    size = data.shape[axis]
    if not isinstance(size, int) or size % num_outputs:
        raise rewrite.fail(f"makes {num_outputs} parts of {size}, which are not equal")
    rewrite.drop("num_outputs")


@adapts(13, "Split")
def move_sizes_to_attribute(rewrite: Rewrite) -> None:
    """``Split(x, split)`` as ``Split<split=...>(x)``."""
    sizes = rewrite.constant(1)
    if sizes:
        rewrite.set_ints("split", sizes)
    rewrite.drop_inputs_from(1)
