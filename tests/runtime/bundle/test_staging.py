"""A bundle appears whole or not at all: real processes, real signals, real full disks."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlzoo.errors import BundleExistsError, StorageError
from dlzoo.runtime.bundle.staging import BUNDLE, staged_folder

#: Fills a bundle, says so, and waits to be killed.
WRITER = """
import sys, time
from pathlib import Path
from dlzoo.runtime.bundle.staging import BUNDLE, staged_folder
with staged_folder(Path(sys.argv[1]), BUNDLE, force="force" in sys.argv) as folder:
    (folder / "model.onnx").write_bytes(bytes(1000))
    print("filling", flush=True)
    time.sleep(60)
"""


def write_bundle(target: Path, *, force: bool = False, text: str = "new") -> None:
    with staged_folder(target, BUNDLE, force=force) as folder:
        (folder / "manifest.json").write_text('{"schema_version": 1}')
        (folder / "model.onnx").write_text(text)


def start_writer(target: Path, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(target), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "filling\n"
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_bundle_appears_whole(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "vgg", BUNDLE, force=False) as folder:
        (folder / "golden").mkdir()
        (folder / "golden" / "a").write_text("a")
        assert folder.parent == tmp_path and folder.name.startswith(
            f".vgg.partial-{os.getpid()}-"
        )
        assert not (tmp_path / "vgg").exists()
    assert names(tmp_path) == ["vgg"]
    assert (tmp_path / "vgg" / "golden" / "a").read_text() == "a"


def test_parents_are_made_and_go_again_when_it_fails(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a" / "b" / "vgg")
    assert names(tmp_path / "a" / "b") == ["vgg"]
    with (
        pytest.raises(RuntimeError),
        staged_folder(tmp_path / "c" / "d" / "vgg", BUNDLE, force=False),
    ):
        raise RuntimeError
    assert names(tmp_path) == ["a"]


def test_the_folder_has_the_permissions_of_any_new_folder(tmp_path: Path) -> None:
    write_bundle(tmp_path / "vgg")
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "vgg").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), SystemExit(3)])
def test_nothing_is_left_when_filling_it_fails(tmp_path: Path, error: BaseException) -> None:
    with (
        pytest.raises(type(error)),
        staged_folder(tmp_path / "vgg", BUNDLE, force=False) as folder,
    ):
        (folder / "model.onnx").write_text("half")
        raise error
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_process_leaves_no_bundle_and_the_next_one_cleans_up(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = start_writer(tmp_path / "vgg")
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert not (tmp_path / "vgg").exists()
    if number == signal.SIGINT:
        assert names(tmp_path) == []
    write_bundle(tmp_path / "vgg")
    assert names(tmp_path) == ["vgg"]


def test_a_killed_replacement_leaves_the_old_bundle(tmp_path: Path) -> None:
    write_bundle(tmp_path / "vgg", text="old")
    process = start_writer(tmp_path / "vgg", "force")
    process.kill()
    process.communicate(timeout=30)
    assert (tmp_path / "vgg" / "model.onnx").read_text() == "old"


def test_the_folder_of_a_living_process_is_not_cleaned_up(tmp_path: Path) -> None:
    process = start_writer(tmp_path / "vgg")
    try:
        write_bundle(tmp_path / "vgg")
        partial = [name for name in names(tmp_path) if name != "vgg"]
        assert len(partial) == 1 and (tmp_path / partial[0] / "model.onnx").exists()
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_two_processes_at_once_do_not_mix(tmp_path: Path) -> None:
    with (
        pytest.raises(BundleExistsError, match="already holds a bundle"),
        staged_folder(tmp_path / "vgg", BUNDLE, force=False) as folder,
    ):
        (folder / "manifest.json").write_text("{}")
        write_bundle(tmp_path / "vgg", text="the other's")
    assert names(tmp_path) == ["vgg"]
    assert (tmp_path / "vgg" / "model.onnx").read_text() == "the other's"


def test_a_replacement_that_was_cut_between_its_two_renames_is_undone(tmp_path: Path) -> None:
    write_bundle(tmp_path / "vgg", text="old")
    (tmp_path / "vgg").rename(tmp_path / ".vgg.replaced-1-00000000")
    with pytest.raises(RuntimeError), staged_folder(tmp_path / "vgg", BUNDLE, force=True):
        raise RuntimeError
    assert names(tmp_path) == ["vgg"]
    assert (tmp_path / "vgg" / "model.onnx").read_text() == "old"


def test_other_peoples_files_are_not_taken_for_leftovers(tmp_path: Path) -> None:
    for name in (
        ".vgg.partial-notes",
        ".vgg.backup-1-2",
        "vgg.partial-1-2",
        ".vgg2.partial-1-2",
    ):
        (tmp_path / name).mkdir()
    before = names(tmp_path)
    write_bundle(tmp_path / "vgg")
    assert names(tmp_path) == sorted([*before, "vgg"])


@pytest.mark.parametrize("name", ["a[1]*?", "größe", "with space", "-x"])
def test_any_name_is_a_name(tmp_path: Path, name: str) -> None:
    process = start_writer(tmp_path / name)
    process.kill()
    process.communicate(timeout=30)
    write_bundle(tmp_path / name)
    assert names(tmp_path) == [name]


def test_a_bundle_is_not_replaced_without_force(tmp_path: Path) -> None:
    write_bundle(tmp_path / "vgg", text="old")
    with pytest.raises(
        BundleExistsError, match=r"vgg already holds a bundle\. Give `force=True`"
    ):
        write_bundle(tmp_path / "vgg")
    assert (tmp_path / "vgg" / "model.onnx").read_text() == "old"


def test_force_replaces_a_bundle_whole(tmp_path: Path) -> None:
    write_bundle(tmp_path / "vgg", text="old")
    (tmp_path / "vgg" / "extra").write_text("x")
    write_bundle(tmp_path / "vgg", force=True)
    assert names(tmp_path) == ["vgg"]
    assert names(tmp_path / "vgg") == ["manifest.json", "model.onnx"]
    assert (tmp_path / "vgg" / "model.onnx").read_text() == "new"


def test_force_keeps_the_old_bundle_when_the_new_one_fails(tmp_path: Path) -> None:
    write_bundle(tmp_path / "vgg", text="old")
    with pytest.raises(RuntimeError), staged_folder(tmp_path / "vgg", BUNDLE, force=True):
        raise RuntimeError
    assert (tmp_path / "vgg" / "model.onnx").read_text() == "old"
    assert names(tmp_path) == ["vgg"]


@pytest.mark.parametrize("manifest", [None, "not json", "[]", "{}"])
def test_a_folder_that_is_no_bundle_is_never_replaced(
    tmp_path: Path, manifest: str | None
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    if manifest is not None:
        (tmp_path / "thesis" / "manifest.json").write_text(manifest)
    for force in (False, True):
        with pytest.raises(BundleExistsError, match="holds files and is not a dlzoo bundle"):
            write_bundle(tmp_path / "thesis", force=force)
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "vgg").write_text("mine")
    for force in (False, True):
        with pytest.raises(
            BundleExistsError, match="is a file, expected a new or empty folder"
        ):
            write_bundle(tmp_path / "vgg", force=force)
    assert (tmp_path / "vgg").read_text() == "mine"


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "vgg").mkdir()
    write_bundle(tmp_path / "vgg")
    assert names(tmp_path / "vgg") == ["manifest.json", "model.onnx"]


def test_a_link_is_replaced_where_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "vgg").symlink_to(tmp_path / "disk" / "vgg")
    write_bundle(tmp_path / "vgg")
    write_bundle(tmp_path / "vgg", force=True, text="newer")
    assert (tmp_path / "vgg").is_symlink()
    assert (tmp_path / "disk" / "vgg" / "model.onnx").read_text() == "newer"
    assert names(tmp_path / "disk") == ["vgg"]


def test_a_parent_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        StorageError, match=r"cannot be written: Not a directory.*another|Choose"
    ):
        write_bundle(tmp_path / "file" / "vgg")


@pytest.fixture
def unprivileged_folder() -> Iterator[Path]:
    """A folder that this process may read and not write; root gives up its rights for that."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if is_root:
                os.seteuid(0)
            folder.chmod(0o755)


