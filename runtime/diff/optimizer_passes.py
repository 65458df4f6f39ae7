"""Find the passes of ONNX Runtime's graph optimizer that changed a model, and the one that broke it.

ONNX Runtime has no call that lists its passes. It names each one that it applies in its log, and
takes the names back in ``disabled_optimizers``. Rewrite rules run inside one pass per level and
are not logged, so their names are a table.

Source: onnxruntime/core/optimizer/graph_transformer.cc (Apply) and graph_transformer_utils.cc
(GenerateRewriteRules).
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from dlzoo.runtime.session.run_settings import RunSettings
from dlzoo.runtime.session.tapped_session import TappedModel

_APPLIED = re.compile(r"GraphTransformer (\S+) modified: 1 ")
_RULE_BASED = re.compile(r"Level[12]_RuleBasedTransformer")
#: The rewrite rules of levels 1 and 2.
REWRITE_RULES = (
    "EliminateIdentity",
    "EliminateSlice",
    "UnsqueezeElimination",
    "EliminateDropout",
    "ExpandElimination",
    "CastElimination",
    "PreShapeNodeElimination",
    "NoopElimination",
    "DivMulFusion",
    "FuseReluClip",
    "GemmSumFusion",
    "GemmTransposeFusion",
    "NotWhereFusion",
    "ConvAddFusion",
    "ConvMulFusion",
    "ConvBNFusion",
    "PadFusion",
    "MatmulBNFusion",
    "ClipQuantRewrite",
    "ReluQuantRewrite",
    "LabelEncoderFusion",
    "GatherSliceToSplitFusion",
)


def applied_passes(model: TappedModel, settings: RunSettings) -> tuple[str, ...]:
    """The passes that changed the model when it was opened so, in the order of application."""
    with _captured_stderr() as lines:
        model.open_informing(settings)
    names = (match[1] for line in lines if (match := _APPLIED.search(line)))
    return tuple(dict.fromkeys(names))


def breaking_pass(
    model: TappedModel, settings: RunSettings, is_right: Callable[[RunSettings], bool]
) -> tuple[str, ...]:
    """The pass that makes a right model wrong, found by bisection.

    With all passes before it the model is right, with it too it is wrong. Where it is the one
    that runs the rewrite rules, the rule is looked for in it.

    Args:
        model: what is optimized.
        settings: the provider and level at which it comes out wrong.
        is_right: judges the model with some settings.

    Returns:
        One name; a pass and its rule; nothing where the model stays wrong with all of the passes
        disabled, for then something else happens at this level.
    """
    passes = applied_passes(model, settings)
    # Rules are disabled by their own names, the pass around them by its own.
    num_right = _num_enabled_while_right(passes, settings, is_right)
    if num_right is None:
        return ()
    found = passes[num_right]
    if not _RULE_BASED.fullmatch(found):
        return (found,)
    rest = passes[num_right + 1 :]
    for rule in REWRITE_RULES:
        if is_right(settings.without([*rest, rule])):
            return (found, rule)
    return (found,)


def _num_enabled_while_right(
    passes: Sequence[str], settings: RunSettings, is_right: Callable[[RunSettings], bool]
) -> int | None:
    """The largest n for which the first n passes leave the model right."""
    if not is_right(settings.without(passes)):
        return None
    right, wrong = 0, len(passes)
    while right + 1 < wrong:
        middle = (right + wrong) // 2
        if is_right(settings.without(passes[middle:])):
            right = middle
        else:
            wrong = middle
    return right if passes else None


@contextmanager
def _captured_stderr() -> Iterator[list[str]]:
    """Capture what C++ code writes to stderr, which no stream of Python's sees."""
    lines: list[str] = []
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            lines += file.read().decode("utf-8", "replace").splitlines()
