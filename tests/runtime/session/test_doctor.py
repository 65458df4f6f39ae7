"""``diagnose``: what was found here, and what each thing that can be wrong is called."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

import dlzoo.runtime.session.doctor as diagnosis
from dlzoo.runtime.session import working_providers
from dlzoo.runtime.session.doctor import Finding, diagnose


def by_subject(findings: list[Finding]) -> dict[str, Finding]:
    found = {finding.subject: finding for finding in findings}
    assert len(found) == len(findings), "a subject comes twice"
    return found


def test_this_machine_is_fine_for_the_cpu(tmp_path: Path) -> None:
    found = by_subject(diagnose(tmp_path))
    for subject in ("Python", "CPU", "torch", "onnx", "onnxruntime", "provider cpu"):
        assert found[subject].status == "ok", found[subject]
    assert found["provider cpu"].detail == "opens and runs a model"
    assert "cores" in found["CPU"].detail
    assert found["weights cache"].detail.startswith(str(tmp_path))


def test_what_is_not_ok_says_how_to_mend_it(tmp_path: Path) -> None:
    for finding in diagnose(tmp_path):
        assert finding.status in ("ok", "warn", "fail")
        assert finding.status != "fail" or finding.fix
        assert "\n" not in finding.detail + finding.fix


def test_the_probe_is_a_sound_model() -> None:
    model = onnx.load_from_string(working_providers._PROBE_MODEL)
    onnx.checker.check_model(model, full_check=True)
    from onnx.reference import ReferenceEvaluator

    x = np.array([-2], np.float32)
    assert ReferenceEvaluator(model).run(None, {"x": x})[0].tolist() == [0]


def build(cuda_version: str, *providers: str) -> SimpleNamespace:
    """What an ONNX Runtime build says of itself."""
    return SimpleNamespace(
        cuda_version=cuda_version, get_available_providers=lambda: providers
    )


CUDA = "CUDAExecutionProvider"


@pytest.mark.parametrize(
    ("runtime", "driver", "status", "said", "fix"),
    [
        (build(""), None, "ok", "none: models run on the CPU", ""),
        (build("13.0", CUDA), None, "warn", "none", "install the NVIDIA driver"),
        (build("13.0", CUDA), (13, 0), "ok", "runs CUDA up to 13.0", ""),
        (build("12.8", CUDA), (13, 0), "ok", "runs CUDA up to 13.0", ""),
        (
            build("13.0", CUDA),
            (12, 4),
            "fail",
            "runs CUDA up to 12.4, too old: onnxruntime-gpu is built for CUDA 13.0",
            "update the NVIDIA driver to 580 or later",
        ),
        (
            build(""),
            (12, 4),
            "warn",
            "the installed onnxruntime does not use it",
            'pip uninstall -y onnxruntime && pip install "onnxruntime-gpu[cuda,cudnn]"',
        ),
    ],
)
def test_the_driver_against_the_build(
    runtime: SimpleNamespace, driver: tuple[int, int] | None, status: str, said: str, fix: str
) -> None:
    finding = diagnosis._gpu(runtime, driver)
    assert (finding.status, finding.fix) == (status, fix)
    assert said in finding.detail


def test_the_cache_is_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DLZOO_HOME", str(tmp_path / "later"))
    assert diagnosis.default_cache_dir() == tmp_path / "later"
    finding = diagnosis._cache(diagnosis.default_cache_dir())
    assert finding.status == "ok" and "GiB free" in finding.detail


def test_a_cache_that_is_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    finding = diagnosis._cache(tmp_path / "file" / "dlzoo")
    assert finding.status == "fail" and finding.detail.endswith("cannot be written")
    assert finding.fix == "set DLZOO_HOME to a folder that you may write to"


def test_little_room_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_LOW_DISK_BYTES", 2**80)
    finding = diagnosis._cache(tmp_path)
    assert finding.status == "warn" and "too little for large models" in finding.detail
