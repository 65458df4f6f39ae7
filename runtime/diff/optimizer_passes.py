"""Which passes of ONNX Runtime's graph optimizer changed a model, and which of them broke it.

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

from dlzoo.runtime.session.tapped_session import Setting, TappedModel

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


def applied_passes(model: TappedModel, setting: Setting) -> tuple[str, ...]:
    """The passes that changed the model when it was opened so, in the order of application."""
    with _captured_stderr() as lines:
        model.open_informing(setting)
    names = (match[1] for line in lines if (match := _APPLIED.search(line)))
    return tuple(dict.fromkeys(names))


def breaking_pass(
    model: TappedModel, setting: Setting, is_right: Callable[[Setting], bool]
) -> tuple[str, ...]:
    """The pass that makes a right model wrong, found by bisection.

    With all passes before it the model is right, with it too it is wrong. Where it is the one
    that runs the rewrite rules, the rule is looked for in it.

    Args:
        model: what is optimized.
        setting: the provider and level at which it comes out wrong.
        is_right: judges a setting.

    Returns:
        One name; a pass and its rule; nothing where the model stays wrong with all of the passes
        disabled, for then something else happens at this level.
    """
    passes = applied_passes(model, setting)
    # Rules are disabled by their own names, the pass around them by its own.
    num_right = _num_enabled_while_right(passes, setting, is_right)
    if num_right is None:
        return ()
    found = passes[num_right]
    if not _RULE_BASED.fullmatch(found):
        return (found,)
    rest = passes[num_right + 1 :]
    for rule in REWRITE_RULES:
        if is_right(setting.without([*rest, rule])):
            return (found, rule)
    return (found,)


def _num_enabled_while_right(
    passes: Sequence[str], setting: Setting, is_right: Callable[[Setting], bool]
) -> int | None:
    """The largest n for which the first n passes leave the model right."""
    if not is_right(setting.without(passes)):
        return None
    right, wrong = 0, len(passes)
    while right + 1 < wrong:
        middle = (right + wrong) // 2
        if is_right(setting.without(passes[middle:])):
            right = middle
        else:
            wrong = middle
    return right if passes else None


@contextmanager
def _captured_stderr() -> Iterator[list[str]]:
    """What C++ code writes to stderr meanwhile: no stream of Python's sees it."""
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
