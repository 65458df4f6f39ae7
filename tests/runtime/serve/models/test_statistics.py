"""Counts of several processes add up to those of one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dlzoo.runtime.serve.control import ModelCounts, ProcessCounts, statistics_json
from dlzoo.runtime.serve.models.statistics import Statistics

DURATIONS = st.integers(0, 20_000_000_000)
RUNS = st.tuples(
    st.just("run"), st.integers(1, 8), st.integers(1, 8), DURATIONS, DURATIONS, DURATIONS
)
REQUESTS = st.tuples(st.just("request"), DURATIONS, st.booleans())
OTHERS = st.tuples(st.sampled_from(["rejected", "cancelled"]))
EVENTS = st.lists(st.tuples(st.integers(0, 2), st.one_of(RUNS, REQUESTS, OTHERS)), max_size=30)


def count(statistics: Statistics, event: tuple) -> None:
    match event:
        case ("run", *numbers):
            statistics.add_run(*numbers)
        case ("request", ns, succeeded):
            statistics.add_request(ns, succeeded=succeeded)
        case ("rejected",):
            statistics.num_rejected += 1
        case ("cancelled",):
            statistics.num_cancelled += 1


@settings(deadline=None)  # shared machines
@given(EVENTS)
def test_joined_counts_are_those_of_one_process(events: list[tuple[int, tuple]]) -> None:
    parts, whole = [Statistics() for _ in range(3)], Statistics()
    for part, event in events:
        count(parts[part], event)
        count(whole, event)
    joined = Statistics.joined(parts)
    assert joined.last_inference_ms == max(part.last_inference_ms for part in parts)
    joined.last_inference_ms = whole.last_inference_ms
    assert joined.to_json("m", "1") == whole.to_json("m", "1")
    assert joined.latency_counts == whole.latency_counts
    assert joined.num_rejected == whole.num_rejected
    assert joined.num_cancelled == whole.num_cancelled


def test_statistics_are_of_what_was_asked_for() -> None:
    def process(*names: tuple[str, str]) -> ProcessCounts:
        models = []
        for name, version in names:
            statistics = Statistics()
            statistics.add_request(5, succeeded=True)
            models.append(ModelCounts(name, version, 0, statistics))
        return ProcessCounts("1", 1, True, 0, models)

    counts = [process(("a", "1"), ("a", "2"), ("b", "1")), process(("a", "2"), ("b", "1"))]

    def found(*wanted: str) -> dict[tuple[str, str], int]:
        return {
            (s["name"], s["version"]): s["inference_stats"]["success"]["count"]
            for s in statistics_json(counts, *wanted)
        }

    assert found() == {("a", "1"): 1, ("a", "2"): 2, ("b", "1"): 2}
    assert found("a") == {("a", "1"): 1, ("a", "2"): 2}
    assert found("a", "2") == {("a", "2"): 2}
