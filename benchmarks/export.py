"""dlzoo export against a bare torch.onnx.export, over the zoo: time and memory of whole processes.

    python benchmarks/export.py [--runs 3] [--model vgg16 --model resnet50 …]

For each model, the bare script builds the same network, exports it with ``verify=True`` and saves
one file. dlzoo does that and proves the file too. The two run in turns, and the last lines give the
geometric mean of the ratios, the largest, and how much of dlzoo's time each stage takes.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from measure import describe_machine, measure_alternately

from dlzoo.zoo.catalog import list_models

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
#: dlzoo's own command, with the seconds of each stage kept in a file.
OWN_EXPORT = """
import contextlib, sys
from dlzoo.cli.main import main
with open(sys.argv[1], "w") as file, contextlib.redirect_stdout(file):
    sys.argv = ["dlzoo", "export", *sys.argv[2:], "--json"]
    main()
"""
#: The stages that the proof's own rule takes: the reference with its noise floor, and the power.
RULE = ("reference", "power")


def main() -> None:
    """Print a row for each model, then the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--model", action="append", help="one of the zoo; all if absent")
    arguments = parser.parse_args()
    names = arguments.model or [card.name for card in list_models()]
    print(describe_machine())
    print(f"median of {arguments.runs} runs, whole processes, the two in turns")
    print(
        f"{'model':<24}{'bare s':>9}{'dlzoo s':>9}{'ratio':>7}{'memory':>8}{'rule':>7}"
        "  seconds by stage"
    )
    rows = [measure_model(name, arguments.runs) for name in names]
    print(f"geometric mean {geometric_mean([time for time, _, _ in rows]):.2f} times the time")
    print(f"largest {max(time for time, _, _ in rows):.2f} times the time")
    print(f"largest {max(memory for _, memory, _ in rows):.2f} times the peak memory")
    print(f"largest share of the rule {max(share for _, _, share in rows):.0%}")


def measure_model(name: str, num_runs: int) -> tuple[float, float, float]:
    """Print a model's row: (ratio of times, ratio of peak memories, share of the rule)."""
    with tempfile.TemporaryDirectory() as folder:
        report, bundle = Path(folder, "report.json"), Path(folder, "bundle")
        results = measure_alternately(
            {
                "bare": (sys.executable, "-c", BARE_EXPORT, name, f"{folder}/bare.onnx"),
                "dlzoo": (
                    *(sys.executable, "-c", OWN_EXPORT, str(report), name),
                    *("-o", str(bundle), "--force", "--weights", "random"),
                ),
            },
            num_runs=num_runs,
        )
        seconds = Counter(json.loads(report.read_text())["seconds"])
    bare, ours = results["bare"], results["dlzoo"]
    time, memory = ours.seconds / bare.seconds, ours.peak_bytes / bare.peak_bytes
    share = sum(seconds[stage] for stage in RULE) / ours.seconds
    stages = ", ".join(f"{stage} {s:.1f}" for stage, s in seconds.items() if s >= 0.05)
    print(
        f"{name:<24}{bare.seconds:>9.1f}{ours.seconds:>9.1f}{time:>7.2f}{memory:>8.2f}"
        f"{share:>7.0%}  {stages}",
        flush=True,
    )
    return time, memory, share


def geometric_mean(ratios: Sequence[float]) -> float:
    """exp(mean(log(ratio)))."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


if __name__ == "__main__":
    main()
