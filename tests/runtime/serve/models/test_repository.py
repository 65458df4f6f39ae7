"""Versions change: a proved one takes over, a bad one leaves the old one in service."""

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlzoo.errors import ArgumentError, BundleError
from dlzoo.runtime.proof.report import ProofError
from dlzoo.runtime.protocol.refusal import Reason, RefusalError
from dlzoo.runtime.serve.models.repository import Repository
from dlzoo.runtime.serve.models.served_model import ModelSettings
from dlzoo.runtime.serve.models.signature import Signature
from tests.support.served_bundles import break_model, mean_bundle

Test = Callable[[Repository], Coroutine[Any, Any, None]]


def run(test: Test, *sources: Path, **how: Any) -> None:
    async def main() -> None:
        repository = Repository(sources, ModelSettings(num_threads=1), **how)
        await repository.load_all()
        await test(repository)
        await repository.close()

    asyncio.run(main())


async def score(repository: Repository, version: str = "") -> float:
    model = repository.get("mean", version)
    x = np.ones((1, 1, 8, 8), np.float32)
    deadline = asyncio.get_running_loop().time() + 10
    answer = await model.infer({"image": ("FP32", x)}, deadline)
    return float(answer["scores"][0, 0])


def states(repository: Repository) -> dict[str, str]:
    return {f"{e.name}/{e.version}": e.state for e in repository.index()}


