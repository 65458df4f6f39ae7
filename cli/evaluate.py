"""``dlzoo evaluate``: the accuracy of a run or a bundle on images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dlzoo.errors import DisagreementError

_SHOWN = 10
_COLUMNS = (
    ("top1_percent", "top-1"),
    ("top5_percent", "top-5"),
    ("map_percent", "mAP"),
    ("mean_f1_percent", "mean F1"),
)


def evaluate(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|BUNDLE",
            help="The folder of a training run (PyTorch and ONNX Runtime) or of a bundle (ONNX "
            "Runtime alone).",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="digits, mnist, fashion-mnist, cifar-10, an image folder or an index .csv; what "
            "it was trained on if absent."
        ),
    ] = None,
    data_root: Annotated[
        str | None, typer.Option(help="The folder that holds a named data set.")
    ] = None,
    split: Annotated[str, typer.Option(help="test, train or val.")] = "test",
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="For a run: this bundle; if absent RUN/bundle, else a temporary one."
        ),
    ] = None,
    provider: Annotated[str, typer.Option(help="Where ONNX Runtime runs.")] = "cpu",
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Leave out images that cannot be read.")
    ] = False,
    tables: Annotated[
        Path | None,
        typer.Option(help="Write confusion.csv and classes.csv to this folder."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Measure accuracy on images, in PyTorch and ONNX Runtime.

    Images for which the two give different classes are listed. The exit status is 1 if one of
    the differences is larger than float32 noise, or if a run's export is refused: PyTorch's
    accuracy is printed all the same.
    """
    from dlzoo.cli.console import (
        print_document,
        print_lines,
        print_table,
        stage_display,
    )
    from dlzoo.export.evaluate.evaluation import evaluate as evaluate_model

    with stage_display(quiet=json) as display:
        result = evaluate_model(
            model,
            data=data,
            data_root=data_root,
            split=split,
            bundle=bundle,
            provider=provider,
            on_corrupt="skip" if skip_corrupt else "refuse",
            tables=tables,
            progress=display,
        )
    is_choice = any("top1_percent" in figures for figures in result.engines.values())
    if json:
        print_document(result.to_json())
    else:
        columns = [c for c in _COLUMNS if any(c[0] in f for f in result.engines.values())]
        rows: list[list[Any]] = [
            [
                name,
                f"{figures['num_images']:,}",
                *(f"{figures[key]:.2f} %" for key, _ in columns),
                f"{figures['loss']:.4f}",
            ]
            for name, figures in result.engines.items()
        ]
        header = ("engine", "images", *(title for _, title in columns), "loss")
        print_table(header, rows, numeric=header[1:])
        if result.relative_difference is not None:
            count = len(result.disagreements)
            classes = f"{count} images get a different class in ONNX Runtime; outputs"
            print_lines(
                [
                    "",
                    f"{classes if is_choice else 'Outputs'} differ by at most "
                    f"{result.relative_difference:.1e} of the largest.",
                ]
            )
        if result.disagreements:
            print_table(
                ("index", "target", "PyTorch", "ONNX Runtime", "margin", "why"),
                [
                    (
                        found.index,
                        found.target,
                        found.pytorch,
                        found.onnxruntime,
                        f"{found.margin:.1e}",
                        "noise" if found.is_noise else "WRONG",
                    )
                    for found in result.disagreements[:_SHOWN]
                ],
                numeric=("index", "margin"),
            )
    if result.export_failure is not None:
        raise DisagreementError(
            f"{model} has no ONNX model, so these are PyTorch's figures alone: its export is "
            f"refused. {result.export_failure}"
        )
    wrong = [found for found in result.disagreements if not found.is_noise]
    if wrong:
        found = (
            f"{len(wrong)} images get a different class in ONNX Runtime than in PyTorch"
            if is_choice
            else "outputs in ONNX Runtime differ from PyTorch's"
        )
        raise DisagreementError(
            f"{found} beyond float32's noise, the first is {wrong[0].index}. Find the layer with dlzoo diff {model} BUNDLE."
        )
