"""A folder with every file that one server needs to serve a bundle, written whole or not at all.

Its ``deployment.json`` names the server and the model, and holds the sha256 of every data file
(weights, labels, kernels, code). Files that are meant to be edited are checked for sense instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from dlzoo.errors import ArgumentError, BundleError, ExportError
from dlzoo.runtime.bundle.bundle import Bundle, sha256_of_file
from dlzoo.runtime.bundle.staging import FolderKind, staged_folder
from dlzoo.runtime.deploy.deployed_model import DeployedModel, deployed_model
from dlzoo.runtime.deploy.options import DeployOptions
from dlzoo.runtime.deploy.problem import Problem
from dlzoo.runtime.deploy.structure import ANY, read_json, structure_problems, write_json

RECORD = "deployment.json"
RECORD_VERSION = 1
KIND = FolderKind("deployment", RECORD, "deployment_version")
_RECORD_SCHEMA = {
    "deployment_version": frozenset({RECORD_VERSION}),
    "target": str,
    "model": {"name": str, "axes": dict, "preprocessing": ANY, "preprocessing_included": bool},
    "graph": str,
    "files": {"*": str},
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """One kind of server: its modules, where its graph lies, and which files may be edited.

    ``write`` and ``check`` are MODULE:FUNCTION, imported when they are needed.
    """

    title: str
    write: str
    check: str
    graph: str
    editable: tuple[str, ...]


TARGETS = {
    "triton": Target(
        title="NVIDIA Triton Inference Server",
        write="triton:write",
        check="triton_check:check",
        graph="{name}/1/model.onnx",
        editable=("*/config.pbtxt",),
    ),
    "kserve": Target(
        title="KServe",
        write="kserve:write",
        check="kserve:check",
        graph="storage/{name}/1/model.onnx",
        editable=("inference-service.json", "storage/*/config.pbtxt"),
    ),
    "ovms": Target(
        title="OpenVINO Model Server",
        write="ovms:write",
        check="ovms:check",
        graph="{name}/1/model.onnx",
        editable=("config.json",),
    ),
    "ray": Target(
        title="Ray Serve",
        write="ray:write",
        check="ray:check",
        graph="models/{name}/1/model.onnx",
        editable=("serve-config.json", "ray_application.py"),
    ),
    "docker": Target(
        title="an image of dlzoo serve",
        write="docker:write",
        check="docker:check",
        graph="models/{name}/1/model.onnx",
        editable=(
            *("Dockerfile", "requirements.lock", "kubernetes.json"),
            *("prometheus.json", "grafana-dashboard.json"),
        ),
    ),
}


#: Targets that a library of kernels can be copied to.
_WITH_KERNELS = ("triton", "kserve")


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A deployment that was written or checked: its server, its model and its problems."""

    folder: Path
    target: str
    model: str
    files: tuple[str, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The deployment as JSON values."""
        return {
            "folder": str(self.folder),
            "target": self.target,
            "model": self.model,
            "files": list(self.files),
            "problems": [
                {"file": p.file, "field": p.field, "message": p.message} for p in self.problems
            ],
            "notes": list(self.notes),
        }


def deploy_bundle(
    bundle: Bundle,
    target: str,
    output: Path,
    *,
    options: DeployOptions,
    name: str | None = None,
    force: bool = False,
) -> Deployment:
    """Write the files that a server needs for a bundle into a new folder, and check them.

    Args:
        bundle: what to deploy; its export must have passed.
        target: a key of ``TARGETS``.
        output: the new folder.
        options: the choices that every target shares.
        name: the model's name on the server; by default the one in the manifest.
        force: replace a deployment that is already there.

    Raises:
        ArgumentError: the target is unknown, or the name is one that servers reject.
        BundleError: the bundle was changed, or its proof did not pass.
        BundleExistsError: the folder exists already.
        ExportError: that server cannot serve a model of this kind.
        InstallationError: a package is missing.
        StorageError: the folder cannot be written.
    """
    kind = target_named(target)
    model = deployed_model(bundle, name)
    _refuse_name(model.name)
    _refuse_missing_kernels(model, target, options)
    notes = _notes(model, target, options)
    with staged_folder(output, KIND, force=force) as folder:
        _function(kind.write)(folder, model, options)
        graph = kind.graph.format(name=model.name)
        write_json(
            folder / RECORD,
            {
                "deployment_version": RECORD_VERSION,
                "target": target,
                "model": model.to_record(),
                "graph": graph,
                "files": {
                    file: sha256_of_file(folder / file)
                    for file in _files(folder)
                    if not _is_editable(file, kind)
                },
            },
        )
        problems = check_deployment(folder).problems
        assert not problems, [str(problem) for problem in problems]
        files = tuple(_files(folder))
    return Deployment(folder=output, target=target, model=model.name, files=files, notes=notes)


def check_deployment(folder: Path) -> Deployment:
    """Find every problem in a deployment's folder, without any server.

    Raises:
        BundleError: the folder is not a deployment, or its graph cannot be read.
        InstallationError: a package is missing.
    """
    if not KIND.is_at(folder):
        raise BundleError(
            f"{folder} is not a deployment: expected a folder with {RECORD}. "
            'Make one with "dlzoo deploy".'
        )
    record, _ = read_json(folder, RECORD)
    for problem in structure_problems(record, _RECORD_SCHEMA, RECORD):
        raise BundleError(f"{folder}: {problem}. Deploy the bundle again.")
    kind = target_named(record["target"])
    _refuse_outside(folder, [record["graph"], *record["files"]])
    problems = _data_problems(folder, record["files"], kind)
    if (folder / record["graph"]).is_file():
        try:
            model = DeployedModel.from_record(record["model"], folder / record["graph"])
        except BundleError:
            if not problems:  # a changed graph is listed as a problem already
                raise
        else:
            problems += _function(kind.check)(folder, model)
    return Deployment(
        folder=folder,
        target=record["target"],
        model=record["model"]["name"],
        files=tuple(_files(folder)),
        problems=tuple(problems),
    )


def target_named(name: str) -> Target:
    """Look up a target by its name.

    Raises:
        ArgumentError: there is no such target.
    """
    if name not in TARGETS:
        raise ArgumentError(f"`target` is {name!r}, expected one of {', '.join(TARGETS)}.")
    return TARGETS[name]


def _function(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    function: Callable[..., Any] = getattr(
        import_module(f"dlzoo.runtime.deploy.{module}"), name
    )
    return function


def _files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def _is_editable(file: str, kind: Target) -> bool:
    return file == RECORD or any(
        PurePosixPath(file).match(pattern) for pattern in kind.editable
    )


def _data_problems(folder: Path, hashes: dict[str, str], kind: Target) -> list[Problem]:
    """List the data files that are missing, changed or not recorded."""
    problems = []
    found = [file for file in _files(folder) if not _is_editable(file, kind)]
    for file in sorted({*found, *hashes}):
        if file not in hashes:
            if not file.startswith(".") and "/." not in file and "__pycache__" not in file:
                problems.append(Problem(file, "", "is not listed in deployment.json"))
        elif file not in found:
            problems.append(Problem(file, "", "is missing"))
        elif sha256_of_file(folder / file) != hashes[file]:
            problems.append(
                Problem(file, "", "was changed: its sha256 is not the recorded one")
            )
    return problems


def _refuse_outside(folder: Path, names: list[str]) -> None:
    for name in names:
        path = PurePosixPath(name)
        if (
            path.is_absolute()
            or ".." in path.parts
            or "\\" in name
            or "\0" in name
            or not name
        ):
            raise BundleError(
                f"{folder}: {RECORD} names {name!r}, expected a plain path inside the folder. "
                "Deploy the bundle again."
            )


def _refuse_name(name: str) -> None:
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    if not name or set(name) - allowed or not name[0].isalnum():
        raise ArgumentError(
            f"`name` is {name!r}, expected letters, digits, '.', '_' and '-', a letter or digit "
            "first."
        )


def _refuse_missing_kernels(model: DeployedModel, target: str, options: DeployOptions) -> None:
    """Make sure that the server can run every operator of domain ``dlzoo``."""
    carries_kernels = target in _WITH_KERNELS and options.native_library is not None
    if model.ops_without_body and not carries_kernels:
        fix = "Give `native_library`" if target in _WITH_KERNELS else "Export it again"
        raise ExportError(
            f"{model.name}: the graph has no body for {', '.join(model.ops_without_body)}, and "
            f"{target} gets no library of kernels. {fix}."
        )


def _notes(model: DeployedModel, target: str, options: DeployOptions) -> tuple[str, ...]:
    if model.custom_ops and (options.native_library is None or target not in _WITH_KERNELS):
        ops = ", ".join(model.custom_ops)
        return (f"{ops} will run as ONNX functions: no library of kernels is included",)
    return ()
