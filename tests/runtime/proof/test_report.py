import json
from dataclasses import replace
from typing import Any

import pytest

from dlzoo.errors import BundleError
from dlzoo.runtime.proof.difference import WorstElement
from dlzoo.runtime.proof.layer_errors import LayerError, LayerErrors
from dlzoo.runtime.proof.report import POWER_THRESHOLD, CandidateResult, Power, Report, judge

FULL_POWER = Power(detected=10, tried=10, sampled_of=50)


def result(**changes: Any) -> CandidateResult:
    facts: dict[str, Any] = {
        "provider": "cpu",
        "optimization": "all",
        "batch": 2,
        "golden": "test_data_set_0",
        "kind": "normal x1",
        "verdict": "pass",
        "rho2": 0.9,
        "rhomax": 1.8,
    }
    return CandidateResult(**{**facts, **changes})


def report(**changes: Any) -> Report:
    facts: dict[str, Any] = {
        "verdict": "pass",
        "bundle": "vgg16",
        "opset": 20,
        "candidates": (result(),),
        "power": FULL_POWER,
        "dynamic_axes": {"batch": {"min": 1, "max": None, "proved": [1, 2, 5]}},
        "seconds": {"run": 0.25},
    }
    return Report(**{**facts, **changes})


def test_all_passing_with_power_is_a_pass() -> None:
    assert judge([result(), result(batch=5)], FULL_POWER, power_required=True) == ("pass", ())


def test_one_failing_run_is_a_fail_whatever_the_power() -> None:
    results = [result(), result(verdict="fail")]
    for power in (FULL_POWER, None, Power(detected=0, tried=5, sampled_of=5)):
        assert judge(results, power, power_required=True)[0] == "fail"


def test_a_fault_beside_the_numbers_is_a_fail() -> None:
    verdict, reasons = judge(
        [result()], FULL_POWER, power_required=True, problems=["opset 18"]
    )
    assert (verdict, reasons) == ("fail", ("opset 18",))


def test_nothing_compared_is_vacuous() -> None:
    verdict, reasons = judge([], FULL_POWER, power_required=True)
    assert verdict == "vacuous" and reasons == ("nothing was compared",)


def test_only_masks_compared_is_vacuous_for_each_way_to_run() -> None:
    masks_only = result(rho2=None, rhomax=None, optimization="disabled")
    verdict, reasons = judge([result(), masks_only], FULL_POWER, power_required=True)
    assert verdict == "vacuous"
    assert reasons == ("on cpu, optimization disabled, no finite number was compared",)
    with_number = [result(), masks_only, result(optimization="disabled")]
    assert judge(with_number, FULL_POWER, power_required=True)[0] == "pass"


@pytest.mark.parametrize(
    ("detected", "verdict"), [(8, "vacuous"), (9, "pass"), (10, "pass"), (0, "vacuous")]
)
def test_power_below_the_threshold_is_vacuous(detected: int, verdict: str) -> None:
    assert POWER_THRESHOLD == 0.9
    power = Power(detected=detected, tried=10, sampled_of=10)
    got, reasons = judge([result()], power, power_required=False)
    assert got == verdict
    if verdict == "vacuous":
        assert f"only {detected} of 10 weight tensors are visible in the outputs" in reasons[0]


@pytest.mark.parametrize("power", [None, Power(detected=0, tried=0, sampled_of=0)])
def test_power_that_was_not_measured_is_vacuous_where_it_is_required(
    power: Power | None,
) -> None:
    assert judge([result()], power, power_required=True)[0] == "vacuous"


def test_power_may_be_unknown_for_recorded_data() -> None:
    assert judge([result()], None, power_required=False) == ("pass", ())


@pytest.mark.parametrize("facts", [(3, 2, 5), (-1, 2, 5), (1, 6, 5)])
def test_power_that_makes_no_sense_is_refused(facts: tuple[int, int, int]) -> None:
    detected, tried, sampled_of = facts
    with pytest.raises(ValueError, match="does not hold"):
        Power(detected=detected, tried=tried, sampled_of=sampled_of)


def test_a_report_is_true_where_it_passes() -> None:
    assert report()
    assert not report(verdict="fail")
    assert not report(verdict="vacuous")


