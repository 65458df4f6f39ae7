"""MODEL_CARD.md: a summary of a bundle, for people and for model hubs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlzoo.runtime.proof.report import power_from_json

if TYPE_CHECKING:
    from dlzoo.runtime.bundle.manifest import Manifest


def model_card_from_manifest(manifest: Manifest, parity: Mapping[str, Any]) -> str:
    """Write the card in Markdown; every fact in it comes from the manifest or the report."""
    card, weights = manifest.card, manifest.weights
    front = ["---", "library_name: onnx", "tags: [onnx, dlzoo, image-classification]"]
    if weights.get("license"):
        front.append(f"license_name: {weights['license']}")
    lines = [*front, "---", "", f"# {manifest.name}", ""]
    if card.get("summary"):
        lines += [f"{card['summary'].rstrip('.')}.", ""]
    if paper := card.get("paper"):
        lines += [
            f"{paper['authors']}: *{paper['title']}*, {paper['year']}. <{paper['url']}>",
            "",
        ]
    if weights["kind"] == "random":
        lines += [
            f"**Untrained**: the weights are random (seed {weights['seed']}). This model tests a "
            "pipeline; its answers mean nothing.",
            "",
        ]
    lines += ["| | |", "| --- | --- |"]
    if card.get("num_parameters"):
        lines.append(f"| parameters | {card['num_parameters']:,} |")
    lines += [f"| input | {spec} |" for spec in manifest.inputs]
    lines += [f"| output | {spec}, {manifest.head} |" for spec in manifest.outputs]
    lines += [
        f"| ONNX | opset {manifest.opset}, IR {manifest.ir_version}, {manifest.precision} |",
        *(
            f"| custom operator | {op}: a function in the file, or its native kernel |"
            for op in manifest.custom_ops
        ),
        f"| weights | {manifest.describe_weights()} |",
        f"| preprocessing | {_preprocessing_text(manifest)} |",
        *_training_lines(card.get("training")),
        "",
        "## What was proved",
        "",
        f"Verdict: **{parity['verdict']}**, against PyTorch in float64. `rho2` and `rhomax` are "
        "the error as a multiple of the error that float32 arithmetic itself makes in this network.",
        "",
        "| provider | optimization | batch | inputs | rho2 | rhomax | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {_place(c)} | {c['optimization']} | {c['batch']} | {c['kind']} "
        f"| {_number(c['rho2'])} | {_number(c['rhomax'])} | {c['verdict']} |"
        for c in parity["candidates"]
    ]
    if power := power_from_json(parity.get("power")):
        sentence = str(power)
        lines += [
            "",
            f"{sentence[:1].upper()}{sentence[1:]}.",
        ]
    lines += ["", "Replay it: `dlzoo verify <this folder>`.", ""]
    return "\n".join(lines)


def _training_lines(training: Mapping[str, Any] | None) -> list[str]:
    """Describe the training data, the recipe and the test score."""
    if training is None:
        return []
    recipe, test = training["recipe"], training.get("test") or {}
    data = training["data"]["train"]
    license_text = f", license {data['license']}" if data.get("license") else ""
    lines = [
        "",
        "## Training",
        "",
        f"{data['num_images']:,} images of {data['name']}{license_text}: "
        f"{data.get('source') or 'no source given'}. {recipe['loop']['epochs']} epochs in batches of "
        f"{recipe['loop']['batch_size']}, {recipe['optimizer']['name']} with a learning rate of "
        f"{recipe['optimizer']['lr']:g} ({recipe['schedule']['name']}), loss {recipe['loss']['name']}. "
        "`manifest.json` has every number of the recipe.",
    ]
    if test.get("top1_percent") is not None:
        lines += [
            "",
            f"Of {test['num_images']:,} test images, {test['top1_percent']:.2f} % are classified "
            "correctly.",
        ]
    return lines


def _place(candidate: Mapping[str, Any]) -> str:
    """Name the provider, and how custom operators ran on it."""
    kernels = candidate.get("kernels")
    return f"{candidate['provider']} ({kernels})" if kernels else str(candidate["provider"])


def _preprocessing_text(manifest: Manifest) -> str:
    if manifest.preprocessing is None:
        return "not recorded"
    facts = manifest.preprocessing
    where = "in the graph" if manifest.preprocessing_included else "before the graph"
    height, width = facts["crop_size"]
    resize = f"shorter side to {facts['resize_size']}, " if facts["resize_size"] else ""
    return (
        f"{where}: {facts['color']}, {resize}crop {height}x{width} ({facts['interpolation']}, "
        f"antialiased), /255, mean {_numbers(facts['mean'])}, std {_numbers(facts['std'])}"
    )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
