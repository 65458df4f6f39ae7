"""Evaluate a network on images, in PyTorch and in ONNX Runtime, sample by sample."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlzoo.errors import ArgumentError, BundleError, DataError, ExportError
from dlzoo.export.evaluate.class_disagreement import (
    Disagreement,
    find_disagreements,
    find_wrong_output,
)
from dlzoo.export.prove.proof import export_and_report
from dlzoo.image_file import Geometry
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.images.preprocess import ImageSpec
from dlzoo.runtime.proof.progress import SILENT, Progress
from dlzoo.runtime.proof.report import ProofError
from dlzoo.runtime.session.session import Session, open_session
from dlzoo.zoo.data.dataset import Dataset
from dlzoo.zoo.data.dataset_source import load_dataset
from dlzoo.zoo.data.file_dataset import OnCorrupt
from dlzoo.zoo.module_state import in_eval_mode, state_restored
from dlzoo.zoo.sources.load import load_source
from dlzoo.zoo.sources.source import ModelSource
from dlzoo.zoo.train.losses.cross_entropy import BinaryCrossEntropy, CrossEntropy
from dlzoo.zoo.train.losses.loss import Loss, learns_embeddings
from dlzoo.zoo.train.run.result_files import write_class_tables
from dlzoo.zoo.train.run.run_folder import RunFolder, is_run
from dlzoo.zoo.train.scores.prediction import CLASS_FIGURES, score


@dataclass(frozen=True, kw_only=True)
class ImageChoice:
    """Which images to evaluate on.

    Attributes:
        data: a data set, see :func:`dlzoo.zoo.data.dataset_source.load_dataset`; None for the one
            that the model was trained on.
        root: the folder that holds a named data set.
        split: ``test``, ``train`` or ``val``.
        on_corrupt: ``refuse`` or ``skip`` images that cannot be read.
    """

    data: str | None
    root: str | Path | None
    split: str
    on_corrupt: OnCorrupt


@dataclass(frozen=True)
class Evaluation:
    """Figures of each engine, and where they disagree; true where they agree but for noise.

    Where the export of a run is refused, PyTorch's figures stand alone, and it is false.
    """

    data: str
    split: str
    #: ``pytorch`` and ``onnxruntime``, those that ran: figures of
    #: :class:`~dlzoo.zoo.train.scores.prediction.Scores`.
    engines: dict[str, dict[str, Any]]
    disagreements: tuple[Disagreement, ...]
    #: Largest difference of the two, in units of the largest output; None where one ran alone.
    relative_difference: float | None
    #: The reason why there is no ONNX model of a run to evaluate; None where there is one.
    export_failure: str | None = None

    def __bool__(self) -> bool:
        return self.export_failure is None and all(
            found.is_noise for found in self.disagreements
        )

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
    on_corrupt: OnCorrupt = "refuse",
    tables: Path | None = None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Evaluate a training run in PyTorch and ONNX Runtime, or a bundle in ONNX Runtime alone.

    Where a run has no bundle and its export is refused, PyTorch's figures are given all the same,
    and ``export_failure`` says why.

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
        progress: called with each stage, each note, and how much of a download has arrived.

    Raises:
        DataError: the data are missing, damaged, or of other classes.
        BundleError: the bundle is damaged, or takes no prepared images.
    """
    path = Path(model)
    choice = ImageChoice(data=data, root=data_root, split=split, on_corrupt=on_corrupt)
    if not is_run(path):
        if bundle is not None:
            raise ArgumentError(
                f"`bundle` goes with the folder of a training run, and {path} is not one. Leave it out."
            )
        return _evaluate_bundle(path, choice, provider, tables, progress)
    return _evaluate_run(path, choice, bundle, provider, tables, progress)


