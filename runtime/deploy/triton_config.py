"""Triton's model configuration, as its own protobuf messages.

Source: https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto and
https://github.com/triton-inference-server/onnxruntime_backend (README: accelerators, parameters).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlzoo.errors import ExportError, InstallationError
from dlzoo.runtime.deploy.deployed_model import DeployedModel
from dlzoo.runtime.deploy.options import GPU_PROVIDERS
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec

#: Triton's names of NumPy's dtypes.
DATA_TYPES = {
    "bool": "TYPE_BOOL",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "bfloat16": "TYPE_BF16",
    "string": "TYPE_STRING",
    **{f"int{bits}": f"TYPE_INT{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"TYPE_UINT{bits}" for bits in (8, 16, 32, 64)},
}
#: How long a request waits for others to share its batch. A single client pays it on every request,
#: so it is short compared with a network's own milliseconds.
MAX_QUEUE_DELAY_US = 500
#: The accelerators of each provider. TF32 is off, as in the proof.
_CUDA = ("gpu_execution_accelerator", "cuda", {"use_tf32": "0"})
_ACCELERATORS: dict[str, tuple[tuple[str, str, dict[str, str]], ...]] = {
    "cpu": (),
    "openvino": (("cpu_execution_accelerator", "openvino", {}),),
    "cuda": (_CUDA,),
    "tensorrt": (
        ("gpu_execution_accelerator", "tensorrt", {"precision_mode": "FP32"}),
        _CUDA,
    ),
}
LABELS_FILE = "labels.txt"
IMAGE_INPUT = "image"


def load_protobuf() -> Any:
    """Import Triton's messages (``tritonclient.grpc.model_config_pb2``).

    Raises:
        InstallationError: tritonclient is not installed.
    """
    try:
        from tritonclient.grpc import model_config_pb2
    except ImportError:
        raise InstallationError(
            "Triton's configuration needs tritonclient, which is not installed. "
            'Run: pip install "dlzoo[serve]"'
        ) from None
    return model_config_pb2


def model_config(
    model: DeployedModel, *, provider: str, max_batch_size: int, library: str, labeled: str
) -> Any:
    """Build the configuration of the ONNX model itself.

    Args:
        model: the model to serve.
        provider: cpu, openvino, cuda or tensorrt.
        max_batch_size: the largest batch that Triton forms, if the graph has a batch axis.
        library: the path of the library of kernels on the server; empty for none.
        labeled: the output that the labels belong to; empty for none.

    Raises:
        ExportError: Triton lacks one of the data types.
        InstallationError: tritonclient is not installed.
    """
    pb = load_protobuf()
    config = pb.ModelConfig(
        name=model.name,
        platform="onnxruntime_onnx",
        backend="onnxruntime",
        default_model_filename="model.onnx",
        max_batch_size=model.batch_limit(max_batch_size),
    )
    _add_tensors(config.input, model.inputs, config.max_batch_size)
    _add_tensors(config.output, model.outputs, config.max_batch_size)
    for output in config.output:
        if output.name == labeled:
            output.label_filename = LABELS_FILE
    if config.max_batch_size:
        config.dynamic_batching.max_queue_delay_microseconds = MAX_QUEUE_DELAY_US
    kind = "KIND_GPU" if provider in GPU_PROVIDERS else "KIND_CPU"
    config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.Kind.Value(kind))
    config.version_policy.latest.num_versions = 1
    for field, name, parameters in _ACCELERATORS[provider]:
        accelerators = getattr(config.optimization.execution_accelerators, field)
        accelerators.add(name=name, parameters=parameters)
    if library:
        config.model_operations.op_library_filename.append(library)
    for batch in dict.fromkeys((min(1, config.max_batch_size), config.max_batch_size)):
        _add_warmup(config, model, batch)
    return config


def preprocess_config(model: DeployedModel, *, max_batch_size: int) -> Any:
    """Build the configuration of the step that turns image files into the model's input."""
    pb = load_protobuf()
    limit = model.batch_limit(max_batch_size)
    config = pb.ModelConfig(
        name=f"{model.name}_preprocess", backend="python", max_batch_size=limit
    )
    _add_image_input(config, model)
    _add_tensors(config.output, model.inputs, limit)
    kind = pb.ModelInstanceGroup.Kind.Value("KIND_CPU")
    config.instance_group.add(count=1, kind=kind)
    config.version_policy.latest.num_versions = 1
    return config