def test_the_json_has_the_promised_keys() -> None:
    document = report().to_json()
    assert {
        "verdict",
        "bundle",
        "opset",
        "candidates",
        "power",
        "dynamic_axes",
        "seconds",
    } <= set(document)
    candidate = document["candidates"][0]
    assert {"provider", "optimization", "batch", "verdict", "rho2", "rhomax"} <= set(candidate)
    assert document["power"]["detected"] == document["power"]["tried"] == 10


def test_the_json_holds_no_nan_and_no_infinity() -> None:
    worst = result(
        verdict="fail", rho2=float("inf"), rhomax=float("nan"), reasons=("has rho2 inf",)
    )
    document = report(candidates=(worst,)).to_json()
    text = json.dumps(document, allow_nan=False)
    assert json.loads(text) == document
    assert document["candidates"][0]["rho2"] is None
    assert document["candidates"][0]["reasons"] == ["has rho2 inf"]


def test_a_report_comes_back() -> None:
    original = report(reasons=("a",), notes=("b",), candidates=(result(notes=("c",)),))
    assert Report.from_json(json.loads(json.dumps(original.to_json()))) == original


def test_the_worst_elements_come_back() -> None:
    worst = {"y": WorstElement(index=(1, 7), reference=0.5, got=0.75)}
    original = report(candidates=(result(worst=worst),))
    document = json.loads(json.dumps(original.to_json(), allow_nan=False))
    assert document["candidates"][0]["worst"] == [
        {"output": "y", "index": [1, 7], "reference": 0.5, "got": 0.75, "error": 0.25}
    ]
    assert Report.from_json(document) == original


def test_a_worst_element_that_is_not_finite_says_what_it_is() -> None:
    worst = {"y": WorstElement(index=(0,), reference=-float("inf"), got=float("nan"))}
    document = report(candidates=(result(worst=worst),)).to_json()
    (element,) = document["candidates"][0]["worst"]
    assert (element["reference"], element["got"], element["error"]) == ("-Inf", "NaN", "NaN")
    back = Report.from_json(json.loads(json.dumps(document, allow_nan=False)))
    assert back.candidates[0].worst["y"].reference == -float("inf")


def test_the_errors_of_layers_and_missed_faults_come_back() -> None:
    layer = LayerError(
        value="relu", node="n1", op_type="Relu", module="act", source="net.py:3",
        rho2=1.25, rhomax=None, verdict="pass",
    )  # fmt: skip
    layers = LayerErrors(
        provider="cpu", optimization="disabled", golden="test_data_set_0", kind="normal x1",
        batch=1, num_values=3, values=(layer,),
    )  # fmt: skip
    power = Power(detected=1, tried=2, sampled_of=4, missed=("conv.bias",))
    original = report(layers=layers, power=power)
    assert Report.from_json(json.loads(json.dumps(original.to_parity()))) == replace(
        original, seconds={}
    )


def test_a_bundle_from_before_layers_were_measured_is_read() -> None:
    document = report().to_parity()
    del document["layers"], document["candidates"][0]["worst"], document["power"]["missed"]
    assert Report.from_json(document) == report(seconds={})


def test_parity_holds_no_time() -> None:
    fast, slow = report(seconds={"run": 0.1}), report(seconds={"run": 9.9})
    assert fast.to_parity() == slow.to_parity()
    assert "seconds" not in fast.to_parity()
    assert Report.from_json(fast.to_parity()) == report(seconds={})


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": None},
        {"candidates": [{"provider": "cpu"}]},
        {"power": {"detected": 3}},
        {"power": {"detected": 9, "tried": 3, "sampled_of": 5}},
        {"power": "much"},
    ],
)
def test_what_is_no_report_is_one_line(change: dict[str, Any]) -> None:
    document = {**report().to_json(), **change}
    if change == {"verdict": None}:
        del document["verdict"]
    with pytest.raises(BundleError, match=r"parity\.json.*Export the bundle again") as caught:
        Report.from_json(document)
    assert "\n" not in str(caught.value)


def test_the_explanation_names_the_first_failing_run() -> None:
    failing = result(verdict="fail", batch=5, kind="zeros", reasons=("output 'y' has rho2 9",))
    said = report(verdict="fail", candidates=(result(), failing, failing)).explanation
    assert said == (
        "2 of 3 runs fail, first cpu, optimization all, batch 5, zeros: output 'y' has rho2 9."
    )
    assert report().explanation == ""
    assert (
        report(verdict="vacuous", reasons=("nothing", "at all.")).explanation
        == "nothing. at all."
    )
