"""Execution providers: their names, which of them this machine offers, and how to get the rest."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from dlzoo.errors import ArgumentError, ProviderError
from dlzoo.runtime.session.installation import check_installation, load_onnxruntime


@dataclass(frozen=True, kw_only=True)
class ExecutionProvider:
    """One provider: its name here and in ONNX Runtime, its package, and the options for parity.

    ``options`` turn off whatever would compute in another precision than the model's.
    """

    name: str
    ort_name: str
    package: str
    options: Mapping[str, str] = field(default_factory=dict)


PROVIDERS = {
    provider.name: provider
    for provider in (
        ExecutionProvider(name="cpu", ort_name="CPUExecutionProvider", package="onnxruntime"),
        ExecutionProvider(
            name="cuda",
            ort_name="CUDAExecutionProvider",
            package="onnxruntime-gpu[cuda,cudnn]",
            # TF32 keeps 10 of 23 fraction bits, and is on by default.
            options={"use_tf32": "0"},
        ),
        ExecutionProvider(
            name="tensorrt",
            ort_name="TensorrtExecutionProvider",
            package="onnxruntime-gpu[cuda,cudnn]",
            options={"trt_fp16_enable": "0", "trt_int8_enable": "0"},
        ),
        ExecutionProvider(
            name="openvino",
            ort_name="OpenVINOExecutionProvider",
            package="onnxruntime-openvino",
            options={"precision": "FP32"},
        ),
        ExecutionProvider(
            name="dml", ort_name="DmlExecutionProvider", package="onnxruntime-directml"
        ),
        ExecutionProvider(
            name="coreml", ort_name="CoreMLExecutionProvider", package="onnxruntime"
        ),
        ExecutionProvider(
            name="migraphx",
            ort_name="MIGraphXExecutionProvider",
            package="onnxruntime-migraphx",
        ),
        ExecutionProvider(
            name="rocm", ort_name="ROCMExecutionProvider", package="onnxruntime-rocm"
        ),
    )
}


def short_name(ort_name: str) -> str:
    """``CUDAExecutionProvider`` -> ``cuda``; a provider that is not in the table keeps its name."""
    names = (p.name for p in PROVIDERS.values() if p.ort_name == ort_name)
    return next(names, ort_name)


def get_provider(name: str) -> ExecutionProvider:
    """The provider of that name; ONNX Runtime's own full names are taken, too.

    Raises:
        ArgumentError: no provider has that name; all names are listed.
    """
    known = PROVIDERS.get(name) or PROVIDERS.get(short_name(name))
    if known:
        return known
    if name in load_onnxruntime().get_all_providers():
        return ExecutionProvider(name=name, ort_name=name, package="onnxruntime")
    near = difflib.get_close_matches(name.lower(), PROVIDERS, n=1)
    offer = f" Did you mean {near[0]!r}?" if near else ""
    raise ArgumentError(
        f"No provider is named {name!r}.{offer} The names are {', '.join(PROVIDERS)}."
    )


def available_providers() -> list[str]:
    """Names of the providers that the installed ONNX Runtime is built with, best first.

    That a provider is built in does not say that its libraries load: opening a session does.

    Raises:
        InstallationError: no ONNX Runtime is installed, or two are.
    """
    return [short_name(name) for name in load_onnxruntime().get_available_providers()]


def require_provider(name: str) -> ExecutionProvider:
    """The provider of that name, made sure to be built into the installed ONNX Runtime.

    Raises:
        ArgumentError: no provider has that name.
        ProviderError: the installed ONNX Runtime is built without it; the fix is said.
        InstallationError: no ONNX Runtime is installed, or two are.
    """
    provider = get_provider(name)
    available = available_providers()
    if provider.name not in available:
        installed = check_installation()
        fix = (
            f'To get it, run: pip uninstall -y {installed} && pip install "{provider.package}"'
        )
        if provider.package == installed:
            fix = "It is not built for this system: choose one of those."
        raise ProviderError(
            f"Provider {provider.name!r} is not in the installed {installed}, which has "
            f"{', '.join(available)}. {fix}"
        )
    return provider
