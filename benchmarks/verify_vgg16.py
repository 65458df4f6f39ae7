"""dlzoo verify against only opening the session and running the golden inputs.

    python benchmarks/verify_vgg16.py BUNDLE [--runs 5]

Whole processes both: the bare one imports ONNX Runtime, opens model.onnx with default
options, and runs every golden input once.
"""

from __future__ import annotations

import argparse
import sys

from measure import describe_machine, measure_alternately

BARE_REPLAY = """
import sys
from pathlib import Path

import onnxruntime
from onnx import TensorProto, numpy_helper

bundle = Path(sys.argv[1])
session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
for path in sorted(bundle.glob("golden/*/input_0.pb")):
    tensor = TensorProto.FromString(path.read_bytes())
    session.run(None, {session.get_inputs()[0].name: numpy_helper.to_array(tensor)})
"""


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    results = measure_alternately(
        {
            "open and run": (sys.executable, "-c", BARE_REPLAY, arguments.bundle),
            "dlzoo verify": (sys.executable, "-m", "dlzoo", "verify", arguments.bundle),
        },
        num_runs=arguments.runs,
    )
    print(describe_machine())
    print(f"{arguments.bundle}, median of {arguments.runs} runs, whole process")
    print(f"{'':<16}{'seconds':>9}{'peak MB':>9}")
    for name, result in results.items():
        print(f"{name:<16}{result.seconds:>9.2f}{result.peak_bytes / 1e6:>9.0f}")
    bare, ours = results.values()
    print(f"{'ratio':<16}{ours.seconds / bare.seconds:>9.2f}")


if __name__ == "__main__":
    main()
