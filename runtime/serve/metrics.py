"""The statistics as Prometheus metrics, computed only when Prometheus asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from dlzoo.runtime.serve.control import ProcessCounts
from dlzoo.runtime.serve.models.statistics import LATENCY_BUCKETS_S
from dlzoo.version import __version__


class ServingCollector:
    """Collects all statistics as metric families.

    If a server has several processes, each one's numbers have the label ``worker``: those of a
    replaced process start at 0 again, which Prometheus handles within one series.
    """

    def __init__(self, counts: Sequence[ProcessCounts]) -> None:
        self._counts = counts
        self._worker_label = ("worker",) if any(process.worker for process in counts) else ()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        ready = GaugeMetricFamily(
            "dlzoo_ready", "1 while the server accepts requests.", labels=self._worker_label
        )
        unauthenticated = CounterMetricFamily(
            "dlzoo_unauthenticated_requests",
            "Requests without the API key.",
            labels=self._worker_label,
        )
        for process in self._counts:
            worker = self._worker(process)
            ready.add_metric(worker, float(process.is_ready))
            unauthenticated.add_metric(worker, process.num_unauthenticated)
        yield from (ready, unauthenticated)
        info = GaugeMetricFamily("dlzoo_build_info", "The version.", labels=("dlzoo_version",))
        info.add_metric((__version__,), 1)
        yield info
        yield from self._model_metrics()
        yield from self._process_metrics()

    def _worker(self, process: ProcessCounts) -> tuple[str, ...]:
        return (process.worker,) if self._worker_label else ()

    def _model_metrics(self) -> Iterator[Metric]:
        labels = (*self._worker_label, "model", "version")
        requests = CounterMetricFamily(
            "dlzoo_requests",
            "Requests by outcome; rejected and cancelled ones also count as failures.",
            labels=(*labels, "outcome"),
        )
        samples = CounterMetricFamily("dlzoo_samples", "Samples inferred.", labels=labels)
        runs = CounterMetricFamily("dlzoo_runs", "Runs, of any batch size.", labels=labels)
        queue = CounterMetricFamily(
            "dlzoo_queue_seconds", "Total time that requests waited.", labels=labels
        )
        compute = CounterMetricFamily(
            "dlzoo_compute_seconds", "Total time that the session ran.", labels=labels
        )
        waiting = GaugeMetricFamily(
            "dlzoo_queue_requests", "Requests that are waiting.", labels=labels
        )
        batches = CounterMetricFamily(
            "dlzoo_batches", "Runs by batch size.", labels=(*labels, "batch_size")
        )
        latency = HistogramMetricFamily(
            "dlzoo_request_seconds",
            "Time from a request's arrival at its model to its answer.",
            labels=labels,
        )
        for process in self._counts:
            for model in process.models:
                names = (*self._worker(process), model.name, model.version)
                counts = model.statistics
                requests.add_metric((*names, "success"), counts.success.count)
                requests.add_metric((*names, "failure"), counts.fail.count)
                requests.add_metric((*names, "rejected"), counts.num_rejected)
                requests.add_metric((*names, "cancelled"), counts.num_cancelled)
                samples.add_metric(names, counts.num_samples)
                runs.add_metric(names, counts.num_runs)
                queue.add_metric(names, counts.queue.ns * 1e-9)
                run_ns = sum(r.compute_infer.ns for r in counts.by_batch_size.values())
                compute.add_metric(names, run_ns * 1e-9)
                waiting.add_metric(names, model.num_waiting)
                for size, record in counts.by_batch_size.items():
                    batches.add_metric((*names, str(size)), record.compute_infer.count)
                latency.add_metric(
                    names, _buckets(counts.latency_counts), counts.success.ns * 1e-9
                )
        yield from (requests, samples, runs, queue, compute, waiting, batches, latency)

    def _process_metrics(self) -> Iterator[Metric]:
        """Yield each process's memory, processor time and open files."""
        families: dict[str, Metric] = {}
        for process in self._counts:
            labels = dict(zip(self._worker_label, self._worker(process), strict=True))
            for found in ProcessCollector(
                pid=partial(int, process.pid), registry=None
            ).collect():
                family = families.setdefault(
                    found.name, Metric(found.name, found.documentation, found.type)
                )
                for sample in found.samples:
                    family.add_sample(sample.name, {**sample.labels, **labels}, sample.value)
        yield from families.values()


def _buckets(counts: list[int]) -> list[tuple[str, float]]:
    """Compute cumulative counts by upper bound, as Prometheus expects them."""
    ends = [*(f"{end:g}" for end in LATENCY_BUCKETS_S), "+Inf"]
    total, buckets = 0, []
    for end, count in zip(ends, counts, strict=True):
        total += count
        buckets.append((end, float(total)))
    return buckets


def metrics_text(counts: Sequence[ProcessCounts]) -> bytes:
    """Write the text that Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(ServingCollector(counts))
    return generate_latest(registry)
