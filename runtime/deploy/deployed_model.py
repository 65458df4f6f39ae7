"""A model as an inference server describes it, read from the verified graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlzoo.errors import BundleError, ExportError
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.bundle.manifest_fields import AxisRange
from dlzoo.runtime.onnx_reader.onnx_header import OnnxHeader, read_onnx_header
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec
from dlzoo.runtime.session.native_library import CUSTOM_DOMAIN


@dataclass(frozen=True, kw_only=True)
class DeployedModel:
    """A model under its name on the server; ``file`` is where its graph lies."""

    name: str
    file: Path
    header: OnnxHeader
    axes: Mapping[str, AxisRange]
    preprocessing: dict[str, Any] | None
    preprocessing_included: bool
    labels: tuple[str, ...] | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The graph's inputs."""
        return self.header.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The graph's outputs."""
        return self.header.outputs

    @property
    def batch_symbol(self) -> str | None:
        """The symbol that is the first size of every input and output; None if there is none.

        A server can join requests and split answers only along such an axis.
        """
        firsts = {spec.dims[0] if spec.dims else 0 for spec in (*self.inputs, *self.outputs)}
        first = firsts.pop() if len(firsts) == 1 else None
        return first if isinstance(first, str) and first in self.axes else None

    @property
    def largest_batch(self) -> int | None:
        """The graph's own bound on its batch; None if it has none, 1 without a batch axis."""
        return self.axes[self.batch_symbol].max if self.batch_symbol else 1

    def batch_limit(self, wanted: int) -> int:
        """The largest batch to offer, at most ``wanted``; 0 if the graph has no batch axis."""
        if self.batch_symbol is None:
            return 0
        return min(wanted, self.largest_batch or wanted)

    @property
    def custom_ops(self) -> tuple[str, ...]:
        """The operators of domain ``dlzoo`` in the graph."""
        prefix = f"{CUSTOM_DOMAIN}::"
        return tuple(op for op in self.header.num_nodes_by_op if op.startswith(prefix))

    @property
    def ops_without_body(self) -> tuple[str, ...]:
        """The operators of domain ``dlzoo`` that cannot run without a library of kernels."""
        return tuple(op for op in self.custom_ops if op not in self.header.functions)

    @property
    def takes_images(self) -> bool:
        """Whether preprocessing turns an image file into the model's only input."""
        return self.preprocessing is not None and len(self.inputs) == 1

    def smallest_size(self, dim: int | str) -> int:
        """A size at which a dimension was proved: its own, or the smallest of its symbol."""
        if isinstance(dim, int):
            return dim
        axis = self.axes.get(dim)
        return min(axis.proved, default=axis.min) if axis else 1

    def to_record(self) -> dict[str, Any]:
        """Everything that a check needs beside the graph, as JSON values."""
        return {
            "name": self.name,
            "axes": {
                symbol: {"min": axis.min, "max": axis.max, "proved": list(axis.proved)}
                for symbol, axis in self.axes.items()
            },
            "preprocessing": self.preprocessing,
            "preprocessing_included": self.preprocessing_included,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any], file: Path) -> DeployedModel:
        """Read the record of ``to_record``, with the graph as it is now.

        Raises:
            BundleError: the graph cannot be read, or the record is damaged.
        """
        try:
            axes = {
                symbol: AxisRange(
                    symbol=symbol,
                    min=axis["min"],
                    max=axis["max"],
                    proved=tuple(axis["proved"]),
                )
                for symbol, axis in record["axes"].items()
            }
            return cls(
                name=str(record["name"]),
                file=file,
                header=read_onnx_header(file),
                axes=axes,
                preprocessing=record["preprocessing"],
                preprocessing_included=bool(record["preprocessing_included"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise BundleError(
                f"deployment.json: model cannot be read: {error!r}. Deploy the bundle again."
            ) from None


def deployed_model(bundle: Bundle, name: str | None = None) -> DeployedModel:
    """Read a bundle's model as a server will offer it.

    Raises:
        BundleError: the bundle was changed, or its proof did not pass.
        ExportError: a server cannot offer a model of this kind.
    """
    bundle.check_files()
    verdict = bundle.parity().get("verdict")
    if verdict != "pass":
        raise BundleError(
            f"{bundle.path} has the verdict {verdict!r}, expected 'pass': only a proved model can "
            "be deployed. Export it again."
        )
    manifest, header = bundle.manifest, bundle.header
    if (header.inputs, header.outputs) != (manifest.inputs, manifest.outputs):
        raise BundleError(
            f"{bundle.path}: the graph's inputs and outputs are not those of manifest.json. "
            "Export it again."
        )
    for spec in (*header.inputs, *header.outputs):
        if "..." in spec.dims or "?" in spec.dims:
            raise ExportError(
                f"{manifest.name} declares {spec}, expected a size or a symbol for every dimension: "
                "a server needs them. Export it again with those dimensions named."
            )
    return DeployedModel(
        name=name or manifest.served_name,
        file=bundle.model_path,
        header=header,
        axes=manifest.dynamic_axes,
        preprocessing=manifest.preprocessing,
        preprocessing_included=manifest.preprocessing_included,
        labels=manifest.labels,
    )
