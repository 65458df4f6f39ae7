"""Whose fault it is: the exporter's, the optimizer's or a provider's.

Source: docs/DESIGN.md, section 6, rule 8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dlzoo.runtime.diff.optimizer_passes import breaking_pass
from dlzoo.runtime.session.session import OPTIMIZATIONS
from dlzoo.runtime.session.tapped_session import Setting, TappedModel

Fault = Literal["exporter", "optimizer", "provider"]


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """Who is to blame, and the setting in which the fault shows.

    ``passes`` are the optimizer's that did it: one name, or a pass and the rule in it.
    """

    fault: Fault
    setting: Setting
    passes: tuple[str, ...] = ()
    text: str

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "fault": self.fault,
            "provider": self.setting.provider,
            "optimization": self.setting.optimization,
            "passes": list(self.passes),
            "text": self.text,
        }


def attribute(
    model: TappedModel,
    is_right: Callable[[Setting], bool],
    providers: Sequence[str],
    *,
    optimizations: Sequence[str] = tuple(OPTIMIZATIONS),
    session_config: Mapping[str, str] | None = None,
) -> Attribution | None:
    """Judge the untapped model on each provider at each level, and name who is to blame.

    A model that is wrong with graph optimization disabled is wrong as it was written: the
    exporter's fault; but if it is right so on another provider, this provider's. Wrong at a
    higher level only: the optimizer's, and its pass is looked for.

    Args:
        model: what is judged.
        is_right: judges the model's outputs in a setting.
        providers: where it runs.
        optimizations: the levels, the lowest first; ``disabled`` is judged in any case.
        session_config: ONNX Runtime's session configuration entries, for every setting.

    Returns:
        None where the model is right everywhere.
    """
    config = dict(session_config or {})
    levels = [level for level in OPTIMIZATIONS if level in {*optimizations, "disabled"}]
    plain = {
        provider: Setting(provider=provider, optimization="disabled", session_config=config)
        for provider in providers
    }
    wrong = [provider for provider in providers if not is_right(plain[provider])]
    if wrong and len(wrong) < len(providers):
        right = [provider for provider in providers if provider not in wrong]
        return Attribution(
            fault="provider",
            setting=plain[wrong[0]],
            text=f"wrong on {', '.join(wrong)} only, with graph optimization disabled, too; "
            f"right on {', '.join(right)}",
        )
    if wrong:
        where = ", ".join(wrong)
        return Attribution(
            fault="exporter",
            setting=plain[wrong[0]],
            text=f"the graph itself: wrong on {where} with graph optimization disabled",
        )
    for level in levels[1:]:
        for provider in providers:
            setting = Setting(provider=provider, optimization=level, session_config=config)
            if is_right(setting):
                continue
            passes = breaking_pass(model, setting, is_right)
            named = f"pass {' / '.join(passes)}" if passes else "no single pass of it"
            return Attribution(
                fault="optimizer",
                setting=setting,
                passes=passes,
                text=f"right with graph optimization disabled, wrong from level {level} on "
                f"({provider}): {named}",
            )
    return None