def _evaluate_run(
    run: Path,
    choice: ImageChoice,
    bundle: str | Path | None,
    provider: str,
    tables: Path | None,
    progress: Progress,
) -> Evaluation:
    recipe = RunFolder.open(run).recipe
    if choice.data is None:
        skips = recipe.data.on_corrupt == "skip"
        choice = replace(
            choice,
            data=recipe.data.name,
            root=choice.root or recipe.data.root,
            on_corrupt="skip" if skips else choice.on_corrupt,
        )
    source = load_source(str(run))
    with ExitStack() as stack:
        opened = _bundle_of_run(run, bundle, source.weights["sha256"])
        if opened is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            progress.stage("export")
            progress.note(
                f"{run} has no bundle: one is exported for this. Keep one with: dlzoo export {run}"
            )
            try:
                opened, _ = export_and_report(str(run), Path(folder) / "bundle")
            except (ExportError, ProofError, BundleError) as error:
                return _evaluate_network(run, source, choice, tables, progress, str(error))
        subject = _Subject.of_bundle(opened)
        spec = subject.image_spec()
        progress.stage("read the images")
        dataset = load_images(choice, spec, subject, progress)
        session = open_session(opened, provider)
        progress.stage("evaluate in PyTorch and ONNX Runtime")
        first, second = [], []
        for images in input_batches(dataset, spec):
            first.append(_run_network(source.network, images))
            second.append(_run_session(session, opened, images))
        outputs = {"pytorch": _joined(first), "onnxruntime": _joined(second)}
        result = _judged(subject, dataset, choice.split, outputs, tables)
        targets = labels_of(dataset)

        def read(indices: Sequence[int]) -> Tensor:
            return inputs_of(dataset, spec, indices)

        if dataset.is_multi_label or learns_embeddings(recipe.loss):
            found = find_wrong_output(source.network, opened.manifest, read, targets, outputs)
        else:
            found = find_disagreements(
                source.network, opened.manifest, read, targets, outputs, dataset.class_names
            )
    difference = outputs["pytorch"] - outputs["onnxruntime"]
    largest = float(outputs["pytorch"].abs().max())
    share = float(difference.abs().max()) / largest if largest else 0.0
    return replace(result, disagreements=found, relative_difference=share)


def _evaluate_network(
    run: Path,
    source: ModelSource,
    choice: ImageChoice,
    tables: Path | None,
    progress: Progress,
    export_failure: str,
) -> Evaluation:
    """PyTorch's figures alone, of a run whose export is refused."""
    subject = _Subject.of_run(run, source)
    spec = subject.image_spec()
    progress.stage("read the images")
    dataset = load_images(choice, spec, subject, progress)
    progress.stage("evaluate in PyTorch")
    with in_eval_mode(source.network, []):
        outputs = [
            _run_network(source.network, images) for images in input_batches(dataset, spec)
        ]
    result = _judged(subject, dataset, choice.split, {"pytorch": _joined(outputs)}, tables)
    return replace(result, export_failure=export_failure)


def _evaluate_bundle(
    path: Path,
    choice: ImageChoice,
    provider: str,
    tables: Path | None,
    progress: Progress,
) -> Evaluation:
    opened = Bundle.open(path)
    if choice.data is None:
        name = Path(_trained_on(opened) or "").name
        if not name:
            raise ArgumentError(
                f"{path} does not say which data it was trained on. Write for example "
                '`data="fashion-mnist"`.'
            )
        choice = replace(choice, data=name)
    subject = _Subject.of_bundle(opened)
    spec = subject.image_spec()
    progress.stage("read the images")
    dataset = load_images(choice, spec, subject, progress)
    session = open_session(opened, provider)
    progress.stage("evaluate in ONNX Runtime")
    outputs = [
        _run_session(session, opened, images) for images in input_batches(dataset, spec)
    ]
    return _judged(subject, dataset, choice.split, {"onnxruntime": _joined(outputs)}, tables)


# -- bundle and data ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """What is evaluated: a bundle, or the network of a run.

    Attributes:
        place: its folder.
        card: facts about the model.
        labels: names of the classes, if known.
        preprocessing: how an image becomes the input, if known.
        is_prepared: whether it takes one image that is resized and normalized.
    """

    place: Path
    card: Mapping[str, Any]
    labels: Sequence[str] | None
    preprocessing: Mapping[str, Any] | None
    is_prepared: bool = True

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> _Subject:
        manifest = bundle.manifest
        return cls(
            place=bundle.path,
            card=manifest.card,
            labels=manifest.labels,
            preprocessing=manifest.preprocessing if len(manifest.inputs) == 1 else None,
            is_prepared=not manifest.preprocessing_included,
        )

    @classmethod
    def of_run(cls, run: Path, source: ModelSource) -> _Subject:
        facts = source.preprocessing
        return cls(
            place=run,
            card=source.card,
            labels=source.labels,
            preprocessing=None if facts is None else asdict(facts),
        )

    def image_spec(self) -> ImageSpec:
        """How an image becomes the input.

        Raises:
            BundleError: that is unknown, or done inside.
        """
        if self.preprocessing is None:
            raise BundleError(
                f"{self.place} does not say how images become its input, so it cannot be "
                "evaluated on any. Export it from a model that has preprocessing."
            )
        if not self.is_prepared:
            raise BundleError(
                f"{self.place} has its preprocessing inside and takes whole pictures one by one, "
                "which evaluate does not give. Export it with `include_preprocessing=False`."
            )
        return ImageSpec.from_mapping(dict(self.preprocessing))


def _bundle_of_run(run: Path, bundle: str | Path | None, sha256: str) -> Bundle | None:
    """The bundle that is named, or the one in the run's folder; None where there is none."""
    place = Path(bundle) if bundle is not None else run / "bundle"
    if bundle is None and not place.is_dir():
        return None
    opened = Bundle.open(place)
    if opened.manifest.weights.get("sha256") != sha256:
        raise BundleError(
            f"{place} has other weights than {run} chose. Export it again: dlzoo export {run} "
            f"-o {place} --force"
        )
    return opened


