"""Classify image files: decode them in threads within limits, then run them like other requests."""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from dlzoo.errors import BundleError, ImageError
from dlzoo.runtime.bundle.manifest import Manifest
from dlzoo.runtime.images.classify import best_classes, network_input
from dlzoo.runtime.images.preprocess import ImageSpec
from dlzoo.runtime.protocol.datatypes import Array
from dlzoo.runtime.protocol.refusal import Reason, RefusalError, without_paths
from dlzoo.runtime.serve.served import Served

#: Pillow reads many more, but with decoders that are less used and less tested against attacks.
_FORMATS = ("JPEG", "PNG", "WEBP")


class Classifier:
    """Turns image files into classes, with the bundle's own preprocessing, head and labels."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._limits = served.limits
        self._threads = ThreadPoolExecutor(
            served.limits.num_decoders, thread_name_prefix="dlzoo-decoder"
        )
        self._num_decoding = 0

    async def classify(
        self, name: str, version: str, image: bytes, num_classes: int
    ) -> dict[str, Any]:
        """Find the best classes of one image.

        Raises:
            RefusalError: the image cannot be read, the model takes no images, or the server is busy.
        """
        model = self._served.repository.get(name, version)
        with model.in_use():
            if not takes_images(model.manifest):
                raise RefusalError(f"model {name!r} does not say how images become its input")
            loop = asyncio.get_running_loop()
            deadline = loop.time() + self._limits.timeout_s
            array = await self._decode(image, model.manifest)
            (info,) = model.signature.inputs.values()
            answer = await model.infer({info.name: (info.datatype, array)}, deadline)
        scores_K = next(iter(answer.values()))[0]
        if not np.isfinite(scores_K).all():
            raise RefusalError(
                f"model {name!r} gives scores that are not finite", Reason.INTERNAL
            )
        try:
            best = best_classes(scores_K, model.manifest, num_classes)
        except BundleError as error:
            raise RefusalError(without_paths(str(error)), Reason.INTERNAL) from None
        return {
            "model_name": model.name,
            "model_version": model.version,
            "classes": [
                {"index": entry.index, "label": entry.label, "score": entry.score}
                for entry in best
            ],
        }

    async def _decode(self, image: bytes, manifest: Manifest) -> Array:
        if self._num_decoding >= self._limits.decode_queue_size:
            raise RefusalError(
                f"{self._num_decoding} images are waiting to be decoded. Try again later",
                Reason.BUSY,
                retry_after_s=1,
            )
        self._num_decoding += 1
        task = asyncio.get_running_loop().run_in_executor(
            self._threads, _decode, image, manifest, self._limits.image_pixels
        )
        # Counted until the thread is done with it, even if the client no longer waits.
        task.add_done_callback(self._note_decoded)
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                return await asyncio.shield(task)
        except TimeoutError:
            raise RefusalError("the image was not decoded in time", Reason.DEADLINE) from None

    def _note_decoded(self, task: asyncio.Future[Array]) -> None:
        self._num_decoding -= 1
        if not task.cancelled():
            task.exception()  # or Python warns that nobody read it

    def close(self) -> None:
        """Release the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def takes_images(manifest: Manifest) -> bool:
    """Whether a bundle says how an image becomes its input."""
    return manifest.preprocessing is not None and len(manifest.inputs) == 1


def _decode(image: bytes, manifest: Manifest, max_pixels: int) -> Array:
    """Prepare the network's input from an image file, whose size is checked before decoding."""
    try:
        with Image.open(io.BytesIO(image), formats=_FORMATS) as header:
            width, height = header.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(max_pixels) from None
    # Damaged headers raise almost anything: OSError, SyntaxError, ValueError, struct.error, …
    except Exception:
        raise RefusalError(
            "the body cannot be read as an image, expected JPEG, PNG or WebP"
        ) from None
    try:
        assert manifest.preprocessing is not None
        geometry = ImageSpec.from_mapping(manifest.preprocessing)
        # A long and narrow image is small, but huge when its shorter side is enlarged.
        resized_height, resized_width = geometry.resized_size(height, width)
        if max(width * height, resized_height * resized_width) > max_pixels:
            raise _too_many_pixels(max_pixels)
        return network_input(image, manifest)
    except ImageError as error:
        raise RefusalError(without_paths(str(error))) from None
    except BundleError as error:
        raise RefusalError(without_paths(str(error)), Reason.INTERNAL) from None


def _too_many_pixels(max_pixels: int) -> RefusalError:
    return RefusalError(
        f"the image has more than {max_pixels:,} pixels, as sent or resized", Reason.TOO_LARGE
    )
