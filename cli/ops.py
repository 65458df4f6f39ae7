"""``dlzoo ops``: how operators are spelled in ONNX, where each spelling works and what it costs."""

from __future__ import annotations

from typing import Annotated

import typer


def ops(
    opset: Annotated[
        int,
        typer.Option(help="Mark the spellings that an export to this opset takes; 11 to 24."),
    ] = 20,
    markdown: Annotated[
        bool,
        typer.Option("--markdown", help="Print the whole table as a page: docs/operators.md."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """List the spellings of operators, and their measured cost."""
    from dlzoo.cli.console import print_document, print_lines, print_table
    from dlzoo.errors import ArgumentError
    from dlzoo.export.lowering.kernels import TARGETS
    from dlzoo.export.lowering.operator_table import (
        OPSETS,
        TableRow,
        markdown_page,
        operator_table,
        opset_range,
    )

    if opset not in OPSETS:
        raise ArgumentError(
            f"--opset got {opset}, expected {OPSETS[0]} to {OPSETS[-1]}. 20 runs everywhere."
        )
    if markdown:
        print(markdown_page(), end="")
        return
    rows = operator_table()
    if json:
        print_document(
            [
                {
                    "operator": row.operator,
                    "spelling": row.lowering.key,
                    "onnx": list(row.lowering.onnx),
                    "min_opset": row.lowering.min_opset,
                    "cost": row.costs,
                    "error": row.errors,
                    "usable": {target: list(row.usable[target]) for target in TARGETS},
                    "taken": {target: list(row.taken[target]) for target in TARGETS},
                    "expanded": {target: list(row.expanded[target]) for target in TARGETS},
                    "note": row.lowering.note,
                }
                for row in rows
            ]
        )
        return

    def marks(row: TableRow) -> str:
        return "".join(
            "*" if opset in row.taken[target] else "+" if opset in row.usable[target] else "-"
            for target in TARGETS
        )

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    print_table(
        ("operator", "spelling", "opsets", "cost", "error", "targets"),
        [
            (
                row.operator,
                row.lowering.key,
                opset_range(o for o in OPSETS if any(o in row.usable[t] for t in TARGETS)),
                number(row.costs.get("ort-cpu")),
                number(row.errors.get("ort-cpu")),
                marks(row),
            )
            for row in rows
        ],
        numeric=("cost", "error"),
    )
    print_lines(
        [
            "",
            f"targets: {', '.join(TARGETS)}, in this order.",
            f"* taken at opset {opset}   + works   - does not",
            "cost: run time against the operator's fastest spelling, ONNX Runtime on CPU.",
            "error: against PyTorch's own in float32; 3 is the limit.",
        ]
    )