def ensemble_config(model: DeployedModel, *, max_batch_size: int, labeled: str) -> Any:
    """Build the configuration of both steps as one model: image files in, the model's answers out."""
    pb = load_protobuf()
    limit = model.batch_limit(max_batch_size)
    config = pb.ModelConfig(
        name=f"{model.name}_from_image", platform="ensemble", max_batch_size=limit
    )
    _add_image_input(config, model)
    _add_tensors(config.output, model.outputs, limit)
    for output in config.output:
        if output.name == labeled:
            output.label_filename = LABELS_FILE
    (spec,) = model.inputs
    pixels = "pixels"
    while pixels in {output.name for output in model.outputs}:
        pixels += "_"
    steps = config.ensemble_scheduling.step
    steps.add(
        model_name=f"{model.name}_preprocess",
        model_version=-1,
        input_map={IMAGE_INPUT: IMAGE_INPUT},
        output_map={spec.name: pixels},
    )
    steps.add(
        model_name=model.name,
        model_version=-1,
        input_map={spec.name: pixels},
        output_map={output.name: output.name for output in model.outputs},
    )
    config.version_policy.latest.num_versions = 1
    return config


def config_text(config: Any) -> str:
    """Write a configuration as the text of ``config.pbtxt``."""
    from google.protobuf import text_format

    text: str = text_format.MessageToString(config)
    return text


def expected_dims(spec: TensorSpec, max_batch_size: int) -> tuple[list[int], list[int] | None]:
    """Compute a tensor's ``dims`` and ``reshape`` for Triton: symbols are -1, the batch is left out.

    >>> expected_dims(TensorSpec(name="x", dtype="float32", dims=("batch", 3, "height")), 8)
    ([3, -1], None)
    >>> expected_dims(TensorSpec(name="loss", dtype="float32", dims=("batch",)), 8)
    ([1], [])
    """
    dims = [-1 if isinstance(dim, str) else dim for dim in spec.dims]
    if max_batch_size:
        dims = dims[1:]
    # Triton accepts no empty dims: a scalar is declared as one element, and reshaped.
    return (dims, None) if dims else ([1], [])


def data_type(spec: TensorSpec) -> str:
    """Look up Triton's name of a tensor's dtype.

    Raises:
        ExportError: Triton lacks the dtype.
    """
    if spec.dtype not in DATA_TYPES:
        raise ExportError(
            f"{spec.name} has dtype {spec.dtype}, expected one that Triton knows: "
            f"{', '.join(sorted(DATA_TYPES))}."
        )
    return DATA_TYPES[spec.dtype]


def _add_tensors(tensors: Any, specs: Sequence[TensorSpec], max_batch_size: int) -> None:
    values = load_protobuf().DataType
    for spec in specs:
        dims, shape = expected_dims(spec, max_batch_size)
        added = tensors.add(name=spec.name, data_type=values.Value(data_type(spec)), dims=dims)
        if shape is not None:
            added.reshape.SetInParent()


def _add_image_input(config: Any, model: DeployedModel) -> None:
    batch = model.inputs[0].dims[0]
    dims = [1] if config.max_batch_size else [batch if isinstance(batch, int) else -1]
    values = load_protobuf().DataType
    config.input.add(name=IMAGE_INPUT, data_type=values.Value("TYPE_STRING"), dims=dims)


def _add_warmup(config: Any, model: DeployedModel, batch: int) -> None:
    """Add one request of zeros before the model takes traffic, so that no client waits for warm-up."""
    warmup = config.model_warmup.add(name=f"batch of {batch or 'its own'}", batch_size=batch)
    values = load_protobuf().DataType
    for spec in model.inputs:
        dims = [model.smallest_size(dim) for dim in spec.dims]
        part = warmup.inputs[spec.name]
        part.data_type = values.Value(data_type(spec))
        part.dims.extend(dims[1:] if config.max_batch_size else dims)
        part.zero_data = True
