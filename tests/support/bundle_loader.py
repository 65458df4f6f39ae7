"""A process that loads bundles as ``dlzoo serve`` does: a path a line in, JSON a line out.

It dies where a damaged bundle kills a server.
"""

import asyncio
import io
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dlzoo.errors import DlzooError
from dlzoo.runtime.serve.http.classify_endpoint import Classifier
from dlzoo.runtime.serve.http.pages import model_card
from dlzoo.runtime.serve.limits import ServerLimits
from dlzoo.runtime.serve.models.model_config import model_config_json
from dlzoo.runtime.serve.models.repository import Repository
from dlzoo.runtime.serve.models.served_model import ModelSettings
from dlzoo.runtime.serve.served import Served

IMAGE = np.arange(128, dtype=np.float32).reshape(2, 1, 8, 8) / 7


def image_file() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(96, dtype=np.uint8).reshape(8, 12)).save(file, "PNG")
    return file.getvalue()


async def answers(path: Path) -> dict[str, Any]:
    """Call everything that a client can request of the bundle."""
    repository = Repository([path], ModelSettings(num_threads=1))
    await repository.load_all()
    (model,) = repository.models()
    classifier = Classifier(Served(repository, ServerLimits()))
    deadline = asyncio.get_running_loop().time() + 30
    try:
        scores = await model.infer({"image": ("FP32", IMAGE)}, deadline)
        shown = [model_card(model), model_config_json(model), model.metadata(["1"])]
        json.dumps(shown, allow_nan=False).encode()
        answer: dict[str, Any] = {
            "scores": {name: array.tolist() for name, array in scores.items()}
        }
        if model.manifest.preprocessing is not None:
            classes = await classifier.classify(model.name, "", image_file(), 5)
            answer["classes"] = classes["classes"]
        return answer
    finally:
        classifier.close()
        await repository.close()


def main() -> None:
    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        try:
            answer = asyncio.run(answers(Path(line.strip())))
        except DlzooError as error:
            answer = {"refused": str(error), "status": error.exit_code}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
