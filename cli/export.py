"""``dlzoo export``: a model becomes a bundle that proves itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from dlzoo.errors import ArgumentError


def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help='A name from "dlzoo models", package.module:FACTORY or file.py:FACTORY (runs '
            "that code), a .pt2 file, timm:NAME, torchvision:NAME, or the folder of a training run.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The bundle's folder; if absent ./NAME, or RUN/bundle for a training run.",
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            help="imagenet (downloaded once), a .safetensors or .pth FILE, random, or auto: "
            "what the cache holds, else random."
        ),
    ] = "auto",
    input: Annotated[
        list[str] | None,
        typer.Option(
            help="An input of a network that is not in the zoo: NAME=SHAPE:DTYPE, such as "
            "x=1x3x224x224:float32; repeatable."
        ),
    ] = None,
    num_classes: Annotated[
        int | None, typer.Option(help="Number of classes; the model's own if absent.")
    ] = None,
    opset: Annotated[int, typer.Option(help="The ONNX opset to deliver.")] = 20,
    batch: Annotated[
        str, typer.Option(help="The batch size: dynamic, or a fixed number.")
    ] = "dynamic",
    image_size: Annotated[
        str | None,
        typer.Option(
            help="H,W, LOW..HIGH for a range, or dynamic; the model's own if absent."
        ),
    ] = None,
    head: Annotated[
        str, typer.Option(help="What the output is: logits, softmax or sigmoid.")
    ] = "logits",
    include_preprocessing: Annotated[
        bool,
        typer.Option(
            "--include-preprocessing",
            help="Take uint8 images: resize, crop and normalize inside the graph.",
        ),
    ] = False,
    target: Annotated[
        str,
        typer.Option(
            help="Where it will run: ort-cpu, ort-cuda, tensorrt, openvino or portable."
        ),
    ] = "ort-cpu",
    lowering: Annotated[
        list[str] | None,
        typer.Option(
            help='OPERATOR=SPELLING in place of the fastest (see "dlzoo ops"); repeatable.'
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of random weights and test inputs.")] = 0,
    provider: Annotated[
        list[str] | None, typer.Option(help="Prove it on cpu, cuda, …; repeatable. [cpu]")
    ] = None,
    strict_special_values: Annotated[
        bool,
        typer.Option(
            "--strict-special-values",
            help="Let the answers to inputs with NaN and Inf decide, too.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a bundle that is already there.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Export a model to ONNX, and prove it.

    The bundle holds the model, the data that prove it, and a report. If the proof fails, nothing
    is written and the exit status is 1.
    """
    from dlzoo.export.plan.image_size import parse_image_size

    # Before torch is imported, which takes seconds.
    sizes, batch_size = parse_image_size(image_size), _parse_batch(batch)

    from dlzoo.cli.console import print_document, stage_display
    from dlzoo.cli.report_text import print_export
    from dlzoo.export.lowering.operators import OPERATORS
    from dlzoo.export.lowering.registry import parse_overrides
    from dlzoo.export.plan.options import ExportOptions
    from dlzoo.export.prove.proof import export_and_report
    from dlzoo.runtime.proof.report import ProofError
    from dlzoo.zoo.sources.input_spec import parse_input_spec

    options = ExportOptions(
        opset=opset,
        batch=batch_size,
        image_size=sizes,
        head=cast("Literal['logits', 'softmax', 'sigmoid']", head),  # checked in the plan
        include_preprocessing=include_preprocessing,
        target=target,
        lowerings=parse_overrides(lowering or (), OPERATORS),
    )
    specs = [parse_input_spec(text) for text in input or ()]
    try:
        with stage_display(quiet=json) as display:
            bundle, report = export_and_report(
                model,
                output,
                options=options,
                weights=weights,
                inputs=specs,
                num_classes=num_classes,
                seed=seed,
                providers=tuple(provider or ("cpu",)),
                strict_special_values=strict_special_values,
                force=force,
                progress=display,
            )
    except ProofError as error:
        if json:
            print_document(error.report.to_json())
        raise
    if json:
        print_document(report.to_json())
    else:
        print_export(bundle, report)


def _parse_batch(text: str) -> int | None:
    """A fixed batch size, or None for a dynamic one."""
    if text == "dynamic":
        return None
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise ArgumentError(
        f"--batch got {text!r}, expected 'dynamic' or a number from 1 up. "
        "Write for example --batch 8."
    )
