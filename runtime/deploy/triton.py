"""A model repository for Triton: configuration, weights, labels, kernels, and images as input.

    net/config.pbtxt  net/1/model.onnx  net/labels.txt
    net_preprocess/config.pbtxt  net_preprocess/1/model.py ...   image files -> the model's input
    net_from_image/config.pbtxt  net_from_image/1/               both steps as one: an ensemble

The step for images is a Python model, not DALI and not a second ONNX graph: it runs the same code
as the proof of the bundle's preprocessing, so the pixels are the same.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from dlzoo.runtime.deploy.deployed_model import DeployedModel
from dlzoo.runtime.deploy.options import DeployOptions
from dlzoo.runtime.deploy.structure import write_json
from dlzoo.runtime.deploy.triton_config import (
    LABELS_FILE,
    config_text,
    ensemble_config,
    model_config,
    preprocess_config,
)

_PACKAGE = Path(__file__).resolve().parents[2]
#: The modules that the step for images runs, copied as they are here.
_IMAGE_CODE = ("errors.py", "image_file.py", "runtime/images/preprocess.py")


def write(folder: Path, model: DeployedModel, options: DeployOptions) -> None:
    """Fill ``folder`` with the repository.

    Raises:
        ExportError: Triton cannot serve a model of this kind.
        InstallationError: tritonclient is not installed.
    """
    write_repository(folder, model, options, ensemble=options.ensemble, mount="/models")


def write_repository(
    folder: Path, model: DeployedModel, options: DeployOptions, *, ensemble: bool, mount: str
) -> None:
    """Write the repository's models; ``mount`` is where the server will see ``folder``."""
    version = folder / model.name / "1"
    version.mkdir(parents=True)
    copy_graph(model, version)
    library = ""
    if options.native_library is not None and model.custom_ops:
        shutil.copyfile(options.native_library, version / options.native_library.name)
        library = f"{mount}/{model.name}/1/{options.native_library.name}"
    labeled = labeled_output(model)
    config = model_config(
        model,
        provider=options.provider,
        max_batch_size=options.max_batch_size,
        library=library,
        labeled=labeled,
    )
    _write_text(folder / model.name / "config.pbtxt", config_text(config))
    if labeled:
        write_labels(folder / model.name / LABELS_FILE, model)
    if ensemble and model.takes_images:
        _write_images_step(folder, model, options, labeled)


def copy_graph(model: DeployedModel, folder: Path) -> None:
    """Copy the graph and the files that hold its weights."""
    shutil.copyfile(model.file, folder / "model.onnx")
    for name in model.header.external_files:
        shutil.copyfile(model.file.parent / name, folder / name)


def labeled_output(model: DeployedModel) -> str:
    """Name the output with one score for each label, [N, K] with K labels; empty if there is none."""
    num_labels = len(model.labels or ())
    fitting = [
        spec.name
        for spec in model.outputs
        if len(spec.dims) == 2 and spec.dims[1] == num_labels
    ]
    return fitting[0] if num_labels and len(fitting) == 1 else ""


def write_labels(path: Path, model: DeployedModel) -> None:
    """Write one label per line, in the order of the classes."""
    _write_text(path, "".join(f"{' '.join(label.split())}\n" for label in model.labels or ()))


def _write_images_step(
    folder: Path, model: DeployedModel, options: DeployOptions, labeled: str
) -> None:
    version = folder / f"{model.name}_preprocess" / "1"
    for name in _IMAGE_CODE:
        target = version / "dlzoo" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_PACKAGE / name, target)
    for place in (version / "dlzoo", version / "dlzoo" / "runtime"):
        _write_text(place / "__init__.py", '"""The modules of dlzoo that read images."""\n')
    source = Path(__file__).with_name("triton_preprocess.py.in")
    shutil.copyfile(source, version / "model.py")
    write_json(
        version / "preprocessing.json",
        {
            "output": model.inputs[0].name,
            "included": model.preprocessing_included,
            "preprocessing": model.preprocessing,
        },
    )
    config = preprocess_config(model, max_batch_size=options.max_batch_size)
    _write_text(version.parent / "config.pbtxt", config_text(config))
    both = folder / f"{model.name}_from_image"
    (both / "1").mkdir(parents=True)
    # Git and object stores keep no empty folder, and Triton requires the version's.
    _write_text(both / "1" / ".keep", "")
    config = ensemble_config(model, max_batch_size=options.max_batch_size, labeled=labeled)
    _write_text(both / "config.pbtxt", config_text(config))
    if labeled:
        write_labels(both / LABELS_FILE, model)


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
