"""Prometheus' view of the statistics: read when it asks, so that requests pay nothing for it."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from dlzoo import __version__
from dlzoo.runtime.serve.served import Served
from dlzoo.runtime.serve.served_model import ServedModel
from dlzoo.runtime.serve.statistics import LATENCY_BUCKETS_S

_LABELS = ("model", "version")


class ServingCollector:
    """Everything that is counted, as metric families."""

    def __init__(self, served: Served) -> None:
        self._served = served

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        yield GaugeMetricFamily(
            "dlzoo_ready", "1 while the server takes new work.", float(self._served.is_ready)
        )
        yield CounterMetricFamily(
            "dlzoo_unauthenticated_requests",
            "Requests without the API key.",
            self._served.num_unauthenticated,
        )
        info = GaugeMetricFamily("dlzoo_build_info", "The version.", labels=("dlzoo_version",))
        info.add_metric((__version__,), 1)
        yield info
        yield from self._model_metrics(self._served.repository.models())

    def _model_metrics(self, models: list[ServedModel]) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "dlzoo_requests",
            "Requests by outcome; rejected and cancelled ones are failures, too.",
            labels=(*_LABELS, "outcome"),
        )
        samples = CounterMetricFamily("dlzoo_samples", "Samples inferred.", labels=_LABELS)
        runs = CounterMetricFamily("dlzoo_runs", "Runs, of any batch size.", labels=_LABELS)
        queue = CounterMetricFamily(
            "dlzoo_queue_seconds", "Time that requests waited, summed up.", labels=_LABELS
        )
        compute = CounterMetricFamily(
            "dlzoo_compute_seconds", "Time that the session ran, summed up.", labels=_LABELS
        )
        waiting = GaugeMetricFamily(
            "dlzoo_queue_requests", "Requests that wait.", labels=_LABELS
        )
        batches = CounterMetricFamily(
            "dlzoo_batches", "Runs by batch size.", labels=(*_LABELS, "batch_size")
        )
        latency = HistogramMetricFamily(
            "dlzoo_request_seconds",
            "From a request's arrival at its model to its answer.",
            labels=_LABELS,
        )
        for model in models:
            names, counts = (model.name, model.version), model.statistics
            requests.add_metric((*names, "success"), counts.success.count)
            requests.add_metric((*names, "failure"), counts.fail.count)
            requests.add_metric((*names, "rejected"), counts.num_rejected)
            requests.add_metric((*names, "cancelled"), counts.num_cancelled)
            samples.add_metric(names, counts.num_samples)
            runs.add_metric(names, counts.num_runs)
            queue.add_metric(names, counts.queue.ns * 1e-9)
            run_ns = sum(record.compute_infer.ns for record in counts.by_batch_size.values())
            compute.add_metric(names, run_ns * 1e-9)
            waiting.add_metric(names, model.num_waiting)
            for size, record in counts.by_batch_size.items():
                batches.add_metric((*names, str(size)), record.compute_infer.count)
            latency.add_metric(
                names, _buckets(counts.latency_counts), counts.success.ns * 1e-9
            )
        yield from (requests, samples, runs, queue, compute, waiting, batches, latency)


def _buckets(counts: list[int]) -> list[tuple[str, float]]:
    """Cumulative counts by upper end, as Prometheus has them."""
    ends = [*(f"{end:g}" for end in LATENCY_BUCKETS_S), "+Inf"]
    total, buckets = 0, []
    for end, count in zip(ends, counts, strict=True):
        total += count
        buckets.append((end, float(total)))
    return buckets


def metrics_registry(served: Served) -> CollectorRegistry:
    """A registry with the server's metrics and the process's memory, CPU time and files."""
    from prometheus_client import ProcessCollector

    registry = CollectorRegistry()
    registry.register(ServingCollector(served))
    ProcessCollector(registry=registry)
    return registry
