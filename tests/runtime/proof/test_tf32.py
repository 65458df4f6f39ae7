"""TF32's own difference is told apart from the verdict, which never has it on."""

import numpy as np
import pytest

from dlzoo.runtime.bundle.golden_set import GoldenSet, NoiseFloor
from dlzoo.runtime.proof.compare import Comparison, compare_outputs
from dlzoo.runtime.proof.limits import DEFAULT_LIMITS
from dlzoo.runtime.proof.tf32 import describe_tf32


def compared(error: float) -> Comparison:
    reference = np.linspace(1.0, 2.0, 200).reshape(1, 200)
    golden = GoldenSet(
        name="set",
        kind="drawn",
        inputs={},
        reference={"y": reference},
        noise={"y": NoiseFloor(rms=1e-7, max=2e-7)},
    )
    return compare_outputs(
        {"y": (reference + error).astype(np.float32)},
        golden,
        dtypes={"y": "float32"},
        unit_roundoff=2.0**-24,
        limits=DEFAULT_LIMITS,
    )


def test_the_worst_of_all_sets_is_said() -> None:
    text = describe_tf32([compared(0.0), compared(1e-4), compared(1e-5)])
    assert text.startswith("TF32 is off; with it on, CUDA's error would be ")
    rho2 = float(text.split("would be ")[1].split()[0])
    assert 900 < rho2 < 1100


def test_without_a_number_there_is_nothing_to_say() -> None:
    assert describe_tf32([]) == "TF32 is off; with it on no output is a number to compare"


@pytest.mark.gpu
def test_cuda_reports_it_beside_the_verdict(clean_bundle: object) -> None:
    from dlzoo.runtime.bundle.bundle import Bundle
    from dlzoo.runtime.proof.validate import verify_bundle
    from dlzoo.runtime.session.providers import available_providers

    if "cuda" not in available_providers():
        pytest.skip("the installed onnxruntime has no CUDA provider")
    assert isinstance(clean_bundle, Bundle)
    report = verify_bundle(clean_bundle, providers=("cuda",))
    assert report, report.explanation
    assert any(note.startswith("TF32 is off; with it on") for note in report.notes)
