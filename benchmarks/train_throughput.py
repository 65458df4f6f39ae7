"""Images a second of ``dlzoo train`` and of a bare PyTorch loop, on the same network and images.

    python benchmarks/train_throughput.py [--model lenet5_relu] [--images 38400] [--rounds 6]

Both see random images of Fashion-MNIST's size and count of classes in memory, batches of 128, AdamW,
float32. The bare loop has no validation, history or checkpoint; an epoch of dlzoo is measured
without its validation, as the bare one has none. Rounds alternate; the medians are compared.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import struct
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.train.loop.reports import EpochReport, StepReport
from dlzoo.zoo.train.recipes.recipe_file import recipe_from_toml
from dlzoo.zoo.training import train

BATCH_SIZE = 128
EPOCHS = 2  # the first warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="lenet5_relu")
    parser.add_argument("--images", type=int, default=38_400)
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root, arguments.images)
        bare, ours, waiting = [], [], []
        for number in range(arguments.rounds):
            bare.append(run_bare(arguments.model, root))
            rate, share = run_dlzoo(arguments.model, root, root / f"run{number}")
            ours.append(rate)
            waiting.append(share)
    ratio = statistics.median(ours) / statistics.median(bare)
    print(
        f"{arguments.model}: bare {statistics.median(bare):,.0f} images/s, dlzoo "
        f"{statistics.median(ours):,.0f}: {ratio:.2f} x; {statistics.median(waiting):.1f} % of the "
        "time waiting for images"
    )
    print(json.dumps({"bare": bare, "dlzoo": ours, "waiting_percent": waiting}))


def write_images(root: Path, num_images: int) -> None:
    """Fashion-MNIST's file format, with pixels of noise."""
    generator = np.random.default_rng(0)
    for name, count in (("train", num_images), ("t10k", 256)):
        pixels = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = generator.integers(0, 10, count, dtype=np.uint8)
        with gzip.open(root / f"{name}-images-idx3-ubyte.gz", "wb", compresslevel=1) as file:
            file.write(struct.pack(">IIII", 2051, count, 28, 28) + pixels.tobytes())
        with gzip.open(root / f"{name}-labels-idx1-ubyte.gz", "wb", compresslevel=1) as file:
            file.write(struct.pack(">II", 2049, count) + labels.tobytes())


def run_bare(model: str, root: Path) -> float:
    """Images a second of the second epoch."""
    with gzip.open(root / "train-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(root / "train-labels-idx1-ubyte.gz") as file:
        labels = torch.from_numpy(np.frombuffer(file.read(), np.uint8, offset=8).copy()).long()
    card = get_card(model)
    color = card.input_shape[0]
    images = functional.pad(torch.from_numpy(pixels.copy()), (2, 2, 2, 2)).expand(
        -1, color, -1, -1
    )
    torch.manual_seed(0)
    network = card.builder(num_classes=10).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    rate = 0.0
    for _ in range(EPOCHS):
        start = time.perf_counter()
        for indices in torch.randperm(len(images)).split(BATCH_SIZE):
            x = (images[indices].float() / 255 - 0.2860) / 0.3530
            optimizer.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(network(x), labels[indices])
            loss.backward()
            optimizer.step()
            loss.item()
        rate = len(images) / (time.perf_counter() - start)
    return rate


def run_dlzoo(model: str, root: Path, folder: Path) -> tuple[float, float]:
    """Images a second of the second epoch, and the share of its time spent waiting for images."""
    recipe = recipe_from_toml(
        "",
        "the benchmark",
        {
            "model.name": model,
            "data.name": "fashion-mnist",
            "data.root": str(root),
            "data.resize_size": 28,
            "data.image_size": [32, 32],
            "data.validation": 0,
            "loop.epochs": EPOCHS,
            "loop.batch_size": BATCH_SIZE,
        },
    )
    rows: list[EpochReport] = []

    def keep(report: StepReport | EpochReport) -> None:
        if isinstance(report, EpochReport):
            rows.append(report)

    train(recipe, folder, device="cpu", on_report=keep)
    last = rows[-1].row
    return last["images_per_second"], last["waiting_percent"]


if __name__ == "__main__":
    main()
