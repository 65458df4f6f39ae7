"""dlzoo export vgg16 against a bare torch.onnx.export: time and memory of whole processes.

    python benchmarks/export_vgg16.py [--runs 3] [--model vgg16]

The bare script builds the same network with the same weights, exports it with
``verify=True`` and saves one file. dlzoo does that and proves the file too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from measure import describe_machine, measure_alternately

BARE_EXPORT = """
import sys
import torch
from dlzoo.zoo.catalog import get_card

torch.manual_seed(0)
card = get_card(sys.argv[1])
model = card.builder().eval()
example = torch.randn(2, *card.input_shape)
program = torch.onnx.export(
    model, (example,), dynamo=True, verify=True,
    dynamic_shapes=({0: torch.export.Dim("batch")},),
)
program.save(sys.argv[2], external_data=False)
"""


def main() -> None:
    """Print the two side by side, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--model", default="vgg16")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = str(Path(folder, "bundle"))
        results = measure_alternately(
            {
                "bare": (
                    sys.executable,
                    "-c",
                    BARE_EXPORT,
                    arguments.model,
                    str(Path(folder, "bare.onnx")),
                ),
                "dlzoo": (
                    *(sys.executable, "-m", "dlzoo", "export", arguments.model),
                    *("-o", bundle, "--force", "--weights", "random"),
                ),
            },
            num_runs=arguments.runs,
        )
    print(describe_machine())
    print(f"{arguments.model}, median of {arguments.runs} runs, whole process")
    print(f"{'':<32}{'seconds':>9}{'peak MB':>9}")
    bare, ours = results["bare"], results["dlzoo"]
    print(
        f"{'torch.onnx.export(verify=True)':<32}{bare.seconds:>9.1f}{bare.peak_bytes / 1e6:>9.0f}"
    )
    print(f"{'dlzoo export':<32}{ours.seconds:>9.1f}{ours.peak_bytes / 1e6:>9.0f}")
    time_ratio = ours.seconds / bare.seconds
    memory_ratio = ours.peak_bytes / bare.peak_bytes
    print(f"{'ratio':<32}{time_ratio:>9.2f}{memory_ratio:>9.2f}")


if __name__ == "__main__":
    main()
