"""What a run measured, one row an epoch, as JSON lines and as CSV."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

from dlzoo.zoo.train.checkpoint import replaced_file

#: The order of the columns, where a row has them.
COLUMNS = (
    "epoch",
    "step",
    "learning_rate",
    "train_loss",
    "train_top1_percent",
    "validation_loss",
    "validation_top1_percent",
    "gradient_norm",
    "images_per_second",
    "waiting_percent",
    "seconds",
)


class History:
    """The rows of a run, in ``metrics.jsonl`` and ``metrics.csv``; each write is whole.

    Args:
        folder: of the run.
        num_rows: how many of the rows there are true: the rest came after the checkpoint that
            the run goes on from.
    """

    def __init__(self, folder: Path, *, num_rows: int = 0) -> None:
        self._jsonl, self._csv = folder / "metrics.jsonl", folder / "metrics.csv"
        lines = self._jsonl.read_text().splitlines() if num_rows else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines[:num_rows]]

    def add(self, row: dict[str, Any]) -> None:
        """Append a row; what is not finite is None, JSON has no NaN."""
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        self.rows.append(finite)
        self._write()

    def _write(self) -> None:
        with replaced_file(self._jsonl) as part:
            part.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        columns = [name for name in COLUMNS if any(name in row for row in self.rows)]
        columns += sorted({key for row in self.rows for key in row} - set(columns))
        with replaced_file(self._csv) as part, part.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
