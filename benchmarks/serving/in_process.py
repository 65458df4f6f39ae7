"""The bare session in its own process: throughput, latency, processor time, memory.

For ``concurrency`` callers that take turns, in batches of 1 or of ``min(concurrency, max_batch)``, run
back to back on one thread; the session's threads spin for work or not. The best of these four counts.
The latency of a caller is that of the runs until its turn has come: ``concurrency / batch`` in a row.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from processes import resident_bytes


def open_session(model: Path, num_threads: int, *, spins: bool) -> Any:
    """A session as every server here opens it, except for ``spins``."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
    return onnxruntime.InferenceSession(
        str(model), options, providers=["CPUExecutionProvider"]
    )


def measure(
    session: Any, name: str, x: Any, concurrency: int, seconds: float
) -> dict[str, Any]:
    """Runs of one batch, back to back."""
    for _ in range(3):
        session.run(None, {name: x})
    durations = []
    cpu, start = time.process_time(), time.perf_counter()
    end = start
    while end - start < seconds or len(durations) < 3:
        before = end
        session.run(None, {name: x})
        end = time.perf_counter()
        durations.append(end - before)
    num_samples = len(x) * len(durations)
    num_turns = min(math.ceil(concurrency / len(x)), len(durations))
    waits = np.convolve(durations, np.ones(num_turns), mode="valid")
    p50, p99 = np.percentile(waits, [50, 99])
    return {
        "batch": len(x),
        "per_second": num_samples / (end - start),
        "cpu_ms": 1e3 * (time.process_time() - cpu) / num_samples,
        "p50_ms": 1e3 * p50,
        "p99_ms": 1e3 * p99,
    }


def main() -> None:
    """Print one JSON document: memory, and a row for each concurrency."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("arrays", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--max-batch", type=int, required=True)
    parser.add_argument("--concurrency", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    x = np.load(arguments.arrays)["inputs"]
    x = np.concatenate([x] * math.ceil(arguments.max_batch / len(x)))
    session = open_session(arguments.model, arguments.threads, spins=False)
    name = session.get_inputs()[0].name
    for batch in (1, arguments.max_batch):
        session.run(None, {name: x[:batch]})
    memory = resident_bytes([os.getpid()])
    sessions = [session, open_session(arguments.model, arguments.threads, spins=True)]
    rows = {}
    for concurrency in map(int, arguments.concurrency.split(",")):
        batches = sorted({1, min(concurrency, arguments.max_batch)})
        tries = [
            measure(sessions[spins], name, x[:batch], concurrency, arguments.seconds)
            | {"way": f"batch {batch}{', spinning' if spins else ''}"}
            for spins, batch in itertools.product((False, True), batches)
        ]
        best = dict(max(tries, key=lambda each: each["per_second"]), tries=tries)
        # The least processor time of all measurements, even if another one is faster.
        best["cpu_ms"] = min(each["cpu_ms"] for each in tries)
        rows[concurrency] = best
    json.dump({"memory_bytes": memory, "rows": rows}, sys.stdout)


if __name__ == "__main__":
    main()
