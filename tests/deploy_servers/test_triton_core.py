"""The production repository, unchanged, in the real Triton core (CPU).

This covers the core's own parsing and validation of ``config.pbtxt``, batching, the ensemble,
versions and both protocols. It does not cover the C++ onnxruntime backend: a stand-in replaces it.
"""

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.deploy.deployment import check_deployment, deploy_bundle
from dlzoo.runtime.deploy.options import DeployOptions
from dlzoo.runtime.remote.connect import connect
from tests.support.dlzoo_process import run_dlzoo
from tests.support.small_bundle import small_bundle

pytestmark = pytest.mark.slow


def deploy(bundle: Bundle, folder: Path, **options: Any) -> Path:
    deploy_bundle(bundle, "triton", folder, options=DeployOptions(**options))
    return folder


def post(url: str, document: Any) -> tuple[int, str]:
    request = urllib.request.Request(url, json.dumps(document).encode(), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_repository_is_served_and_proved(
    bundle: Bundle, start_triton: Callable[..., Any], tmp_path: Path, photo_folder: Path
) -> None:
    repository = deploy(bundle, tmp_path / "repository")
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("chelsea.png", "coffee.png", "rocket.jpg"):
        shutil.copyfile(photo_folder / name, photos / name)
    with start_triton(repository) as urls:
        for url in urls.values():
            done = run_dlzoo("verify", bundle.path, "--server", url, "--json")
            assert done.returncode == 0, done.stderr
            document = json.loads(done.stdout)
            assert document["server"]["server"].startswith("triton 2.51")
            # Image files through the ensemble: decoded in the server, the same class as here.
            arguments = ["--server", url, "--model", "small_from_image", "--data", photos]
            done = run_dlzoo("verify", bundle.path, *arguments, "--json")
            assert done.returncode == 0, done.stderr
            (images,) = json.loads(done.stdout)["images"]
            assert (images["sent"], images["num_images"]) == ("files", 3)


def test_an_image_that_cannot_be_read_fails_only_its_own_request(
    bundle: Bundle, start_triton: Callable[..., Any], tmp_path: Path, photo_folder: Path
) -> None:
    from dlzoo.runtime.remote.model import RefusedError

    with start_triton(deploy(bundle, tmp_path / "repository")) as urls:
        remote = connect(urls["grpc"], "small_from_image", timeout_s=30)
        data = np.empty((1, 1), np.object_)
        data[...] = b"no image at all"
        with pytest.raises(RefusedError, match="image"):
            remote.infer({"image": data}, ["logits"])
        data[...] = (photo_folder / "chelsea.png").read_bytes()
        assert remote.infer({"image": data}, ["logits"])["logits"].shape == (1, 5)
        remote.close()


def test_requests_are_put_together_and_answers_are_not_crossed(
    bundle: Bundle, start_triton: Callable[..., Any], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((200, 1, 3, 8, 8)).astype(np.float32)
    with start_triton(deploy(bundle, tmp_path / "repository")) as urls:
        remotes = [connect(urls["grpc"], "small", timeout_s=30) for _ in range(8)]

        def ask(number: int) -> Any:
            return remotes[number % 8].infer({"image": inputs[number]}, ["logits"])["logits"]

        alone = [ask(number) for number in range(len(inputs))]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(ask, range(len(inputs))))
        with urllib.request.urlopen(f"{urls['http']}/v2/models/small/stats") as answer:
            (stats,) = json.load(answer)["model_stats"]
        for remote in remotes:
            remote.close()
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
    assert stats["inference_count"] > stats["execution_count"], stats


#: Edits of config.pbtxt, and whether Triton's core accepts them.
EDITS = [
    ("max_batch_size: 32", "max_batch: 32", False),
    ("max_batch_size: 32", "max_batch_size: -1", False),
    ('name: "small"', 'name: "other"', False),
    ("data_type: TYPE_FP32", "data_type: TYPE_FP16", False),
    ("dims: 5", "dims: 4", False),
    ('name: "image"', 'name: "images"', False),
    ("kind: KIND_CPU", "kind: KIND_TPU", False),
    ("labels.txt", "names.txt", False),
    # A warm-up batch above max_batch_size is not here: this core then never ends the load.
    ("max_queue_delay_microseconds: 500", "preferred_batch_size: 64", False),
    ("latest {\n    num_versions: 1\n  }", "specific { versions: 3 }", False),
    ("count: 1", "count: 2", True),
    ("max_queue_delay_microseconds: 500", "preferred_batch_size: [8, 16]", True),
]


def test_the_check_says_beforehand_what_the_core_will_say(
    bundle: Bundle, start_triton: Callable[..., Any], tmp_path: Path
) -> None:
    repository = deploy(bundle, tmp_path / "repository", ensemble=False)
    config = repository / "small" / "config.pbtxt"
    text = config.read_text()
    surprises = []
    options = ("--model-control-mode=explicit", "--load-model=small")
    with start_triton(repository, *options) as urls:
        for old, new, is_sound in EDITS:
            assert old in text
            config.write_text(text.replace(old, new, 1))
            problems = [str(problem) for problem in check_deployment(repository).problems]
            status, answer = post(f"{urls['http']}/v2/repository/models/small/load", {})
            if (status == 200) is not is_sound or bool(problems) is is_sound:
                surprises.append((new, status, answer[:200], problems))
    assert surprises == []


def test_a_new_version_takes_over(
    bundle: Bundle, start_triton: Callable[..., Any], tmp_path: Path
) -> None:
    repository = deploy(bundle, tmp_path / "repository", ensemble=False)
    options = ("--model-control-mode=explicit", "--load-model=small")
    with start_triton(repository, *options) as urls:
        shutil.copytree(repository / "small/1", repository / "small/2")
        status, answer = post(f"{urls['http']}/v2/repository/models/small/load", {})
        assert status == 200, answer
        remote = connect(urls["http"], "small", timeout_s=30)
        assert remote.facts().versions == ("2",)  # version_policy: the latest one
        remote.close()
        done = run_dlzoo("verify", bundle.path, "--server", urls["http"])
        assert done.returncode == 0, done.stderr


def test_kernels_of_our_own_are_loaded(
    start_triton: Callable[..., Any], tmp_path: Path, native_library: Path
) -> None:
    which = small_bundle(tmp_path / "custom", custom_op=True)
    repository = deploy(which, tmp_path / "repository", native_library=native_library)
    with start_triton(repository) as urls:
        done = run_dlzoo("verify", which.path, "--server", urls["grpc"])
        assert done.returncode == 0, done.stderr


def test_a_fixed_batch_and_wrong_weights(
    start_triton: Callable[..., Any], tmp_path: Path
) -> None:
    import onnx
    from onnx import numpy_helper

    which = small_bundle(tmp_path / "fixed", batch=2)
    repository = deploy(which, tmp_path / "repository", ensemble=False)
    graph = repository / "small/1/model.onnx"
    options = ("--model-control-mode=explicit", "--load-model=small")
    with start_triton(repository, *options) as urls:
        done = run_dlzoo("verify", which.path, "--server", urls["http"])
        assert done.returncode == 0, done.stderr
        model = onnx.load(graph)
        weight = next(t for t in model.graph.initializer if t.name == "weight")
        weight.CopyFrom(
            numpy_helper.from_array(
                numpy_helper.to_array(weight) * np.float32(1.001), "weight"
            )
        )
        onnx.save(model, graph)
        assert post(f"{urls['http']}/v2/repository/models/small/unload", {})[0] == 200
        assert post(f"{urls['http']}/v2/repository/models/small/load", {})[0] == 200
        done = run_dlzoo("verify", which.path, "--server", urls["http"])
        assert done.returncode == 1 and "the verdict is fail" in done.stderr
