"""Mish by its native kernel and by its function: both against PyTorch in float64."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlzoo.runtime.session.custom_ops import find_native_library
from dlzoo.runtime.session.session import Session, open_session
from tests.support.native_kernels import (
    SPECIAL_VALUES,
    Floats,
    changed_library,
    mish_float32_error,
    mish_float64,
    mish_model,
)

PATHS = ("native", "function")
LEVELS = ("disabled", "basic", "extended", "all")
#: What an element may be wrong by, in multiples of PyTorch's own float32 error there.
ERROR_LIMIT = 3.0


def open_path(model: Path, path: str, library: Path, level: str = "all") -> Session:
    choice = library if path == "native" else "off"
    session = open_session(model, optimization=level, num_threads=2, native_library=choice)
    assert session.custom_ops == {"dlzoo::Mish": path}
    return session


def run(session: Session, x: Floats) -> Floats:
    (y,) = session.run({"x": x}).values()
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    return y


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mish_model(tmp_path_factory.mktemp("mish") / "mish.onnx")


@pytest.fixture(scope="module")
def sessions(model: Path, native_library: Path) -> dict[tuple[str, str], Session]:
    return {
        (path, level): open_path(model, path, native_library, level)
        for path in PATHS
        for level in LEVELS
    }


def assert_as_exact_as_pytorch(y: Floats, x: Floats) -> None:
    reference = mish_float64(x)
    for of_kind in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(of_kind(y), of_kind(reference.astype(np.float32)))
    finite = np.isfinite(reference)
    allowed = ERROR_LIMIT * mish_float32_error(x, reference)[finite]
    wrong = np.abs(y[finite].astype(np.float64) - reference[finite]) > allowed
    assert not wrong.any(), (x[finite][wrong], y[finite][wrong], reference[finite][wrong])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("path", PATHS)
def test_special_values(
    sessions: dict[tuple[str, str], Session], path: str, level: str
) -> None:
    y = run(sessions[path, level], SPECIAL_VALUES)
    assert_as_exact_as_pytorch(y, SPECIAL_VALUES)
    # As PyTorch in float64: zeros keep their sign, -Inf * 0 is NaN.
    assert np.isnan(y[np.isneginf(SPECIAL_VALUES)]).all()
    zeros = SPECIAL_VALUES == 0
    np.testing.assert_array_equal(np.signbit(y[zeros]), np.signbit(SPECIAL_VALUES[zeros]))


@pytest.mark.parametrize(
    ("low", "high"),
    [(-1, 1), (-5, -1), (-20, -5), (-87, -20), (-110, -87), (-1e4, -110), (1, 20), (15, 1e4)],
)
@pytest.mark.parametrize("path", PATHS)
def test_rms_error_in_every_range(
    sessions: dict[tuple[str, str], Session], path: str, low: float, high: float
) -> None:
    x = np.random.default_rng(0).uniform(low, high, 20_000).astype(np.float32)
    reference = mish_float64(x)
    error = run(sessions[path, "all"], x).astype(np.float64) - reference
    floor = mish_float32_error(x, reference)
    assert np.sqrt(np.mean(error**2)) <= ERROR_LIMIT * np.sqrt(np.mean(floor**2))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_values(sessions: dict[tuple[str, str], Session], data: st.DataObject) -> None:
    values = st.lists(st.floats(width=32), min_size=0, max_size=70)
    x = np.array(data.draw(values), dtype=np.float32)
    for path in PATHS:
        assert_as_exact_as_pytorch(run(sessions[path, "all"], x), x)


@pytest.fixture(scope="module")
def sessions_by_rank(
    tmp_path_factory: pytest.TempPathFactory, native_library: Path
) -> dict[int, Session]:
    """Sessions that take any shape of a rank; two nodes, so that one can run in place."""
    folder = tmp_path_factory.mktemp("ranks")
    return {
        rank: open_path(
            mish_model(
                folder / f"{rank}.onnx",
                dims=tuple(f"d{axis}" for axis in range(rank)),
                num_nodes=2,
            ),
            "native",
            native_library,
        )
        for rank in range(6)
    }


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(0, 9), min_size=0, max_size=5), seed=st.integers(0, 2**32 - 1)
)
def test_any_shape(sessions_by_rank: dict[int, Session], shape: list[int], seed: int) -> None:
    x = np.asarray(4 * np.random.default_rng(seed).standard_normal(shape), dtype=np.float32)
    once = mish_float64(x)
    twice = mish_float64(once)
    y = run(sessions_by_rank[len(shape)], x)
    # The slope of Mish is at most 1.09, so the first node's error hardly grows in the second.
    allowed = ERROR_LIMIT * (
        mish_float32_error(once, twice) + 1.1 * mish_float32_error(x, once)
    )
    assert (np.abs(y - twice) <= allowed).all()


@pytest.mark.parametrize("size", [1, 2, 7, 15, 16, 17, 63, 16383, 16384, 16385, 100_003])
def test_sizes_around_vectors_and_tasks(
    sessions: dict[tuple[str, str], Session], size: int
) -> None:
    x = np.linspace(-30, 30, size, dtype=np.float32)
    assert_as_exact_as_pytorch(run(sessions["native", "all"], x), x)


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_any_number_of_threads_gives_the_same_bits(
    model: Path, native_library: Path, num_threads: int
) -> None:
    x = np.random.default_rng(1).standard_normal(300_001).astype(np.float32)
    answers = [
        run(open_session(model, num_threads=threads, native_library=native_library), x)
        for threads in (1, num_threads)
    ]
    np.testing.assert_array_equal(answers[0].view(np.int32), answers[1].view(np.int32))
    assert_as_exact_as_pytorch(answers[0], x)


@pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="needs the times of threads in /proc"
)
def test_the_sessions_threads_do_the_work(model: Path, native_library: Path) -> None:
    """As many threads spend time on it as the session has: it starts none of its own."""
    code = (
        "import os, sys, time, numpy as np, onnxruntime as o\n"
        "options = o.SessionOptions()\n"
        "options.intra_op_num_threads = int(sys.argv[3])\n"
        "options.add_session_config_entry('session.intra_op.allow_spinning', '0')\n"
        "options.register_custom_ops_library(sys.argv[2])\n"
        "session = o.InferenceSession(sys.argv[1], options)\n"
        "x = np.zeros(4_000_000, np.float32)\n"
        "def nanoseconds():\n"
        "    tasks = os.listdir('/proc/self/task')\n"
        "    return {t: int(open(f'/proc/self/task/{t}/schedstat').read().split()[0])"
        " for t in tasks}\n"
        # What starting up leaves to other threads is not measured.
        "for _ in range(5): session.run(None, {'x': x})\n"
        "time.sleep(0.5)\n"
        "before = nanoseconds()\n"
        "for _ in range(20): session.run(None, {'x': x})\n"
        "after = nanoseconds()\n"
        "spent = [after[t] - before.get(t, 0) for t in after]\n"
        "print(sum(s > 0.2 * max(spent) for s in spent))"
    )
    for num_threads in (1, 2, 3):
        arguments = [str(model), str(native_library), str(num_threads)]
        said = subprocess.check_output([sys.executable, "-c", code, *arguments], text=True)
        assert int(said) == num_threads


@pytest.mark.parametrize("instructions", ["avx2", "baseline"])
def test_lesser_processors(
    model: Path, native_library: Path, tmp_path: Path, instructions: str
) -> None:
    """The loops that this processor would not choose, forced on it."""

    def force(text: str) -> str:
        text = text.replace('__builtin_cpu_supports("avx512f")', "false")
        return text.replace(
            'supports("avx2")', f'supports("avx2") && {instructions == "avx2":d}'
        )

    library = changed_library(tmp_path, force)
    found = find_native_library(library)
    assert found is not None
    if found.instructions != instructions:
        pytest.skip(f"this processor has no {instructions}")
    x = np.append(np.linspace(-120, 30, 50_001), SPECIAL_VALUES).astype(np.float32)
    for level in ("disabled", "all"):
        assert_as_exact_as_pytorch(run(open_path(model, "native", library, level), x), x)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("opset", range(11, 26))
def test_every_opset(tmp_path: Path, native_library: Path, path: str, opset: int) -> None:
    model = mish_model(tmp_path / "m.onnx", opset=opset)
    for level in ("disabled", "all"):
        session = open_path(model, path, native_library, level)
        assert_as_exact_as_pytorch(run(session, SPECIAL_VALUES), SPECIAL_VALUES)


@pytest.mark.parametrize("path", PATHS)
def test_float64(tmp_path: Path, native_library: Path, path: str) -> None:
    model = mish_model(tmp_path / "m.onnx", dtype=ir.DataType.DOUBLE)
    x = np.append(np.linspace(-50, 50, 10_001), SPECIAL_VALUES.astype(np.float64))
    # Only where exp(x) is far from float64's smallest number is PyTorch's own answer exact.
    x = x[(x > -600) | ~np.isfinite(x)]
    y, reference = run(open_path(model, path, native_library), x), mish_float64(x)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(reference))
    with np.errstate(invalid="ignore"):
        relative = np.abs(y / reference - 1)
    assert np.nanmax(relative[np.isfinite(reference) & (reference != 0)]) < 16 * 2.0**-53


@pytest.mark.parametrize("path", PATHS)
def test_every_float16(tmp_path: Path, native_library: Path, path: str) -> None:
    model = mish_model(tmp_path / "m.onnx", dtype=ir.DataType.FLOAT16)
    x = np.arange(2**16, dtype=np.uint16).view(np.float16)
    y = run(open_path(model, path, native_library), x)
    with np.errstate(over="ignore"):
        expected = mish_float64(x).astype(np.float16)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    known = ~np.isnan(expected)
    steps = np.abs(_steps(y[known]) - _steps(expected[known]))
    # Rounded twice, through float32: at most one step off, and seldom that.
    assert steps.max() <= 1 and (steps == 1).sum() < 20


def _steps(x: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    """Numbers of float16 counted from 0: neighbours differ by 1."""
    bits = x.view(np.int16).astype(np.int32)
    return np.where(bits < 0, -(bits & 0x7FFF), bits)


def test_every_bfloat16(tmp_path: Path, native_library: Path) -> None:
    import onnxruntime

    model = mish_model(tmp_path / "m.onnx", dtype=ir.DataType.BFLOAT16)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(native_library))
    session = onnxruntime.InferenceSession(str(model), options)
    bits = np.arange(2**16, dtype=np.uint16)
    answer = np.zeros_like(bits)
    x, y = (
        onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, 16)
        for array in (bits, answer)
    )
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", x)
    binding.bind_ortvalue_output("y_0", y)
    session.run_with_iobinding(binding)
    got = torch.tensor(answer.view(np.int16)).view(torch.bfloat16)
    as_floats = torch.tensor(bits.view(np.int16)).view(torch.bfloat16).double().numpy()
    expected = torch.tensor(mish_float64(as_floats)).to(torch.bfloat16)
    wrong = (got != expected) & ~(got.isnan() & expected.isnan())
    assert wrong.sum() < 40
    relative = (got[wrong].double() / expected[wrong].double() - 1).abs()
    assert relative.numel() == 0 or relative.max() <= 2.0**-7
