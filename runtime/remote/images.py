"""Compare the top classes of real images here and on the server, from the image file on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dlzoo.errors import ArgumentError, BundleError, DataError
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.images.classify import network_input
from dlzoo.runtime.proof.compare import UNIT_ROUNDOFFS
from dlzoo.runtime.proof.progress import SILENT, Progress
from dlzoo.runtime.remote.model import RefusedError, RemoteFacts, RemoteModel
from dlzoo.runtime.session.session import open_session

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff"}
_NUM_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class ImageAgreement:
    """The number of images with the same top class here and on the server; true if all have it.

    ``sent`` says what went over the wire: ``tensors`` that were prepared here, or the image
    ``files`` themselves, which tests the server's own preprocessing too. ``num_noise`` counts the
    changes between classes whose scores differ by less than the noise of float32; ``wrong`` lists
    the others.
    """

    sent: str
    num_images: int
    num_noise: int
    wrong: tuple[str, ...]

    def __bool__(self) -> bool:
        return not self.wrong

    @property
    def reason(self) -> str:
        """The reason of the failure, in one line."""
        shown = "; ".join(self.wrong[:_NUM_SHOWN])
        more = "; …" if len(self.wrong) > _NUM_SHOWN else ""
        count = f"{len(self.wrong)} of {self.num_images} images"
        return f"{count} sent as {self.sent} get another class: {shown}{more}."

    def to_json(self) -> dict[str, Any]:
        """The agreement as JSON values."""
        return {
            "sent": self.sent,
            "num_images": self.num_images,
            "num_noise": self.num_noise,
            "wrong": list(self.wrong),
        }


def compare_images(
    remote: RemoteModel,
    facts: RemoteFacts,
    bundle: Bundle,
    folder: Path,
    *,
    progress: Progress = SILENT,
) -> tuple[ImageAgreement, ...]:
    """Run every image of a folder through a session here and through the server.

    Images are sent as tensors; also as files, if the server takes them (``/classify``); only as
    files, if the model on the server takes bytes (Triton's ensemble).

    Raises:
        ArgumentError: the bundle does not say how images become its input.
        DataError: the folder holds no image.
        ImageError: an image cannot be read.
        ServerError: the server is unreachable, or its answers make no sense.
    """
    manifest = bundle.manifest
    if manifest.preprocessing is None or len(manifest.inputs) != 1:
        raise ArgumentError(
            f"{bundle.path} does not say how images become its input, so images cannot be compared. "
            "Compare only its golden data."
        )
    files = image_files(folder)
    session = open_session(bundle, "cpu")
    (input_name,) = session.input_names
    output_name = session.output_names[0]
    takes_bytes = facts.takes_image_files
    noise = _relative_noise(bundle)
    found: dict[str, list[str]] = {} if takes_bytes else {"tensors": []}
    num_noise = dict.fromkeys(("tensors", "files"), 0)
    for number, file in enumerate(files, start=1):
        progress.stage(f"images: {number} of {len(files)}")
        x = network_input(file, manifest)
        scores_K = session.run({input_name: x})[output_name][0].reshape(-1)
        answers: dict[str, int | str | None] = {}
        if takes_bytes:
            answers["files"] = _top_of_file(remote, facts, file, output_name)
        else:
            answers["tensors"] = _top_of_tensor(remote, {input_name: x}, output_name)
            if number == 1 or "files" in found:
                answers["files"] = _top_class_of(remote, file)
        for sent, top in answers.items():
            if top is None:
                continue
            wrong = found.setdefault(sent, [])
            difference = _class_difference(scores_K, top, noise)
            if difference == "noise":
                num_noise[sent] += 1
            elif difference:
                wrong.append(f"{file.relative_to(folder).as_posix()} {difference}")
    return tuple(
        ImageAgreement(
            sent=sent,
            num_images=len(files),
            num_noise=num_noise[sent],
            wrong=tuple(wrong),
        )
        for sent, wrong in found.items()
    )


def image_files(folder: Path) -> list[Path]:
    """List every image file in a folder and its subfolders, sorted by path.

    Raises:
        DataError: there is none.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not files:
        what = "holds no image" if folder.is_dir() else "is not a folder"
        raise DataError(f"{folder} {what}, expected a folder of .jpg, .png or .webp files.")
    return files


def _top_of_tensor(
    remote: RemoteModel, inputs: dict[str, npt.NDArray[Any]], output: str
) -> int | str:
    try:
        return _top(remote.infer(inputs, [output]), output)
    except RefusedError as error:
        return str(error)


def _top_of_file(
    remote: RemoteModel, facts: RemoteFacts, file: Path, output: str
) -> int | str:
    """Ask a model whose input is the bytes of image files, such as Triton's ensemble."""
    (tensor,) = facts.inputs
    data = np.empty((1,) * max(len(tensor.shape), 1), np.object_)
    data[...] = file.read_bytes()
    try:
        return _top(remote.infer({tensor.name: data}, [output]), output)
    except RefusedError as error:
        return str(error)


def _top_class_of(remote: RemoteModel, file: Path) -> int | str | None:
    try:
        return remote.classify(file.read_bytes())
    except RefusedError as error:
        return str(error)


def _top(answers: dict[str, npt.NDArray[Any]], output: str) -> int | str:
    scores = answers.get(output)
    if scores is None or scores.size == 0 or scores.ndim < 1 or scores.dtype.kind not in "fiu":
        return f"gives no scores under the name {output!r}"
    first_K = scores[0].reshape(-1) if scores.ndim > 1 else scores
    if not np.isfinite(first_K).all():
        return "gives scores that are not finite"
    return int(np.argmax(first_K))


def _class_difference(scores_K: npt.NDArray[Any], top: int | str, noise: float) -> str:
    """Describe how the top classes differ: empty if they agree, ``noise`` if within the noise."""
    if isinstance(top, str):
        return top
    mine = int(np.argmax(scores_K))
    if not 0 <= top < scores_K.size:
        return f"is class {top} of {scores_K.size}"
    if top == mine:
        return ""
    margin = float(scores_K[mine]) - float(scores_K[top])
    if margin <= 2 * noise * float(np.abs(scores_K).max()):
        return "noise"
    return f"is class {top} on the server, {mine} here, margin {margin:.2g}"


def _relative_noise(bundle: Bundle) -> float:
    """Compute the largest error that the bundle's limits allow, in units of the largest output.

    Source: docs/DESIGN.md, section 6, rules 3 and 4.
    """
    manifest = bundle.manifest
    unit_roundoff = UNIT_ROUNDOFFS[manifest.precision]
    found = []
    for golden in bundle.golden_sets():
        name, reference = next(iter(golden.reference.items()))
        finite = np.abs(reference[np.isfinite(reference)])
        if finite.size and finite.max() > 0:
            largest = float(finite.max())
            floor = max(golden.noise[name].max, unit_roundoff * largest)
            found.append(manifest.rhomax_limit * floor / largest)
    if not found:
        raise BundleError(f"{bundle.path} holds no finite golden data. Export it again.")
    return float(np.median(found))