def reason(repository: Repository, version: str) -> str:
    (found,) = (e.reason for e in repository.index() if e.version == version)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model repository with one version of one model."""
    mean_bundle(tmp_path / "models" / "mean" / "1")
    (tmp_path / "models" / "notes").mkdir()
    (tmp_path / "models" / "mean" / "README").write_text("not a version")
    return tmp_path / "models"


def test_a_new_version_takes_over(folder: Path) -> None:
    async def test(repository: Repository) -> None:
        assert await score(repository) == pytest.approx(1.0)
        mean_bundle(folder / "mean" / "2", scale=2.0)
        assert await score(repository) == pytest.approx(1.0)  # before the next poll
        await repository.poll()
        assert await score(repository) == pytest.approx(2.0)
        assert states(repository) == {"mean/1": "UNAVAILABLE", "mean/2": "READY"}
        with pytest.raises(RefusalError, match="no version '1' loaded, expected one of 2"):
            repository.get("mean", "1")

    run(test, folder)


def test_versions_that_are_kept_answer_by_name(folder: Path) -> None:
    async def test(repository: Repository) -> None:
        assert await score(repository) == pytest.approx(10.0)  # 10 is newer than 9
        assert await score(repository, "9") == pytest.approx(9.0)
        assert repository.versions_of("mean") == ["9", "10"]
        with pytest.raises(RefusalError):
            repository.get("mean", "1")

    mean_bundle(folder / "mean" / "9", scale=9.0)
    mean_bundle(folder / "mean" / "10", scale=10.0)
    run(test, folder, keep_versions=2)


def test_a_wrong_model_leaves_the_old_one_serving(folder: Path) -> None:
    async def test(repository: Repository) -> None:
        mean_bundle(folder / "mean" / "2", scale=2.0)
        break_model(folder / "mean" / "2", hashed=True)
        await repository.poll()
        assert await score(repository) == pytest.approx(1.0)
        why = reason(repository, "2")
        assert "the verdict is fail" in why and "rho2" in why and str(folder) not in why
        with pytest.raises(RefusalError, match="Version 1 is still served") as caught:
            await repository.load("mean")
        assert str(folder) not in str(caught.value)

    run(test, folder)


def test_changed_bytes_leave_the_old_one_serving(folder: Path) -> None:
    async def test(repository: Repository) -> None:
        mean_bundle(folder / "mean" / "2", scale=2.0)
        break_model(folder / "mean" / "2", hashed=False)
        await repository.poll()
        assert await score(repository) == pytest.approx(1.0)
        assert "model.onnx was changed" in reason(repository, "2")

    run(test, folder)


def test_a_half_copied_bundle_is_tried_again_when_it_is_complete(
    folder: Path, tmp_path: Path
) -> None:
    whole = mean_bundle(tmp_path / "whole", scale=2.0).path

    async def test(repository: Repository) -> None:
        new = folder / "mean" / "2"
        new.mkdir()
        shutil.copy(whole / "manifest.json", new)
        await repository.poll()
        await repository.poll()
        assert await score(repository) == pytest.approx(1.0)
        assert "lacks model.onnx" in reason(repository, "2")
        shutil.copytree(whole, new, dirs_exist_ok=True)
        await repository.poll()
        assert await score(repository) == pytest.approx(2.0)

    run(test, folder)


def test_a_bundle_that_is_replaced_is_loaded_again(tmp_path: Path) -> None:
    bundle = mean_bundle(tmp_path / "bundle").path

    async def test(repository: Repository) -> None:
        first = repository.get("mean")
        await repository.load("mean")
        assert repository.get("mean") is first  # nothing has changed
        shutil.rmtree(bundle)
        await repository.poll()
        assert await score(repository) == pytest.approx(1.0)  # the old one still serves
        mean_bundle(bundle, scale=3.0)
        await repository.poll()
        assert await score(repository) == pytest.approx(3.0)
        assert states(repository) == {"mean/1": "READY"}
        break_model(bundle, hashed=True)
        await repository.poll()
        assert await score(repository) == pytest.approx(3.0)
        assert "the bundle loaded before is still served" in reason(repository, "1")

    run(test, bundle)


def test_unloading_and_loading(folder: Path) -> None:
    async def test(repository: Repository) -> None:
        model = repository.get("mean")
        x = {"image": ("FP32", np.ones((1, 1, 8, 8), np.float32))}
        with model.in_use():
            await repository.unload("mean")
            await asyncio.sleep(0.05)
            with pytest.raises(RefusalError, match="is not loaded") as caught:
                repository.get("mean")
            assert caught.value.reason is Reason.NOT_FOUND
            # A request in progress is still answered.
            deadline = asyncio.get_running_loop().time() + 10
            assert (await model.infer(x, deadline))["scores"][0, 0] == pytest.approx(1.0)
        await repository.poll()  # it was unloaded on purpose
        assert states(repository) == {"mean/1": "UNAVAILABLE", "mean/2": "UNAVAILABLE"}
        await repository.load("mean")
        assert await score(repository) == pytest.approx(1.0)

    # A run long enough to need a thread, which an unloaded model no longer has.
    mean_bundle(folder / "mean" / "2", work=6, width=128)
    run(test, folder)


def test_a_proved_version_is_not_replaced_by_an_older_one(folder: Path) -> None:
    async def test(repository: Repository) -> None:
        break_model(folder / "mean" / "2", hashed=True)
        await repository.poll()
        assert await score(repository) == pytest.approx(2.0)
        assert repository.versions_of("mean") == ["2"]

    mean_bundle(folder / "mean" / "2", scale=2.0)
    run(test, folder)


def test_a_deleted_folder_is_unloaded(folder: Path) -> None:
    async def test(repository: Repository) -> None:
        shutil.rmtree(folder / "mean")
        await repository.poll()
        assert states(repository) == {}
        with pytest.raises(RefusalError, match="is unknown"):
            repository.get("mean")

    run(test, folder)


def test_unknown_models(folder: Path) -> None:
    async def test(repository: Repository) -> None:
        for change in (repository.load, repository.unload):
            with pytest.raises(RefusalError, match="is unknown"):
                await change("../mean")

    run(test, folder)


def test_folders_without_models_are_refused(tmp_path: Path) -> None:
    for path, what in ((tmp_path, "holds no bundle"), (tmp_path / "no", "is not a folder")):
        with pytest.raises(BundleError, match=what):
            Repository([path], ModelSettings())


def test_two_bundles_of_one_name_are_refused(tmp_path: Path) -> None:
    paths = [mean_bundle(tmp_path / name).path for name in "ab"]
    with pytest.raises(ArgumentError, match="are both named 'mean'"):
        Repository(paths, ModelSettings())


def test_a_bad_model_does_not_start(tmp_path: Path) -> None:
    bundle = mean_bundle(tmp_path / "bundle").path
    break_model(bundle, hashed=True)

    async def test(repository: Repository) -> None:
        raise AssertionError("it was loaded")

    with pytest.raises(ProofError, match=r"the verdict is fail.*It is not served"):
        run(test, bundle)


def test_dtypes_that_cannot_be_served_are_refused(tmp_path: Path) -> None:
    manifest = mean_bundle(tmp_path / "bundle").manifest
    (spec,) = manifest.inputs
    half = replace(manifest, inputs=(replace(spec, dtype="bfloat16"),))
    with pytest.raises(BundleError, match="dtype bfloat16, which cannot be served"):
        Signature(half, max_batch=8)