def test_a_folder_that_may_not_be_written_is_one_line(unprivileged_folder: Path) -> None:
    with pytest.raises(
        StorageError,
        match=r"cannot be written: Permission denied.*Choose an `output` that you may write to\.$",
    ):
        write_bundle(unprivileged_folder / "vgg")
    assert names(unprivileged_folder) == []


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, where the system lets this process mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "dlzoo-test", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a small file system: {error}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_one_line_and_leaves_nothing(full_disk: Path) -> None:
    with (
        pytest.raises(
            StorageError, match=r"No space left on device\. Nothing was left there\. Free"
        ),
        staged_folder(full_disk / "vgg", BUNDLE, force=False) as folder,
    ):
        (folder / "model.onnx").write_bytes(bytes(2 * 2**20))
    assert names(full_disk) == []


def test_a_file_size_limit_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from dlzoo.errors import StorageError
from dlzoo.runtime.bundle.staging import BUNDLE, staged_folder
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    with staged_folder(Path(sys.argv[1]), BUNDLE, force=False) as folder:
        (folder / "model.onnx").write_bytes(bytes(20_000))
except StorageError as error:
    print(error)
"""
    run = [sys.executable, "-c", code, str(tmp_path / "vgg")]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert "cannot be written: File too large. Nothing was left there." in done.stdout
    assert names(tmp_path) == []


def test_an_error_that_is_not_about_the_target_stays_what_it_is(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError),
        staged_folder(tmp_path / "vgg", BUNDLE, force=False),
    ):
        (tmp_path / "nowhere" / "photo.png").read_bytes()
    assert names(tmp_path) == []
