"""Check a model repository for Triton against its own schema and against the graph.

Triton's core checks the schema only when it starts, and its backend checks names and dtypes against
the graph only when it loads; here both happen before anything is started.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from dlzoo.runtime.deploy.deployed_model import DeployedModel
from dlzoo.runtime.deploy.problem import Problem
from dlzoo.runtime.deploy.triton_config import (
    DATA_TYPES,
    IMAGE_INPUT,
    expected_dims,
    load_protobuf,
)
from dlzoo.runtime.deploy.triton_ensemble_check import ensemble_problems
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec
from dlzoo.runtime.session.native_library import library_file_problem

_ACCELERATORS = {
    "gpu_execution_accelerator": ("tensorrt", "cuda"),
    "cpu_execution_accelerator": ("openvino",),
}


def check(folder: Path, model: DeployedModel) -> list[Problem]:
    """Find every problem in a repository, including those in files that were edited.

    Raises:
        InstallationError: tritonclient is not installed.
    """
    configs, problems = read_configs(folder)
    if model.name not in configs and not any(
        f.file.startswith(f"{model.name}/") for f in problems
    ):
        problems.append(Problem(f"{model.name}/config.pbtxt", "", "is missing"))
    for name, config in sorted(configs.items()):
        file = f"{name}/config.pbtxt"
        if name == model.name:
            problems += _graph_problems(config, model, file)
            problems += _library_problems(config, model, folder / name, file)
        elif name == f"{model.name}_preprocess":
            problems += _preprocess_problems(config, model, folder / name, file)
        problems += _common_problems(config, folder / name, file)
        if config.HasField("ensemble_scheduling") or config.platform == "ensemble":
            problems += ensemble_problems(config, configs, file)
    return problems


def read_configs(folder: Path) -> tuple[dict[str, Any], list[Problem]]:
    """Read the configurations of all models by folder, and list the files that do not parse."""
    from google.protobuf import text_format

    pb = load_protobuf()
    configs, problems = {}, []
    for path in sorted(folder.glob("*/config.pbtxt")):
        file = path.relative_to(folder).as_posix()
        try:
            text = path.read_text(encoding="utf-8")
            configs[path.parent.name] = text_format.Parse(text, pb.ModelConfig())
        except text_format.ParseError as error:
            place, _, message = str(error).partition(" : ")
            line, _, column = place.partition(":")
            where = f"line {line}, column {column}," if message else ""
            problems.append(Problem(file, where, _parse_message(message or str(error))))
        except (OSError, UnicodeDecodeError) as error:
            problems.append(Problem(file, "", f"cannot be read: {error}"))
    return configs, problems


def _parse_message(message: str) -> str:
    """Cut from protobuf's message the text that it quotes first."""
    return " ".join(message.rpartition("': ")[2].split()).rstrip(".")


def _common_problems(config: Any, folder: Path, file: str) -> Iterator[Problem]:
    """Check what any model needs: names, folders, batches, labels, warm-up."""
    if config.name not in ("", folder.name):
        yield Problem(
            file, "name", f"is {config.name!r}, expected the folder's, {folder.name!r}"
        )
    if not config.backend and not config.platform:
        yield Problem(file, "backend", "is missing")
    versions = [f.name for f in folder.iterdir() if f.is_dir() and f.name.isdecimal()]
    if not [v for v in versions if int(v) > 0]:
        yield Problem(file, "", "has no version folder beside it, expected one named 1")
    for version in config.version_policy.specific.versions:
        if str(version) not in versions:
            yield Problem(
                file, "version_policy.specific.versions", f"names {version}: no folder"
            )
    if config.max_batch_size < 0:
        yield Problem(
            file, "max_batch_size", f"is {config.max_batch_size}, expected 0 or more"
        )
    if config.HasField("dynamic_batching") and config.max_batch_size < 1:
        yield Problem(file, "dynamic_batching", "needs a max_batch_size above 0")
    for size in config.dynamic_batching.preferred_batch_size:
        if not 1 <= size <= config.max_batch_size:
            limit = config.max_batch_size
            yield Problem(
                file,
                "dynamic_batching.preferred_batch_size",
                f"is {size}, expected 1 to {limit}",
            )
    for role in ("input", "output"):
        if not getattr(config, role):
            yield Problem(file, role, "is missing")
    for i, group in enumerate(config.instance_group):
        if group.count < 0:
            yield Problem(
                file, f"instance_group[{i}].count", f"is {group.count}, expected 1 or more"
            )
    yield from _accelerator_problems(config, file)
    yield from _label_problems(config, folder, file)
    yield from _warmup_problems(config, file)


