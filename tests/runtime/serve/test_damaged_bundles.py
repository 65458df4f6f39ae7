"""Damaged bundles: refused in one line, or served with the answers of the sound one; never a crash."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from dlzoo.runtime.bundle.bundle import Bundle, write_manifest
from tests.support.served_bundles import mean_bundle

ON_DISK = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
few = settings(ON_DISK, max_examples=25)
ROOT = Path(__file__).resolve().parents[3]
many = settings(ON_DISK, max_examples=500)


class Loader:
    """The process of bundle_loader.py; a new one if it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def load(self, folder: Path) -> dict[str, Any]:
        process = self._process
        if process is None:
            process = self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.bundle_loader"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{folder}\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            self._process = None
            _, said = process.communicate()
            raise AssertionError(f"ended with {process.returncode}: {said[-1500:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    loader = Loader()
    yield loader
    loader.close()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = mean_bundle(tmp_path_factory.mktemp("damaged") / "sound").path
    (folder / "report.html").write_text("<p>proved</p>")
    return folder


@pytest.fixture(scope="module")
def right(loader: Loader, sound: Path) -> dict[str, Any]:
    answer = loader.load(sound)
    assert answer["scores"]["scores"][0] == pytest.approx([4.5, -4.5])
    return answer


@pytest.fixture
def copy(sound: Path) -> Path:
    """The folder in which each example damages a copy, under the sound bundle's name."""
    return sound.parent / "copy" / "sound"


def made_anew(copy: Path, sound: Path) -> None:
    shutil.rmtree(copy.parent, ignore_errors=True)
    shutil.copytree(sound, copy)


def check_refusal(answer: dict[str, Any]) -> bool:
    """Whether the bundle was refused; checks that the refusal is one readable line."""
    if "refused" not in answer:
        event("served")
        return False
    event("refused")
    said = answer["refused"]
    assert 0 < len(said.splitlines()) == 1 and len(said) < 700, said
    assert "cannot be loaded" not in said, said  # the message for unforeseen errors
    assert answer["status"] in (1, 2)
    return True


@st.composite
def damages(draw: st.DrawFn) -> tuple[str, int, int, bytes]:
    """A kind, a place as a share of the file, a bit, and bytes to put there."""
    kind = draw(st.sampled_from(["flip", "flip", "cut", "put", "append", "empty", "remove"]))
    place = draw(st.integers(0, 9999))
    return kind, place, draw(st.integers(0, 7)), draw(st.binary(min_size=1, max_size=8))


def damage(path: Path, how: tuple[str, int, int, bytes]) -> None:
    kind, share, bit, more = how
    data = bytearray(path.read_bytes())
    place = share * len(data) // 10_000
    match kind:
        case "flip":
            data[place] ^= 1 << bit
        case "cut":
            del data[place:]
        case "put":
            data[place : place + len(more)] = more
        case "append":
            data += more
        case "empty":
            data.clear()
        case "remove":
            path.unlink()
            return
    path.write_bytes(data)


def files_of(folder: Path) -> list[Path]:
    return [p.relative_to(folder) for p in sorted(folder.rglob("*")) if p.is_file()]


def check_damaged_files(
    data: st.DataObject, loader: Loader, sound: Path, copy: Path, right: dict[str, Any]
) -> None:
    made_anew(copy, sound)
    names = files_of(sound)
    name = data.draw(st.sampled_from([*names, *[Path("manifest.json")] * 8]))
    before = (copy / name).read_bytes()
    damage(copy / name, data.draw(damages()))
    answer = loader.load(copy)
    if check_refusal(answer):
        return
    is_same = (copy / name).exists() and (copy / name).read_bytes() == before
    # The manifest itself has no hash: a changed digit of the mean, or letter of a label, is accepted.
    if str(name) == "manifest.json" and not is_same:
        assert answer["scores"] == right["scores"]
    else:
        assert answer == right
    assert is_same or str(name) in ("manifest.json", "parity.json", "report.html"), name


@few
@given(st.data())
def test_damaged_files(
    loader: Loader, sound: Path, copy: Path, right: dict[str, Any], data: st.DataObject
) -> None:
    check_damaged_files(data, loader, sound, copy, right)


@pytest.mark.slow
@many
@given(st.data())
def test_many_damaged_files(
    loader: Loader, sound: Path, copy: Path, right: dict[str, Any], data: st.DataObject
) -> None:
    check_damaged_files(data, loader, sound, copy, right)


# -- JSON that is well-formed and wrong --------------------------------------------------------------

ODD: list[Any] = [
    *(None, True, -1, 0, 1, 2, 10**30, -(10**30), 1e308, float("inf"), float("nan"), 0.5),
    *("", "x", "batch", "float32", "float16", "L", "RGB", "\ud800", "../x", "random", "a\nb"),
    *([], [[]], [None], ["batch"], [1, 2], {}, {"a": 1}, {"kind": "trained"}),
]


def places_in(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value, but of the hashes of files only one."""
    entries = enumerate(document) if isinstance(document, list) else document.items()
    for key, value in entries:
        if path == ("files",) and key != "model.onnx":
            continue
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places_in(value, (*path, key))


def check_wrong_json(
    data: st.DataObject, loader: Loader, sound: Path, copy: Path, right: dict[str, Any]
) -> None:
    made_anew(copy, sound)
    name = data.draw(st.sampled_from(["manifest.json", "manifest.json", "parity.json"]))
    document = json.loads((copy / name).read_text())
    *folders, last = data.draw(st.sampled_from(list(places_in(document))))
    table = document
    for key in folders:
        table = table[key]
    if data.draw(st.integers(0, 4)) == 0:
        del table[last]
    else:
        table[last] = data.draw(st.sampled_from(ODD))
    (copy / name).write_text(json.dumps(document))
    answer = loader.load(copy)
    if check_refusal(answer):
        return
    assert answer["scores"] == right["scores"]
    if name == "parity.json":
        assert answer == right


@few
@given(st.data())
def test_wrong_json(
    loader: Loader, sound: Path, copy: Path, right: dict[str, Any], data: st.DataObject
) -> None:
    check_wrong_json(data, loader, sound, copy, right)


@pytest.mark.slow
@many
@given(st.data())
def test_much_wrong_json(
    loader: Loader, sound: Path, copy: Path, right: dict[str, Any], data: st.DataObject
) -> None:
    check_wrong_json(data, loader, sound, copy, right)


# -- a manifest that agrees with the damage, which hashes cannot find --------------------------------


def check_hashed_damage(
    data: st.DataObject, loader: Loader, sound: Path, copy: Path, right: dict[str, Any]
) -> None:
    made_anew(copy, sound)
    names = [n for n in files_of(sound) if n.suffix not in (".json", ".html")]
    name = data.draw(st.sampled_from([*names, *[Path("model.onnx")] * len(names)]))
    damage(copy / name, data.draw(damages()))
    if name.name == "model.onnx" and not (copy / name).exists():
        return  # Bundle.open says so
    write_manifest(copy, Bundle.open(copy).manifest)
    answer = loader.load(copy)
    if not check_refusal(answer):
        # Weights may deviate by no more than the noise floor allows.
        for got, expected in zip(
            answer["scores"]["scores"], right["scores"]["scores"], strict=True
        ):
            assert np.allclose(got, expected, rtol=1e-4, atol=0)


@few
@given(st.data())
def test_damage_that_the_manifest_agrees_with(
    loader: Loader, sound: Path, copy: Path, right: dict[str, Any], data: st.DataObject
) -> None:
    check_hashed_damage(data, loader, sound, copy, right)


@pytest.mark.slow
@many
@given(st.data())
def test_much_damage_that_the_manifest_agrees_with(
    loader: Loader, sound: Path, copy: Path, right: dict[str, Any], data: st.DataObject
) -> None:
    check_hashed_damage(data, loader, sound, copy, right)
