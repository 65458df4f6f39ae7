"""A served model's configuration in Triton's format, which Triton's clients and tools request."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import model_config_pb2

from dlzoo.runtime.serve.models.served_model import ServedModel
from dlzoo.runtime.serve.models.signature import TensorInfo


def model_config(model: ServedModel) -> Any:
    """Build the ``ModelConfig`` message of a model.

    **Source**: Triton's model configuration extension. ``dims`` leave out the batch axis if
    ``max_batch_size`` is not 0. For every operator of domain ``dlzoo``, a parameter says whether it
    runs as a kernel (``native``) or as its ONNX function.
    """
    config = model_config_pb2.ModelConfig(
        name=model.name,
        platform="onnxruntime_onnx",
        backend="onnxruntime",
        default_model_filename="model.onnx",
        max_batch_size=model.signature.max_batch,
    )
    is_batched = model.signature.batch_symbol is not None
    for info in model.signature.inputs.values():
        config.input.append(
            model_config_pb2.ModelInput(
                name=info.name, data_type=_data_type(info), dims=_dims(info, is_batched)
            )
        )
    for info in model.signature.outputs.values():
        config.output.append(
            model_config_pb2.ModelOutput(
                name=info.name, data_type=_data_type(info), dims=_dims(info, is_batched)
            )
        )
    settings = model.settings
    config.instance_group.add(
        name=model.name,
        count=settings.batching.num_instances,
        kind=(
            model_config_pb2.ModelInstanceGroup.KIND_CPU
            if settings.provider == "cpu"
            else model_config_pb2.ModelInstanceGroup.KIND_GPU
        ),
    )
    if is_batched:
        config.dynamic_batching.preferred_batch_size.append(model.signature.max_batch)
        config.dynamic_batching.max_queue_delay_microseconds = round(
            settings.batching.max_delay_s * 1e6
        )
        policy = config.dynamic_batching.default_queue_policy
        policy.max_queue_size = settings.batching.queue_size
    config.version_policy.latest.num_versions = 1
    for operator, kernels in model.custom_ops.items():
        config.parameters[operator].string_value = kernels
    return config


def model_config_json(model: ServedModel) -> dict[str, Any]:
    """Build the model's configuration as JSON values."""
    document: dict[str, Any] = MessageToDict(
        model_config(model), preserving_proto_field_name=True
    )
    # Protocol Buffers writes 64-bit integers as strings; Triton writes numbers.
    for tensor in (*document["input"], *document["output"]):
        tensor["dims"] = [int(size) for size in tensor.get("dims", [])]
    batching = document.get("dynamic_batching")
    if batching is not None:
        delay = batching.get("max_queue_delay_microseconds", 0)
        batching["max_queue_delay_microseconds"] = int(delay)
    document.setdefault("max_batch_size", 0)
    return document


def _data_type(info: TensorInfo) -> Any:
    name = "STRING" if info.datatype == "BYTES" else info.datatype
    return model_config_pb2.DataType.Value(f"TYPE_{name}")


def _dims(info: TensorInfo, is_batched: bool) -> list[int]:
    return info.shape[1:] if is_batched else info.shape
