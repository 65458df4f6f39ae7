"""The measurements of a run, one row per epoch, as JSON lines and CSV."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

from dlzoo.errors import CheckpointError
from dlzoo.zoo.train.run.checkpoint import replaced_file

#: Order of the columns; rows may lack some.
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
    """The rows of a run, in ``metrics.jsonl`` and ``metrics.csv``; each write is complete.

    Args:
        folder: folder of the run.
        num_rows: number of rows to keep; later ones were written after the checkpoint from
                which the run continues.

    Raises:
        CheckpointError: rows are missing.
    """

    def __init__(self, folder: Path, *, num_rows: int = 0) -> None:
        self._jsonl, self._csv = folder / "metrics.jsonl", folder / "metrics.csv"
        self.rows: list[dict[str, Any]] = self._read(num_rows) if num_rows else []

    def _read(self, num_rows: int) -> list[dict[str, Any]]:
        try:
            lines = self._jsonl.read_text(encoding="utf-8").splitlines()[:num_rows]
            rows = [json.loads(line) for line in lines]
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "a line is not JSON"
            raise CheckpointError(
                f"{self._jsonl} cannot be read: {reason}. Start the run again."
            ) from None
        if len(rows) < num_rows or not all(isinstance(row, dict) for row in rows):
            raise CheckpointError(
                f"{self._jsonl} has {len(rows)} rows, expected {num_rows}, one per epoch of the "
                "checkpoint. Start the run again."
            )
        return rows

    def add(self, row: dict[str, Any]) -> None:
        """Append a row, with None for NaN and Inf, which JSON does not have."""
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
            writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
