"""Golden data: inputs, float64 answers and noise floors, beside ONNX's own test-data format.

    test_data_set_0/
      input_0.pb         TensorProto, in the model's dtype
      output_0.pb        the reference rounded to the model's dtype, for any ONNX tool
      reference_0.npy    the reference in float64
      noise_floor.json   what kind of input it is, and PyTorch's own float32 error per output

Source: https://github.com/onnx/onnx/blob/main/docs/OnnxBackendTest.md (folder layout).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dlzoo.errors import BundleError
from dlzoo.runtime.onnx_reader.tensor_proto import decode_tensor, encode_tensor

_NOISE_FILE = "noise_floor.json"
_NUMBERED = re.compile(r"(input|output)_(0|[1-9][0-9]*)\.pb")


@dataclass(frozen=True)
class NoiseFloor:
    """The error that float32 arithmetic makes in one output, against the float64 reference.

    ``rms`` = max_k RMS(m_k - y) and ``max`` = max_k max|m_k - y| over the finite elements, with y
    the reference and m_k runs in float32 whose roundings are moved at random.

    ``signal_rms`` and ``signal_max`` are RMS and maximum of the reference over the elements that a rounding
    can change, with the number of all elements as the mean's denominator: a mask of -1e9 is not
    signal. ``plain_rms`` = RMS(t - y) is the error of PyTorch's own plain run t. All three are None
    in bundles of before 0.2.
    """

    rms: float
    max: float
    signal_rms: float | None = None
    signal_max: float | None = None
    plain_rms: float | None = None

    def __post_init__(self) -> None:
        numbers = (self.rms, self.max, self.signal_rms, self.signal_max, self.plain_rms)
        if not all(n is None or (math.isfinite(n) and n >= 0) for n in numbers):
            raise ValueError(f"a noise floor is finite and not negative, got {self}")

    @property
    def share_of_signal(self) -> float | None:
        """``rms / signal_rms``, infinite for noise alone, 0 for neither; None where unknown."""
        if self.signal_rms is None:
            return None
        if not self.signal_rms:
            return math.inf if self.rms else 0.0
        return self.rms / self.signal_rms


@dataclass(frozen=True, kw_only=True)
class GoldenSet:
    """Inputs, their float64 answers, and the noise floor of each answer, by tensor name."""

    name: str
    kind: str
    inputs: dict[str, npt.NDArray[Any]]
    reference: dict[str, npt.NDArray[np.float64]]
    noise: dict[str, NoiseFloor]

    @property
    def is_finite(self) -> bool:
        """Whether the inputs are numbers: NaN and infinities are reported and decide nothing."""
        return all(bool(np.isfinite(array).all()) for array in self.inputs.values())

    @property
    def batch(self) -> int:
        """The first size of the first input: how many samples lie in it; 1 where there is none."""
        shapes = [array.shape for array in self.inputs.values()]
        return shapes[0][0] if shapes and shapes[0] else 1


def write_golden_set(golden_dir: Path, golden: GoldenSet, output_dtype: str) -> None:
    """Write a set into ``golden_dir / golden.name``; the same set gives the same bytes.

    Args:
        golden_dir: the bundle's ``golden`` folder, made if missing.
        golden: what to write.
        output_dtype: numpy name of the dtype of the model's outputs, for ``output_N.pb``.
    """
    folder = golden_dir / golden.name
    folder.mkdir(parents=True)
    for i, (name, array) in enumerate(golden.inputs.items()):
        (folder / f"input_{i}.pb").write_bytes(encode_tensor(name, array))
    outputs = []
    for i, (name, reference) in enumerate(golden.reference.items()):
        # A reference beyond the dtype's largest value becomes Inf in it, as it does in the model.
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = reference.astype(output_dtype)
        (folder / f"output_{i}.pb").write_bytes(encode_tensor(name, rounded))
        np.save(folder / f"reference_{i}.npy", reference.astype("<f8"), allow_pickle=False)
        known = {key: n for key, n in asdict(golden.noise[name]).items() if n is not None}
        outputs.append({"name": name, **{key: float(n) for key, n in known.items()}})
    document = {"kind": golden.kind, "outputs": outputs}
    text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"
    (folder / _NOISE_FILE).write_text(text, encoding="utf-8")


def read_golden_set(folder: Path) -> GoldenSet:
    """Read what :func:`write_golden_set` wrote.

    Raises:
        BundleError: a file is missing or damaged, or the files disagree.
    """
    inputs, outputs = read_test_data_set(folder)
    try:
        document = json.loads((folder / _NOISE_FILE).read_text(encoding="utf-8"))
        kind, noises = str(document["kind"]), list(document["outputs"])
        if [entry["name"] for entry in noises] != [name for name, _ in outputs]:
            raise ValueError("its outputs are not those of the output_N.pb files")
        noise = {entry["name"]: _noise_floor(entry) for entry in noises}
        reference = {}
        for i, (name, rounded) in enumerate(outputs):
            array = _load_array(folder / f"reference_{i}.npy")
            if array.dtype != np.float64 or array.shape != rounded.shape:
                raise ValueError(
                    f"reference_{i}.npy is {array.dtype} {list(array.shape)}, "
                    f"expected float64 {list(rounded.shape)}"
                )
            reference[name] = array
    except (OSError, ValueError, KeyError, TypeError, EOFError, MemoryError) as error:
        raise BundleError(
            f"Golden data {folder.name!r} cannot be read: {_one_line(error)}. "
            "Export the bundle again."
        ) from None
    return GoldenSet(
        name=folder.name, kind=kind, inputs=dict(inputs), reference=reference, noise=noise
    )


def read_test_data_set(
    folder: Path,
) -> tuple[list[tuple[str, npt.NDArray[Any]]], list[tuple[str, npt.NDArray[Any]]]]:
    """Read any folder of ONNX test data: (inputs, outputs), each a list of (name, array).

    Raises:
        BundleError: there is no input_0.pb or output_0.pb, a number is left out, or a file is
            no tensor.
    """
    numbered: dict[str, dict[int, Path]] = {"input": {}, "output": {}}
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise BundleError(
            f"{folder} cannot be read as a folder of test data: {_one_line(error)}. "
            "Give a folder that holds input_0.pb and output_0.pb."
        ) from None
    for path in entries:
        if found := _NUMBERED.fullmatch(path.name):
            numbered[found[1]][int(found[2])] = path
    tensors: dict[str, list[tuple[str, npt.NDArray[Any]]]] = {"input": [], "output": []}
    for role, files in numbered.items():
        # A model may have no input; one without output could not be judged.
        absent = [i for i in range(max(files, default=-1) + 1) if i not in files]
        if absent or (role == "output" and not files):
            raise BundleError(
                f"{folder} lacks {role}_{absent[0] if absent else 0}.pb. "
                "Give a folder of ONNX test data: input_0.pb, output_0.pb and so on."
            )
        for i in sorted(files):
            try:
                tensors[role].append(decode_tensor(files[i].read_bytes()))
            except (BundleError, OSError) as error:
                raise BundleError(
                    f"{folder.name}/{files[i].name}: {_one_line(error)}"
                ) from None
    return tensors["input"], tensors["output"]


def _noise_floor(entry: Mapping[str, Any]) -> NoiseFloor:
    names = [field.name for field in fields(NoiseFloor) if field.name in entry]
    return NoiseFloor(**{name: float(entry[name]) for name in names})


def _load_array(path: Path) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, EOFError, MemoryError):
        raise
    # A damaged header goes through NumPy's reader of Python literals, which raises nearly anything.
    except Exception as error:
        raise ValueError(f"{path.name} is not a NumPy array: {_one_line(error)}") from None
    return array


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, KeyError):
        return f"it lacks {error.args[0]!r}"
    return " ".join(str(error).split())
