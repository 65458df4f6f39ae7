"""Statistics of a model since it was loaded: counts, durations, batch sizes, latencies."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

#: Upper bounds of the latency histogram's buckets, in seconds.
LATENCY_BUCKETS_S = (
    *(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)
_COMPUTE = ("compute_input", "compute_infer", "compute_output")


@dataclass(slots=True)
class Duration:
    """How often something happened, and how long it took in total."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        """Count one event, or several that took ``ns`` together."""
        self.count += count
        self.ns += ns

    def join(self, other: Duration) -> None:
        """Add the counts of another process."""
        self.add(other.ns, other.count)

    def to_json(self) -> dict[str, int]:
        """Return the values as the statistics extension writes them."""
        return {"count": self.count, "ns": self.ns}


@dataclass(slots=True)
class BatchRecord:
    """The runs of one batch size."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


class Statistics:
    """Counts of one model version; only the event loop's thread writes them."""

    def __init__(self) -> None:
        self.last_inference_ms = 0
        self.num_samples = 0
        self.num_runs = 0
        self.success = Duration()
        self.fail = Duration()
        self.queue = Duration()
        self.compute_input = Duration()
        self.compute_infer = Duration()
        self.compute_output = Duration()
        self.by_batch_size: dict[int, BatchRecord] = {}
        self.num_rejected = 0
        self.num_cancelled = 0
        self.latency_counts = [0] * (len(LATENCY_BUCKETS_S) + 1)

    def add_run(
        self, num_samples: int, num_requests: int, input_ns: int, infer_ns: int, output_ns: int
    ) -> None:
        """Count one run of the model, for one request or several."""
        self.num_runs += 1
        self.num_samples += num_samples
        record = self.by_batch_size.get(num_samples)
        if record is None:
            record = self.by_batch_size[num_samples] = BatchRecord()
        record.compute_input.add(input_ns)
        record.compute_infer.add(infer_ns)
        record.compute_output.add(output_ns)
        # Each request of a batch waits for the whole run.
        self.compute_input.add(input_ns * num_requests, num_requests)
        self.compute_infer.add(infer_ns * num_requests, num_requests)
        self.compute_output.add(output_ns * num_requests, num_requests)

    def add_request(self, ns: int, *, succeeded: bool) -> None:
        """Count one request from its arrival to its answer."""
        if succeeded:
            self.success.add(ns)
            self.last_inference_ms = time.time_ns() // 1_000_000
            self.latency_counts[bisect_left(LATENCY_BUCKETS_S, ns * 1e-9)] += 1
        else:
            self.fail.add(ns)

    @classmethod
    def joined(cls, parts: Sequence[Statistics]) -> Statistics:
        """Add up the counts of several processes."""
        total = cls()
        for part in parts:
            total.last_inference_ms = max(total.last_inference_ms, part.last_inference_ms)
            for name in ("num_samples", "num_runs", "num_rejected", "num_cancelled"):
                setattr(total, name, getattr(total, name) + getattr(part, name))
            for name in ("success", "fail", "queue", *_COMPUTE):
                getattr(total, name).join(getattr(part, name))
            for size, record in part.by_batch_size.items():
                mine = total.by_batch_size.setdefault(size, BatchRecord())
                for name in _COMPUTE:
                    getattr(mine, name).join(getattr(record, name))
            total.latency_counts = [
                a + b for a, b in zip(total.latency_counts, part.latency_counts, strict=True)
            ]
        return total

    def to_json(self, name: str, version: str) -> dict[str, Any]:
        """Build one entry of ``model_stats``, as the statistics extension defines it."""
        return {
            "name": name,
            "version": version,
            "last_inference": self.last_inference_ms,
            "inference_count": self.num_samples,
            "execution_count": self.num_runs,
            "inference_stats": {
                "success": self.success.to_json(),
                "fail": self.fail.to_json(),
                "queue": self.queue.to_json(),
                "compute_input": self.compute_input.to_json(),
                "compute_infer": self.compute_infer.to_json(),
                "compute_output": self.compute_output.to_json(),
                "cache_hit": {"count": 0, "ns": 0},
                "cache_miss": {"count": 0, "ns": 0},
            },
            "batch_stats": [
                {
                    "batch_size": size,
                    "compute_input": record.compute_input.to_json(),
                    "compute_infer": record.compute_infer.to_json(),
                    "compute_output": record.compute_output.to_json(),
                }
                for size, record in sorted(self.by_batch_size.items())
            ],
        }
