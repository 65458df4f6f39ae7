"""``dlzoo deploy`` through real processes: exit status, one-line errors, what is left behind."""

import json
from pathlib import Path

import pytest

from tests.support.dlzoo_process import run_dlzoo
from tests.support.small_bundle import small_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("deploy") / "small").path


def test_deploy_writes_what_the_check_accepts(bundle: Path, tmp_path: Path) -> None:
    done = run_dlzoo("deploy", bundle, "--target", "triton", "-o", "repo", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "repo/ holds small for triton" in done.stdout
    checked = run_dlzoo("deploy", "--check", "repo", "--json", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    document = json.loads(checked.stdout)
    assert (document["target"], document["model"], document["problems"]) == (
        "triton",
        "small",
        [],
    )
    assert "small/config.pbtxt" in document["files"]


def test_a_problem_gives_one_line_and_exit_status_1(bundle: Path, tmp_path: Path) -> None:
    run_dlzoo("deploy", bundle, "--target", "triton", "-o", "repo", cwd=tmp_path)
    path = tmp_path / "repo/small/config.pbtxt"
    path.write_text(path.read_text().replace("dims: 3", "dims: 4", 1))
    done = run_dlzoo("deploy", "--check", "repo", cwd=tmp_path, COLUMNS="200")
    assert done.returncode == 1
    line = "small/config.pbtxt: input[0].dims is [4, 8, 8], the graph has [3, 8, 8]"
    assert line in done.stdout.splitlines()
    assert done.stderr == f"dlzoo: repo does not fit its model: {line} and 3 more.\n"
    with_json = run_dlzoo("deploy", "--check", "repo", "--json", cwd=tmp_path)
    assert with_json.returncode == 1
    first = json.loads(with_json.stdout)["problems"][0]
    assert first["file"] == "small/config.pbtxt" and first["field"] == "input[0].dims"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--target", "tgi", "-o", "x"], "--target is 'tgi', expected one of triton"),
        (["--target", "triton"], "dlzoo deploy needs BUNDLE, --target and -o"),
        (["--target", "triton", "-o", "x", "--provider", "tpu"], "--provider is 'tpu'"),
        (
            ["--target", "triton", "-o", "x", "--name", "a/b"],
            "--name is 'a/b', expected letters",
        ),
        (
            ["--target", "triton", "-o", "taken"],
            "taken holds files and is not a dlzoo deployment",
        ),
        (["--check", "taken"], "--check takes only its folder"),
    ],
)
def test_mistakes_are_one_line(
    bundle: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "precious.txt").write_text("keep")
    done = run_dlzoo("deploy", bundle, *arguments, cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_only_a_deployment_is_checked(tmp_path: Path) -> None:
    done = run_dlzoo("deploy", "--check", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert "nowhere is not a deployment: expected a folder with deployment.json" in done.stderr


def test_a_deployment_is_replaced_only_by_force(bundle: Path, tmp_path: Path) -> None:
    deploy = ["deploy", str(bundle), "--target", "triton", "-o", "repo"]
    assert run_dlzoo(*deploy, cwd=tmp_path).returncode == 0
    again = run_dlzoo(*deploy, cwd=tmp_path)
    assert again.returncode == 2 and "repo already holds a deployment" in again.stderr
    assert run_dlzoo(*deploy, "--force", "--name", "net", cwd=tmp_path).returncode == 0
    assert (tmp_path / "repo/net/config.pbtxt").exists()
    assert not (tmp_path / "repo/small").exists()


def test_a_bundle_that_was_changed_is_not_deployed(bundle: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(bundle, tmp_path / "changed")
    with (tmp_path / "changed/model.onnx").open("ab") as file:
        file.write(b"\0")
    done = run_dlzoo("deploy", "changed", "--target", "triton", "-o", "repo", cwd=tmp_path)
    assert done.returncode == 2 and "model.onnx was changed" in done.stderr
    assert not (tmp_path / "repo").exists()


def test_a_bundle_that_was_not_proved_is_not_deployed(bundle: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(bundle, tmp_path / "failed")
    parity = json.loads((bundle / "parity.json").read_text())
    (tmp_path / "failed/parity.json").write_text(json.dumps({**parity, "verdict": "fail"}))
    done = run_dlzoo("deploy", "failed", "--target", "triton", "-o", "repo", cwd=tmp_path)
    assert done.returncode == 2
    assert "failed has the verdict 'fail', expected 'pass'" in done.stderr
