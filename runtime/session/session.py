"""A session that runs where it was told to, or fails."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dlzoo.errors import ArgumentError, BundleError, ProviderError
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.onnx_reader.onnx_header import OnnxHeader, read_onnx_header
from dlzoo.runtime.session.custom_ops import (
    AUTO,
    KERNEL_PROVIDER,
    Kernels,
    check_bodies,
    custom_ops_of,
    find_native_library,
    kernels_used,
)
from dlzoo.runtime.session.inference_session import open_inference_session
from dlzoo.runtime.session.ort_error import one_line_reason
from dlzoo.runtime.session.placement import check_placement, placement_of
from dlzoo.runtime.session.providers import require_provider
from dlzoo.runtime.session.run_settings import RunSettings


class Session:
    """An open model: :meth:`run` maps input arrays to output arrays, by name.

    ``provider`` is the one that was asked for and took the work; ``node_providers`` counts the
    nodes that each provider got; ``cpu_ops`` are those that ONNX Runtime kept on the CPU beside
    a device (shape computations, unless fallback was allowed). ``custom_ops`` says of every operator
    of domain ``dlzoo`` whether its ``native`` kernel runs or its ``function``.
    """

    def __init__(
        self,
        inference_session: Any,
        header: OnnxHeader,
        *,
        path: Path,
        provider: str,
        optimization: str,
        node_providers: dict[str, int],
        cpu_ops: dict[str, int],
        custom_ops: dict[str, Kernels] | None = None,
    ) -> None:
        self.header = header
        self.path = path
        self.provider = provider
        self.optimization = optimization
        self.node_providers = node_providers
        self.cpu_ops = cpu_ops
        self.custom_ops = custom_ops or {}
        self._session = inference_session
        self._input_names = [spec.name for spec in inference_session.get_inputs()]
        self._output_names = [spec.name for spec in inference_session.get_outputs()]

    def __repr__(self) -> str:
        return f"Session({str(self.path)!r}, {self.provider!r}, {self.optimization!r})"

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs that :meth:`run` wants, in the model's order."""
        return tuple(self._input_names)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs that :meth:`run` gives, in the model's order."""
        return tuple(self._output_names)

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Run the model once.

        Raises:
            ArgumentError: an input is missing, unexpected, or of another dtype or shape.
            ProviderError: the provider failed at the work.
            BundleError: the model itself cannot be run on these inputs.
        """
        if set(inputs) != set(self._input_names):
            raise ArgumentError(
                f"{self.path.name} got inputs {sorted(inputs)}, expected "
                f"{sorted(self._input_names)}. Give exactly those."
            )
        feed = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        # ascontiguousarray makes a scalar one-dimensional.
        feed = {name: array.reshape(inputs[name].shape) for name, array in feed.items()}
        try:
            outputs = self._session.run(self._output_names, feed)
        except Exception as error:
            kind = type(error).__name__
            reason = one_line_reason(error)
            if kind == "InvalidArgument":
                raise ArgumentError(
                    f"{self.path.name} does not take these inputs: {reason}. "
                    "Give arrays of the dtypes and shapes that the model declares."
                ) from None
            if kind == "EPFail" or self.provider != "cpu":
                raise ProviderError(
                    f"Provider {self.provider!r} failed while running {self.path.name}: {reason}. "
                    'Try `provider="cpu"`.'
                ) from None
            raise BundleError(
                f"{self.path.name} cannot be run on these inputs: {reason}. "
                "Export it again with the sizes that you need."
            ) from None
        return dict(zip(self._output_names, outputs, strict=True))


def open_session(
    model: Bundle | Path | str,
    provider: str = "cpu",
    *,
    optimization: str = "all",
    allow_fallback: bool = False,
    num_threads: int | None = None,
    native_library: str | Path = AUTO,
    allow_tf32: bool = False,
    session_config: Mapping[str, str] | None = None,
) -> Session:
    """Open a model on one provider, and make sure that this provider does the work.

    ONNX Runtime silently runs on the CPU what a provider does not take, and all of it where the
    provider's libraries do not load. Both are errors here, except for the operators that compute
    shapes (``placement.SHAPE_OPS``, and only beside at least one node on the provider): ONNX Runtime keeps
    those on the CPU by design.

    Args:
        model: a bundle, its folder, or an ``.onnx`` file.
        provider: a name from ``providers.PROVIDERS``, such as ``cpu`` or ``cuda``.
        optimization: ``disabled``, ``basic``, ``extended`` or ``all``.
        allow_fallback: take it as it comes; ``node_providers`` says how it came.
        num_threads: threads within one operator; ONNX Runtime's choice if None.
        native_library: kernels for operators of domain ``dlzoo``, where the model has any and runs
            on the CPU: a path, ``auto`` or ``off``, as for ``custom_ops.find_native_library``.
        allow_tf32: let CUDA round the factors of products to 10 bits of fraction.
        session_config: ONNX Runtime's session configuration entries.

    Raises:
        BundleError: the file is damaged, unsafe or not understood.
        NativeLibraryError: the library of kernels cannot be used.
        ProviderError: the provider is missing or did not take the work.
        ArgumentError: no such provider or optimization level.
        InstallationError: no ONNX Runtime is installed, or two are.
    """
    settings = RunSettings(
        provider=provider,
        optimization=optimization,
        allow_fallback=allow_fallback,
        num_threads=num_threads,
        native_library=native_library,
        allow_tf32=allow_tf32,
        session_config=session_config or {},
    )
    return open_with(model, settings)


def open_with(model: Bundle | Path | str, settings: RunSettings) -> Session:
    """Open a model as :func:`open_session` does, with its arguments in one object.

    Raises:
        BundleError: the file is damaged, unsafe or not understood.
        NativeLibraryError: the library of kernels cannot be used.
        ProviderError: the provider is missing or did not take the work.
        ArgumentError: no such provider.
        InstallationError: no ONNX Runtime is installed, or two are.
    """
    path, header, bundle = _model_of(model)
    wanted = require_provider(settings.provider)
    ops = custom_ops_of(header)
    library = None
    if ops and wanted.name == KERNEL_PROVIDER:
        library = find_native_library(settings.native_library, bundle=bundle)
    check_bodies(path, header, library)
    session = open_inference_session(path, settings, library=library)
    placement = placement_of(session)
    if wanted.name != "cpu" and not settings.allow_fallback:
        check_placement(placement, path, wanted)
    return Session(
        session,
        header,
        path=path,
        provider=wanted.name,
        optimization=settings.optimization,
        node_providers=placement.node_providers,
        cpu_ops=placement.cpu_ops if wanted.name != "cpu" else {},
        custom_ops=kernels_used(ops, placement.ops),
    )


def _model_of(model: Bundle | Path | str) -> tuple[Path, OnnxHeader, Bundle | None]:
    if not isinstance(model, Bundle):
        path = Path(model)
        if not path.is_dir():
            return path, read_onnx_header(path), None
        model = Bundle.open(path)
    return model.model_path, model.header, model
