"""The first wrong value is named: one injected fault at a time, and the exact node each time."""

from pathlib import Path

import onnx
import pytest

from tests.support.injected_faults import sampled_faults
from tests.support.localized_networks import SAMPLE_SHAPES, ExportedNetwork, is_named_exactly


@pytest.fixture(scope="module", params=["lenet5_relu", "hybrid"])
def small(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ExportedNetwork:
    return ExportedNetwork(request.param, tmp_path_factory.mktemp("localization"))


def test_a_clean_graph_accuses_nobody(small: ExportedNetwork) -> None:
    localizer = small.localizer(small.path)
    checks = list(localizer.checks())
    assert len(checks) > 10 and all(checks)
    assert checks[-1].value == "logits"
    assert localizer.find(checks) == ()


def test_small_chunks_say_the_same(small: ExportedNetwork) -> None:
    whole, parts = small.localizer(small.path), small.localizer(small.path)
    parts.max_bytes = 2**17
    values = [name for name in whole.model.values if name in whole.pairs]
    assert len(parts.model.chunks(values, small.inputs, parts.max_bytes)) > 3
    assert [c.difference for c in parts.checks()] == [c.difference for c in whole.checks()]


def test_the_exact_node_is_named(small: ExportedNetwork) -> None:
    faults = sampled_faults(onnx.load(small.path), 30, seed=0)
    assert len({fault.kind for fault in faults}) > 10
    num_effective = 0
    for fault in faults:
        checks, suspects = small.find(fault)
        if all(checks):  # such as ceil_mode where nothing is left over
            continue
        num_effective += 1
        assert is_named_exactly(fault, suspects), (str(fault), suspects)
    assert num_effective >= 27


@pytest.mark.slow
def test_two_hundred_faults_over_six_networks(tmp_path: Path) -> None:
    num_effective = 0
    for number, name in enumerate(SAMPLE_SHAPES):
        exported = ExportedNetwork(name, tmp_path)
        assert all(exported.localizer(exported.path).checks()), name
        for fault in sampled_faults(onnx.load(exported.path), 40, seed=number):
            checks, suspects = exported.find(fault)
            if all(checks):
                continue
            num_effective += 1
            assert is_named_exactly(fault, suspects), (name, str(fault), suspects)
    assert num_effective >= 200
