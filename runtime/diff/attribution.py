"""Who makes a graph wrong: the exporter, the optimizer or a provider.

Source: docs/DESIGN.md, section 6, rule 8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dlzoo.runtime.diff.optimizer_passes import breaking_pass
from dlzoo.runtime.session.run_settings import OPTIMIZATIONS, RunSettings
from dlzoo.runtime.session.tapped_session import TappedModel

Origin = Literal["exporter", "optimizer", "provider"]


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """Who is to blame, and the settings with which the error shows.

    ``passes`` are the optimizer's that did it: one name, or a pass and the rule in it.
    """

    origin: Origin
    settings: RunSettings
    passes: tuple[str, ...] = ()
    text: str

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "origin": self.origin,
            "provider": self.settings.provider,
            "optimization": self.settings.optimization,
            "passes": list(self.passes),
            "text": self.text,
        }


def attribute(
    model: TappedModel,
    is_right: Callable[[RunSettings], bool],
    providers: Sequence[str],
    *,
    optimizations: Sequence[str] = tuple(OPTIMIZATIONS),
    session_config: Mapping[str, str] | None = None,
) -> Attribution | None:
    """Judge the untapped model on each provider at each level, and name who is to blame.

    A model that is wrong with graph optimization disabled is wrong as it was written: the
    exporter is to blame, or, where it is right on another provider, this provider. Where it
    is wrong at a higher level only, the optimizer is, and its pass is looked for.

    Args:
        model: what is judged.
        is_right: judges the model's outputs with some settings.
        providers: where it runs.
        optimizations: the levels, the lowest first; ``disabled`` is judged in any case.
        session_config: ONNX Runtime's session configuration entries, for every run.

    Returns:
        None where the model is right everywhere.
    """
    config = dict(session_config or {})
    levels = [level for level in OPTIMIZATIONS if level in {*optimizations, "disabled"}]
    plain = {
        provider: RunSettings(
            provider=provider, optimization="disabled", session_config=config
        )
        for provider in providers
    }
    wrong = [provider for provider in providers if not is_right(plain[provider])]
    if wrong and len(wrong) < len(providers):
        right = [provider for provider in providers if provider not in wrong]
        return Attribution(
            origin="provider",
            settings=plain[wrong[0]],
            text=f"wrong on {', '.join(wrong)} only, with graph optimization disabled, too; "
            f"right on {', '.join(right)}",
        )
    if wrong:
        where = ", ".join(wrong)
        return Attribution(
            origin="exporter",
            settings=plain[wrong[0]],
            text=f"the graph itself: wrong on {where} with graph optimization disabled",
        )
    for level in levels[1:]:
        for provider in providers:
            settings = RunSettings(
                provider=provider, optimization=level, session_config=config
            )
            if is_right(settings):
                continue
            passes = breaking_pass(model, settings, is_right)
            named = f"pass {' / '.join(passes)}" if passes else "no single pass of it"
            return Attribution(
                origin="optimizer",
                settings=settings,
                passes=passes,
                text=f"right with graph optimization disabled, wrong from level {level} on "
                f"({provider}): {named}",
            )
    return None