def _trained_on(bundle: Bundle) -> str | None:
    training = bundle.manifest.card.get("training") or {}
    name = training.get("recipe", {}).get("data", {}).get("name")
    return str(name) if name else None


# -- engines ---------------------------------------------------------------------------------


def _run_network(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad(), state_restored(network):
        outputs: Tensor = network(images.clone())
    return outputs


def _run_session(session: Session, bundle: Bundle, images: Tensor) -> Tensor:
    """All images, in batches that the graph takes; a last one is filled up with its own images."""
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
    return torch.cat(parts)


def _judged(
    subject: _Subject,
    dataset: Dataset,
    split: str,
    outputs: dict[str, Tensor],
    tables: Path | None,
) -> Evaluation:
    loss = _loss_of(subject, dataset)
    engines = {
        name: score(value, dataset.targets, loss).to_json() for name, value in outputs.items()
    }
    if tables is not None:
        last = list(engines)[-1]  # ONNX Runtime's, where it ran
        if not any(key in engines[last] for key in CLASS_FIGURES):
            raise ArgumentError(
                f"`tables` got {tables}, and {subject.place} gives no scores of classes to count: it "
                f"was trained with the {getattr(loss, 'name', 'unknown')} loss. Leave it out."
            )
        tables.mkdir(parents=True, exist_ok=True)
        answers = outputs[last]
        write_class_tables(tables, answers, dataset.targets, dataset.class_names)
    return Evaluation(dataset.name, split, engines, (), None)


def _loss_of(subject: _Subject, dataset: Dataset) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss that it was trained with; cross-entropy where that is unknown."""
    from pydantic import TypeAdapter, ValidationError

    training = subject.card.get("training") or {}
    settings = training.get("recipe", {}).get("loss")
    if settings is not None:
        with suppress(ValidationError):  # of another version of dlzoo
            loss: Callable[[Tensor, Tensor], Tensor]
            loss = TypeAdapter(Loss).validate_python(settings)
            return loss
    return BinaryCrossEntropy() if dataset.is_multi_label else CrossEntropy()


BATCH_SIZE = 256


def load_images(
    choice: ImageChoice, spec: ImageSpec, subject: _Subject, progress: Progress
) -> Dataset:
    """The images that were chosen, made sure to be of the model's classes."""
    assert choice.data is not None, choice
    dataset = load_dataset(
        choice.data,
        geometry=Geometry.of(spec),
        split=choice.split,
        on_corrupt=choice.on_corrupt,
        root=choice.root,
        progress=progress.download,
    )
    labels = subject.labels
    if labels is not None and tuple(labels) != dataset.class_names:
        raise DataError(
            f"{choice.data} has the {len(dataset.class_names)} classes "
            f"{', '.join(dataset.class_names[:3])}, …, and {subject.place} the {len(labels)} "
            f"{', '.join(labels[:3])}, …. Give the data that it was trained for."
        )
    return dataset


def labels_of(dataset: Dataset) -> list[str]:
    """The class of each image, or all of its labels."""
    names = dataset.class_names
    if not dataset.is_multi_label:
        return [names[target] for target in dataset.targets.tolist()]
    rows = dataset.targets.tolist()
    return ["|".join(n for n, has in zip(names, row, strict=True) if has) for row in rows]


def input_batches(dataset: Dataset, spec: ImageSpec) -> Iterator[Tensor]:
    for start in range(0, len(dataset), BATCH_SIZE):
        yield inputs_of(dataset, spec, range(start, min(start + BATCH_SIZE, len(dataset))))


def inputs_of(dataset: Dataset, spec: ImageSpec, indices: Sequence[int]) -> Tensor:
    """Inputs as a server makes them: ``(pixel / 255 - mean) / std``."""
    mean, std = (
        torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1)
        for values in (spec.mean, spec.std)
    )
    return (dataset.read(indices).float() / 255 - mean) / std