def _accelerator_problems(config: Any, file: str) -> Iterator[Problem]:
    kinds = load_protobuf().ModelInstanceGroup
    on_cpu = bool(config.instance_group) and all(
        group.kind == kinds.KIND_CPU for group in config.instance_group
    )
    accelerators = config.optimization.execution_accelerators
    for field, known in _ACCELERATORS.items():
        place = f"optimization.execution_accelerators.{field}"
        for accelerator in getattr(accelerators, field):
            if accelerator.name not in known:
                yield Problem(
                    file,
                    f"{place}.name",
                    f"is {accelerator.name!r}, expected {' or '.join(known)}",
                )
        if field.startswith("gpu") and on_cpu and getattr(accelerators, field):
            yield Problem(file, place, "is never used: every instance_group is KIND_CPU")


def _label_problems(config: Any, folder: Path, file: str) -> Iterator[Problem]:
    for i, output in enumerate(config.output):
        if not output.label_filename:
            continue
        place = f"output[{i}].label_filename"
        try:
            text = (folder / output.label_filename).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            yield Problem(
                file, place, f"names {output.label_filename!r}, which cannot be read"
            )
            continue
        num_labels, num_scores = len(text.splitlines()), output.dims[-1] if output.dims else 0
        if num_scores not in (-1, num_labels):
            yield Problem(
                file, place, f"has {num_labels} labels, the output has {num_scores} scores"
            )


def _warmup_problems(config: Any, file: str) -> Iterator[Problem]:
    inputs = {tensor.name: tensor for tensor in config.input}
    for i, warmup in enumerate(config.model_warmup):
        place = f"model_warmup[{i}]"
        if not 0 <= warmup.batch_size <= config.max_batch_size:
            limit = config.max_batch_size
            yield Problem(
                file,
                f"{place}.batch_size",
                f"is {warmup.batch_size}, max_batch_size is {limit}",
            )
        for name in sorted(set(inputs) ^ set(warmup.inputs)):
            what = "is not an input of the model" if name in warmup.inputs else "is missing"
            yield Problem(file, f"{place}.inputs[{name!r}]", what)
        for name, part in sorted(warmup.inputs.items()):
            if name not in inputs:
                continue
            if part.data_type != inputs[name].data_type:
                yield Problem(
                    file, f"{place}.inputs[{name!r}].data_type", "is not the input's"
                )
            wanted = list(inputs[name].dims)
            fits = len(part.dims) == len(wanted) and all(
                size > 0 and dim in (-1, size)
                for size, dim in zip(part.dims, wanted, strict=True)
            )
            if not fits:
                yield Problem(
                    file,
                    f"{place}.inputs[{name!r}].dims",
                    f"is {list(part.dims)}, expected {wanted}",
                )


def _graph_problems(config: Any, model: DeployedModel, file: str) -> Iterator[Problem]:
    if config.backend not in ("", "onnxruntime"):
        yield Problem(file, "backend", f"is {config.backend!r}, expected 'onnxruntime'")
    if config.platform not in ("", "onnxruntime_onnx"):
        yield Problem(file, "platform", f"is {config.platform!r}, expected 'onnxruntime_onnx'")
    if not (config.backend or config.platform):
        return
    if config.default_model_filename not in ("", "model.onnx"):
        got = config.default_model_filename
        yield Problem(file, "default_model_filename", f"is {got!r}, expected 'model.onnx'")
    yield from _batch_problems(config, model, file)
    yield from tensor_problems(
        config.input, model.inputs, config.max_batch_size, file, "input"
    )
    yield from tensor_problems(
        config.output, model.outputs, config.max_batch_size, file, "output"
    )


