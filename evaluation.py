"""How good a network is on images, in PyTorch and in ONNX Runtime, sample by sample."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlzoo.errors import ArgumentError, BundleError
from dlzoo.evaluation_images import (
    image_spec_of,
    input_batches,
    inputs_of,
    labels_of,
    load_images,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dlzoo.export.bundle import Bundle
    from dlzoo.export.class_disagreement import Disagreement
    from dlzoo.runtime.session import Session
    from dlzoo.zoo.data.dataset import Dataset

OnText = Callable[[str], None]


@dataclass(frozen=True)
class Evaluation:
    """Figures of each engine, and where they disagree; true where they agree but for noise."""

    data: str
    split: str
    #: ``pytorch`` and ``onnxruntime``, those that ran: figures of
    #: :class:`~dlzoo.zoo.train.prediction.Scores`.
    engines: dict[str, dict[str, Any]]
    disagreements: tuple[Disagreement, ...]
    #: Largest difference of the two, in units of the largest output; None where one ran alone.
    relative_difference: float | None

    def __bool__(self) -> bool:
        return all(found.is_noise for found in self.disagreements)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {**asdict(self), "agrees": bool(self)}


def evaluate(
    model: str | Path,
    *,
    data: str | None = None,
    data_root: str | Path | None = None,
    split: str = "test",
    bundle: str | Path | None = None,
    provider: str = "cpu",
    on_corrupt: str = "refuse",
    tables: Path | None = None,
    on_stage: OnText | None = None,
    on_note: OnText | None = None,
) -> Evaluation:
    """Evaluate a training run in PyTorch and ONNX Runtime, or a bundle in ONNX Runtime alone.

    Args:
        model: the folder of a run, or of a bundle.
        data: a data set, see :func:`dlzoo.zoo.data.dataset_source.load_dataset`; the run's own if
            absent.
        data_root: the folder that holds a named data set.
        split: ``test``, ``train`` or ``val``.
        bundle: of a run; the one in its folder if absent, else one is exported for this.
        provider: where ONNX Runtime runs.
        on_corrupt: ``refuse`` or ``skip`` images that cannot be read.
        tables: a folder for ``confusion.csv`` and ``classes.csv``.
        on_stage: is told what runs now.
        on_note: is told what the user should know.

    Raises:
        DataError: the data are missing, damaged, or of other classes.
        BundleError: the bundle is damaged, or takes no prepared images.
    """
    from dlzoo.zoo.train.run_folder import is_run

    stage, note = on_stage or _say_nothing, on_note or _say_nothing
    path = Path(model)
    options: dict[str, Any] = {"split": split, "on_corrupt": on_corrupt, "root": data_root}
    if not is_run(path):
        if bundle is not None:
            raise ArgumentError(
                f"--bundle goes with the folder of a training run, and {path} is none. Leave it out."
            )
        return _evaluate_bundle(path, data, options, provider, tables, stage)
    return _evaluate_run(path, data, options, bundle, provider, tables, stage, note)


def _evaluate_run(
    run: Path,
    data: str | None,
    options: dict[str, Any],
    bundle: str | Path | None,
    provider: str,
    tables: Path | None,
    stage: OnText,
    note: OnText,
) -> Evaluation:
    from dlzoo.export.class_disagreement import find_disagreements, find_wrong_output
    from dlzoo.export.model_source import load_source
    from dlzoo.zoo.train.losses.loss import learns_embeddings
    from dlzoo.zoo.train.run_folder import RunFolder

    recipe = RunFolder.open(run).recipe
    if data is None:
        data, options["root"] = recipe.data.name, options["root"] or recipe.data.root
        if recipe.data.on_corrupt == "skip":
            options["on_corrupt"] = "skip"
    source = load_source(str(run))
    with _opened_bundle(run, bundle, source.weights["sha256"], stage, note) as opened:
        spec = image_spec_of(opened)
        stage("read the images")
        dataset = load_images(data, spec, opened, options)
        session = _open(opened, provider)
        stage("evaluate in PyTorch and ONNX Runtime")
        first, second = [], []
        for images in input_batches(dataset, spec):
            first.append(_run_network(source.network, images))
            second.append(_run_session(session, opened, images))
        outputs = {"pytorch": _joined(first), "onnxruntime": _joined(second)}
        result = _judged(opened, dataset, options["split"], outputs, tables)
        judged = (
            source.network,
            opened.manifest,
            lambda indices: inputs_of(dataset, spec, indices),
            labels_of(dataset),
            outputs,
        )
        found = (
            find_wrong_output(*judged)
            if dataset.is_multi_label or learns_embeddings(recipe.loss)
            else find_disagreements(*judged, dataset.class_names)
        )
    difference = outputs["pytorch"] - outputs["onnxruntime"]
    largest = float(outputs["pytorch"].abs().max())
    share = float(difference.abs().max()) / largest if largest else 0.0
    return replace(result, disagreements=found, relative_difference=share)


def _evaluate_bundle(
    path: Path,
    data: str | None,
    options: dict[str, Any],
    provider: str,
    tables: Path | None,
    stage: OnText,
) -> Evaluation:
    from dlzoo.export.bundle import Bundle

    opened = Bundle.open(path)
    if data is None:
        data = Path(_trained_on(opened) or "").name
        if not data:
            raise ArgumentError(
                f"{path} does not say which data it was trained on. Write for example --data "
                "fashion-mnist."
            )
    spec = image_spec_of(opened)
    stage("read the images")
    dataset = load_images(data, spec, opened, options)
    session = _open(opened, provider)
    stage("evaluate in ONNX Runtime")
    outputs = [
        _run_session(session, opened, images) for images in input_batches(dataset, spec)
    ]
    return _judged(
        opened, dataset, options["split"], {"onnxruntime": _joined(outputs)}, tables
    )


# -- bundle and data ----------------------------------------------------------------------------


@contextmanager
def _opened_bundle(
    run: Path, bundle: str | Path | None, sha256: str, stage: OnText, note: OnText
) -> Iterator[Bundle]:
    """The bundle of a run: the one named, the one in its folder, or one made for now."""
    from dlzoo.export.bundle import Bundle
    from dlzoo.proof import export_and_report

    place = Path(bundle) if bundle is not None else run / "bundle"
    if bundle is not None or place.is_dir():
        opened = Bundle.open(place)
        if opened.manifest.weights.get("sha256") != sha256:
            raise BundleError(
                f"{place} has other weights than {run} chose. Export it again: dlzoo export {run} "
                f"-o {place} --force"
            )
        yield opened
        return
    stage("export")
    note(f"{run} has no bundle: one is exported for this. Keep one with: dlzoo export {run}")
    with tempfile.TemporaryDirectory() as folder:
        opened, _ = export_and_report(str(run), Path(folder) / "bundle")
        yield opened


def _trained_on(bundle: Bundle) -> str | None:
    training = bundle.manifest.card.get("training") or {}
    name = training.get("recipe", {}).get("data", {}).get("name")
    return str(name) if name else None


# -- engines ---------------------------------------------------------------------------------


def _open(bundle: Bundle, provider: str) -> Session:
    from dlzoo.runtime.session import open_session

    return open_session(bundle, provider)


def _run_network(network: nn.Module, images: Tensor) -> Tensor:
    import torch

    with torch.no_grad():
        outputs: Tensor = network(images)
    return outputs


def _run_session(session: Session, bundle: Bundle, images: Tensor) -> Tensor:
    """All images, in batches that the graph takes; a last one is filled up with its own images."""
    import torch

    (spec,) = bundle.manifest.inputs
    fixed = spec.dims[0]
    size = len(images) if isinstance(fixed, str) else fixed
    outputs = []
    for batch in torch.split(images, size):
        missing = 0 if isinstance(fixed, str) else fixed - len(batch)
        filled = torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])])
        result = next(iter(session.run({spec.name: filled.numpy()}).values()))
        outputs.append(torch.from_numpy(result)[: len(batch)])
    return torch.cat(outputs)


def _joined(parts: list[Tensor]) -> Tensor:
    import torch

    return torch.cat(parts)


def _judged(
    bundle: Bundle,
    dataset: Dataset,
    split: str,
    outputs: dict[str, Tensor],
    tables: Path | None,
) -> Evaluation:
    from dlzoo.zoo.train.prediction import CLASS_FIGURES, score
    from dlzoo.zoo.train.run_papers import write_class_tables

    loss = _loss_of(bundle, dataset)
    engines = {
        name: score(value, dataset.targets, loss).to_json() for name, value in outputs.items()
    }
    if tables is not None:
        if not any(key in engines["onnxruntime"] for key in CLASS_FIGURES):
            raise ArgumentError(
                f"--tables got {tables}, and {bundle.path} gives no scores of classes to count: it "
                f"was trained with the {getattr(loss, 'name', 'unknown')} loss. Leave it out."
            )
        tables.mkdir(parents=True, exist_ok=True)
        answers = outputs["onnxruntime"]
        write_class_tables(tables, answers, dataset.targets, dataset.class_names)
    return Evaluation(dataset.name, split, engines, (), None)


def _loss_of(bundle: Bundle, dataset: Dataset) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss that it was trained with; cross-entropy where nobody says."""
    from pydantic import TypeAdapter, ValidationError

    from dlzoo.zoo.train.losses.cross_entropy import BinaryCrossEntropy, CrossEntropy
    from dlzoo.zoo.train.losses.loss import Loss

    training = bundle.manifest.card.get("training") or {}
    settings = training.get("recipe", {}).get("loss")
    if settings is not None:
        with suppress(ValidationError):  # of another version of dlzoo
            loss: Callable[[Tensor, Tensor], Tensor]
            loss = TypeAdapter(Loss).validate_python(settings)
            return loss
    return BinaryCrossEntropy() if dataset.is_multi_label else CrossEntropy()


def _say_nothing(_text: str) -> None:
    return None
