import pytest

from dlzoo.errors import ArgumentError
from dlzoo.runtime.session.providers import (
    PROVIDERS,
    available_providers,
    get_provider,
    require_provider,
    short_name,
)


def test_the_cpu_is_always_there() -> None:
    assert "cpu" in available_providers()
    assert require_provider("cpu").ort_name == "CPUExecutionProvider"


def test_names_and_full_names_are_the_same() -> None:
    for name, provider in PROVIDERS.items():
        assert get_provider(name) is get_provider(provider.ort_name) is provider
        assert short_name(provider.ort_name) == name


def test_full_names_are_onnxruntimes_own() -> None:
    import onnxruntime

    # ROCm and OpenVINO's provider leave and join the list between releases.
    known = set(onnxruntime.get_all_providers()) | {"ROCMExecutionProvider"}
    assert {provider.ort_name for provider in PROVIDERS.values()} <= known


def test_a_provider_outside_the_table_keeps_its_full_name() -> None:
    provider = get_provider("AzureExecutionProvider")
    assert provider.name == provider.ort_name == "AzureExecutionProvider"


def test_parity_is_measured_without_tf32() -> None:
    assert get_provider("cuda").options == {"use_tf32": "0"}


def test_an_unknown_name_lists_all_and_offers_a_near_one() -> None:
    with pytest.raises(
        ArgumentError, match=r"'CUDA'\. Did you mean 'cuda'\? The names are cpu, cuda"
    ):
        get_provider("CUDA")
    with pytest.raises(ArgumentError, match=r"'abacus'\. The names are"):
        get_provider("abacus")