def _batch_problems(config: Any, model: DeployedModel, file: str) -> Iterator[Problem]:
    got = config.max_batch_size
    if got > 0 and model.batch_symbol is None:
        yield Problem(
            file, "max_batch_size", f"is {got}, expected 0: the graph's batch is fixed"
        )
    elif model.largest_batch is not None and got > model.largest_batch:
        most = model.largest_batch
        yield Problem(file, "max_batch_size", f"is {got}, the graph takes at most {most}")


def tensor_problems(
    tensors: Any, specs: tuple[TensorSpec, ...], max_batch_size: int, file: str, role: str
) -> Iterator[Problem]:
    """Find where a configuration's inputs or outputs differ from the graph's."""
    expected = {spec.name: spec for spec in specs}
    names = [tensor.name for tensor in tensors]
    for name in expected:
        if name not in names:
            yield Problem(file, role, f"{name!r} is missing, the graph has {list(expected)}")
    for i, tensor in enumerate(tensors):
        place = f"{role}[{i}]"
        spec = expected.get(tensor.name)
        if spec is None or names.index(tensor.name) != i:
            yield Problem(
                file, f"{place}.name", f"is {tensor.name!r}, the graph has {list(expected)}"
            )
            continue
        got_type = load_protobuf().DataType.Name(tensor.data_type)
        if got_type != DATA_TYPES.get(spec.dtype):
            wanted = DATA_TYPES.get(spec.dtype)
            yield Problem(file, f"{place}.data_type", f"is {got_type}, the graph has {wanted}")
        dims, shape = expected_dims(spec, max_batch_size)
        got_shape = list(tensor.reshape.shape) if tensor.HasField("reshape") else None
        if list(tensor.dims) != dims:
            yield Problem(
                file, f"{place}.dims", f"is {list(tensor.dims)}, the graph has {dims}"
            )
        if got_shape != shape:
            yield Problem(file, f"{place}.reshape", f"is {got_shape}, expected {shape}")


def _library_problems(
    config: Any, model: DeployedModel, folder: Path, file: str
) -> Iterator[Problem]:
    libraries = config.model_operations.op_library_filename
    place = "model_operations.op_library_filename"
    for library in libraries:
        found = folder / "1" / PurePosixPath(library).name
        if not library.startswith("/"):
            yield Problem(
                file, place, f"is {library!r}, expected an absolute path on the server"
            )
        if not found.is_file():
            yield Problem(
                file, place, f"names {library!r}, but there is no {found.name} in folder 1"
            )
        elif problem := library_file_problem(found):
            yield Problem(file, place, f"names {library!r}, which {problem}")
    if model.ops_without_body and not libraries:
        ops = ", ".join(model.ops_without_body)
        yield Problem(file, place, f"is missing, and the graph has no body for {ops}")


def _preprocess_problems(
    config: Any, model: DeployedModel, folder: Path, file: str
) -> Iterator[Problem]:
    if config.backend != "python":
        yield Problem(file, "backend", f"is {config.backend!r}, expected 'python'")
    if not (folder / "1" / "model.py").is_file():
        yield Problem(file, "", "has no 1/model.py beside it")
    if [tensor.name for tensor in config.input] != [IMAGE_INPUT]:
        got = [tensor.name for tensor in config.input]
        yield Problem(file, "input", f"is {got}, expected [{IMAGE_INPUT!r}]")
    yield from tensor_problems(
        config.output, model.inputs, config.max_batch_size, file, "output"
    )
