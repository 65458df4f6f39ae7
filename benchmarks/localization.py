"""How often the exact node is named, and what a look at every value costs.

Faults are put into the exported graphs of six networks, one node at a time (weights, attributes,
operators, removed nodes, wiring), and the first wrong value is looked for. Run it as
``python benchmarks/localization.py [FAULTS PER NETWORK]``.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from measure import describe_machine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.support.injected_faults import sampled_faults
from tests.support.localized_networks import SAMPLE_SHAPES, ExportedNetwork, is_named_exactly

_NUM_FAULTS = 40


def _seconds_untapped(exported: ExportedNetwork) -> float:
    """One session and one run, as a user's program has it: the unit of cost."""
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(str(exported.path))
    session.run(None, exported.inputs)
    return time.perf_counter() - start


def main() -> None:
    """Print a table, a network a row."""
    num_faults = int(sys.argv[1]) if len(sys.argv) > 1 else _NUM_FAULTS
    print(describe_machine())
    print(f"{'network':16}{'clean':>7}{'faults':>8}{'effective':>11}{'exact':>7}{'cost':>8}")
    total: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(SAMPLE_SHAPES):
            exported = ExportedNetwork(name, Path(folder))
            localizer = exported.localizer(exported.path)
            clean = all(list(localizer.checks()))
            found: Counter[str] = Counter()
            seconds = []
            faults = sampled_faults(onnx.load(exported.path), num_faults, seed=number)
            for fault in faults:
                start = time.perf_counter()
                checks, suspects = exported.find(fault)
                seconds.append(time.perf_counter() - start)
                if all(checks):
                    continue
                found["effective"] += 1
                kinds[fault.kind] += 1
                found["exact"] += is_named_exactly(fault, suspects)
            cost = float(np.median(seconds)) / _seconds_untapped(exported)
            total.update(found, faults=len(faults))
            print(
                f"{name:16}{'yes' if clean else 'NO':>7}{len(faults):8}{found['effective']:11}"
                f"{found['exact']:7}{cost:7.1f}x"
            )
    print(f"{'all':23}{total['faults']:8}{total['effective']:11}{total['exact']:7}")
    print(f"{len(kinds)} kinds of fault; cost: a search, in sessions opened and run once")


if __name__ == "__main__":
    main()
