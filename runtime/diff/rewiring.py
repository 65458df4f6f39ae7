"""Try other inputs for an accused node: it may be right, and wired to the wrong values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations

from dlzoo.runtime.diff.value_checks import ReferenceValue

#: Other inputs that are tried on an accused node, to see whether it is the wiring that is wrong.
_MAX_REWIRINGS = 24


def rewirings(
    taken: Sequence[str],
    walk: Sequence[str],
    right: Mapping[str, ReferenceValue],
    pairs: Mapping[str, str],
) -> Iterator[tuple[dict[str, str], str]]:
    """Other values for a node's inputs: in the reference's order, then one by one.

    Args:
        taken: the values that the node takes.
        walk: the reference's values before it, the nearest first.
        right: those of them whose numbers are known.
        pairs: the model's value -> the reference's.

    Yields:
        The inputs that would be wired otherwise, and the first value that they would take.
    """
    floats = [name for name in taken if name in pairs]
    own = [pairs[name] for name in floats]
    paired = set(pairs.values())
    ordered = [name for name in walk if name in paired and name in right]
    num_tried = 0
    if len(floats) == len(ordered) and ordered != own:
        yield dict(zip(floats, ordered, strict=True)), ordered[0]
        num_tried += 1
    elif set(own) == set(ordered) and 1 < len(own) <= 3:
        for order in permutations(own):
            if list(order) != own:
                yield dict(zip(floats, order, strict=True)), order[0]
                num_tried += 1
    for name in floats:
        shape = right[pairs[name]][0].shape
        for other in walk:
            if other == pairs[name] or other not in right:
                continue
            if right[other][0].shape == shape and num_tried < _MAX_REWIRINGS:
                num_tried += 1
                yield {name: other}, other
