"""What report.html says: its sentences, numbers and tables are true to parity.json."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from dlzoo.runtime.bundle.manifest import Manifest
from dlzoo.runtime.proof.difference import WorstElement
from dlzoo.runtime.proof.report import Power
from tests.support.report_facts import candidate
from tests.support.report_reader import parity, read, section


def test_the_verdict_is_one_plain_sentence(manifest: Manifest) -> None:
    def lead(document: dict[str, Any]) -> str:
        root = read(manifest, document)
        (found,) = (p for p in root.all("p") if p.attributes.get("class") == "lead")
        return found.text

    assert lead(parity()) == (
        "This ONNX model gives PyTorch's answers. In 3 runs its error is at most 1.10 times the "
        "error that float32 itself makes; up to 3 passes."
    )
    failed = candidate(verdict="fail", reasons=("output 'y' has rho2 9, the limit is 3",))
    assert lead(parity(verdict="fail", candidates=(failed, candidate()))) == (
        "This ONNX model does not give PyTorch's answers: 1 of 2 runs fail."
    )
    assert lead(parity(verdict="fail", reasons=("opset 18 where 20 was asked",))) == (
        "This ONNX model does not give PyTorch's answers: opset 18 where 20 was asked."
    )
    assert lead(parity(verdict="vacuous", reasons=("nothing was compared.",))) == (
        "Nothing is proved of this model: nothing was compared."
    )


def numbers_in(document: Any) -> Iterator[float | str]:
    if isinstance(document, dict):
        for value in document.values():
            yield from numbers_in(value)
    elif isinstance(document, list):
        for value in document:
            yield from numbers_in(value)
    elif isinstance(document, float | int):
        yield float(document)


def test_every_number_is_one_of_parity_json(manifest: Manifest) -> None:
    document = parity()
    root = read(manifest, document)
    shown = [float(data.attributes["value"]) for data in root.all("data")]
    assert len(shown) > 30
    assert set(shown) <= set(numbers_in(document))
    of_runs = {c[key] for c in document["candidates"] for key in ("rho2", "rhomax")} - {None}
    assert of_runs <= {
        float(data.attributes["value"]) for data in section(root, "proof").all("data")
    }
    of_layers = {v[key] for v in document["layers"]["values"] for key in ("rho2", "rhomax")}
    assert of_layers <= {
        float(data.attributes["value"]) for data in section(root, "layers").all("data")
    }
    for data in root.all("data"):
        assert float(data.text) == pytest.approx(
            float(data.attributes["value"]), rel=0.06, abs=0.006
        )


def test_the_worst_element_of_each_set_is_told_once_from_its_worst_run(
    manifest: Manifest,
) -> None:
    rows = list(section(read(manifest, parity()), "elements").all("tr"))[1:]
    (row,) = rows
    assert [cell.text for cell in (*row.all("th"), *row.all("td"))] == [
        *("normal x1", "logits[1, 7]", "0.5", "0.5000001", "+1.0e-07", "2.00"),
        "cpu, disabled",
    ]


def test_elements_that_are_not_finite_come_first_by_name(manifest: Manifest) -> None:
    worst = {"y": WorstElement(index=(), reference=float("inf"), got=float("nan"))}
    broken = candidate(golden="test_data_set_1", verdict="fail", rho2=None, worst=worst)
    root = read(manifest, parity(verdict="fail", candidates=(candidate(), broken)))
    first = list(section(root, "elements").all("tr"))[1]
    assert [cell.text for cell in first.all("td")][:4] == ["y[]", "+Inf", "NaN", "NaN"]


def test_power_names_what_was_missed(manifest: Manifest) -> None:
    said = section(read(manifest, parity()), "power").text
    assert "A small change in any of 9 of 10 weight tensors would have been noticed." in said
    assert "Not visible: conv1.bias." in said
    changes = {"conv1.weight": 2e-5, "fc.weight": 3e-6, "fc.bias": 2e-3}
    power = Power(detected=3, tried=3, sampled_of=3, smallest_changes=changes)
    said = section(read(manifest, parity(power=power)), "power").text
    assert (
        "A change of 0.002 % in half of the weight tensors, of 0.2 % in any, would have been noticed."
        in said
    )
    assert said.index("fc.bias") < said.index("conv1.weight") < said.index("fc.weight")
    assert "Not measured" in section(read(manifest, parity(power=None)), "power").text


def test_the_lowering_table_says_why(manifest: Manifest) -> None:
    rows = list(section(read(manifest, parity()), "lowering").all("tr"))[1:]
    told = [[cell.text for cell in (*row.all("th"), *row.all("td"))] for row in rows]
    assert told == [
        ["Conv2d", "2", "native", "Conv", "ONNX has an operator for it", "a, b"],
        [
            *("Mish", "1", "decomposed:exp", "Exp, Mul (5 nodes)", "the fastest on ort-cpu"),
            "the network itself",
        ],
    ]


def test_axes_and_timings(manifest: Manifest) -> None:
    root = read(manifest, parity())
    row = list(section(root, "axes").all("tr"))[1]
    assert [cell.text for cell in row.all("td")] == ["image, axis 0", "1 and more", "1, 2, 5"]
    timings = section(root, "timings").text
    assert "8.0 seconds in all" in timings and "6.2" in timings
    assert "None" in section(read(replace(manifest, dynamic_axes={}), parity()), "axes").text


def test_a_report_from_before_layers_were_measured_gives_a_page(manifest: Manifest) -> None:
    old = parity()
    del old["layers"], old["power"]["missed"]
    for entry in old["candidates"]:
        del entry["worst"]
    root = read(manifest, old)
    assert "were not measured" in section(root, "layers").text
    assert "elements" not in [found.attributes["id"] for found in root.all("section")]
